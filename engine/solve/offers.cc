#include "engine/solve/offers.h"

#include <algorithm>
#include <bit>
#include <map>

#include "engine/solve/page_table_bytes.h"

namespace ioplan {

RuleBook::RuleBook(const Law& law) {
  for (const Rule* rule : law.rules()) by_phase_[static_cast<std::size_t>(rule->phase)].push_back(rule);
}

bool RuleBook::hold(Phase phase, const Values& values) const {
  return std::ranges::all_of(of(phase), [&](const Rule* rule) { return holds(*rule, values); });
}

bool RuleBook::hold_in_linux(Phase phase, const Values& values) const {
  return std::ranges::all_of(of(phase), [&](const Rule* rule) { return rule->strict || holds(*rule, values); });
}

bool Offer::accepts(const ProblemGroup& group) const {
  return std::ranges::all_of(group.member_classes, [&](auto c) { return accepts_member[c]; }) &&
         std::ranges::all_of(group.assigned_classes, [&](auto c) { return accepts_assigned[c]; });
}

std::uint64_t page_table_bytes_of(const HwptQuantities& hwpt, const Problem& problem) {
  return page_table_bytes({.format = static_cast<PageTableFormat>(hwpt[HwptQ::format]),
                           .stage = static_cast<unsigned>(hwpt[HwptQ::stage]),
                           .levels = static_cast<unsigned>(hwpt[HwptQ::levels]),
                           .address_bits = static_cast<unsigned>(hwpt[HwptQ::address_bits]),
                           .page_sizes = hwpt[HwptQ::page_sizes]},
                          problem.memory, problem.backing);
}

std::uint64_t unneeded_flags_of(const HwptQuantities& hwpt, const Problem& problem) {
  return static_cast<std::uint64_t>(
      std::popcount(hwpt[HwptQ::flags] & ~static_cast<std::uint64_t>(problem.needed_flags)));
}

std::vector<Offer> make_offers(const Problem& problem, const RuleBook& rules, const Law& law) {
  std::map<HwptQuantities, std::vector<std::uint32_t>> allocators;
  for (std::uint32_t cls = 0; cls < problem.classes.size(); ++cls) {
    const DeviceClass& device = problem.classes[cls];
    if (device.assigned.empty()) continue;
    for (std::uint8_t flags = 0; flags < kHwptFlagSets; ++flags) {
      const HwptQuantities hwpt = law.allocate(device.quantities, flags);
      const Values values{&hwpt, &device.quantities, &problem.quantities};
      if (rules.hold(Phase::allocation, values) && rules.hold(Phase::fit, values)) allocators[hwpt].push_back(cls);
    }
  }
  std::vector<Offer> offers;
  for (auto& [hwpt, classes] : allocators) {
    Offer offer{hwpt, std::move(classes), {}, {}, page_table_bytes_of(hwpt, problem), unneeded_flags_of(hwpt, problem)};
    for (const DeviceClass& device : problem.classes) {
      const Values values{&offer.hwpt, &device.quantities, &problem.quantities};
      const bool attaches = rules.hold(Phase::attach, values);
      offer.accepts_member.push_back(attaches);
      offer.accepts_assigned.push_back(attaches && rules.hold(Phase::placement, values));
    }
    offers.push_back(std::move(offer));
  }
  return offers;
}

std::vector<Unusable> unusable_groups(const Problem& problem, const RuleBook& rules) {
  const auto broken = [&](Phase phase, std::uint32_t cls) -> const Rule* {
    const Values values{nullptr, &problem.classes[cls].quantities, &problem.quantities};
    const auto it = std::ranges::find_if(rules.of(phase), [&](const Rule* r) { return !holds(*r, values); });
    return it == rules.of(phase).end() ? nullptr : *it;
  };
  std::vector<const Rule*> for_assigned, for_members;
  for (std::uint32_t cls = 0; cls < problem.classes.size(); ++cls) {
    for_assigned.push_back(broken(Phase::usable, cls));
    for_members.push_back(broken(Phase::group, cls));
  }
  std::vector<Unusable> found;
  for (std::uint32_t g = 0; g < problem.groups.size(); ++g) {
    // What keeps a group from being bound at all comes before what keeps a device from being attached.
    for (std::uint32_t cls : problem.groups[g].member_classes) {
      if (for_members[cls] != nullptr) found.push_back({g, cls, for_members[cls]});
    }
    for (std::uint32_t cls : problem.groups[g].assigned_classes) {
      if (for_assigned[cls] != nullptr) found.push_back({g, cls, for_assigned[cls]});
    }
  }
  return found;
}

}  // namespace ioplan
