#include "engine/solve/problem.h"

#include <algorithm>
#include <bit>
#include <map>
#include <numeric>
#include <unordered_map>
#include <unordered_set>

#include "engine/base/log2.h"
#include "engine/model/plan.h"

namespace ioplan {

bool kept_apart(const Side& a, const Side& b) { return (a.a != 0 && b.b != 0) || (a.b != 0 && b.a != 0); }

// Two distinct devices, one of each side.
bool torn_apart(const Side& s) { return s.a != 0 && s.b != 0 && !(s.a == 1 && s.b == 1 && s.both == 1); }

namespace {

template <class T>
void sort_unique(std::vector<T>& v) {
  std::ranges::sort(v);
  v.erase(std::ranges::unique(v).begin(), v.end());
}

bool any_of_labels(const std::vector<std::string>& wanted, const std::vector<std::string>& labels) {
  return std::ranges::any_of(wanted, [&](const auto& w) { return std::ranges::find(labels, w) != labels.end(); });
}

bool fact_chosen(const std::vector<std::uint64_t>& wanted, const std::optional<std::uint64_t>& fact) {
  return wanted.empty() || (fact && std::ranges::find(wanted, *fact) != wanted.end());
}

// The operator's demands on one device, from all `require` rules that choose it.
struct Demands {
  std::uint64_t page = 0;
  bool dirty_tracking = false, nest_parent = false, pasid = false, cache_coherency = false;
};

class Builder {
 public:
  Builder(const Request& request, VmIndex vm, const Needs& needs, const Law& law)
      : request_(request), host_(request.host), vm_(request.vms[vm.index()]), needs_(needs), law_(law) {
    problem_.vm = vm;
  }

  Problem build() {
    problem_.memory = reachable_ = memory_of(vm_, host_);
    if (vm_.expected_memory) reachable_.push_back({*vm_.expected_memory, Access::read_write});
    std::ranges::sort(reachable_);
    all_enforceable_ = !vm_.retains_noncoherent;
    problem_.backing = vm_.memory.backing.value_or(4096);
    describe_vm();
    collect_policy();
    collect_groups();
    describe_members();
    problem_.quantities[VmQ::all_enforceable] = all_enforceable_;
    problem_.items = bind_items(problem_, problem_.bindings);
    return std::move(problem_);
  }

 private:
  void describe_vm() {
    VmQuantities& q = problem_.quantities;
    std::uint64_t alignment = 0;
    for (const MemoryRange& m : reachable_) {
      alignment |= m.gpa.start | (m.gpa.last + 1);
      q[VmQ::read_only_memory] |= m.access == Access::read_only;
    }
    if (!reachable_.empty()) {
      q[VmQ::memory_first] = reachable_.front().gpa.start;
      q[VmQ::memory_last] = reachable_.back().gpa.last;
    }
    q[VmQ::memory_alignment] = alignment == 0 ? pow2(63) : lowest_bit(alignment);
    q[VmQ::needs_dirty_tracking] = needs_.dirty_tracking == Need::required;
    q[VmQ::needs_nest_parent] = needs_.nest_parent == Need::required;
    q[VmQ::needs_pasid] = needs_.pasid == Need::required;
    q[VmQ::page_size] = host_.kernel.facts[KernelFact::page_size].value_or(4096);
    q[VmQ::guest_cache_maintenance] = vm_.guest_cache_maintenance;
    q[VmQ::coherency] = static_cast<std::uint64_t>(request_.policy.coherency);
    q[VmQ::assumed_coherency] = request_.policy.assumed_coherency == Permission::allow;
    problem_.needed_flags = static_cast<std::uint8_t>((q[VmQ::needs_dirty_tracking] != 0 ? kDirtyTracking : 0) |
                                                      (q[VmQ::needs_nest_parent] != 0 ? kNestParent : 0) |
                                                      (q[VmQ::needs_pasid] != 0 ? kPasid : 0));
  }

  void collect_policy() {
    for (const PolicyRule& rule : request_.policy.rules) {
      if (const auto* separate = std::get_if<SeparateRule>(&rule.what)) {
        separate_.push_back(separate);
        problem_.separate_rules.push_back(rule.name);
      } else if (const auto* require = std::get_if<RequireRule>(&rule.what)) {
        require_.push_back(require);
      } else if (const auto* limit = std::get_if<LimitRule>(&rule.what)) {
        problem_.max_hwpts = std::min(problem_.max_hwpts, limit->hwpts);
      }
    }
  }

  // Groups in the order of their lowest assigned device, which is the order of vm_.devices.
  void collect_groups() {
    for (const AssignedDevice& assigned : vm_.devices) {
      if (!assigned.host) {
        all_enforceable_ = false;  // a mediated device makes KVM non-coherent
        continue;
      }
      const std::uint32_t number = host_.device(*assigned.host).group.value();
      const auto [it, fresh] = group_of_.try_emplace(number, static_cast<std::uint32_t>(problem_.groups.size()));
      if (fresh) problem_.groups.emplace_back().sides.resize(separate_.size());
      problem_.groups[it->second].assigned.push_back(*assigned.host);
      if (assigned.expected) expected_.insert(assigned.host->value);
      choose(assigned, problem_.groups[it->second]);
    }
    bind_by_policy();
  }

  void choose(const AssignedDevice& assigned, ProblemGroup& group) {
    for (std::size_t r = 0; r < separate_.size(); ++r) {
      const bool a = chosen(separate_[r]->a, host_, vm_, assigned);
      const bool b = chosen(separate_[r]->b, host_, vm_, assigned);
      group.sides[r].a += a;
      group.sides[r].b += b;
      group.sides[r].both += a && b;
    }
    Demands demands;
    for (const RequireRule* rule : require_) {
      if (!chosen(rule->which, host_, vm_, assigned)) continue;
      demands.page = std::max(demands.page, rule->page_size);
      demands.dirty_tracking |= rule->dirty_tracking;
      demands.nest_parent |= rule->nest_parent;
      demands.pasid |= rule->pasid;
      demands.cache_coherency |= rule->enforce_cache_coherency;
      problem_.needed_flags |= static_cast<std::uint8_t>((rule->dirty_tracking ? kDirtyTracking : 0) |
                                                         (rule->nest_parent ? kNestParent : 0) |
                                                         (rule->pasid ? kPasid : 0));
    }
    if (!require_.empty()) demands_[assigned.host->value] = demands;
  }

  void bind_by_policy() {
    for (const PolicyRule& rule : request_.policy.rules) {
      const auto* together = std::get_if<TogetherRule>(&rule.what);
      if (together == nullptr) continue;
      Binding binding{"policy.together", rule.name, {}};
      for (const AssignedDevice& assigned : vm_.devices) {
        if (assigned.host && chosen(together->which, host_, vm_, assigned)) {
          binding.groups.push_back(group_of_.at(host_.device(*assigned.host).group.value()));
        }
      }
      sort_unique(binding.groups);
      if (binding.groups.size() > 1) problem_.bindings.push_back(std::move(binding));
    }
  }

  // One pass over the host: every member of the VM's groups finds its class.
  void describe_members() {
    std::map<UnitIndex, std::vector<std::uint32_t>> automatic;
    for (std::size_t i = 0; i < host_.devices.size(); ++i) {
      const Device& device = host_.devices[i];
      if (!device.group) continue;
      const auto it = group_of_.find(*device.group);
      if (it == group_of_.end()) continue;
      ProblemGroup& group = problem_.groups[it->second];
      const DeviceIndex index(i);
      const bool assigned = std::ranges::binary_search(group.assigned, index);
      const std::uint32_t cls = class_of(index, assigned);
      group.member_classes.push_back(cls);
      const UnitIndex unit = device.unit.value();
      group.units.push_back(unit);
      if (law_.automatic_only(host_.unit(unit).driver)) automatic[unit].push_back(it->second);
      if (!assigned) continue;
      group.assigned_classes.push_back(cls);
      if (expected_.contains(index.value)) continue;  // it allocates nothing, and counts for nothing yet
      problem_.classes[cls].assigned.push_back(index);
      const bool enforces = problem_.classes[cls].quantities[DeviceQ::enforce_cache_coherency] != 0;
      group.enforceable += enforces;
      all_enforceable_ = all_enforceable_ && enforces;
    }
    for (ProblemGroup& group : problem_.groups) {
      sort_unique(group.member_classes);
      sort_unique(group.assigned_classes);
      sort_unique(group.units);
    }
    for (auto& [unit, groups] : automatic) {
      sort_unique(groups);
      if (groups.size() > 1) problem_.bindings.push_back({"core.automatic", host_.unit(unit).id, groups});
    }
  }

  // Everything that can tell two devices apart for the law, in two words; the law is asked once for each key.
  struct Key {
    std::uint64_t facts, vm;
    friend bool operator==(const Key&, const Key&) = default;
  };
  struct KeyHash {
    std::size_t operator()(const Key& k) const { return k.facts * 0x9e3779b97f4a7c15 ^ (k.vm + (k.facts >> 29)); }
  };

  struct Regions {
    bool direct = false, mixed_msi = false, over_memory = false;
  };

  Regions regions_of(DeviceIndex index, bool assigned) {
    Regions found;
    unsigned msi = 0, software = 0;
    for (const ReservedRegion& r : regions(index)) {
      found.direct |= r.type == ReservedType::direct;
      msi += r.type == ReservedType::msi;
      software += r.type == ReservedType::sw_msi;
      if (!(assigned || whole_groups_) || r.type == ReservedType::direct_relaxable) continue;
      found.over_memory |= std::ranges::any_of(reachable_, [&](const auto& m) { return m.gpa.overlaps(r.range); });
    }
    found.mixed_msi = software > 1 || (software == 1 && msi != 0);
    return found;
  }

  const std::vector<ReservedRegion>& regions(DeviceIndex index) {
    const Device& device = host_.device(index);
    if (device.reserved) return *device.reserved;
    const auto [it, fresh] = own_regions_.try_emplace(device.unit->value);
    if (fresh) it->second = law_.own_regions(host_, index);
    return it->second;
  }

  static std::uint64_t pack(const std::optional<std::uint64_t>& fact) {
    return fact ? *fact << 1 | 1 : 0;
  }

  std::uint32_t class_of(DeviceIndex index, bool assigned) {
    const Device& d = host_.device(index);
    const Regions regions = regions_of(index, assigned);
    Key key{d.unit->value, 0};
    const auto add = [](std::uint64_t& word, unsigned bits, std::uint64_t v) { word = word << bits | v; };
    add(key.facts, 2, pack(d.facts[DeviceFact::dma_coherent]));
    add(key.facts, 3, d.dma_coherent_source ? static_cast<std::uint64_t>(*d.dma_coherent_source) + 1 : 0);
    add(key.facts, 2, pack(d.facts[DeviceFact::canwbs]));
    add(key.facts, 2, pack(d.facts[DeviceFact::isolated_msi]));
    add(key.facts, 2, pack(d.facts[DeviceFact::no_dirty]));
    add(key.facts, 6, pack(d.facts[DeviceFact::pasid_bits]));
    Demands demands;
    if (const auto it = demands_.find(index.value); it != demands_.end()) demands = it->second;
    key.vm = static_cast<std::uint64_t>(std::bit_width(demands.page));
    for (const bool b : {demands.dirty_tracking, demands.nest_parent, demands.pasid, demands.cache_coherency,
                         regions.direct, regions.mixed_msi, regions.over_memory}) {
      add(key.vm, 1, b);
    }
    const auto [it, fresh] = class_by_key_.try_emplace(key, 0);
    if (fresh) it->second = describe(index, regions, demands);
    return it->second;
  }

  std::uint32_t describe(DeviceIndex index, const Regions& regions, const Demands& demands) {
    DeviceQuantities q = law_.describe(host_, index);
    q[DeviceQ::direct_region] = regions.direct;
    q[DeviceQ::mixed_msi_windows] = regions.mixed_msi;
    q[DeviceQ::region_over_memory] = regions.over_memory;
    q[DeviceQ::required_page] = demands.page;
    q[DeviceQ::required_dirty_tracking] = demands.dirty_tracking;
    q[DeviceQ::required_nest_parent] = demands.nest_parent;
    q[DeviceQ::required_pasid] = demands.pasid;
    q[DeviceQ::required_cache_coherency] = demands.cache_coherency;
    const auto [it, fresh] = class_by_quantities_.try_emplace(q, static_cast<std::uint32_t>(problem_.classes.size()));
    if (fresh) problem_.classes.push_back({q, {}, index});
    return it->second;
  }

  const Request& request_;
  const Host& host_;
  const VirtualMachine& vm_;
  const Needs& needs_;
  const Law& law_;
  const bool whole_groups_ = law_.interface() == KernelInterface::type1;  // regions of all members count
  Problem problem_;
  bool all_enforceable_ = true;
  std::vector<MemoryRange> reachable_;           // what is mapped, and what may be
  std::unordered_set<std::uint32_t> expected_;   // device indices
  std::vector<const SeparateRule*> separate_;
  std::vector<const RequireRule*> require_;
  std::unordered_map<std::uint32_t, std::uint32_t> group_of_;     // kernel group number -> Problem::groups
  std::unordered_map<std::uint32_t, Demands> demands_;            // by device index
  std::unordered_map<std::uint32_t, std::vector<ReservedRegion>> own_regions_;  // by unit index
  std::unordered_map<Key, std::uint32_t, KeyHash> class_by_key_;
  std::map<DeviceQuantities, std::uint32_t> class_by_quantities_;
};

void absorb(Item& item, const ProblemGroup& group) {
  item.assigned.insert(item.assigned.end(), group.assigned.begin(), group.assigned.end());
  item.assigned_classes.insert(item.assigned_classes.end(), group.assigned_classes.begin(), group.assigned_classes.end());
  item.member_classes.insert(item.member_classes.end(), group.member_classes.begin(), group.member_classes.end());
  item.sides.resize(group.sides.size());
  for (std::size_t r = 0; r < group.sides.size(); ++r) {
    item.sides[r].a += group.sides[r].a;
    item.sides[r].b += group.sides[r].b;
    item.sides[r].both += group.sides[r].both;
  }
  item.enforceable += group.enforceable;
  item.units.insert(item.units.end(), group.units.begin(), group.units.end());
}

}  // namespace

bool chosen(const Selector& s, const Host& host, const VirtualMachine&, const AssignedDevice& assigned) {
  if (!assigned.host) return false;
  const Device& d = host.device(*assigned.host);
  const auto is = [](const std::vector<std::string>& wanted, const std::string& value) {
    return std::ranges::find(wanted, value) != wanted.end();
  };
  if (!s.host.empty() && !is(s.host, d.id)) return false;
  if (!s.name.empty() && !is(s.name, assigned.name) && !is(s.name, d.name)) return false;
  if (!s.label.empty() && !any_of_labels(s.label, assigned.labels) && !any_of_labels(s.label, d.labels)) return false;
  if (!fact_chosen(s.vendor, d.facts[DeviceFact::vendor])) return false;
  if (!fact_chosen(s.device, d.facts[DeviceFact::device])) return false;
  if (!fact_chosen(s.numa, d.facts[DeviceFact::numa])) return false;
  const auto& cls = d.facts[DeviceFact::device_class];
  return s.device_class.empty() ||
         (cls && std::ranges::any_of(s.device_class, [&](const auto& m) { return (*cls & m.mask) == m.code; }));
}

std::vector<MemoryRange> memory_of(const VirtualMachine& vm, const Host& host) {
  if (!vm.memory.size) return vm.memory.ranges;
  const Arch arch = arch_of(host);
  const MachineType stock = arch == Arch::x86_64  ? MachineType::q35
                            : arch == Arch::s390x ? MachineType::s390
                                                  : MachineType::virt;
  const MachineType type = vm.machine.type.value_or(stock);
  return machine_layout(type, vm.machine.cpu_vendor.value_or(CpuVendor::intel), *vm.memory.size,
                        vm.machine.pci_hole64_size.value_or(default_pci_hole64_size(type)), vm.hotplug.memory);
}

std::vector<ReservedRegion> reserved_by(const Host& host, DeviceIndex index, const Law& law) {
  std::vector<ReservedRegion> regions =
      host.device(index).reserved ? *host.device(index).reserved : law.own_regions(host, index);
  std::erase_if(regions, [](const ReservedRegion& r) { return r.type == ReservedType::direct_relaxable; });
  return regions;
}

std::vector<Item> bind_items(const Problem& problem, const std::vector<Binding>& bindings) {
  std::vector<std::uint32_t> root(problem.groups.size());
  std::iota(root.begin(), root.end(), 0U);
  const auto find = [&](std::uint32_t g) {
    while (root[g] != g) g = root[g] = root[root[g]];
    return g;
  };
  for (const Binding& binding : bindings) {
    for (std::uint32_t g : binding.groups) {
      const std::uint32_t a = find(binding.groups[0]);
      const std::uint32_t b = find(g);
      root[std::max(a, b)] = std::min(a, b);
    }
  }
  std::vector<Item> items;
  std::vector<std::uint32_t> item_of(problem.groups.size(), ~0U);
  for (std::uint32_t g = 0; g < problem.groups.size(); ++g) {
    const std::uint32_t r = find(g);
    if (item_of[r] == ~0U) {
      item_of[r] = static_cast<std::uint32_t>(items.size());
      items.emplace_back();
    }
    Item& item = items[item_of[r]];
    item.groups.push_back(g);
    absorb(item, problem.groups[g]);
  }
  for (Item& item : items) {
    if (item.groups.size() == 1) continue;
    std::ranges::sort(item.assigned);
    sort_unique(item.assigned_classes);
    sort_unique(item.member_classes);
    sort_unique(item.units);
  }
  return items;
}

Problem make_problem(const Request& request, VmIndex vm, const Needs& needs, const Law& law) {
  return Builder(request, vm, needs, law).build();
}

}  // namespace ioplan
