#include "tests/support/replay.h"

#include <algorithm>
#include <bit>
#include <optional>
#include <set>
#include <tuple>

#include "engine/document/plan_document.h"
#include "engine/model/features.h"

namespace ioplan::replay {

namespace {

using Faults = std::vector<std::string>;

// ------------------------------------------------------------------------------------------------- page tables

struct Format {
  std::vector<unsigned> entry_lg2;   // of level 1, 2, ...
  std::vector<std::uint64_t> bytes;  // of one table of level 1, 2, ...
};

Format format_of(const PlannedHwpt& h) {
  Format f;
  unsigned granule = 12;
  unsigned bits = 9;
  if (h.format == PageTableFormat::mock) granule = 11;
  if (h.format == PageTableFormat::arm_lpae) {
    granule = static_cast<unsigned>(std::countr_zero(h.page_sizes));
    bits = granule - 3;
  }
  for (unsigned level = 0; level < 8; ++level) {
    f.entry_lg2.push_back(granule + bits * level);
    f.bytes.push_back(std::uint64_t{8} << bits);
  }
  if (h.format == PageTableFormat::s390) {
    f.entry_lg2 = {12, 20, 31, 42, 53, 64, 75, 86};
    f.bytes = {2048, 16384, 16384, 16384, 16384, 16384, 16384, 16384};
  }
  return f;
}

std::uint64_t shifted(std::uint64_t v, unsigned by) { return by >= 64 ? 0 : v >> by; }

// The leaf over `address`: the largest aligned one that lies inside the range. Its log2.
unsigned leaf_over(std::uint64_t address, const Range& range, std::uint64_t sizes, std::uint64_t backing) {
  for (unsigned lg2 = 63; lg2 > 0; --lg2) {
    const std::uint64_t size = std::uint64_t{1} << lg2;
    if ((sizes & size) == 0 || size > backing) continue;
    const std::uint64_t start = address / size * size;
    if (start >= range.start && start + (size - 1) >= start && start + (size - 1) <= range.last) return lg2;
  }
  return static_cast<unsigned>(std::countr_zero(sizes));
}

class TreeWalk {
 public:
  TreeWalk(const PlannedHwpt& h, const std::vector<MemoryRange>& memory, std::uint64_t backing)
      : hwpt_(h), memory_(memory), backing_(backing), format_(format_of(h)), levels_(h.levels) {
    const bool grows = h.format == PageTableFormat::amdv1 || h.format == PageTableFormat::mock;
    while (grows && shifted(memory.back().gpa.last, format_.entry_lg2[levels_]) != 0) ++levels_;
  }

  std::uint64_t bytes() const {
    const unsigned reach = format_.entry_lg2[levels_];
    const bool several = hwpt_.format == PageTableFormat::arm_lpae && hwpt_.address_bits > reach;
    const std::uint64_t roots = several ? std::uint64_t{1} << (hwpt_.address_bits - reach) : 1;
    std::uint64_t sum = roots * format_.bytes[levels_ - 1];
    for (std::uint64_t root = 0; root < roots; ++root) sum += below(levels_, several ? root << reach : 0);
    return sum;
  }

 private:
  // Tables under the table of this level whose first address is `base`.
  std::uint64_t below(unsigned level, std::uint64_t base) const {
    if (level == 1) return 0;
    const unsigned entry = format_.entry_lg2[level - 1];
    const std::uint64_t table_last = end_of(base, format_.entry_lg2[level]);
    std::uint64_t sum = 0;
    std::optional<std::uint64_t> done;  // the last slot looked at: two ranges may meet in one slot
    for (const MemoryRange& m : memory_) {
      if (m.gpa.last < base || m.gpa.start > table_last) continue;
      const std::uint64_t first = shifted(std::max(m.gpa.start, base), entry);
      const std::uint64_t last = shifted(std::min(m.gpa.last, table_last), entry);
      for (std::uint64_t slot = first; slot <= last; ++slot) {
        if (done && slot <= *done) continue;
        if (!needs_table(slot << entry, entry, level - 1)) continue;  // another range may still need it
        done = slot;
        sum += format_.bytes[level - 2] + below(level - 1, slot << entry);
      }
    }
    return sum;
  }

  static std::uint64_t end_of(std::uint64_t base, unsigned lg2) {
    return lg2 >= 64 ? ~std::uint64_t{0} : base + ((std::uint64_t{1} << lg2) - 1);
  }

  // Does some leaf inside the slot live in a table of `level` or lower? Leaves are looked up at the edges of each
  // range's part of the slot: if the part is one leaf that lives above, so are its edges.
  bool needs_table(std::uint64_t base, unsigned slot_lg2, unsigned level) const {
    const std::uint64_t last = end_of(base, slot_lg2);
    return std::any_of(memory_.begin(), memory_.end(), [&](const MemoryRange& m) {
      if (m.gpa.last < base || m.gpa.start > last) return false;
      const std::uint64_t low = std::max(m.gpa.start, base);
      const std::uint64_t high = std::min(m.gpa.last, last);
      return home(leaf_over(low, m.gpa, hwpt_.page_sizes, backing_)) <= level ||
             home(leaf_over(high, m.gpa, hwpt_.page_sizes, backing_)) <= level;
    });
  }

  unsigned home(unsigned leaf_lg2) const {
    unsigned level = levels_;
    while (level > 1 && format_.entry_lg2[level - 1] > leaf_lg2) --level;
    return level;
  }

  const PlannedHwpt& hwpt_;
  const std::vector<MemoryRange>& memory_;
  std::uint64_t backing_;
  Format format_;
  unsigned levels_;
};

// ------------------------------------------------------------------------------------------------- the request, read

const VirtualMachine* vm_named(const Request& r, const std::string& name) {
  for (const VirtualMachine& vm : r.vms) {
    if (vm.name == name) return &vm;
  }
  return nullptr;
}

const VirtualMachine* vm_of_device(const Request& r, const std::string& id) {
  for (const VirtualMachine& vm : r.vms) {
    for (const AssignedDevice& d : vm.devices) {
      if ((d.host && r.host.device(*d.host).id == id) || (!d.host && d.mdev == id)) return &vm;
    }
  }
  return nullptr;
}

bool is_mdev(const Request& r, const std::string& id) {
  const VirtualMachine* vm = vm_of_device(r, id);
  return vm != nullptr && !r.host.find_device(id);
}

MachineType machine_of(const Request& r, const VirtualMachine& vm) {
  const Arch arch = arch_of(r.host);
  const MachineType stock = arch == Arch::x86_64  ? MachineType::q35
                            : arch == Arch::s390x ? MachineType::s390
                                                  : MachineType::virt;
  return vm.machine.type.value_or(stock);
}

std::vector<MemoryRange> memory_of(const Request& r, const VirtualMachine& vm) {
  if (!vm.memory.size) return vm.memory.ranges;
  const MachineType type = machine_of(r, vm);
  return machine_layout(type, vm.machine.cpu_vendor.value_or(CpuVendor::intel), *vm.memory.size,
                        vm.machine.pci_hole64_size.value_or(default_pci_hole64_size(type)), vm.hotplug.memory);
}

std::uint64_t page_of(const Request& r) { return r.host.kernel.facts[KernelFact::page_size].value_or(4096); }

std::vector<ReservedRegion> regions_of(const Request& r, const Law& law, DeviceIndex d) {
  std::vector<ReservedRegion> result;
  for (const ReservedRegion& region :
       r.host.device(d).reserved ? *r.host.device(d).reserved : law.own_regions(r.host, d)) {
    if (region.type != ReservedType::direct_relaxable) result.push_back(region);
  }
  return result;
}

std::vector<DeviceIndex> group_of(const Request& r, DeviceIndex d) {
  std::vector<DeviceIndex> members;
  for (std::size_t i = 0; i < r.host.devices.size(); ++i) {
    const bool same = r.host.device(d).group && r.host.devices[i].group == r.host.device(d).group;
    if (same || i == d.index()) members.emplace_back(i);
  }
  return members;
}

bool chosen(const Selector& s, const Request& r, const AssignedDevice& a) {
  if (!a.host) return false;
  const Device& d = r.host.device(*a.host);
  const auto one_of = [](const auto& list, const auto& value) {
    return list.empty() || std::find(list.begin(), list.end(), value) != list.end();
  };
  const auto fact = [&](DeviceFact f) { return d.facts[f].value_or(~std::uint64_t{0}); };
  bool ok = one_of(s.host, d.id) && one_of(s.vendor, fact(DeviceFact::vendor)) &&
            one_of(s.device, fact(DeviceFact::device)) && one_of(s.numa, fact(DeviceFact::numa));
  if (!s.name.empty())
    ok = ok && ((!a.name.empty() && one_of(s.name, a.name)) || (!d.name.empty() && one_of(s.name, d.name)));
  if (!s.label.empty()) {
    bool any = false;
    for (const std::string& l : a.labels) any = any || one_of(s.label, l);
    for (const std::string& l : d.labels) any = any || one_of(s.label, l);
    ok = ok && any;
  }
  if (!s.device_class.empty()) {
    bool any = false;
    for (const auto& m : s.device_class) any = any || (fact(DeviceFact::device_class) & m.mask) == (m.code & m.mask);
    ok = ok && any;
  }
  return ok;
}

bool needs(const VirtualMachine& vm, const Plan& plan, Need need, const std::string& key) {
  const auto& p = plan.preferences;
  return need == Need::required ||
         (need == Need::preferred && std::find(p.begin(), p.end(), vm.name + "." + key) != p.end());
}

DeviceQuantities quantities(const Request& r, const Law& law, const VirtualMachine& vm, DeviceIndex d) {
  DeviceQuantities q = law.describe(r.host, d);
  int software = 0;
  int hardware = 0;
  for (const ReservedRegion& region : regions_of(r, law, d)) {
    if (region.type == ReservedType::direct) q[DeviceQ::direct_region] = 1;
    software += region.type == ReservedType::sw_msi ? 1 : 0;
    hardware += region.type == ReservedType::msi ? 1 : 0;
    for (const MemoryRange& m : memory_of(r, vm)) {
      if (m.gpa.overlaps(region.range)) q[DeviceQ::region_over_memory] = 1;
    }
  }
  q[DeviceQ::mixed_msi_windows] = software > 1 || (software > 0 && hardware > 0);
  for (const AssignedDevice& a : vm.devices) {
    if (a.host != d) continue;
    for (const PolicyRule& rule : r.policy.rules) {
      const auto* want = std::get_if<RequireRule>(&rule.what);
      if (want == nullptr || !chosen(want->which, r, a)) continue;
      if (want->page_size > q[DeviceQ::required_page]) q[DeviceQ::required_page] = want->page_size;
      if (want->dirty_tracking) q[DeviceQ::required_dirty_tracking] = 1;
      if (want->nest_parent) q[DeviceQ::required_nest_parent] = 1;
      if (want->pasid) q[DeviceQ::required_pasid] = 1;
      if (want->enforce_cache_coherency) q[DeviceQ::required_cache_coherency] = 1;
    }
  }
  return q;
}

VmQuantities quantities(const Request& r, const Law& law, const Plan& plan, const VirtualMachine& vm) {
  VmQuantities q;
  const auto memory = memory_of(r, vm);
  q[VmQ::memory_first] = memory.front().gpa.start;
  q[VmQ::memory_last] = memory.back().gpa.last;
  std::uint64_t all = 0;
  for (const MemoryRange& m : memory) {
    all |= m.gpa.start | (m.gpa.last + 1);
    q[VmQ::read_only_memory] |= m.access == Access::read_only ? 1U : 0U;
  }
  q[VmQ::memory_alignment] = std::uint64_t{1} << std::countr_zero(all);
  q[VmQ::page_size] = page_of(r);
  q[VmQ::needs_dirty_tracking] = needs(vm, plan, vm.needs.dirty_tracking, "dirty_tracking");
  q[VmQ::needs_nest_parent] = needs(vm, plan, vm.needs.nest_parent, "nest_parent");
  q[VmQ::needs_pasid] = needs(vm, plan, vm.needs.pasid, "pasid");
  q[VmQ::guest_cache_maintenance] = vm.guest_cache_maintenance;
  q[VmQ::coherency] = static_cast<std::uint64_t>(r.policy.coherency);
  q[VmQ::all_enforceable] = 1;
  for (const AssignedDevice& a : vm.devices) {
    if (!a.host || law.describe(r.host, *a.host)[DeviceQ::enforce_cache_coherency] == 0) q[VmQ::all_enforceable] = 0;
  }
  q[VmQ::assumed_coherency] = r.policy.assumed_coherency == Permission::allow;
  return q;
}

// ------------------------------------------------------------------------------------------------- a little iommufd

struct LittleHwpt {
  std::string ioas, allocator;
  unsigned flags = 0;
  bool automatic = false;
  HwptQuantities made;
  std::set<std::string> devices;
};

struct LittleIoas {
  int allowed = 0;
  std::vector<Range> allowed_ranges;
  std::vector<MemoryRange> areas;
  std::set<std::string> mediated;
};

// Takes the steps one by one; `error` is the first refusal.
class LittleIommufd {
 public:
  LittleIommufd(const Request& r, const Law& law, const Plan& plan) : r_(r), law_(law), plan_(plan) {
    for (const Step& s : plan.steps) {
      if (error.empty()) take(s);
    }
  }

  std::string error;
  std::map<std::string, LittleIoas> ioas;
  std::map<std::string, LittleHwpt> hwpts;
  std::set<std::string> bound, attached;

 private:
  void refuse(const std::string& why) { error = why; }

  void take(const Step& s) {
    switch (s.kind) {
      case StepKind::bind:
        return bind(s);
      case StepKind::ioas_alloc:
        if (!ioas.try_emplace(s.ioas).second) refuse("IOAS id in use");
        return;
      case StepKind::allow_iovas:
        return allow(s);
      case StepKind::hwpt_alloc:
        return alloc(s);
      case StepKind::attach:
        return attach(s);
      case StepKind::attach_ioas:
        return attach_ioas(s);
      case StepKind::map:
        return map(s);
      default:
        return refuse("a step of running layouts");
    }
  }

  void bind(const Step& s) {
    if (vm_of_device(r_, s.device) == nullptr) return refuse("bind of a device of no VM");
    if (!bound.insert(s.device).second) return refuse("bound twice");
    if (is_mdev(r_, s.device)) return;
    const VirtualMachine& vm = *vm_of_device(r_, s.device);
    const DeviceIndex d = *r_.host.find_device(s.device);
    const VmQuantities v = quantities(r_, law_, plan_, vm);
    obey(Phase::usable, quantities(r_, law_, vm, d), v);
    for (DeviceIndex member : group_of(r_, d)) obey(Phase::group, quantities(r_, law_, vm, member), v);
  }

  void obey(Phase phase, const DeviceQuantities& q, const VmQuantities& v) {
    for (const Rule* rule : law_.rules()) {
      if (rule->phase == phase && !holds(*rule, {nullptr, &q, &v})) refuse(std::string(rule->name));
    }
  }

  void allow(const Step& s) {
    if (!ioas.contains(s.ioas)) return refuse("no such IOAS");
    LittleIoas& space = ioas[s.ioas];
    if (++space.allowed > 1 || !space.areas.empty()) return refuse("allowed ranges come once, before maps");
    for (std::size_t i = 0; i < s.ranges.size(); ++i) {
      if (s.ranges[i].start >= s.ranges[i].last) return refuse("empty allowed range");
      if (i > 0 && s.ranges[i - 1].last >= s.ranges[i].start) return refuse("allowed ranges in disorder");
    }
    space.allowed_ranges = s.ranges;
  }

  void alloc(const Step& s) {
    if (!ioas.contains(s.ioas)) return refuse("no such IOAS");
    if (!bound.contains(s.device) || is_mdev(r_, s.device)) return refuse("no such device");
    const VirtualMachine& vm = *vm_of_device(r_, s.device);
    const DeviceQuantities q = quantities(r_, law_, vm, *r_.host.find_device(s.device));
    const VmQuantities v = quantities(r_, law_, plan_, vm);
    if (s.flags >= kHwptFlagSets) return refuse("unknown flags");
    if (law_.automatic_only(static_cast<Driver>(q[DeviceQ::driver]))) return refuse("no HWPT_ALLOC there");
    LittleHwpt h{s.ioas, s.device, s.flags, false, law_.allocate(q, s.flags), {}};
    for (const Rule* rule : law_.rules()) {
      const bool asked = rule->phase == Phase::allocation || rule->phase == Phase::fit;
      if (asked && !holds(*rule, {&h.made, &q, &v})) return refuse(std::string(rule->name));
    }
    if (!hwpts.emplace(s.hwpt, h).second) refuse("HWPT id in use");
  }

  bool takes(const LittleHwpt& h, const std::string& device) {
    const VirtualMachine& vm = *vm_of_device(r_, device);
    const VmQuantities v = quantities(r_, law_, plan_, vm);
    const DeviceIndex d = *r_.host.find_device(device);
    for (DeviceIndex member : group_of(r_, d)) {
      const DeviceQuantities q = quantities(r_, law_, vm, member);
      const bool assigned = vm_of_device(r_, r_.host.device(member).id) == &vm;
      for (const Rule* rule : law_.rules()) {
        const bool asked = rule->phase == Phase::attach || (rule->phase == Phase::placement && assigned);
        if (asked && !holds(*rule, {&h.made, &q, &v})) return false;
      }
      for (const auto& [id, other] : hwpts) {  // a group sits in one HWPT
        if (&other != &h && other.devices.contains(r_.host.device(member).id)) return false;
      }
    }
    return true;
  }

  void attach(const Step& s) {
    if (!hwpts.contains(s.hwpt) || hwpts[s.hwpt].automatic) return refuse("no such HWPT");
    if (!bound.contains(s.device) || is_mdev(r_, s.device)) return refuse("not bound");
    if (!attached.insert(s.device).second) return refuse("attached twice");
    if (!takes(hwpts[s.hwpt], s.device)) return refuse("EINVAL");
    hwpts[s.hwpt].devices.insert(s.device);
  }

  void attach_ioas(const Step& s) {
    if (!ioas.contains(s.ioas)) return refuse("no such IOAS");
    if (!bound.contains(s.device)) return refuse("not bound");
    if (!attached.insert(s.device).second) return refuse("attached twice");
    if (is_mdev(r_, s.device)) {
      ioas[s.ioas].mediated.insert(s.device);
      for (const MemoryRange& m : memory_of(r_, *vm_of_device(r_, s.device))) {
        if (m.gpa.start % page_of(r_) != 0 || (m.gpa.last + 1) % page_of(r_) != 0) return refuse("EADDRINUSE");
      }
      return s.hwpt.empty() ? void() : refuse("a mediated device has no HWPT");
    }
    const DeviceQuantities q = quantities(r_, law_, *vm_of_device(r_, s.device), *r_.host.find_device(s.device));
    if (!law_.automatic_only(static_cast<Driver>(q[DeviceQ::driver]))) return refuse("would make an unplanned HWPT");
    // The kernel takes the first automatic HWPT of the IOAS that fits, or makes one.
    for (auto& [id, h] : hwpts) {
      if (!h.automatic || h.ioas != s.ioas || !takes(h, s.device)) continue;
      h.devices.insert(s.device);
      return id == s.hwpt ? void() : refuse("lands in another automatic HWPT");
    }
    LittleHwpt h{s.ioas, s.device, 0, true, law_.allocate(q, 0), {s.device}};
    if (!takes(h, s.device)) return refuse("EINVAL");
    if (!hwpts.emplace(s.hwpt, h).second) refuse("HWPT id in use");
  }

  void map(const Step& s) {
    if (!ioas.contains(s.ioas)) return refuse("no such IOAS");
    LittleIoas& space = ioas[s.ioas];
    if (space.allowed != 1) return refuse("mapped before ranges are allowed");
    for (const MemoryRange& area : space.areas) {
      if (area.gpa.overlaps(s.iova)) return refuse("EEXIST");
    }
    bool allowed = false;
    for (const Range& range : space.allowed_ranges) allowed = allowed || range.contains(s.iova);
    if (!allowed) {  // may be spread over several allowed ranges that touch
      std::uint64_t next = s.iova.start;
      for (const Range& range : space.allowed_ranges) {
        if (range.start <= next && next <= range.last) {
          if (range.last >= s.iova.last) allowed = true;
          next = range.last + 1;
        }
      }
    }
    if (!allowed) return refuse("outside the allowed ranges");
    space.areas.push_back({s.iova, s.writeable ? Access::read_write : Access::read_only});
  }

  const Request& r_;
  const Law& law_;
  const Plan& plan_;
};

// ------------------------------------------------------------------------------------------------- deriving

// Usable addresses, by asking one address between any two boundaries.
std::vector<Range> usable(const std::vector<Range>& forbidden) {
  std::set<std::uint64_t> starts = {0};
  for (const Range& f : forbidden) {
    starts.insert(f.start);
    if (f.last != ~std::uint64_t{0}) starts.insert(f.last + 1);
  }
  std::vector<Range> result;
  for (auto it = starts.begin(); it != starts.end(); ++it) {
    const auto next = std::next(it);
    const Range piece{*it, next == starts.end() ? ~std::uint64_t{0} : *next - 1};
    const bool bad = std::any_of(forbidden.begin(), forbidden.end(), [&](const Range& f) { return f.overlaps(piece); });
    if (bad) continue;
    if (!result.empty() && result.back().last + 1 == piece.start) {
      result.back().last = piece.last;
    } else {
      result.push_back(piece);
    }
  }
  return result;
}

// The same set as a sorted list of ranges that do not touch: what is not usable when all else is.
std::vector<Range> joined(const std::vector<Range>& ranges) { return usable(usable(ranges)); }

void derive_ioas(const Request& r, const Law& law, const Plan& plan, PlannedIoas& ioas) {
  const VirtualMachine& vm = *vm_named(r, ioas.vm);
  std::map<ReservedType, std::vector<Range>> by_type;
  std::vector<Range> forbidden;
  ioas.alignment = 1;
  for (const AssignedDevice& a : vm.devices) {
    if (!a.host) ioas.alignment = page_of(r);
  }
  for (const PlannedHwpt& h : plan.hwpts) {
    if (h.ioas != ioas.id) continue;
    if (h.page_sizes != 0) {
      ioas.alignment = std::max(ioas.alignment, std::uint64_t{1} << std::countr_zero(h.page_sizes));
    }
    if (h.aperture.start > 0) forbidden.push_back({0, h.aperture.start - 1});
    if (h.aperture.last < ~std::uint64_t{0}) forbidden.push_back({h.aperture.last + 1, ~std::uint64_t{0}});
    for (const std::string& id : h.devices) {
      for (const ReservedRegion& region : regions_of(r, law, *r.host.find_device(id))) {
        by_type[region.type].push_back(region.range);
        forbidden.push_back(region.range);
      }
    }
  }
  ioas.ranges = usable(forbidden);
  ioas.reserved.clear();
  for (const auto& [type, ranges] : by_type) {
    for (const Range& range : joined(ranges)) ioas.reserved.push_back({range, type});
  }
  std::sort(ioas.reserved.begin(), ioas.reserved.end());
  ioas.memory = memory_of(r, vm);
  ioas.backing = vm.memory.backing.value_or(4096);
}

void derive_hwpt(const Request& r, const Law& law, PlannedHwpt& h, const std::string& vm_name) {
  const VirtualMachine& vm = *vm_named(r, vm_name);
  const DeviceQuantities q = quantities(r, law, vm, *r.host.find_device(h.allocator));
  const HwptQuantities made = law.allocate(q, h.flags);
  h.kind = (h.flags & kNestParent) != 0 ? HwptKind::nest_parent : HwptKind::paging;
  h.driver = static_cast<Driver>(made[HwptQ::driver]);
  h.stage = static_cast<unsigned>(made[HwptQ::stage]);
  h.format = static_cast<PageTableFormat>(made[HwptQ::format]);
  h.levels = static_cast<unsigned>(made[HwptQ::levels]);
  h.address_bits = static_cast<unsigned>(made[HwptQ::address_bits]);
  h.aperture = {made[HwptQ::aperture_start], made[HwptQ::aperture_last]};
  h.page_sizes = made[HwptQ::page_sizes];
  h.enforce_cache_coherency = made[HwptQ::enforce_cache_coherency] != 0;
  h.automatic = law.automatic_only(h.driver);
  h.page_table_bytes = count_table_bytes(h, memory_of(r, vm), vm.memory.backing.value_or(4096));
}

// Flags that the VM or a rule for one of its devices asks for.
unsigned needed_flags(const Request& r, const Law& law, const Plan& plan, const VirtualMachine& vm) {
  unsigned flags = 0;
  if (needs(vm, plan, vm.needs.dirty_tracking, "dirty_tracking")) flags |= 1U;
  if (needs(vm, plan, vm.needs.nest_parent, "nest_parent")) flags |= 2U;
  if (needs(vm, plan, vm.needs.pasid, "pasid")) flags |= 4U;
  for (const AssignedDevice& a : vm.devices) {
    if (!a.host) continue;
    const DeviceQuantities q = quantities(r, law, vm, *a.host);
    if (q[DeviceQ::required_dirty_tracking] != 0) flags |= 1U;
    if (q[DeviceQ::required_nest_parent] != 0) flags |= 2U;
    if (q[DeviceQ::required_pasid] != 0) flags |= 4U;
  }
  return flags;
}

void derive_numbers(const Request& r, const Law& law, Plan& plan) {
  plan.kvm = {};
  plan.resources = {};
  plan.objectives = {};
  std::vector<std::string> mdevs;
  for (const VirtualMachine& vm : r.vms) {
    bool hosts = false;
    for (const MemoryRange& m : memory_of(r, vm)) plan.resources.pinned_bytes += m.gpa.last - m.gpa.start + 1;
    for (const AssignedDevice& a : vm.devices) {
      hosts = hosts || a.host.has_value();
      if (!a.host) mdevs.push_back(a.mdev);
    }
    plan.resources.memlock_bytes += hosts ? std::uint64_t{1} << 30 : 0;
  }
  for (const Device& d : r.host.devices) {
    if (vm_of_device(r, d.id) == nullptr) continue;
    if (law.describe(r.host, *r.host.find_device(d.id))[DeviceQ::enforce_cache_coherency] == 0) {
      plan.kvm.because.push_back(d.id);
    }
  }
  std::sort(mdevs.begin(), mdevs.end());
  plan.kvm.because.insert(plan.kvm.because.end(), mdevs.begin(), mdevs.end());
  plan.kvm.noncoherent_dma = !plan.kvm.because.empty();
  plan.resources.memlock_bytes += plan.resources.pinned_bytes;
  plan.objectives[Objective::ioas] = plan.ioas.size();
  plan.objectives[Objective::hwpts] = plan.hwpts.size();
  for (const PlannedHwpt& h : plan.hwpts) {
    plan.resources.page_table_bytes += h.page_table_bytes;
    plan.objectives[Objective::page_tables] += h.page_table_bytes;
    unsigned needless = h.flags & ~needed_flags(r, law, plan, *vm_of_device(r, h.devices.front()));
    for (const std::string& id : h.devices) {
      const auto q = law.describe(r.host, *r.host.find_device(id));
      if (q[DeviceQ::enforce_cache_coherency] != 0 && !h.enforce_cache_coherency)
        ++plan.objectives[Objective::coherency];
    }
    plan.objectives[Objective::unneeded_flags] += static_cast<std::uint64_t>(std::popcount(needless));
  }
  plan.optimality.hwpts = plan.hwpts.size();
}

Step step(StepKind kind, const std::string& device, const std::string& ioas, const std::string& hwpt = {}) {
  Step s;
  s.kind = kind;
  s.device = device;
  s.ioas = ioas;
  s.hwpt = hwpt;
  return s;
}

void derive_ioas_steps(const Request& r, const PlannedIoas& ioas, std::vector<Step>& steps) {
  steps.push_back(step(StepKind::ioas_alloc, {}, ioas.id));
  steps.push_back(step(StepKind::allow_iovas, {}, ioas.id));
  for (const MemoryRange& m : ioas.memory) steps.back().ranges.push_back(m.gpa);
  for (const AssignedDevice& a : vm_named(r, ioas.vm)->devices) {
    const std::string id = a.host ? r.host.device(*a.host).id : a.mdev;
    steps.push_back(step(StepKind::bind, id, {}));
    if (!a.host) steps.push_back(step(StepKind::attach_ioas, id, ioas.id));
  }
}

void derive_hwpt_steps(const PlannedHwpt& h, std::vector<Step>& steps) {
  if (!h.automatic) {
    steps.push_back(step(StepKind::hwpt_alloc, h.allocator, h.ioas, h.id));
    steps.back().flags = h.flags;
  }
  for (const std::string& id : h.devices) {
    steps.push_back(h.automatic ? step(StepKind::attach_ioas, id, h.ioas, h.id) : step(StepKind::attach, id, {}, h.id));
  }
}

void derive_steps(const Request& r, Plan& plan) {
  plan.steps.clear();
  for (const PlannedIoas& ioas : plan.ioas) derive_ioas_steps(r, ioas, plan.steps);
  for (const PlannedHwpt& h : plan.hwpts) derive_hwpt_steps(h, plan.steps);
  for (const PlannedIoas& ioas : plan.ioas) {
    for (const MemoryRange& m : ioas.memory) {
      plan.steps.push_back(step(StepKind::map, {}, ioas.id));
      plan.steps.back().iova = m.gpa;
      plan.steps.back().writeable = m.access == Access::read_write;
    }
  }
}

// Do the decisions refer to things that exist, so that the rest can be derived?
Faults dangling(const Request& r, const Plan& plan) {
  Faults faults;
  std::map<std::string, std::string> vm_of_ioas;
  std::set<std::string> vms;
  for (const PlannedIoas& ioas : plan.ioas) {
    if (vm_named(r, ioas.vm) == nullptr || !vms.insert(ioas.vm).second)
      faults.push_back("IOAS of no VM, or two of one");
    if (!vm_of_ioas.emplace(ioas.id, ioas.vm).second) faults.push_back("two IOASes of one id");
  }
  if (vms.size() != r.vms.size()) faults.push_back("a VM without an IOAS");
  std::set<std::string> ids, placed;
  for (const PlannedHwpt& h : plan.hwpts) {
    if (!ids.insert(h.id).second) faults.push_back("two HWPTs of one id");
    if (!vm_of_ioas.contains(h.ioas)) {
      faults.push_back("HWPT in no IOAS");
      continue;
    }
    std::vector<std::string> all = h.devices;
    all.push_back(h.allocator);
    for (const std::string& id : all) {
      const VirtualMachine* vm = vm_of_device(r, id);
      if (vm == nullptr || is_mdev(r, id) || vm->name != vm_of_ioas[h.ioas]) faults.push_back("foreign device " + id);
    }
    for (std::size_t i = 0; i < h.devices.size(); ++i) {
      if (!placed.insert(h.devices[i]).second) faults.push_back("placed twice");
      if (i > 0 && faults.empty() && !(*r.host.find_device(h.devices[i - 1]) < *r.host.find_device(h.devices[i]))) {
        faults.push_back("devices out of order");
      }
    }
    if (h.devices.empty() || h.flags >= kHwptFlagSets) faults.push_back("no devices, or no such flags");
  }
  return faults;
}

// ------------------------------------------------------------------------------------------------- the operator's
// rules

std::vector<std::string> chosen_ids(const Request& r, const VirtualMachine& vm, const Selector& s) {
  std::vector<std::string> ids;
  for (const AssignedDevice& a : vm.devices) {
    if (chosen(s, r, a)) ids.push_back(r.host.device(*a.host).id);
  }
  return ids;
}

std::string home_of(const Plan& plan, const std::string& device) {
  for (const PlannedHwpt& h : plan.hwpts) {
    if (std::find(h.devices.begin(), h.devices.end(), device) != h.devices.end()) return h.id;
  }
  return "nowhere " + device;
}

void check_rules(const Request& r, const Plan& plan, Faults& faults) {
  for (const VirtualMachine& vm : r.vms) {
    std::set<std::string> homes;
    for (const std::string& id : chosen_ids(r, vm, {})) homes.insert(home_of(plan, id));
    for (const PolicyRule& rule : r.policy.rules) {
      if (const auto* s = std::get_if<SeparateRule>(&rule.what)) {
        for (const std::string& a : chosen_ids(r, vm, s->a)) {
          for (const std::string& b : chosen_ids(r, vm, s->b)) {
            if (a != b && home_of(plan, a) == home_of(plan, b)) faults.push_back("not separate: " + a + " " + b);
          }
        }
      }
      if (const auto* t = std::get_if<TogetherRule>(&rule.what)) {
        std::set<std::string> together;
        for (const std::string& id : chosen_ids(r, vm, t->which)) together.insert(home_of(plan, id));
        if (together.size() > 1) faults.push_back("not together");
      }
      if (const auto* l = std::get_if<LimitRule>(&rule.what); l != nullptr && homes.size() > l->hwpts) {
        faults.push_back("over the limit");
      }
    }
    const bool mediated = std::any_of(vm.devices.begin(), vm.devices.end(), [](const auto& a) { return !a.host; });
    if (mediated && r.policy.coherency == CoherencyPolicy::required) faults.push_back("mediated and required");
    for (const auto& [one, other] : vm.needs.p2p) {
      for (const std::string& name : {one, other}) {
        const auto named = [&](const AssignedDevice& a) {
          return a.host && (a.name == name || r.host.device(*a.host).id == name || r.host.device(*a.host).name == name);
        };
        if (std::none_of(vm.devices.begin(), vm.devices.end(), named)) faults.push_back("no peer " + name);
      }
      const std::string release = r.host.kernel.release.value_or("7.2.13");
      if (std::stod(release) < 6.0 || release.starts_with("6.1.") || release.starts_with("6.12"))
        faults.push_back("no p2p");
    }
  }
  if (r.policy.assumptions == Permission::refuse && !plan.assumptions.empty()) faults.push_back("assumptions refused");
}

void check_domain_ids(const Request& r, const Law& law, const Plan& plan, Faults& faults) {
  std::map<std::uint64_t, std::pair<std::uint64_t, std::uint64_t>> pools;  // drawn, left
  for (const PlannedHwpt& h : plan.hwpts) {
    std::set<std::uint64_t> mine;
    for (const std::string& id : h.devices) {
      for (DeviceIndex member : group_of(r, *r.host.find_device(id))) {
        const auto pool = law.domain_pool(r.host, *r.host.device(member).unit, h.stage);
        if (!pool) continue;
        const auto [it, fresh] = pools.try_emplace(pool->key, 0, pool->capacity);
        it->second.second = std::min(it->second.second, pool->capacity);
        if (mine.insert(pool->key).second) ++it->second.first;
      }
    }
  }
  for (const auto& [key, pool] : pools) {
    if (pool.first > pool.second) faults.push_back("out of domain ids");
  }
}

void check_preferences(const Request& r, const Plan& plan, Faults& faults) {
  std::set<std::string> known;
  for (const VirtualMachine& vm : r.vms) {
    if (vm.needs.dirty_tracking == Need::preferred) known.insert(vm.name + ".dirty_tracking");
    if (vm.needs.nest_parent == Need::preferred) known.insert(vm.name + ".nest_parent");
    if (vm.needs.pasid == Need::preferred) known.insert(vm.name + ".pasid");
  }
  for (const std::string& p : plan.preferences) {
    if (known.erase(p) == 0) faults.push_back("no such preference, or twice");
  }
}

// The end of the steps must be the plan.
void check_world(const Plan& plan, const LittleIommufd& world, Faults& faults) {
  if (!world.error.empty()) {
    faults.push_back("steps: " + world.error);
    return;
  }
  if (world.ioas.size() != plan.ioas.size() || world.hwpts.size() != plan.hwpts.size()) {
    faults.push_back("steps make other objects");
  }
  for (const PlannedHwpt& h : plan.hwpts) {
    const auto it = world.hwpts.find(h.id);
    const std::set<std::string> devices(h.devices.begin(), h.devices.end());
    if (it == world.hwpts.end() || it->second.devices != devices || it->second.ioas != h.ioas ||
        it->second.flags != h.flags || it->second.automatic != h.automatic ||
        (!h.automatic && it->second.allocator != h.allocator) || (h.automatic && !devices.contains(h.allocator))) {
      faults.push_back("steps make another " + h.id);
    }
  }
  for (const PlannedIoas& ioas : plan.ioas) {
    const auto it = world.ioas.find(ioas.id);
    if (it == world.ioas.end() || it->second.allowed != 1) {
      faults.push_back("steps do not prepare " + ioas.id);
      continue;
    }
    auto areas = it->second.areas;
    std::sort(areas.begin(), areas.end());
    if (areas != ioas.memory) faults.push_back("steps map something else in " + ioas.id);
    for (const Range& allowed : it->second.allowed_ranges) {
      const auto inside = [&](const Range& u) { return u.contains(allowed); };
      if (std::none_of(ioas.ranges.begin(), ioas.ranges.end(), inside)) faults.push_back("allowed is not usable");
    }
  }
}

void check_mediated(const Request& r, const Plan& plan, const LittleIommufd& world, Faults& faults) {
  for (const PlannedIoas& ioas : plan.ioas) {
    std::set<std::string> mediated;
    for (const AssignedDevice& a : vm_named(r, ioas.vm)->devices) {
      if (!a.host) mediated.insert(a.mdev);
    }
    const auto it = world.ioas.find(ioas.id);
    if (it != world.ioas.end() && it->second.mediated != mediated) faults.push_back("mediated devices are elsewhere");
  }
}

void check_everyone_placed(const Request& r, const Plan& plan, Faults& faults) {
  for (const VirtualMachine& vm : r.vms) {
    for (const std::string& id : chosen_ids(r, vm, {})) {
      if (home_of(plan, id).starts_with("nowhere")) faults.push_back("not placed: " + id);
    }
  }
}

// The kernel's isolated MSI is of no use where every device of the VMs and their groups states its own.
bool every_device_tells_its_msi(const Request& r) {
  for (const VirtualMachine& vm : r.vms) {
    for (const AssignedDevice& a : vm.devices) {
      if (!a.host) continue;
      for (DeviceIndex member : group_of(r, *a.host)) {
        const Device& d = r.host.device(member);
        const bool mock = d.unit && r.host.unit(*d.unit).driver == Driver::mock;
        if (!mock && !d.facts[DeviceFact::isolated_msi]) return false;
      }
    }
  }
  return true;
}

// Listed as it should be or not at all.
std::vector<Assumption> without_msi(std::vector<Assumption> list) {
  const Assumption msi{"kernel.isolated_msi", "true", {}};
  const auto it = std::find(list.begin(), list.end(), msi);
  if (it != list.end()) list.erase(it);
  return list;
}

std::string document_without_steps(Plan plan) {
  plan.steps.clear();
  return to_json(plan);
}

}  // namespace

std::uint64_t count_table_bytes(const PlannedHwpt& hwpt, const std::vector<MemoryRange>& memory,
                                std::uint64_t backing) {
  if (hwpt.levels == 0 || hwpt.page_sizes == 0) return 0;
  using Key = std::tuple<PageTableFormat, unsigned, unsigned, std::uint64_t, std::vector<MemoryRange>, std::uint64_t>;
  static std::map<Key, std::uint64_t> counted;  // walking a terabyte takes a while
  const Key key{hwpt.format, hwpt.levels, hwpt.address_bits, hwpt.page_sizes, memory, backing};
  const auto [it, fresh] = counted.try_emplace(key, 0);
  if (fresh) it->second = TreeWalk(hwpt, memory, backing).bytes();
  return it->second;
}

Replay::Replay(const Request& request, const Law& law, const Plan& truth)
    : request_(request), law_(law), truth_(truth) {
  for (VirtualMachine& vm : request_.vms) vm.machine.type = machine_of(request_, vm);  // the oracle wants it stated
  best_ = oracle::judge(request_);
}

bool Replay::exclusive(const std::string& a, const std::string& b) const {
  const auto key = std::minmax(a, b);
  const auto [it, fresh] = exclusive_.try_emplace({key.first, key.second}, false);
  if (fresh) it->second = oracle::exclusive(request_, a, b);
  return it->second;
}

Plan Replay::derived(Plan plan) const {
  std::map<std::string, std::string> vm_of_ioas;
  for (const PlannedIoas& ioas : plan.ioas) vm_of_ioas[ioas.id] = ioas.vm;
  for (PlannedHwpt& h : plan.hwpts) derive_hwpt(request_, law_, h, vm_of_ioas[h.ioas]);
  for (PlannedIoas& ioas : plan.ioas) derive_ioas(request_, law_, plan, ioas);
  derive_numbers(request_, law_, plan);
  derive_steps(request_, plan);
  plan.frozen = features_of(plan);
  return plan;
}

void Replay::check_proof(const Plan& plan, Faults& faults) const {
  const Optimality& o = plan.optimality;
  const bool first = std::find_if(request_.policy.objectives.begin(), request_.policy.objectives.end(),
                                  [](Objective x) { return x != Objective::ioas; })[0] == Objective::hwpts;
  if (o.lower_bound > o.hwpts) faults.push_back("bound above the number");
  if ((o.proof == ProofKind::smt) != !o.smt2.empty()) faults.push_back("smt2 without smt");
  if (o.proof == ProofKind::witness) {
    if (o.witness.size() != o.lower_bound) faults.push_back("as many witnesses as the bound");
    for (const std::string& w : o.witness) {
      const VirtualMachine* vm = vm_of_device(request_, w);
      if (vm == nullptr || is_mdev(request_, w)) {
        faults.push_back("no such witness");
        return;
      }
      for (DeviceIndex member : group_of(request_, *request_.host.find_device(w))) {
        const std::string& id = request_.host.device(member).id;
        if (member < *request_.host.find_device(w) && vm_of_device(request_, id) == vm)
          faults.push_back("not the lowest");
      }
    }
    for (std::size_t i = 0; i < o.witness.size(); ++i) {
      for (std::size_t j = 0; j < i; ++j) {
        if (o.witness[i] == o.witness[j] || !exclusive(o.witness[i], o.witness[j]))
          faults.push_back("witnesses may share");
      }
    }
  } else if (o.lower_bound > (first ? best_.fewest_hwpts : best_.objectives[Objective::hwpts])) {
    faults.push_back("bound above the optimum");
  }
  if (first && o.proved[static_cast<std::size_t>(Objective::hwpts)] &&
      (o.lower_bound != o.hwpts || o.proof == ProofKind::none)) {
    faults.push_back("proved without a proof");
  }
  for (Objective objective : request_.policy.objectives) {
    const std::uint64_t stated = plan.objectives[objective];
    const std::uint64_t least = best_.objectives[objective];
    if (stated > least && o.proved[static_cast<std::size_t>(objective)]) faults.push_back("proved, and beaten");
    if (stated != least) break;
  }
}

// Answers other than `feasible`, and the parts that they have and others lack.
void Replay::check_answer(const Plan& plan, Faults& faults) const {
  if (plan.verdict == Verdict::feasible) {
    if (!plan.conflict.empty() || !plan.unknown.empty()) faults.push_back("feasible with excuses");
    return;
  }
  if (!plan.ioas.empty() || !plan.hwpts.empty() || !plan.steps.empty() || plan.optimality.hwpts != 0 ||
      plan.optimality.lower_bound != 0 || !plan.optimality.witness.empty()) {
    faults.push_back("a no that places something");
  }
  if (plan.verdict == Verdict::undecided) {
    faults.push_back("undecided, and nothing is unknown");  // of a complete request
    return;
  }
  if (best_.feasible) faults.push_back("the oracle knows a placement");
  if (plan.conflict.empty() || !plan.unknown.empty()) faults.push_back("no conflict, or unknown facts");
  for (const Conflict& c : plan.conflict) {
    const auto named = [&](const Rule* rule) { return rule->name == c.rule; };
    const auto rules = law_.rules();
    if (std::none_of(rules.begin(), rules.end(), named) || c.because.empty()) faults.push_back("no such rule");
    for (const std::string& s : c.subjects) {
      if (s.find("no-such") != std::string::npos) faults.push_back("no such subject");
    }
  }
}

std::vector<std::string> Replay::faults(const Plan& plan) const {
  Faults faults;
  if (plan.fingerprint != fingerprint(request_.host)) faults.push_back("another host");
  std::vector<std::string> names;
  for (const VirtualMachine& vm : request_.vms) names.push_back(vm.name);
  if (plan.vms != names) faults.push_back("other VMs");
  auto listed = plan.assumptions;
  auto believed = truth_.assumptions;
  std::sort(listed.begin(), listed.end());
  std::sort(believed.begin(), believed.end());
  if (!every_device_tells_its_msi(request_)) {
    if (listed != believed) faults.push_back("other assumptions");
  } else if (without_msi(listed) != without_msi(believed)) {
    faults.push_back("other assumptions");
  }
  check_answer(plan, faults);
  if (plan.verdict != Verdict::feasible) return faults;
  for (std::string& fault : dangling(request_, plan)) faults.push_back(std::move(fault));
  if (!faults.empty()) return faults;
  const Plan right = derived(plan);
  if (document_without_steps(right) != document_without_steps(plan)) faults.push_back("fields do not follow");
  if (plan.promises != truth_.promises) faults.push_back("other promises");
  const LittleIommufd world(request_, law_, plan);
  check_world(plan, world, faults);
  check_mediated(request_, plan, world, faults);
  check_everyone_placed(request_, plan, faults);
  // The law may refuse what the steps do not show: steps in order, decisions against it.
  const LittleIommufd lawful(request_, law_, right);
  if (!lawful.error.empty()) faults.push_back("law: " + lawful.error);
  for (const PlannedIoas& ioas : right.ioas) {
    for (const MemoryRange& m : ioas.memory) {
      const auto inside = [&](const Range& u) { return u.contains(m.gpa); };
      if (std::none_of(ioas.ranges.begin(), ioas.ranges.end(), inside)) faults.push_back("memory is not usable");
    }
  }
  check_rules(request_, plan, faults);
  check_domain_ids(request_, law_, plan, faults);
  check_preferences(request_, plan, faults);
  check_proof(plan, faults);
  return faults;
}

}  // namespace ioplan::replay
