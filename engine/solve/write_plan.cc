// What the solver chose, as a Plan: attributes predicted by the law, the IOVA that stays usable, KVM's verdict,
// resources, and the steps that make it real.

#include <algorithm>
#include <map>
#include <set>

#include <fmt/format.h>

#include "engine/model/features.h"
#include "engine/solve/solver.h"

namespace ioplan {

namespace {

constexpr std::uint64_t kLibvirtMargin = std::uint64_t{1} << 30;  // qemuDomainGetMemLockLimitBytes: RAM + 1 GiB

class PlanWriter {
 public:
  PlanWriter(const Request& request, const Solved& solved, const Solved& bound, const Law& law)
      : request_(request), solved_(solved), bound_(bound), law_(law) {}

  Plan write() {
    plan_.verdict = Verdict::feasible;
    plan_.interface = law_.interface();
    for (const VirtualMachine& vm : request_.vms) plan_.vms.push_back(vm.name);
    plan_.steps.reserve(expected_steps());
    for (std::size_t v = 0; v < request_.vms.size(); ++v) {
      if (!request_.vms[v].devices.empty() || !solved_.hwpts[v].empty()) write_vm(v);
    }
    std::ranges::sort(noncoherent_);
    for (DeviceIndex d : noncoherent_) plan_.kvm.because.push_back(id_of(d));
    plan_.kvm.because.insert(plan_.kvm.because.end(), mediated_.begin(), mediated_.end());
    plan_.kvm.noncoherent_dma = !plan_.kvm.because.empty();
    plan_.objectives = solved_.values;
    plan_.frozen = features_of(plan_);
    write_optimality(plan_.optimality);
    return std::move(plan_);
  }

 private:
  const std::string& id_of(DeviceIndex d) const { return request_.host.device(d).id; }
  bool in_containers() const { return law_.interface() == KernelInterface::type1; }

  // Every device is bound and attached; every VM has a few steps more.
  std::size_t expected_steps() const {
    std::size_t steps = 0;
    for (const VirtualMachine& vm : request_.vms) steps += 2 * vm.devices.size() + 16;
    return steps;
  }

  void write_optimality(Optimality& o) const {
    o.hwpts = solved_.values[Objective::hwpts];
    o.lower_bound = bound_.lower_bound;
    o.proof = bound_.proof;
    o.proved = solved_.proved;
    if (o.proof == ProofKind::smt) {
      o.smt2 = one_fewer_smt2(bound_, request_);
    } else {
      for (DeviceIndex d : bound_.witness) o.witness.push_back(id_of(d));
    }
  }

  void write_vm(std::size_t v) {
    const VirtualMachine& vm = request_.vms[v];
    const VmModel& model = solved_.vms[v];
    PlannedIoas ioas;
    ioas.id = fmt::format("ioas{}", plan_.ioas.size());
    ioas.vm = vm.name;
    ioas.memory = model.problem.memory;
    ioas.backing = model.problem.backing;
    if (vm.expected_memory) ioas.allowed = with_expected(ioas.memory, *vm.expected_memory);
    expected_.clear();
    for (const AssignedDevice& d : vm.devices) {
      if (d.expected) expected_.insert(*d.host);
    }
    const std::size_t first_hwpt = plan_.hwpts.size();
    for (const SolvedHwpt& hwpt : solved_.hwpts[v]) plan_.hwpts.push_back(write_hwpt(model, hwpt, ioas.id));
    write_space(model, vm, ioas, std::span(plan_.hwpts).subspan(first_hwpt));
    note_noncoherent(vm, model);
    write_resources(model, std::span(plan_.hwpts).subspan(first_hwpt));
    if (in_containers()) {
      write_joining(v, ioas);
    } else {
      write_steps(vm, ioas, std::span(plan_.hwpts).subspan(first_hwpt));
    }
    write_maps(ioas);
    plan_.ioas.push_back(std::move(ioas));
  }

  static std::vector<Range> with_expected(const std::vector<MemoryRange>& memory, const Range& expected) {
    std::vector<Range> allowed{expected};
    for (const MemoryRange& m : memory) allowed.push_back(m.gpa);
    std::ranges::sort(allowed);
    return allowed;
  }

  PlannedHwpt write_hwpt(const VmModel& model, const SolvedHwpt& solved, const std::string& ioas) {
    const Offer& offer = model.offers[solved.offer];
    const HwptQuantities& q = offer.hwpt;
    PlannedHwpt hwpt;
    hwpt.id = fmt::format("hwpt{}", plan_.hwpts.size());
    hwpt.ioas = ioas;
    hwpt.kind = q[HwptQ::nest_parent] != 0 ? HwptKind::nest_parent : HwptKind::paging;
    hwpt.allocator = id_of(solved.allocator);
    hwpt.flags = static_cast<std::uint8_t>(q[HwptQ::flags]);
    hwpt.driver = static_cast<Driver>(q[HwptQ::driver]);
    hwpt.stage = static_cast<unsigned>(q[HwptQ::stage]);
    hwpt.format = static_cast<PageTableFormat>(q[HwptQ::format]);
    hwpt.levels = static_cast<unsigned>(q[HwptQ::levels]);
    hwpt.address_bits = static_cast<unsigned>(q[HwptQ::address_bits]);
    hwpt.aperture = {q[HwptQ::aperture_start], q[HwptQ::aperture_last]};
    hwpt.page_sizes = q[HwptQ::page_sizes];
    hwpt.enforce_cache_coherency = q[HwptQ::enforce_cache_coherency] != 0;
    hwpt.automatic = in_containers() || law_.automatic_only(hwpt.driver);
    hwpt.page_table_bytes = offer.page_table_bytes;
    std::vector<DeviceIndex> devices;
    for (std::uint32_t i : solved.items) {
      const auto& assigned = model.problem.items[i].assigned;
      devices.insert(devices.end(), assigned.begin(), assigned.end());
    }
    std::ranges::sort(devices);
    for (DeviceIndex d : devices) {
      if (expected_.contains(d)) {
        plan_.promises.push_back({request_.vms[model.problem.vm.index()].name, id_of(d), hwpt.id, {}});
      } else {
        hwpt.devices.push_back(id_of(d));
      }
    }
    return hwpt;
  }

  // All addresses, less the reserved regions of attached devices and what lies outside an aperture.
  void write_space(const VmModel& model, const VirtualMachine& vm, PlannedIoas& ioas,
                   std::span<const PlannedHwpt> hwpts) const {
    const std::set<ReservedRegion> reserved = reserved_in(vm);
    RangeSet usable{{0, ~std::uint64_t{0}}};
    for (const ReservedRegion& r : reserved) usable.subtract(r.range);
    for (const PlannedHwpt& h : hwpts) keep_within(usable, h.aperture);
    if (in_containers()) {  // every group's own domain cuts the container, also where it is left for another
      for (const DeviceClass& c : model.problem.classes) {
        const HwptQuantities own = law_.allocate(c.quantities, 0);
        keep_within(usable, {own[HwptQ::aperture_start], own[HwptQ::aperture_last]});
      }
    }
    ioas.alignment = alignment_of(vm, hwpts);
    ioas.ranges.assign(usable.ranges().begin(), usable.ranges().end());
    ioas.reserved = merged_by_type(reserved);
  }

  static void keep_within(RangeSet& usable, const Range& aperture) {
    if (aperture.start > 0) usable.subtract({0, aperture.start - 1});
    if (aperture.last < ~std::uint64_t{0}) usable.subtract({aperture.last + 1, ~std::uint64_t{0}});
  }

  // The regions of attached devices; a container leaves out those of all devices of its groups.
  std::set<ReservedRegion> reserved_in(const VirtualMachine& vm) const {
    std::set<ReservedRegion> reserved;
    std::set<UnitIndex> own;  // the driver's own regions are those of its unit
    for (DeviceIndex d : devices_in(vm)) {
      const Device& device = request_.host.device(d);
      if (!device.reserved && !own.insert(*device.unit).second) continue;
      for (const ReservedRegion& r : reserved_by(request_.host, d, law_)) reserved.insert(r);
    }
    return reserved;
  }

  std::vector<DeviceIndex> devices_in(const VirtualMachine& vm) const {
    std::vector<DeviceIndex> devices;
    std::set<std::uint32_t> groups;
    for (const AssignedDevice& assigned : vm.devices) {
      if (!assigned.host || assigned.expected) continue;
      devices.push_back(*assigned.host);
      groups.insert(request_.host.device(*assigned.host).group.value());
    }
    if (!in_containers()) return devices;
    devices.clear();
    for (std::size_t i = 0; i < request_.host.devices.size(); ++i) {
      const auto& group = request_.host.devices[i].group;
      if (group && groups.contains(*group)) devices.emplace_back(i);
    }
    return devices;
  }

  // iommufd: the largest of what is asked. type1: the smallest page that all domains have, and the kernel's at least.
  std::uint64_t alignment_of(const VirtualMachine& vm, std::span<const PlannedHwpt> hwpts) const {
    const auto lowest = [](std::uint64_t pages) { return pages & (~pages + 1); };
    if (in_containers()) {
      std::uint64_t common = ~std::uint64_t{0};
      for (const PlannedHwpt& h : hwpts) common &= h.page_sizes;
      return std::max(kernel_page(), lowest(common));
    }
    const bool mediated = std::ranges::any_of(vm.devices, [](const AssignedDevice& a) { return !a.host; });
    std::uint64_t alignment = mediated ? kernel_page() : 1;
    for (const PlannedHwpt& h : hwpts) alignment = std::max(alignment, lowest(h.page_sizes));
    return alignment;
  }

  static std::vector<ReservedRegion> merged_by_type(const std::set<ReservedRegion>& regions) {
    std::map<ReservedType, RangeSet> by_type;
    for (const ReservedRegion& r : regions) by_type[r.type].add(r.range);
    std::vector<ReservedRegion> merged;
    for (const auto& [type, ranges] : by_type) {
      for (const Range& r : ranges.ranges()) merged.push_back({r, type});
    }
    std::ranges::sort(merged);
    return merged;
  }

  std::uint64_t kernel_page() const { return request_.host.kernel.facts[KernelFact::page_size].value_or(4096); }

  void note_noncoherent(const VirtualMachine& vm, const VmModel& model) {
    for (const DeviceClass& cls : model.problem.classes) {
      if (cls.quantities[DeviceQ::enforce_cache_coherency] != 0) continue;
      noncoherent_.insert(noncoherent_.end(), cls.assigned.begin(), cls.assigned.end());
    }
    for (const AssignedDevice& assigned : vm.devices) {
      if (!assigned.host) mediated_.insert(assigned.mdev);
    }
  }

  void write_resources(const VmModel& model, std::span<const PlannedHwpt> hwpts) {
    std::uint64_t pinned = 0;
    for (const MemoryRange& m : model.problem.memory) pinned += m.gpa.extent() + 1;
    plan_.resources.pinned_bytes += pinned;
    plan_.resources.memlock_bytes += pinned + (model.problem.groups.empty() ? 0 : kLibvirtMargin);
    for (const PlannedHwpt& h : hwpts) plan_.resources.page_table_bytes += h.page_table_bytes;
  }

  Step& step(StepKind kind) {
    plan_.steps.emplace_back().kind = kind;
    return plan_.steps.back();
  }

  // A container, and the groups' devices in the order of joining.
  void write_joining(std::size_t v, const PlannedIoas& ioas) {
    const VmModel& model = solved_.vms[v];
    step(StepKind::ioas_alloc).ioas = ioas.id;
    std::map<std::string_view, std::string_view> home;
    for (const PlannedHwpt& h : plan_.hwpts) {
      for (const std::string& device : h.devices) home[device] = h.id;
    }
    for (std::uint32_t g : solved_.joining[v]) {
      for (DeviceIndex d : model.problem.groups[g].assigned) {
        Step& attach = step(StepKind::attach_ioas);
        attach.device = id_of(d);
        attach.ioas = ioas.id;
        attach.hwpt = home.at(attach.device);
      }
    }
  }

  void write_steps(const VirtualMachine& vm, const PlannedIoas& ioas, std::span<const PlannedHwpt> hwpts) {
    step(StepKind::ioas_alloc).ioas = ioas.id;
    for (const AssignedDevice& assigned : vm.devices) {
      if (assigned.expected) continue;
      step(StepKind::bind).device = assigned.host ? id_of(*assigned.host) : assigned.mdev;
    }
    Step& allow = step(StepKind::allow_iovas);
    allow.ioas = ioas.id;
    allow.ranges = ioas.allowed;
    for (const MemoryRange& m : ioas.memory) {
      if (ioas.allowed.empty()) allow.ranges.push_back(m.gpa);
    }
    for (const PlannedHwpt& h : hwpts) {
      if (h.automatic) continue;
      Step& alloc = step(StepKind::hwpt_alloc);
      alloc.ioas = ioas.id;
      alloc.hwpt = h.id;
      alloc.device = h.allocator;
      alloc.flags = h.flags;
    }
    for (const PlannedHwpt& h : hwpts) {
      for (const std::string& device : h.devices) {
        Step& attach = step(h.automatic ? StepKind::attach_ioas : StepKind::attach);
        attach.device = device;
        attach.hwpt = h.id;
        if (h.automatic) attach.ioas = ioas.id;
      }
    }
    for (const AssignedDevice& assigned : vm.devices) {
      if (assigned.host) continue;
      Step& attach = step(StepKind::attach_ioas);
      attach.device = assigned.mdev;
      attach.ioas = ioas.id;
    }
  }

  void write_maps(const PlannedIoas& ioas) {
    for (const MemoryRange& m : ioas.memory) {
      Step& map = step(StepKind::map);
      map.ioas = ioas.id;
      map.iova = m.gpa;
      map.writeable = m.access == Access::read_write;
    }
  }

  const Request& request_;
  const Solved& solved_;
  const Solved& bound_;
  const Law& law_;
  std::vector<DeviceIndex> noncoherent_;
  std::set<std::string> mediated_;
  std::set<DeviceIndex> expected_;  // of the VM under way
  Plan plan_;
};

}  // namespace

Plan write_plan(const Request& request, const Solved& solved, const Solved& bound, const Law& law) {
  return PlanWriter(request, solved, bound, law).write();
}

}  // namespace ioplan
