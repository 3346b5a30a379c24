#include "engine/check/scene.h"

#include <algorithm>

#include "engine/check/tables.h"

namespace ioplan::check {

Statutes::Statutes(const Law& law) {
  for (const Rule* rule : law.rules()) by_phase_[static_cast<std::size_t>(rule->phase)].push_back(rule);
}

const Rule* Statutes::broken(Phase phase, const Values& values) const {
  for (const Rule* rule : by_phase_[static_cast<std::size_t>(phase)]) {
    if (!holds(*rule, values)) return rule;
  }
  return nullptr;
}

const Rule* Statutes::broken_in_linux(Phase phase, const Values& values) const {
  const auto& rules = by_phase_[static_cast<std::size_t>(phase)];
  const auto it = std::find_if(rules.begin(), rules.end(), [&](const Rule* r) { return !r->strict && !holds(*r, values); });
  return it == rules.end() ? nullptr : *it;
}

bool Statutes::known(std::string_view name) const {
  return std::any_of(by_phase_.begin(), by_phase_.end(), [&](const auto& rules) {
    return std::any_of(rules.begin(), rules.end(), [&](const Rule* rule) { return rule->name == name; });
  });
}

bool Scene::assigns(std::size_t device) const {
  const auto index = [](const AssignedDevice* e) { return e->host->index(); };
  const auto it = std::ranges::lower_bound(entries, device, {}, index);
  return it != entries.end() && index(*it) == device;
}

bool Scene::expects(std::size_t device) const {
  return std::any_of(entries.begin(), entries.end(),
                     [&](const AssignedDevice* e) { return e->expected && e->host->index() == device; });
}

const Scene* World::scene(std::string_view vm) const {
  const auto it = std::find_if(scenes.begin(), scenes.end(), [&](const Scene& s) { return s.vm->name == vm; });
  return it == scenes.end() ? nullptr : &*it;
}

Adopted adopted_by(const VirtualMachine& vm, const std::vector<std::string>& preferences) {
  Adopted adopted;
  for (std::size_t i = 0; i < kNeedKeys.size(); ++i) {
    const std::string name = vm.name + "." + std::string(kNeedKeys[i]);
    adopted.need[i] = std::find(preferences.begin(), preferences.end(), name) != preferences.end();
  }
  return adopted;
}

MachineType machine_type(const Request& request, const VirtualMachine& vm) {
  if (vm.machine.type) return *vm.machine.type;
  switch (arch_of(request.host)) {
    case Arch::x86_64:
      return MachineType::q35;
    case Arch::s390x:
      return MachineType::s390;
    case Arch::aarch64:
    case Arch::riscv64:
      break;
  }
  return MachineType::virt;
}

std::vector<MemoryRange> memory_of(const Request& request, const VirtualMachine& vm) {
  if (!vm.memory.size) return vm.memory.ranges;
  const MachineType type = machine_type(request, vm);
  const std::uint64_t hole = vm.machine.pci_hole64_size.value_or(default_pci_hole64_size(type));
  return machine_layout(type, vm.machine.cpu_vendor.value_or(CpuVendor::intel), *vm.memory.size, hole,
                        vm.hotplug.memory);
}

std::vector<ReservedRegion> binding_regions(const World& world, std::size_t device) {
  const Device& d = world.host().devices[device];
  std::vector<ReservedRegion> regions =
      d.reserved ? *d.reserved : world.law.own_regions(world.host(), DeviceIndex(device));
  std::erase_if(regions, [](const ReservedRegion& r) { return r.type == ReservedType::direct_relaxable; });
  return regions;
}

namespace {

template <class T, class U>
bool asks_for(const std::vector<T>& wanted, const U& value) {
  return wanted.empty() || std::find(wanted.begin(), wanted.end(), value) != wanted.end();
}

bool asks_for(const std::vector<std::uint64_t>& wanted, const std::optional<std::uint64_t>& fact) {
  return wanted.empty() || (fact && std::find(wanted.begin(), wanted.end(), *fact) != wanted.end());
}

bool asks_for_class(const std::vector<Selector::ClassMatch>& wanted, const std::optional<std::uint64_t>& fact) {
  const auto matches = [&](const Selector::ClassMatch& m) { return fact && (*fact & m.mask) == (m.code & m.mask); };
  return wanted.empty() || std::any_of(wanted.begin(), wanted.end(), matches);
}

bool asks_for_label(const std::vector<std::string>& wanted, const Device& d, const AssignedDevice& entry) {
  const auto has = [](const std::vector<std::string>& labels, const std::string& l) {
    return std::find(labels.begin(), labels.end(), l) != labels.end();
  };
  return wanted.empty() || std::any_of(wanted.begin(), wanted.end(),
                                       [&](const std::string& l) { return has(entry.labels, l) || has(d.labels, l); });
}

bool asks_for_name(const std::vector<std::string>& wanted, const Device& d, const AssignedDevice& entry) {
  return wanted.empty() || std::any_of(wanted.begin(), wanted.end(), [&](const std::string& n) {
           return (!entry.name.empty() && n == entry.name) || (!d.name.empty() && n == d.name);
         });
}

}  // namespace

bool selects(const Selector& s, const Host& host, const AssignedDevice& entry) {
  if (!entry.host) return false;
  const Device& d = host.device(*entry.host);
  return asks_for(s.host, d.id) && asks_for_name(s.name, d, entry) && asks_for_label(s.label, d, entry) &&
         asks_for(s.vendor, d.facts[DeviceFact::vendor]) && asks_for(s.device, d.facts[DeviceFact::device]) &&
         asks_for(s.numa, d.facts[DeviceFact::numa]) &&
         asks_for_class(s.device_class, d.facts[DeviceFact::device_class]);
}

std::vector<std::size_t> selected(const World& world, const Scene& scene, const Selector& selector) {
  std::vector<std::size_t> chosen;
  for (const AssignedDevice* entry : scene.entries) {
    if (selects(selector, world.host(), *entry)) chosen.push_back(entry->host->index());
  }
  return chosen;
}

namespace {

void read_memory(const World& world, Scene& scene) {
  scene.memory = memory_of(world.request, *scene.vm);
  scene.backing = scene.vm->memory.backing.value_or(4096);
  scene.reach = scene.memory;
  if (scene.vm->expected_memory) scene.reach.push_back({*scene.vm->expected_memory, Access::read_write});
  std::sort(scene.reach.begin(), scene.reach.end());
}

// Groups of the assigned devices; a device without a group number stands alone.
void read_items(const World& world, Scene& scene, const std::map<std::uint32_t, std::vector<std::size_t>>& groups) {
  std::map<std::uint32_t, std::size_t> seen;
  for (const AssignedDevice* entry : scene.entries) {
    const std::size_t device = entry->host->index();
    const auto group = world.host().devices[device].group;
    if (group && seen.contains(*group)) {
      scene.items[seen[*group]].assigned.push_back(device);
      continue;
    }
    if (group) seen[*group] = scene.items.size();
    scene.items.push_back({{device}, group ? groups.at(*group) : std::vector<std::size_t>{device}});
  }
}

bool lies_over(const std::vector<ReservedRegion>& regions, const std::vector<MemoryRange>& memory) {
  for (const ReservedRegion& r : regions) {
    for (const MemoryRange& m : memory) {
      if (r.range.start <= m.gpa.last && m.gpa.start <= r.range.last) return true;
    }
  }
  return false;
}

// KR 2.5: a hardware window beside a software one, or two software ones.
bool mixes_msi_windows(const std::vector<ReservedRegion>& regions) {
  const auto count = [&](ReservedType type) {
    return std::count_if(regions.begin(), regions.end(), [&](const ReservedRegion& r) { return r.type == type; });
  };
  const auto software = count(ReservedType::sw_msi);
  return software > 1 || (software == 1 && count(ReservedType::msi) > 0);
}

bool has_direct(const std::vector<ReservedRegion>& regions) {
  return std::any_of(regions.begin(), regions.end(),
                     [](const ReservedRegion& r) { return r.type == ReservedType::direct; });
}

DeviceQuantities quantities_of(const World& world, const Scene& scene, std::size_t device) {
  DeviceQuantities q = world.law.describe(world.host(), DeviceIndex(device));
  const std::vector<ReservedRegion> regions = binding_regions(world, device);
  q[DeviceQ::direct_region] = has_direct(regions);
  q[DeviceQ::mixed_msi_windows] = mixes_msi_windows(regions);
  q[DeviceQ::region_over_memory] = lies_over(regions, scene.reach);
  return q;
}

void read_requirements(const World& world, Scene& scene) {
  for (const PolicyRule& rule : world.request.policy.rules) {
    const auto* require = std::get_if<RequireRule>(&rule.what);
    if (require == nullptr) continue;
    for (std::size_t device : selected(world, scene, require->which)) {
      DeviceQuantities& q = scene.quantities[device];
      q[DeviceQ::required_page] = std::max(q[DeviceQ::required_page], require->page_size);
      q[DeviceQ::required_dirty_tracking] |= require->dirty_tracking ? 1U : 0U;
      q[DeviceQ::required_nest_parent] |= require->nest_parent ? 1U : 0U;
      q[DeviceQ::required_pasid] |= require->pasid ? 1U : 0U;
      q[DeviceQ::required_cache_coherency] |= require->enforce_cache_coherency ? 1U : 0U;
    }
  }
}

bool all_enforceable(const Scene& scene) {
  return scene.mediated.empty() && std::all_of(scene.entries.begin(), scene.entries.end(), [&](const auto* e) {
           return e->expected || scene.quantities.at(e->host->index())[DeviceQ::enforce_cache_coherency] == 1;
         });
}

std::uint64_t lowest_set_bit(std::uint64_t v) { return v & (~v + 1); }

void read_memory_quantities(const World& world, Scene& scene) {
  std::uint64_t boundaries = 0;
  for (const MemoryRange& m : scene.reach) {
    boundaries |= m.gpa.start | (m.gpa.last - m.gpa.start + 1);
    if (m.access == Access::read_only) scene.asks[VmQ::read_only_memory] = 1;
  }
  scene.asks[VmQ::memory_first] = scene.reach.empty() ? 0 : scene.reach.front().gpa.start;
  scene.asks[VmQ::memory_last] = scene.reach.empty() ? 0 : scene.reach.back().gpa.last;
  scene.asks[VmQ::memory_alignment] = boundaries == 0 ? std::uint64_t{1} << 63 : lowest_set_bit(boundaries);
  scene.asks[VmQ::page_size] = world.kernel_page();
}

void read_asks(const World& world, Scene& scene, const Adopted& adopted) {
  const Needs& needs = scene.vm->needs;
  const auto wanted = [&](Need need, std::size_t i) {
    return need == Need::required || (need == Need::preferred && adopted.need[i]);
  };
  read_memory_quantities(world, scene);
  scene.asks[VmQ::needs_dirty_tracking] = wanted(needs.dirty_tracking, 0);
  scene.asks[VmQ::needs_nest_parent] = wanted(needs.nest_parent, 1);
  scene.asks[VmQ::needs_pasid] = wanted(needs.pasid, 2);
  scene.asks[VmQ::guest_cache_maintenance] = scene.vm->guest_cache_maintenance;
  scene.asks[VmQ::coherency] = static_cast<std::uint64_t>(world.request.policy.coherency);
  scene.asks[VmQ::all_enforceable] = all_enforceable(scene);
  scene.asks[VmQ::assumed_coherency] = world.request.policy.assumed_coherency == Permission::allow;
}

std::map<std::uint32_t, std::vector<std::size_t>> groups_of(const Host& host) {
  std::map<std::uint32_t, std::vector<std::size_t>> groups;
  for (std::size_t i = 0; i < host.devices.size(); ++i) {
    if (host.devices[i].group) groups[*host.devices[i].group].push_back(i);
  }
  return groups;
}

}  // namespace

World::World(const Request& complete, const Law& law_, const std::vector<std::string>& preferences)
    : request(complete), law(law_), statutes(law_) {
  const auto groups = groups_of(complete.host);
  for (const VirtualMachine& vm : complete.vms) {
    Scene& s = scenes.emplace_back();
    s.vm = &vm;
    for (const AssignedDevice& entry : vm.devices) {
      if (entry.host)
        s.entries.push_back(&entry);
      else
        s.mediated.push_back(entry.mdev);
    }
    read_memory(*this, s);
    read_items(*this, s, groups);
    for (const Item& item : s.items) {
      for (std::size_t device : item.members) s.quantities.emplace(device, quantities_of(*this, s, device));
    }
    read_requirements(*this, s);
    read_asks(*this, s, adopted_by(vm, preferences));
  }
}

std::uint64_t page_table_bytes(const Scene& scene, const HwptQuantities& hwpt) {
  return table_bytes({static_cast<PageTableFormat>(hwpt[HwptQ::format]), static_cast<unsigned>(hwpt[HwptQ::stage]),
                      static_cast<unsigned>(hwpt[HwptQ::levels]), static_cast<unsigned>(hwpt[HwptQ::address_bits]),
                      hwpt[HwptQ::page_sizes]},
                     scene.memory, scene.backing);
}

}  // namespace ioplan::check
