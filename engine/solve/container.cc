#include "engine/solve/container.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "engine/base/log2.h"

namespace ioplan {

// vfio_update_pgsize_bitmap; sizes below the kernel's page show as the page.
bool pages_fit(std::uint64_t sizes, const Problem& problem) {
  const std::uint64_t below = problem.quantities[VmQ::page_size] - 1;
  if ((sizes & below) != 0) sizes = (sizes & ~below) | (below + 1);
  return sizes != 0 && lowest_bit(sizes) <= problem.quantities[VmQ::memory_alignment];
}

ContainerPlanner::ContainerPlanner(const Request& request, const VmModel& model, const RuleBook& rules, const Law& law)
    : request_(request), model_(model), problem_(model.problem) {
  std::map<HwptQuantities, std::uint32_t> offers;
  for (std::uint32_t o = 0; o < model.offers.size(); ++o) {
    offers[model.offers[o].hwpt] = o;
    std::vector<bool>& taken = takes_class_.emplace_back();
    for (const DeviceClass& c : problem_.classes) {
      taken.push_back(rules.hold_in_linux(Phase::attach, {&model.offers[o].hwpt, &c.quantities, &problem_.quantities}));
    }
  }
  std::vector<HwptQuantities> own;  // by class
  for (const DeviceClass& c : problem_.classes) own.push_back(law.allocate(c.quantities, 0));
  for (std::uint32_t g = 0; g < problem_.groups.size(); ++g) {
    const std::vector<std::uint32_t>& members = problem_.groups[g].member_classes;
    const auto it = offers.find(own[members.front()]);
    own_.push_back(it == offers.end() ? std::nullopt : std::optional(it->second));
    if (std::ranges::any_of(members, [&](auto c) { return own[c] != own[members.front()]; })) mixed_.push_back(g);
  }
}

std::optional<VmRefusal> ContainerPlanner::refusal() const {
  const VirtualMachine& vm = request_.vms[problem_.vm.index()];
  for (const AssignedDevice& a : vm.devices) {
    if (a.host) continue;
    return VmRefusal{"type1.mediated", {a.mdev},
                     fmt::format("the mediated device {} can only be planned for iommufd", a.mdev)};
  }
  const auto device = [&](std::uint32_t g) { return request_.host.device(problem_.groups[g].assigned.front()).id; };
  if (!mixed_.empty()) {
    return VmRefusal{"type1.group", {device(mixed_.front())},
                     fmt::format("which device of the group of {} type1 asks for a domain is not known, and they would "
                                 "make different ones",
                                 device(mixed_.front()))};
  }
  for (std::uint32_t g = 0; g < own_.size(); ++g) {
    // What nothing takes is for the cover to explain.
    const auto accepts = [&](const Offer& o) { return o.accepts(problem_.groups[g]); };
    if ((own_[g] && takes(*own_[g], g)) || std::ranges::none_of(model_.offers, accepts)) continue;
    return VmRefusal{"type1.group", {device(g)},
                     fmt::format("type1 makes a domain for the group of {} before it shares, and none that serves {} can be "
                                 "made",
                                 device(g), vm.name)};
  }
  return std::nullopt;
}

bool ContainerPlanner::takes(std::uint32_t offer, std::uint32_t group) const {
  const auto& classes = problem_.groups[group].member_classes;
  return std::ranges::all_of(classes, [&](std::uint32_t c) { return takes_class_[offer][c]; });
}

bool ContainerPlanner::accepts(std::uint32_t offer, const Block& block) const {
  return std::ranges::all_of(block, [&](auto i) { return model_.offers[offer].accepts(problem_.items[i]); });
}

// The groups of a block that could open it, best template first. Of groups that are taken alike the lowest will do.
ContainerPlanner::Openings ContainerPlanner::openings(const Block& block) const {
  std::set<std::pair<std::uint32_t, std::vector<std::uint32_t>>> seen;
  std::map<std::uint32_t, bool> accepted;
  Openings found;
  std::uint64_t enforceable = 0;
  for (std::uint32_t i : block) enforceable += problem_.items[i].enforceable;
  for (std::uint32_t i : block) {
    for (std::uint32_t g : problem_.items[i].groups) {
      const std::uint32_t o = *own_[g];
      if (!seen.insert({o, problem_.groups[g].member_classes}).second) continue;
      const auto [it, fresh] = accepted.try_emplace(o, false);
      if (fresh) it->second = accepts(o, block);
      if (!it->second) continue;
      const Offer& offer = model_.offers[o];
      ObjectiveValues cost;
      cost[Objective::coherency] = offer.hwpt[HwptQ::enforce_cache_coherency] != 0 ? 0 : enforceable;
      cost[Objective::page_tables] = offer.page_table_bytes;
      found.push_back({o, g, {false, problem_.groups[g].assigned.front(), 0, 0}, cost});
    }
  }
  std::ranges::stable_sort(found, [&](const Opening& a, const Opening& b) {
    if (a.cost != b.cost) return better(a.cost, b.cost, request_.policy.objectives);
    return a.rank < b.rank;
  });
  return found;
}

bool ContainerPlanner::pages_in_common(const std::vector<std::uint32_t>& offers) const {
  std::uint64_t sizes = ~std::uint64_t{0};
  for (std::uint32_t o : offers) sizes &= model_.offers[o].hwpt[HwptQ::page_sizes];
  return pages_fit(sizes, problem_);
}

// From the newest to the oldest: whatever HWPT can be opened after all that remain is opened last. Taking it away only
// makes it easier for the others, so this finds an order when there is one.
std::optional<Container> ContainerPlanner::order(const std::vector<Block>& blocks,
                                                 const std::vector<Openings>& openings) const {
  std::vector<std::uint32_t> remaining(blocks.size()), newest_first;
  for (std::uint32_t b = 0; b < blocks.size(); ++b) remaining[b] = b;
  std::vector<const Opening*> opener(blocks.size());
  const auto find_last = [&] {
    for (std::size_t at = remaining.size(); at-- > 0;) {
      const std::uint32_t b = remaining[at];
      const auto unclaimed = std::ranges::find_if(openings[b], [&](const Opening& o) {
        return std::ranges::none_of(
            remaining, [&](std::uint32_t other) { return other != b && takes(openings[other][0].offer, o.group); });
      });
      if (unclaimed == openings[b].end()) continue;
      opener[b] = &*unclaimed;
      return at;
    }
    return remaining.size();
  };
  while (!remaining.empty()) {
    const std::size_t at = find_last();
    if (at == remaining.size()) return std::nullopt;
    newest_first.push_back(remaining[at]);
    remaining.erase(remaining.begin() + static_cast<std::ptrdiff_t>(at));
  }
  Container container;
  for (std::uint32_t b : newest_first) {
    const Opening& o = *opener[b];
    container.hwpts.push_back({blocks[b], o.offer, o.rank.allocator, o.rank});
  }
  for (std::size_t n = newest_first.size(); n-- > 0;) {
    const std::uint32_t b = newest_first[n];
    container.joining.push_back(opener[b]->group);
    for (std::uint32_t i : blocks[b]) {
      for (std::uint32_t g : problem_.items[i].groups) {
        if (g != opener[b]->group) container.joining.push_back(g);
      }
    }
  }
  std::ranges::sort(container.hwpts, {}, [](const SolvedHwpt& h) { return h.items.front(); });
  return container;
}

// Template by template, cheapest first: within a choice, any group whose own domain that is may open.
std::optional<Container> ContainerPlanner::order(const std::vector<Block>& blocks, Pages pages,
                                                 std::uint64_t& budget) const {
  std::vector<std::vector<Openings>> by_template;  // of each block
  for (const Block& block : blocks) {
    std::vector<Openings>& templates = by_template.emplace_back();
    for (const Opening& o : openings(block)) {
      const auto it = std::ranges::find_if(templates, [&](const Openings& t) { return t.front().offer == o.offer; });
      (it == templates.end() ? templates.emplace_back() : *it).push_back(o);
    }
    if (templates.empty()) return std::nullopt;
  }
  std::vector<std::size_t> digit(blocks.size(), 0);
  for (; budget > 0; --budget) {
    std::vector<Openings> chosen;
    std::vector<std::uint32_t> offers;
    for (std::size_t b = 0; b < blocks.size(); ++b) {
      chosen.push_back(by_template[b][digit[b]]);
      offers.push_back(chosen.back().front().offer);
    }
    if (pages == Pages::any || pages_in_common(offers)) {
      if (auto found = order(blocks, chosen)) return found;
    }
    std::size_t b = blocks.size();
    while (b > 0 && ++digit[b - 1] == by_template[b - 1].size()) digit[--b] = 0;
    if (b == 0) break;
  }
  return std::nullopt;
}

// ------------------------------------------------------------------------------------------------- from a cover

bool ContainerPlanner::stands_apart(const Block& block, std::uint32_t item) const {
  const std::vector<Side>& sides = problem_.items[item].sides;
  return std::ranges::any_of(block, [&](std::uint32_t other) {
    for (std::size_t r = 0; r < sides.size(); ++r) {
      if (kept_apart(sides[r], problem_.items[other].sides[r])) return true;
    }
    return false;
  });
}

// A cover may allocate for a device that sits elsewhere; type1 may not. That device's item moves in.
bool ContainerPlanner::give_openers(std::vector<Block>& blocks) const {
  for (std::size_t b = 0; b < blocks.size(); ++b) {
    if (openings(blocks[b]).empty() && !move_an_opener(blocks, b)) return false;
  }
  return true;
}

bool ContainerPlanner::move_an_opener(std::vector<Block>& blocks, std::size_t to) const {
  for (std::size_t from = 0; from < blocks.size(); ++from) {
    if (from == to || blocks[from].size() == 1) continue;
    for (std::size_t at = 0; at < blocks[from].size(); ++at) {
      const std::uint32_t item = blocks[from][at];
      if (stands_apart(blocks[to], item)) continue;
      Block giving = blocks[from], taking = blocks[to];
      giving.erase(giving.begin() + static_cast<std::ptrdiff_t>(at));
      taking.insert(std::ranges::lower_bound(taking, item), item);
      if (openings(taking).empty() || openings(giving).empty()) continue;
      blocks[from] = std::move(giving);
      blocks[to] = std::move(taking);
      return true;
    }
  }
  return false;
}

ObjectiveValues ContainerPlanner::cost(const Container& container) const {
  ObjectiveValues sum;
  for (const SolvedHwpt& h : container.hwpts) {
    const Offer& offer = model_.offers[h.offer];
    sum[Objective::hwpts] += 1;
    sum[Objective::page_tables] += offer.page_table_bytes;
    if (offer.hwpt[HwptQ::enforce_cache_coherency] != 0) continue;
    for (std::uint32_t i : h.items) sum[Objective::coherency] += problem_.items[i].enforceable;
  }
  return sum;
}

// ------------------------------------------------------------------------------------------------- every partition

// Depth first, each element into every block that exists or a new one.
class ContainerPlanner::Partitions {
 public:
  Partitions(const ContainerPlanner& planner, Pages pages, std::uint64_t& budget)
      : planner_(planner), problem_(planner.problem_), pages_(pages), left_(budget) {
    for (const auto& items : planner.model_.element_items) elements_.push_back(items);
    std::set<std::uint32_t> own;
    for (const auto& o : planner.own_) own.insert(*o);
    own_offers_.assign(own.begin(), own.end());
  }

  std::optional<Container> best() {
    descend(0);
    return std::move(best_);
  }

 private:
  void descend(std::size_t next) {
    if (left_ == 0) return;
    --left_;
    if (best_ && hwpts_first() && blocks_.size() > best_->hwpts.size()) return;
    if (next == elements_.size()) return consider();
    for (std::size_t b = 0; b < blocks_.size(); ++b) {
      const auto apart = [&](std::uint32_t i) { return planner_.stands_apart(blocks_[b], i); };
      if (std::ranges::any_of(elements_[next], apart)) continue;
      const Block before = blocks_[b];
      blocks_[b].insert(blocks_[b].end(), elements_[next].begin(), elements_[next].end());
      if (covered(blocks_[b])) descend(next + 1);
      blocks_[b] = before;
    }
    if (blocks_.size() >= problem_.max_hwpts) return;
    blocks_.push_back(elements_[next]);
    if (covered(blocks_.back())) descend(next + 1);
    blocks_.pop_back();
  }

  bool hwpts_first() const {
    const auto& order = planner_.request_.policy.objectives;
    return *std::ranges::find_if(order, [](Objective o) { return o != Objective::ioas; }) == Objective::hwpts;
  }

  bool covered(const Block& block) const {
    return std::ranges::any_of(own_offers_, [&](std::uint32_t o) { return planner_.accepts(o, block); });
  }

  void consider() {
    std::vector<Block> sorted = blocks_;
    for (Block& b : sorted) std::ranges::sort(b);
    auto found = planner_.order(sorted, pages_, left_);
    if (!found) return;
    const ObjectiveValues cost = planner_.cost(*found);
    if (best_ && !better(cost, best_cost_, planner_.request_.policy.objectives)) return;
    best_ = std::move(found);
    best_cost_ = cost;
  }

  const ContainerPlanner& planner_;
  const Problem& problem_;
  Pages pages_;
  std::uint64_t& left_;
  std::vector<Block> elements_, blocks_;
  std::vector<std::uint32_t> own_offers_;
  std::optional<Container> best_;
  ObjectiveValues best_cost_;
};

// Groups whose domains take one another never open two HWPTs. A bound: groups are put into sets of such, greedily.
std::size_t ContainerPlanner::most_openers() const {
  std::vector<Block> alike;  // groups
  for (std::uint32_t g = 0; g < own_.size(); ++g) {
    const auto like_all = [&](const Block& others) {
      return std::ranges::all_of(others, [&](std::uint32_t o) { return takes(*own_[o], g) && takes(*own_[g], o); });
    };
    const auto it = std::ranges::find_if(alike, like_all);
    (it == alike.end() ? alike.emplace_back() : *it).push_back(g);
  }
  return alike.size();
}

Joining ContainerPlanner::join(const std::vector<SolvedHwpt>& hwpts, std::size_t least, std::uint64_t budget) const {
  std::vector<Block> blocks;
  for (const SolvedHwpt& h : hwpts) blocks.push_back(h.items);
  if (give_openers(blocks)) {
    if (auto found = order(blocks, Pages::in_common, budget)) {
      const bool as_good = cost(*found) == cost({hwpts, {}});
      return {Joinable::yes, as_good, std::move(*found)};
    }
  }
  if (least > most_openers()) return {Joinable::no, false, {}};
  if (auto found = Partitions(*this, Pages::in_common, budget).best()) return {Joinable::yes, false, std::move(*found)};
  return {budget == 0 ? Joinable::unknown : Joinable::no, false, {}};
}

VmRefusal ContainerPlanner::no_order(std::uint64_t budget) const {
  const std::string& vm = request_.vms[problem_.vm.index()].name;
  if (Partitions(*this, Pages::any, budget).best()) {
    return {"type1.page-sizes", {vm}, fmt::format("the domains of {} have no page size in common that fits its memory", vm)};
  }
  return {"type1.first-fit", {vm},
          fmt::format("no order in which the groups of {} join a type1 container keeps the policy: a group always joins the "
                      "newest domain that takes it",
                      vm)};
}

}  // namespace ioplan
