#include "engine/lifecycle/container_domains.h"

#include <algorithm>

#include "engine/lifecycle/layout.h"
#include "engine/solve/problem.h"

namespace ioplan {

// ------------------------------------------------------------------------------------------------- groups

GroupLaw::GroupLaw(const Host& host, const Law& law) : host_(host), law_(law), rules_(law) {
  for (std::size_t i = 0; i < host.devices.size(); ++i) {
    const Device& d = host.devices[i];
    if (d.group && d.unit) members_[*d.group].emplace_back(i);
  }
}

std::uint32_t GroupLaw::group_of(const std::string& device) const {
  return host_.device(*host_.find_device(device)).group.value();
}

HwptQuantities GroupLaw::own_domain(std::uint32_t group) const {
  return law_.allocate(law_.describe(host_, members_.at(group).front()), 0);
}

bool GroupLaw::is_mixed(std::uint32_t group) const {
  const HwptQuantities own = own_domain(group);
  return std::ranges::any_of(members_.at(group),
                             [&](DeviceIndex d) { return law_.allocate(law_.describe(host_, d), 0) != own; });
}

bool GroupLaw::takes(const HwptQuantities& domain, std::uint32_t group) const {
  const VmQuantities nothing;
  return std::ranges::all_of(members_.at(group), [&](DeviceIndex d) {
    const DeviceQuantities device = law_.describe(host_, d);
    return rules_.hold_in_linux(Phase::attach, {&domain, &device, &nothing});
  });
}

std::vector<ReservedRegion> GroupLaw::regions(std::uint32_t group) const {
  std::vector<ReservedRegion> all;
  for (const DeviceIndex d : members_.at(group)) {
    for (const ReservedRegion& r : reserved_by(host_, d, law_)) all.push_back(r);
  }
  return all;
}

// ------------------------------------------------------------------------------------------------- domains

bool ContainerDomain::holds(std::uint32_t group) const { return std::ranges::find(groups, group) != groups.end(); }

ContainerDomains::ContainerDomains(const GroupLaw& law, const Plan& plan, std::string_view ioas) : law_(&law) {
  std::map<std::uint32_t, std::vector<std::string>> attached;
  for (const Step& s : plan.steps) {
    if (s.kind == StepKind::attach_ioas && s.ioas == ioas) {
      auto& devices = attached[law.group_of(s.device)];
      if (devices.empty()) join(s.device, s.hwpt);
      devices.push_back(s.device);
    } else if (s.kind == StepKind::detach && s.ioas == ioas) {
      const std::uint32_t group = law.group_of(s.device);
      const auto there = attached.find(group);
      if (there == attached.end() || std::erase(there->second, s.device) == 0 || !there->second.empty()) continue;
      leave(group);
    }
  }
}

const ContainerDomain* ContainerDomains::find(const std::string& hwpt) const {
  const auto it = std::ranges::find(domains_, hwpt, &ContainerDomain::hwpt);
  return it == domains_.end() ? nullptr : &*it;
}

const ContainerDomain* ContainerDomains::home_of(std::uint32_t group) const {
  const auto it = std::ranges::find_if(domains_, [&](const ContainerDomain& d) { return d.holds(group); });
  return it == domains_.end() ? nullptr : &*it;
}

const ContainerDomain& ContainerDomains::join(const std::string& device, const std::string& name) {
  const std::uint32_t group = law_->group_of(device);
  const HwptQuantities own = law_->own_domain(group);
  keep_within({own[HwptQ::aperture_start], own[HwptQ::aperture_last]});
  exclude(group);
  const auto newest =
      std::find_if(domains_.rbegin(), domains_.rend(), [&](const ContainerDomain& d) { return law_->takes(d.what, group); });
  if (newest != domains_.rend()) {
    newest->groups.push_back(group);
    return *newest;
  }
  return domains_.emplace_back(ContainerDomain{name, device, own, {group}});
}

void ContainerDomains::leave(std::uint32_t group) {
  const auto home = std::ranges::find_if(domains_, [&](const ContainerDomain& d) { return d.holds(group); });
  Range hull{0, ~std::uint64_t{0}};
  if (!usable_.empty()) hull = {usable_.ranges().front().start, usable_.ranges().back().last};
  std::erase(home->groups, group);
  if (home->groups.empty()) {
    domains_.erase(home);
    hull = {0, ~std::uint64_t{0}};
    for (const ContainerDomain& d : domains_) {
      hull.start = std::max(hull.start, d.what[HwptQ::aperture_start]);
      hull.last = std::min(hull.last, d.what[HwptQ::aperture_last]);
    }
  }
  refresh(hull);
}

void ContainerDomains::set_usable(const std::vector<Range>& ranges) {
  usable_ = {};
  for (const Range& r : ranges) usable_.add(r);
}

void ContainerDomains::keep_within(const Range& aperture) {
  if (aperture.start > 0) usable_.subtract({0, aperture.start - 1});
  if (aperture.last < ~std::uint64_t{0}) usable_.subtract({aperture.last + 1, ~std::uint64_t{0}});
}

void ContainerDomains::exclude(std::uint32_t group) {
  for (const ReservedRegion& r : law_->regions(group)) usable_.subtract(r.range);
}

void ContainerDomains::refresh(Range hull) {
  usable_ = {hull};
  for (const ContainerDomain& d : domains_) {
    for (const std::uint32_t g : d.groups) exclude(g);
  }
}

// ------------------------------------------------------------------------------------------------- steps

std::vector<Step> joining_steps(const PlannedHwpt& hwpt, const std::vector<std::string>& devices, const GroupLaw& law) {
  std::vector<Step> steps;
  const auto add = [&](StepKind kind, const std::string& device) {
    Step& s = steps.emplace_back();
    s.kind = kind;
    s.device = device;
    s.ioas = hwpt.ioas;
    if (kind == StepKind::attach_ioas) s.hwpt = hwpt.id;
  };
  const std::uint32_t opening = law.group_of(hwpt.allocator);
  const auto opens = [&](const std::string& d) { return law.group_of(d) == opening; };
  const bool guest = std::ranges::none_of(hwpt.devices, opens);
  if (guest) add(StepKind::attach_ioas, hwpt.allocator);
  for (const bool openers : {true, false}) {
    for (const std::string& d : devices) {
      if (opens(d) == openers) add(StepKind::attach_ioas, d);
    }
  }
  if (guest) add(StepKind::detach, hwpt.allocator);
  return steps;
}

namespace {

// Does some HWPT of the first want an opener that is in the second?
bool borrows(const Plan& plan, const PlannedIoas& first, const PlannedIoas& second, const GroupLaw& law) {
  return std::ranges::any_of(plan.hwpts, [&](const PlannedHwpt& h) {
    if (h.ioas != first.id) return false;
    const auto lent = attached_devices(plan, second.id);
    return std::ranges::find(lent, law.group_of(h.allocator), [&](const auto& d) { return law.group_of(d); }) != lent.end();
  });
}

// Containers that borrow an opener of another come first, as far as they can.
std::vector<PlannedIoas> in_order_of_borrowing(const Plan& plan, const GroupLaw& law) {
  std::vector<PlannedIoas> left = plan.ioas, ordered;
  while (!left.empty()) {
    const auto waits_for_none = [&](const PlannedIoas& ioas) {
      return std::ranges::none_of(left, [&](const auto& other) { return other.id != ioas.id && borrows(plan, other, ioas, law); });
    };
    const auto found = std::ranges::find_if(left, waits_for_none);
    const auto next = found == left.end() ? left.begin() : found;
    ordered.push_back(*next);
    left.erase(next);
  }
  return ordered;
}

}  // namespace

std::vector<Step> container_steps(const Plan& plan, const std::vector<std::string>& order, const GroupLaw& law) {
  std::vector<Step> steps;
  for (const PlannedIoas& ioas : in_order_of_borrowing(plan, law)) {
    for (const std::string& d : ioas.retained) {
      Step& file = steps.emplace_back();
      file.kind = StepKind::kvm_file_add;
      file.device = d;
    }
    Step& made = steps.emplace_back();
    made.kind = StepKind::ioas_alloc;
    made.ioas = ioas.id;
    for (const std::string& id : order) {
      const PlannedHwpt* hwpt = find_hwpt(plan, id);
      if (hwpt->ioas != ioas.id) continue;
      for (Step& s : joining_steps(*hwpt, hwpt->devices, law)) steps.push_back(std::move(s));
    }
    for (const MemoryRange& m : ioas.memory) steps.push_back(map_step(StepKind::map, ioas.id, m));
  }
  return steps;
}

}  // namespace ioplan
