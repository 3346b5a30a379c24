#include "tests/support/layout_rules.h"

#include <algorithm>
#include <bit>
#include <iterator>
#include <map>
#include <set>

#include "engine/base/log2.h"
#include "tests/support/oracle.h"

namespace ioplan::oracle {

namespace {

using Lines = std::vector<std::string>;

void add_all(Lines& to, const Lines& from) { to.insert(to.end(), from.begin(), from.end()); }

bool has(const std::vector<DeviceIndex>& devices, DeviceIndex d) { return std::ranges::count(devices, d) > 0; }

std::vector<DeviceIndex> both(const std::vector<DeviceIndex>& a, const std::vector<DeviceIndex>& b) {
  std::vector<DeviceIndex> all;
  std::ranges::merge(a, b, std::back_inserter(all));
  return all;
}

const AssignedDevice& entry_of(const Scene& s, DeviceIndex d) {
  static const AssignedDevice kNone;
  const auto it = std::ranges::find(s.vm->devices, d, &AssignedDevice::host);
  return it == s.vm->devices.end() ? kNone : *it;
}

bool chosen(const Scene& s, const Selector& selector, DeviceIndex d) {
  return selects(selector, s.host().device(d), entry_of(s, d));
}

std::vector<DeviceIndex> chosen_of(const Scene& s, const Selector& selector, const std::vector<DeviceIndex>& devices) {
  std::vector<DeviceIndex> some;
  for (DeviceIndex d : devices) {
    if (chosen(s, selector, d)) some.push_back(d);
  }
  return some;
}

std::uint8_t flags_of(const RequireRule& r) {
  return static_cast<std::uint8_t>((r.dirty_tracking ? kDirtyTracking : 0) | (r.nest_parent ? kNestParent : 0) |
                                   (r.pasid ? kPasid : 0));
}

// L2.5: reserved regions of what is attached, or will be, against memory and what nothing may reserve.
void check_regions(const Scene& s, DeviceIndex d, Lines& faults) {
  const Device& device = s.host().device(d);
  for (const Range& r : reserved_by(s.host(), device)) {
    for (const MemoryRange& m : s.held) {
      if (m.gpa.overlaps(r)) faults.push_back("regions: memory under a region of " + device.id);
    }
    for (const Range& a : s.allowed) {
      if (a.overlaps(r)) faults.push_back("regions: allowed IOVA under a region of " + device.id);
    }
  }
}

// D4, L2.4: what operator and VM ask of the HWPT of a device that is in it.
void check_placement(const Scene& s, const Table& table, DeviceIndex d, Lines& faults) {
  const Device& device = s.host().device(d);
  const bool lax = s.request->policy.coherency == CoherencyPolicy::safe && s.kvm_non_coherent;
  if (can_enforce(s.host(), device) && !table.enforces && !lax) faults.push_back("coherency: " + device.id);
  for (const PolicyRule& rule : s.request->policy.rules) {
    const auto* require = std::get_if<RequireRule>(&rule.what);
    if (require == nullptr || !chosen(s, require->which, d)) continue;
    const bool met = highest_bit(table.page_sizes) >= require->page_size && (flags_of(*require) & ~table.flags) == 0 &&
                     (!require->enforce_cache_coherency || table.enforces);
    if (!met) faults.push_back(rule.name + ": " + device.id);
  }
}

void check_separate(const Scene& s, const PolicyRule& rule, const Placed& hwpt, Lines& faults) {
  const auto* separate = std::get_if<SeparateRule>(&rule.what);
  if (separate == nullptr) return;
  const auto inside = both(hwpt.devices, hwpt.ghosts);
  for (DeviceIndex a : chosen_of(s, separate->a, inside)) {
    for (DeviceIndex b : chosen_of(s, separate->b, inside)) {
      if (a != b) faults.push_back(rule.name + ": " + s.host().device(a).id + " with " + s.host().device(b).id);
    }
  }
}

// How many HWPTs hold some of the devices?
std::size_t spread(const std::vector<DeviceIndex>& devices, const std::vector<Placed>& hwpts) {
  return static_cast<std::size_t>(std::ranges::count_if(hwpts, [&](const Placed& h) {
    return std::ranges::any_of(devices, [&](DeviceIndex d) { return has(h.devices, d) || has(h.ghosts, d); });
  }));
}

// L2.2: each device in one HWPT, a group undivided, an SMMUv2 unit's groups undivided.
void check_structure(const Scene& s, const std::vector<Placed>& hwpts, Lines& faults) {
  for (DeviceIndex d : both(s.attached, s.ghosts)) {
    const Device& device = s.host().device(d);
    if (spread({d}, hwpts) != 1) faults.push_back("structure: " + device.id + " is not in one HWPT");
    std::vector<DeviceIndex> kin = group_of(s.host(), d);
    if (unit_of(s.host(), device).driver == Driver::smmuv2) {
      for (std::size_t i = 0; i < s.host().devices.size(); ++i) {
        if (s.host().devices[i].unit == device.unit) kin.emplace_back(i);
      }
    }
    if (spread(kin, hwpts) > 1) faults.push_back("structure: the group or unit of " + device.id + " is divided");
  }
}

}  // namespace

std::vector<DeviceIndex> indices_of(const Host& host, const std::vector<std::string>& devices) {
  std::vector<DeviceIndex> indices;
  for (const std::string& d : devices) indices.push_back(host.find_device(d).value());
  std::ranges::sort(indices);
  return indices;
}

std::vector<std::string> names_of(const Host& host, const std::vector<DeviceIndex>& devices) {
  std::vector<std::string> names;
  for (DeviceIndex d : devices) names.push_back(host.device(d).id);
  return names;
}

bool is_non_coherent(const Host& host, const std::string& device) {
  const auto index = host.find_device(device);
  return !index || !can_enforce(host, host.device(*index));
}

bool kvm_non_coherent(const Host& host, const Space& space) {
  const auto non_coherent = [&](const std::string& d) { return is_non_coherent(host, d); };
  return !space.mediated.empty() || std::ranges::any_of(attached_devices(space), non_coherent) ||
         std::ranges::any_of(space.retained, non_coherent);
}

std::uint8_t needs_of(const VirtualMachine& vm, Need need) {
  return static_cast<std::uint8_t>((vm.needs.dirty_tracking == need ? kDirtyTracking : 0) |
                                   (vm.needs.nest_parent == need ? kNestParent : 0) |
                                   (vm.needs.pasid == need ? kPasid : 0));
}

std::uint8_t adopted_of(const VirtualMachine& vm, const std::vector<std::string>& preferences) {
  std::uint8_t flags = 0;
  for (const std::string& p : preferences) {
    if (p == vm.name + ".dirty_tracking") flags |= kDirtyTracking;
    if (p == vm.name + ".nest_parent") flags |= kNestParent;
    if (p == vm.name + ".pasid") flags |= kPasid;
  }
  return flags;
}

Scene scene_of(const Request& request, const Space& space, const std::vector<std::string>& preferences) {
  Scene s;
  s.request = &request;
  s.vm = &*std::ranges::find(request.vms, space.vm, &VirtualMachine::name);
  s.memory = s.held = space.memory;
  s.allowed = space.allowed;
  s.backing = space.backing;
  s.attached = indices_of(request.host, attached_devices(space));
  std::vector<std::string> ghosts;
  for (const PromisedDevice& p : space.promised) ghosts.push_back(p.device);
  s.ghosts = indices_of(request.host, ghosts);
  s.mediated = !space.mediated.empty();
  s.kvm_non_coherent = kvm_non_coherent(request.host, space);
  s.needed = static_cast<std::uint8_t>(needs_of(*s.vm, Need::required) | adopted_of(*s.vm, preferences));
  return s;
}

std::vector<Placed> placed_in(const Scene& scene, const Space& space) {
  std::vector<Placed> hwpts;
  for (const RunningHwpt& h : space.hwpts) {
    const DeviceIndex allocator = scene.host().find_device(h.allocator).value();
    Placed placed{allocate(scene.host(), allocator, h.flags).value(), indices_of(scene.host(), h.devices), {}};
    for (const PromisedDevice& p : space.promised) {
      if (p.hwpt == h.id) placed.ghosts.push_back(scene.host().find_device(p.device).value());
    }
    std::ranges::sort(placed.ghosts);
    hwpts.push_back(std::move(placed));
  }
  return hwpts;
}

Lines vm_faults(const Scene& s) {
  Lines faults;
  const bool required = s.request->policy.coherency == CoherencyPolicy::required;
  for (DeviceIndex d : both(s.attached, s.ghosts)) {
    const Device& device = s.host().device(d);
    add_all(faults, usable_refusals(s.host(), device, *s.vm, s.request->policy));
    for (DeviceIndex member : group_of(s.host(), d)) add_all(faults, group_refusals(s.host(), s.host().device(member)));
    check_regions(s, d, faults);
    if ((s.needed & kPasid) != 0 && !can_attach_pasid(s.host(), device)) faults.push_back("pasid: " + device.id);
  }
  if (s.mediated && required) faults.push_back("policy requires coherency: mediated device");
  if (s.mediated && !aligned(s.held, page_size(s.host())))
    faults.push_back("memory is not aligned for a mediated device");
  return faults;
}

Lines hwpt_faults(const Scene& s, const Placed& hwpt) {
  Lines faults;
  if (!can_hold(s.host(), hwpt.table, s.held)) faults.push_back("fit: the HWPT cannot hold the memory");
  for (const Range& a : s.allowed) {
    if (!hwpt.table.aperture.contains(a)) faults.push_back("fit: allowed IOVA outside the aperture");
  }
  if ((s.needed & ~hwpt.table.flags) != 0) faults.push_back("needs: the HWPT lacks a flag");
  for (DeviceIndex d : both(hwpt.devices, hwpt.ghosts)) {
    for (DeviceIndex member : group_of(s.host(), d)) {
      if (!attaches(s.host(), hwpt.table, s.host().device(member)))
        faults.push_back("attach: " + s.host().device(member).id);
    }
    check_placement(s, hwpt.table, d, faults);
  }
  for (const PolicyRule& rule : s.request->policy.rules) check_separate(s, rule, hwpt, faults);
  return faults;
}

Lines cross_faults(const Scene& s, const std::vector<Placed>& hwpts) {
  Lines faults;
  check_structure(s, hwpts, faults);
  for (const Placed& h : hwpts) {
    if (h.table.driver == Driver::smmuv2 && h.devices.empty())
      faults.push_back("structure: an automatic HWPT is empty");
  }
  for (const PolicyRule& rule : s.request->policy.rules) {
    const auto* together = std::get_if<TogetherRule>(&rule.what);
    const auto* limit = std::get_if<LimitRule>(&rule.what);
    if (together != nullptr && spread(chosen_of(s, together->which, both(s.attached, s.ghosts)), hwpts) > 1) {
      faults.push_back(rule.name + ": not together");
    }
    if (limit != nullptr && hwpts.size() > limit->hwpts) faults.push_back(rule.name + ": too many HWPTs");
  }
  return faults;
}

Lines pool_faults(const Host& host, const std::vector<Placed>& hwpts) {
  std::map<std::string, std::uint64_t> drawn, capacity;
  for (const Placed& h : hwpts) {
    std::set<std::string> mine;  // one id of each pool
    for (DeviceIndex d : both(h.devices, h.ghosts)) {
      for (DeviceIndex member : group_of(host, d)) {
        const auto pool = pool_of(host, *host.device(member).unit, h.table.stage);
        if (!pool) continue;
        mine.insert(pool->key);
        const auto [at, is_new] = capacity.emplace(pool->key, pool->capacity);
        if (!is_new) at->second = std::min(at->second, pool->capacity);
      }
    }
    for (const std::string& key : mine) ++drawn[key];
  }
  Lines faults;
  for (const auto& [key, count] : drawn) {
    if (count > capacity.at(key)) faults.push_back("ids: " + key + " is overdrawn");
  }
  return faults;
}

ObjectiveValues cost_of(const Scene& s, const Placed& hwpt) {
  ObjectiveValues cost;
  cost[Objective::hwpts] = 1;
  for (DeviceIndex d : hwpt.devices) {
    if (!hwpt.table.enforces && can_enforce(s.host(), s.host().device(d))) ++cost[Objective::coherency];
  }
  cost[Objective::page_tables] = page_table_bytes(hwpt.table, s.memory, s.backing);
  std::uint8_t needed = s.needed;
  for (const PolicyRule& rule : s.request->policy.rules) {
    const auto* require = std::get_if<RequireRule>(&rule.what);
    if (require == nullptr) continue;
    if (!chosen_of(s, require->which, both(s.attached, s.ghosts)).empty()) needed |= flags_of(*require);
  }
  cost[Objective::unneeded_flags] =
      static_cast<std::uint64_t>(std::popcount(static_cast<unsigned>(hwpt.table.flags & ~needed)));
  return cost;
}

ObjectiveValues sum(ObjectiveValues a, const ObjectiveValues& b) {
  for (std::size_t i = 0; i < a.by_objective.size(); ++i) a.by_objective[i] += b.by_objective[i];
  return a;
}

bool less_cost(const ObjectiveValues& a, const ObjectiveValues& b, const Policy& policy) {
  for (Objective o : policy.objectives) {
    if (a[o] != b[o]) return a[o] < b[o];
  }
  return false;
}

Features features_of(const Host& host, const Space& space) {
  Features f;
  for (const RunningHwpt& h : space.hwpts) {
    const Table t = allocate(host, host.find_device(h.allocator).value(), h.flags).value();
    const bool first = &h == &space.hwpts.front();
    const bool dirty = (t.flags & kDirtyTracking) != 0;
    f.page_sizes = first ? t.page_sizes : f.page_sizes & t.page_sizes;
    f.address_bits = first ? t.address_bits : std::min(f.address_bits, t.address_bits);
    f.granule = std::max(f.granule, lowest_bit(t.page_sizes));
    f.dirty_tracking = first ? dirty : f.dirty_tracking && dirty;
  }
  return f;
}

}  // namespace ioplan::oracle
