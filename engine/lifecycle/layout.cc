#include "engine/lifecycle/layout.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <set>

#include "engine/base/text.h"
#include "engine/lifecycle/container_domains.h"

namespace ioplan {

namespace {

template <class Plans>
auto find_space(Plans& plan, std::string_view vm) {
  const auto it = std::ranges::find(plan.ioas, vm, &PlannedIoas::vm);
  return it == plan.ioas.end() ? nullptr : &*it;
}

// Writes the steps of one address space after another.
class BootSteps {
 public:
  explicit BootSteps(const Plan& plan) : plan_(plan) {}

  std::vector<Step> take() { return std::move(steps_); }

  void add(const PlannedIoas& ioas, const std::vector<std::string>& mediated) {
    const std::vector<std::string> attached = attached_devices(plan_, ioas.id);
    step(StepKind::ioas_alloc).ioas = ioas.id;
    std::vector<std::string> own = attached;
    for (const auto* more : {&mediated, &ioas.retained}) own.insert(own.end(), more->begin(), more->end());
    for (const std::string& d : own) step(StepKind::bind).device = d;
    bound_.insert(own.begin(), own.end());
    const std::vector<std::string> guests = foreign_allocators(ioas);
    for (const std::string& d : guests) step(StepKind::bind).device = d;
    Step& allow = step(StepKind::allow_iovas);
    allow.ioas = ioas.id;
    allow.ranges = allowed_ranges(ioas);
    add_hwpts(ioas);
    for (const std::string& d : mediated) attach(StepKind::attach_ioas, d, "", ioas.id);
    for (const MemoryRange& m : ioas.memory) steps_.push_back(map_step(StepKind::map, ioas.id, m));
    for (const std::string& d : guests) step(StepKind::unbind).device = d;
  }

 private:
  Step& step(StepKind kind) {
    steps_.emplace_back().kind = kind;
    return steps_.back();
  }

  void attach(StepKind kind, const std::string& device, const std::string& hwpt, const std::string& ioas) {
    Step& s = step(kind);
    s.device = device;
    s.hwpt = hwpt;
    s.ioas = ioas;
  }

  // The VM before may have an allocator by now; then it is bound.
  std::vector<std::string> foreign_allocators(const PlannedIoas& ioas) const {
    std::vector<std::string> found;
    for (const PlannedHwpt& h : plan_.hwpts) {
      if (h.ioas == ioas.id && !h.automatic && !bound_.contains(h.allocator)) {
        found.push_back(h.allocator);
      }
    }
    std::ranges::sort(found, natural_less);
    found.erase(std::unique(found.begin(), found.end()), found.end());
    return found;
  }

  void add_hwpts(const PlannedIoas& ioas) {
    for (const PlannedHwpt& h : plan_.hwpts) {
      if (h.ioas != ioas.id || h.automatic) continue;
      Step& alloc = step(StepKind::hwpt_alloc);
      alloc.ioas = ioas.id;
      alloc.hwpt = h.id;
      alloc.device = h.allocator;
      alloc.flags = h.flags;
    }
    for (const PlannedHwpt& h : plan_.hwpts) {
      if (h.ioas != ioas.id) continue;
      for (const std::string& d : h.devices) {
        attach(h.automatic ? StepKind::attach_ioas : StepKind::attach, d, h.id, h.automatic ? ioas.id : "");
      }
    }
  }

  const Plan& plan_;
  std::set<std::string> bound_;  // by this address space and those before
  std::vector<Step> steps_;
};

}  // namespace

const PlannedIoas* space_of(const Plan& plan, std::string_view vm) { return find_space(plan, vm); }
PlannedIoas* space_of(Plan& plan, std::string_view vm) { return find_space(plan, vm); }

const PlannedIoas* find_ioas(const Plan& plan, std::string_view id) {
  const auto it = std::ranges::find(plan.ioas, id, &PlannedIoas::id);
  return it == plan.ioas.end() ? nullptr : &*it;
}

const PlannedHwpt* find_hwpt(const Plan& plan, std::string_view id) {
  const auto it = std::ranges::find(plan.hwpts, id, &PlannedHwpt::id);
  return it == plan.hwpts.end() ? nullptr : &*it;
}

std::vector<std::string> attached_devices(const Plan& plan, std::string_view ioas) {
  std::vector<std::string> found;
  for (const PlannedHwpt& h : plan.hwpts) {
    if (h.ioas == ioas) found.insert(found.end(), h.devices.begin(), h.devices.end());
  }
  if (!std::ranges::is_sorted(found, natural_less)) std::ranges::sort(found, natural_less);  // each HWPT's are
  return found;
}

std::vector<std::string> bound_devices(const Plan& plan) {
  std::vector<std::string> found;
  for (const PlannedIoas& ioas : plan.ioas) {
    for (const auto& devices : {mediated_devices(plan, ioas.id), ioas.retained}) {
      found.insert(found.end(), devices.begin(), devices.end());
    }
  }
  for (const PlannedHwpt& h : plan.hwpts) found.insert(found.end(), h.devices.begin(), h.devices.end());
  return found;
}

std::vector<Range> allowed_ranges(const PlannedIoas& ioas) {
  if (!ioas.allowed.empty()) return ioas.allowed;
  std::vector<Range> ranges;
  for (const MemoryRange& m : ioas.memory) ranges.push_back(m.gpa);
  return ranges;
}

const MemoryRange* unusable_memory(const std::vector<MemoryRange>& memory, const std::vector<Range>& usable) {
  RangeSet set;
  for (const Range& r : usable) set.add(r);
  const auto it = std::ranges::find_if(memory, [&](const MemoryRange& m) { return !set.contains(m.gpa); });
  return it == memory.end() ? nullptr : &*it;
}

Step map_step(StepKind kind, const std::string& ioas, const MemoryRange& memory) {
  Step step;
  step.kind = kind;
  step.ioas = ioas;
  step.iova = memory.gpa;
  step.writeable = memory.access == Access::read_write;
  return step;
}

HwptQuantities quantities_of(const PlannedHwpt& hwpt, const Host& host, const Law& law) {
  return law.allocate(law.describe(host, *host.find_device(hwpt.allocator)), hwpt.flags);
}

std::vector<Step> boot_steps(const Plan& plan, const std::vector<std::vector<std::string>>& mediated) {
  BootSteps steps(plan);
  for (std::size_t i = 0; i < plan.ioas.size(); ++i) steps.add(plan.ioas[i], mediated[i]);
  return steps.take();
}

namespace {

constexpr std::string_view kPlanAgain = "plan again with `ioplan plan`, or take what `hotplug --plan-out` wrote";

Result<void> require_device(const std::string& id, const Host& host) {
  if (host.find_device(id)) return {};
  return failure(fmt::format("the plan names `{}`, and the host has no such device", id), std::string(kPlanAgain));
}

// What a container does with a device cannot be told without both.
Result<void> require_group(const std::string& id, const Host& host) {
  const Device& d = host.device(*host.find_device(id));
  if (d.group && d.unit) return {};
  return failure(fmt::format("the {} of `{}` is unknown, and decides what a type1 container does with it", d.unit ? "group" : "IOMMU", id),
                 "state it in the host document");
}

// HWPTs are in an address space of the plan, each under a name of its own.
Result<void> require_places(const Plan& plan) {
  std::set<std::string> ids;
  for (const PlannedHwpt& h : plan.hwpts) {
    const bool placed = find_ioas(plan, h.ioas) != nullptr;
    if (placed && ids.insert(h.id).second) continue;
    return failure(fmt::format("`{}` of the plan {}", h.id, placed ? "is there twice" : "is in no IOAS of it"), std::string(kPlanAgain));
  }
  return {};
}

// Every joining step says where it leads: to the HWPT that has the device, or that it opens for others.
bool leads_home(const Plan& plan, const Step& s) {
  if (s.kind != StepKind::attach_ioas) return true;
  const PlannedHwpt* hwpt = find_hwpt(plan, s.hwpt);
  const PlannedHwpt* home = home_of(plan, s.device);
  return hwpt != nullptr && hwpt->ioas == s.ioas && (home == hwpt || hwpt->allocator == s.device);
}

Result<void> require_made(const PlannedHwpt& hwpt, const ContainerDomains& domains, const GroupLaw& groups) {
  const ContainerDomain* made = domains.find(hwpt.id);
  std::set<std::uint32_t> wanted;
  for (const std::string& d : hwpt.devices) wanted.insert(groups.group_of(d));
  const bool as_planned = made != nullptr && std::set(made->groups.begin(), made->groups.end()) == wanted &&
                          made->what == groups.own_domain(groups.group_of(hwpt.allocator));
  if (as_planned) return {};
  return failure(fmt::format("the steps of the plan do not make `{}` of its devices in a type1 container", hwpt.id),
                 std::string(kPlanAgain));
}

}  // namespace

Result<void> require_layout(const Plan& plan, const Host& host, const Law& law) {
  std::vector<std::string> named;
  for (const PlannedHwpt& h : plan.hwpts) {
    named.push_back(h.allocator);
    named.insert(named.end(), h.devices.begin(), h.devices.end());
  }
  const bool in_containers = plan.interface == KernelInterface::type1;
  for (const PlannedIoas& ioas : plan.ioas) {
    std::ranges::copy_if(ioas.retained, std::back_inserter(named), [&](const auto& d) { return in_containers || !is_uuid(d); });
  }
  for (const Step& s : plan.steps) {
    if (in_containers && !s.device.empty()) named.push_back(s.device);
  }
  for (const std::string& id : named) {
    if (auto known = require_device(id, host); !known) return known;
  }
  if (auto placed = require_places(plan); !placed || !in_containers) return placed;
  for (const std::string& id : named) {
    if (auto known = require_group(id, host); !known) return known;
  }
  for (const Step& s : plan.steps) {
    if (leads_home(plan, s)) continue;
    return failure(fmt::format("a step of the plan lets `{}` join `{}`, which is not where the plan has it", s.device, s.hwpt),
                   std::string(kPlanAgain));
  }
  const GroupLaw groups(host, law);
  for (const PlannedIoas& ioas : plan.ioas) {
    const ContainerDomains domains(groups, plan, ioas.id);
    for (const PlannedHwpt& h : plan.hwpts) {
      if (h.ioas != ioas.id) continue;
      if (auto made = require_made(h, domains, groups); !made) return made;
    }
    const auto planned = static_cast<std::size_t>(std::ranges::count(plan.hwpts, ioas.id, &PlannedHwpt::ioas));
    if (domains.in_order().size() == planned) continue;
    return failure(fmt::format("the steps of the plan make more domains in {} than it has HWPTs", ioas.id), std::string(kPlanAgain));
  }
  return {};
}

std::uint64_t number_of(std::string_view id) {
  std::uint64_t number = 0;
  for (const char c : id) {
    if (c >= '0' && c <= '9') number = number * 10 + static_cast<std::uint64_t>(c - '0');
  }
  return number;
}

}  // namespace ioplan
