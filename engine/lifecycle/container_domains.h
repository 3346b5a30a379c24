// The domains of one running type1 container, in the order of their making, and what groups that join or leave make of them
// (README.md 10, KR 5.1).
//
// A joining group gets a domain of its own first, and leaves it for the newest that takes it. So of two domains that are
// there at a time, the older has refused the opener of the newer, and no two of them are equal. Held by
// tests/type1_lifecycle_test.cc (the simulated container).
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "engine/law/law.h"
#include "engine/model/host.h"
#include "engine/model/plan.h"
#include "engine/solve/offers.h"

namespace ioplan {

// What type1 makes of whole groups.
class GroupLaw {
 public:
  // Requires: type1's law, and complete facts. Both must outlive this.
  GroupLaw(const Host& host, const Law& law);

  std::uint32_t group_of(const std::string& device) const;
  const std::vector<DeviceIndex>& members(std::uint32_t group) const { return members_.at(group); }
  // The domain that the group gets first. Of a group whose members would make different ones: that of the lowest.
  HwptQuantities own_domain(std::uint32_t group) const;
  bool is_mixed(std::uint32_t group) const;
  // Would Linux attach all members?
  bool takes(const HwptQuantities& domain, std::uint32_t group) const;
  // What all members reserve.
  std::vector<ReservedRegion> regions(std::uint32_t group) const;

 private:
  const Host& host_;
  const Law& law_;
  RuleBook rules_;
  std::map<std::uint32_t, std::vector<DeviceIndex>> members_;
};

struct ContainerDomain {
  std::string hwpt;
  std::string opener;  // a device of the group whose own domain this was; the group may have left
  HwptQuantities what;
  std::vector<std::uint32_t> groups;  // in the order of joining

  bool holds(std::uint32_t group) const;
};

class ContainerDomains {
 public:
  explicit ContainerDomains(const GroupLaw& law) : law_(&law) {}
  // As the plan's steps leave the container of this IOAS.
  ContainerDomains(const GroupLaw& law, const Plan& plan, std::string_view ioas);

  const std::vector<ContainerDomain>& in_order() const { return domains_; }
  const ContainerDomain* find(const std::string& hwpt) const;
  const ContainerDomain* home_of(std::uint32_t group) const;

  // Where the group of the device comes to be; a new domain is called `name`. Requires: it is in none.
  const ContainerDomain& join(const std::string& device, const std::string& name);
  // A domain goes with its last group. Requires: the group is in one.
  void leave(std::uint32_t group);

  // What can be mapped. Every group's own domain cuts it, and what a group has cut off at either end stays off when it leaves,
  // until a domain goes (vfio_iommu_resv_refresh, vfio_iommu_aper_expand): it depends on history.
  const RangeSet& usable() const { return usable_; }
  // Where history has left other ranges than the steps do. Requires: not empty.
  void set_usable(const std::vector<Range>& ranges);

 private:
  void keep_within(const Range& aperture);
  void exclude(std::uint32_t group);
  void refresh(Range hull);

  const GroupLaw* law_;
  std::vector<ContainerDomain> domains_;
  RangeSet usable_{{0, ~std::uint64_t{0}}};
};

// The steps that make these HWPTs of a type1 plan from nothing. `order`: ids of all of them, in the order of their making.
// An opener that is in no HWPT joins for its domain's sake, and leaves when others are in it.
std::vector<Step> container_steps(const Plan& plan, const std::vector<std::string>& order, const GroupLaw& law);

// The joins of one domain in that order: its opener's, then the others'. `devices`: those that join.
std::vector<Step> joining_steps(const PlannedHwpt& hwpt, const std::vector<std::string>& devices, const GroupLaw& law);

}  // namespace ioplan
