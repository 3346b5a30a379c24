#include "tests/kernel/law/comparison.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/base/text.h"
#include "engine/model/plan.h"
#include "tests/kernel/law/hosts.h"

namespace ioplan::judged {

namespace {

constexpr std::size_t kDifferencesToTell = 5;

// IOMMU_HWPT_ALLOC_* of the uAPI.
unsigned kernel_flags(std::uint8_t flags) {
  return ((flags & kNestParent) != 0 ? 1U : 0) | ((flags & kDirtyTracking) != 0 ? 2U : 0) |
         ((flags & kPasid) != 0 ? 8U : 0);
}

}  // namespace

Comparison::Comparison(const judge& kernel, LawUnderTest law, OurHost our_host)
    : kernel_(kernel), law_(std::move(law)), our_host_(std::move(our_host)) {
  for (const auto& rule : law_.rules) rules_[static_cast<std::size_t>(rule->phase)].push_back(rule.get());
}

void Comparison::compare(const judge_host& host) {
  host_ = host;
  kernel_.boot(&host);
  std::array<judge_device, JUDGE_UNITS> booted{};
  for (unsigned unit = 0; unit < JUDGE_UNITS; ++unit) kernel_.describe(unit, &booted[unit]);
  if (std::ranges::any_of(booted, [](const judge_device& d) { return d.usable == 0; })) return;
  ++outcome_.hosts;

  const Host ours = our_host_(host, booted);
  devices_.clear();
  for (std::size_t i = 0; i < ours.devices.size(); ++i) devices_.push_back(law_.law->describe(ours, DeviceIndex(i)));
  for (unsigned unit = 0; unit < JUDGE_UNITS; ++unit) {
    compare_capabilities(unit, booted[unit]);
    for (std::uint8_t flags = 0; flags < kHwptFlagSets; ++flags) compare_allocation(unit, flags);
  }
}

void Comparison::compare_capabilities(unsigned unit, const judge_device& theirs) {
  const DeviceQuantities& q = devices_[unit];
  allocator_ = target_ = unit;
  flags_ = 0;
  expect("IOMMU_CAP_CACHE_COHERENCY", q[DeviceQ::cache_coherency], theirs.cache_coherency);
  expect("IOMMU_CAP_ENFORCE_CACHE_COHERENCY", q[DeviceQ::enforce_cache_coherency], theirs.enforce_cache_coherency);
  expect("IOMMU_CAP_DIRTY_TRACKING", q[DeviceQ::dirty_capable], theirs.dirty_tracking);
}

void Comparison::compare_allocation(unsigned unit, std::uint8_t flags) {
  ++outcome_.allocations;
  allocator_ = target_ = unit;
  flags_ = flags;
  const HwptQuantities ours = law_.law->allocate(devices_[unit], flags);
  judge_hwpt theirs{};
  kernel_.allocate(unit, kernel_flags(flags), &theirs);
  const Verdict verdict = judge_by(Phase::allocation, ours, devices_[unit]);
  expect(verdict.broken.empty() ? "HWPT_ALLOC's errno" : verdict.broken.front()->name,
         static_cast<std::uint64_t>(verdict.linux_errno), static_cast<std::uint64_t>(theirs.error));
  if (!verdict.broken.empty() || theirs.error != 0) return;
  compare_attributes(ours, theirs);
  for (unsigned target = 0; target < devices_.size(); ++target) compare_attachment(ours, target);
}

void Comparison::compare_attributes(const HwptQuantities& ours, const judge_hwpt& theirs) {
  expect("stage", ours[HwptQ::stage], theirs.stage);
  expect("levels", ours[HwptQ::levels], theirs.levels);
  if (theirs.address_bits != 0) expect("address_bits", ours[HwptQ::address_bits], theirs.address_bits);
  expect("aperture_start", ours[HwptQ::aperture_start], theirs.aperture_start);
  expect("aperture_last", ours[HwptQ::aperture_last], theirs.aperture_last);
  expect("page_sizes", ours[HwptQ::page_sizes], theirs.page_sizes);
  expect("dirty_tracking", ours[HwptQ::dirty_tracking], theirs.dirty_tracking);
  expect("nest_parent", ours[HwptQ::nest_parent], theirs.nest_parent);
  expect("enforce_cache_coherency", ours[HwptQ::enforce_cache_coherency], theirs.enforce_cache_coherency);
  expect("coherent_walk", ours[HwptQ::coherent_walk], theirs.coherent_walk);
  expect("sync_map", ours[HwptQ::sync_map], theirs.sync_map);
  expect("takes_read_only", ours[HwptQ::takes_read_only], theirs.takes_read_only);
}

void Comparison::compare_attachment(const HwptQuantities& ours, unsigned unit) {
  ++outcome_.attachments;
  target_ = unit;
  const Verdict verdict = judge_by(Phase::attach, ours, devices_[unit]);
  const int theirs = kernel_.attach(unit);
  expect(verdict.broken.empty() ? "attach's errno" : verdict.broken.front()->name,
         static_cast<std::uint64_t>(verdict.linux_errno), static_cast<std::uint64_t>(theirs));
}

Comparison::Verdict Comparison::judge_by(Phase phase, const HwptQuantities& hwpt, const DeviceQuantities& device) {
  const VmQuantities no_vm;
  const Values values{&hwpt, &device, &no_vm};
  Verdict verdict;
  for (const Rule* rule : rules_[static_cast<std::size_t>(phase)]) {
    if (!applies(*rule, values)) continue;
    if (holds(*rule, values)) {
      ++outcome_.rules[rule->name].accepted;
      continue;
    }
    verdict.broken.push_back(rule);
    if (verdict.linux_errno == 0 && !rule->strict) verdict.linux_errno = rule->errno_value;
  }
  if (verdict.broken.size() == 1) ++outcome_.rules[verdict.broken.front()->name].refused_alone;
  return verdict;
}

void Comparison::expect(std::string_view what, std::uint64_t ours, std::uint64_t theirs) {
  if (ours == theirs) return;
  ++outcome_.differences;
  if (outcome_.first_differences.size() >= kDifferencesToTell) return;
  outcome_.first_differences.push_back(
      fmt::format("{}: ours {}, Linux's {} ({})", what, format_hex(ours), format_hex(theirs), situation()));
}

std::string Comparison::situation() const {
  return fmt::format("unit {} allocates with flags {}, unit {} is asked; {}", allocator_, flags_, target_,
                     describe_host(kernel_.driver, host_));
}

}  // namespace ioplan::judged
