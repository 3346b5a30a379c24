#include "tests/support/rule_walks.h"

#include <algorithm>
#include <cerrno>

#include "engine/base/range.h"
#include "engine/model/plan.h"

namespace ioplan {

namespace {

using sim::Walk;

class RuleWalker {
 public:
  RuleWalker(Walk kind, const Host& host, const Law& law) : kind_(kind), host_(host), law_(law) {}

  bool plug(const std::vector<DeviceIndex>& group, std::uint32_t name) {
    const std::vector<DeviceIndex> members = members_of(group.front());
    return kind_ == Walk::type1 ? plug_type1(members, name) : plug_iommufd(group.front(), members, name);
  }

  std::vector<RuleTable> tables;

 private:
  std::vector<DeviceIndex> members_of(DeviceIndex device) const {
    std::vector<DeviceIndex> members;
    for (std::size_t d = 0; d < host_.devices.size(); ++d) {
      if (host_.devices[d].group == host_.device(device).group) members.push_back(DeviceIndex(d));
    }
    return members;
  }

  // 0, or the errno of the first rule of the phase that Linux checks and that does not hold.
  int ask(Phase phase, const HwptQuantities& hwpt, DeviceIndex device) const {
    const DeviceQuantities quantities = law_.describe(host_, device);
    const VmQuantities nothing;
    for (const Rule* rule : law_.rules()) {
      if (rule->phase == phase && !rule->strict && !holds(*rule, {&hwpt, &quantities, &nothing})) return rule->errno_value;
    }
    return 0;
  }

  int attach(const HwptQuantities& hwpt, const std::vector<DeviceIndex>& members) const {
    for (DeviceIndex d : members) {
      if (const int error = ask(Phase::attach, hwpt, d); error != 0) return error;
    }
    return 0;
  }

  // Oldest first in the kernel, newest first in QEMU. The first plugged device of the group allocates.
  bool plug_iommufd(DeviceIndex device, const std::vector<DeviceIndex>& members, std::uint32_t name) {
    for (std::size_t i = 0; i < tables.size(); ++i) {
      RuleTable& table = tables[kind_ == Walk::kernel ? i : tables.size() - 1 - i];
      const int error = attach(table.hwpt, members);
      if (error == 0) {
        table.groups.push_back(name);
        return true;
      }
      if (error != EINVAL) return false;
    }
    const DeviceQuantities quantities = law_.describe(host_, device);
    const bool dirty = kind_ == Walk::qemu && quantities[DeviceQ::dirty_capable] != 0;
    return add(device, law_.allocate(quantities, dirty ? kDirtyTracking : 0), members, name);
  }

  bool add(DeviceIndex allocator, const HwptQuantities& hwpt, const std::vector<DeviceIndex>& members, std::uint32_t name) {
    const std::uint64_t page = law_.describe(host_, allocator)[DeviceQ::kernel_page_size];
    if (ask(Phase::allocation, hwpt, allocator) != 0 || attach(hwpt, members) != 0) return false;
    if (kind_ != Walk::type1 && hwpt[HwptQ::smallest_page] > page) return false;
    tables.push_back({allocator, hwpt, {name}});
    return true;
  }

  // The first member allocates, without coherency until all are attached; joins the newest of its kind that takes it.
  bool plug_type1(const std::vector<DeviceIndex>& members, std::uint32_t name) {
    HwptQuantities own = law_.allocate(law_.describe(host_, members.front()), 0);
    own[HwptQ::enforce_cache_coherency] = 0;
    if (ask(Phase::allocation, own, members.front()) != 0 || attach(own, members) != 0 || !narrow(own, members)) return false;
    own[HwptQ::enforce_cache_coherency] = std::ranges::all_of(
        members, [&](DeviceIndex d) { return law_.describe(host_, d)[DeviceQ::enforce_cache_coherency] != 0; });
    for (std::size_t i = tables.size(); i-- > 0;) {
      if (!alike(tables[i].hwpt, own) || attach(tables[i].hwpt, members) != 0) continue;
      tables[i].groups.push_back(name);
      return true;
    }
    return add(members.front(), own, members, name);
  }

  // Same domain operations, which are a driver's for a stage, and the same cache coherency.
  static bool alike(const HwptQuantities& a, const HwptQuantities& b) {
    return a[HwptQ::owner] == b[HwptQ::owner] && a[HwptQ::stage] == b[HwptQ::stage] &&
           a[HwptQ::enforce_cache_coherency] == b[HwptQ::enforce_cache_coherency];
  }

  // The container's IOVA list shrinks to the new domain's aperture and by the group's regions; it must not become empty.
  bool narrow(const HwptQuantities& own, const std::vector<DeviceIndex>& members) {
    const Range aperture{own[HwptQ::aperture_start], own[HwptQ::aperture_last]};
    if (aperture.start > 0) usable_.subtract({0, aperture.start - 1});
    if (aperture.last < ~std::uint64_t{0}) usable_.subtract({aperture.last + 1, ~std::uint64_t{0}});
    for (DeviceIndex d : members) {
      for (const ReservedRegion& r : host_.device(d).reserved.value_or(law_.own_regions(host_, d))) {
        if (r.type != ReservedType::direct_relaxable) usable_.subtract(r.range);
      }
    }
    return !usable_.empty();
  }

  Walk kind_;
  const Host& host_;
  const Law& law_;
  RangeSet usable_{{0, ~std::uint64_t{0}}};
};

}  // namespace

RuleWalk walk_rules(Walk kind, const Host& host, std::span<const std::vector<DeviceIndex>> groups,
                    std::span<const std::uint32_t> order, const Law& law) {
  RuleWalker walker(kind, host, law);
  RuleWalk result;
  for (std::uint32_t g : order) {
    result.complete = walker.plug(groups[g], g);
    if (!result.complete) break;
  }
  result.tables = std::move(walker.tables);
  return result;
}

}  // namespace ioplan
