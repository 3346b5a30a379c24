#include "engine/planner/missing.h"

#include <algorithm>
#include <set>
#include <unordered_set>

#include "engine/base/log2.h"
#include "engine/base/text.h"

namespace ioplan {

namespace {

// The devices, groups and units that a request's VMs touch.
struct Scope {
  std::vector<DeviceIndex> assigned;
  std::vector<bool> is_assigned;     // by device
  std::vector<DeviceIndex> members;  // of the assigned devices' groups, assigned ones included
  std::set<UnitIndex> units;
  DriverSet drivers = 0;
};

Scope scope_of(const Request& request) {
  const Host& host = request.host;
  Scope scope;
  std::unordered_set<std::uint32_t> groups;
  std::vector<bool> fronts(host.units.size());
  scope.is_assigned.resize(host.devices.size());
  for (const VirtualMachine& vm : request.vms) {
    for (const AssignedDevice& a : vm.devices) {
      if (!a.host) continue;
      scope.assigned.push_back(*a.host);
      scope.is_assigned[a.host->index()] = true;
      if (host.device(*a.host).group) groups.insert(*host.device(*a.host).group);
    }
  }
  std::ranges::sort(scope.assigned);
  for (std::size_t i = 0; i < host.devices.size(); ++i) {
    const Device& d = host.devices[i];
    if (!scope.is_assigned[i] && !(d.group && groups.contains(*d.group))) continue;
    scope.members.emplace_back(i);
    if (d.unit) fronts[d.unit->index()] = true;
  }
  for (std::size_t u = 0; u < fronts.size(); ++u) {
    if (fronts[u]) scope.units.insert(UnitIndex(u));
  }
  for (UnitIndex u : scope.units) scope.drivers |= driver_set(host.unit(u).driver);
  if ((scope.drivers & driver_set(Driver::amd)) != 0) {  // AMD features are those that all units share
    for (std::size_t u = 0; u < host.units.size(); ++u) {
      if (host.units[u].driver == Driver::amd) scope.units.insert(UnitIndex(u));
    }
  }
  return scope;
}

std::string show(const FactRow& row, std::uint64_t value) {
  switch (row.kind) {
    case FactKind::boolean: return value != 0 ? "true" : "false";
    case FactKind::integer: return std::to_string(value);
    case FactKind::hex: return format_hex(value);
    case FactKind::size: return format_size(value);
  }
  return {};
}

// SMMUv3 registers may be given as registers or as the boot log's feature mask; some facts only matter to some needs.
bool needs_fact(const Unit& unit, UnitFact fact, bool pasid_matters) {
  const Facts<UnitFact>& f = unit.facts;
  if (unit.driver != Driver::smmuv3) return true;
  switch (fact) {
    case UnitFact::features:
    case UnitFact::oas: return f[UnitFact::features].has_value() && !f[UnitFact::idr0] && !f[UnitFact::idr5];
    case UnitFact::idr0: return !f[UnitFact::features];
    case UnitFact::idr5: return !(f[UnitFact::features] && f[UnitFact::oas]);
    case UnitFact::coherent: return !(f[UnitFact::features] && !f[UnitFact::idr0]);
    case UnitFact::idr1: return pasid_matters;
    case UnitFact::idr3:
    case UnitFact::httu: return false;  // nothing hangs on IDR3; HTTU is what IDR0 says unless firmware overrides it
    default: return true;
  }
}

// Keys that the policy's selectors ask for.
struct Asked {
  std::vector<std::uint64_t> classes, vendors, devices, numas;

  explicit Asked(const Policy& policy) {
    for (const PolicyRule& rule : policy.rules) {
      std::visit([&](const auto& r) { add(r); }, rule.what);
    }
  }

 private:
  void add(const SeparateRule& r) {
    add(r.a);
    add(r.b);
  }
  void add(const TogetherRule& r) { add(r.which); }
  void add(const RequireRule& r) { add(r.which); }
  void add(const LimitRule&) {}
  void add(const Selector& s) {
    for (const auto& c : s.device_class) classes.push_back(c.code);
    vendors.insert(vendors.end(), s.vendor.begin(), s.vendor.end());
    devices.insert(devices.end(), s.device.begin(), s.device.end());
    numas.insert(numas.end(), s.numa.begin(), s.numa.end());
  }
};

class Collector {
 public:
  explicit Collector(const Request& request) : request_(request), scope_(scope_of(request)), asked_(request.policy) {
    for (const VirtualMachine& vm : request.vms) pasid_matters_ = pasid_matters_ || vm.needs.pasid != Need::no;
  }

  std::vector<MissingFact> collect() {
    for (DeviceIndex d : scope_.assigned) placement(d);
    for (DeviceIndex d : scope_.members) unit_of_member(d);
    for (UnitIndex u : scope_.units) unit_facts(u);
    if ((scope_.drivers & driver_set(Driver::amd)) != 0) kernel_fact(KernelFact::la57);
    for (DeviceIndex d : scope_.members) device_facts(d);
    for (std::size_t v = 0; v < request_.vms.size(); ++v) cpu_vendor(v);
    return std::move(missing_);
  }

 private:
  bool assigned(DeviceIndex d) const { return scope_.is_assigned[d.index()]; }

  // An unknown group may be one of its own, or any other group of the host.
  void placement(DeviceIndex d) {
    if (request_.host.device(d).group) return;
    std::set<std::uint64_t> groups;
    for (const Device& other : request_.host.devices) {
      if (other.group) groups.insert(*other.group);
    }
    MissingFact fact{"devices." + request_.host.device(d).id + ".group", {}, {}, {}};
    fact.candidates.push_back(groups.empty() ? 0 : *groups.rbegin() + 1);
    for (std::uint64_t g : groups) {
      if (fact.candidates.size() < 16) fact.candidates.push_back(g);
    }
    fact.set = [d](Request& r, std::uint64_t v) { r.host.devices[d.index()].group = static_cast<std::uint32_t>(v); };
    fact.show = [](std::uint64_t v) { return std::to_string(v); };
    missing_.push_back(std::move(fact));
  }

  void unit_of_member(DeviceIndex d) {
    if (request_.host.device(d).unit) return;
    MissingFact fact{"devices." + request_.host.device(d).id + ".iommu", {}, {}, {}};
    for (std::size_t u = 0; u < request_.host.units.size(); ++u) fact.candidates.push_back(u);
    fact.set = [d](Request& r, std::uint64_t v) { r.host.devices[d.index()].unit = UnitIndex(v); };
    fact.show = [units = &request_.host.units](std::uint64_t v) { return (*units)[v].id; };
    // The units that it may turn out to be behind matter too.
    for (std::size_t u = 0; u < request_.host.units.size(); ++u) scope_.units.insert(UnitIndex(u));
    missing_.push_back(std::move(fact));
  }

  void unit_facts(UnitIndex u) {
    const Unit& unit = request_.host.unit(u);
    for (std::size_t i = 0; i < kFactCount<UnitFact>; ++i) {
      const auto f = static_cast<UnitFact>(i);
      const FactRow& row = row_of(f);
      if (unit.facts[f] || row.stock || (row.drivers & driver_set(unit.driver)) == 0) continue;
      if (!needs_fact(unit, f, pasid_matters_)) continue;
      add("iommus." + unit.id + "." + document_key(f), row, {row.candidates.begin(), row.candidates.end()},
          [u, f](Request& r, std::uint64_t v) { r.host.units[u.index()].facts[f] = v; });
    }
  }

  static std::string document_key(UnitFact f) {
    switch (f) {
      case UnitFact::idr0: return "idr[0]";
      case UnitFact::idr1: return "idr[1]";
      case UnitFact::idr5: return "idr[5]";
      case UnitFact::dma_start: return "dma_range[0]";
      case UnitFact::dma_last: return "dma_range[1]";
      default: return std::string(row_of(f).key);
    }
  }

  void kernel_fact(KernelFact f) {
    if (request_.host.kernel.facts[f]) return;
    const FactRow& row = row_of(f);
    add("kernel." + std::string(row.key), row, {row.candidates.begin(), row.candidates.end()},
        [f](Request& r, std::uint64_t v) { r.host.kernel.facts[f] = v; });
  }

  void device_facts(DeviceIndex d) {
    const Device& device = request_.host.device(d);
    const bool smmuv3 = device.unit && request_.host.unit(*device.unit).driver == Driver::smmuv3;
    if (smmuv3) device_fact(d, DeviceFact::canwbs, {});
    if (!assigned(d)) return;
    // Architecture makes PCI DMA coherent on x86, and mock devices do none; elsewhere firmware says.
    const bool mock = device.unit && request_.host.unit(*device.unit).driver == Driver::mock;
    const bool x86_pci = arch_of(request_.host) == Arch::x86_64 && is_pci_address(device.id);
    if (!mock && !x86_pci) device_fact(d, DeviceFact::dma_coherent, {});
    if (pasid_matters_) device_fact(d, DeviceFact::pasid_bits, {});
    constexpr std::uint64_t kOtherClass = 0xff0000, kOtherId = 0xffff, kOtherNode = 0xffff;
    selectable(d, DeviceFact::device_class, asked_.classes, kOtherClass);
    selectable(d, DeviceFact::vendor, asked_.vendors, kOtherId);
    selectable(d, DeviceFact::device, asked_.devices, kOtherId);
    selectable(d, DeviceFact::numa, asked_.numas, kOtherNode);
  }

  void selectable(DeviceIndex d, DeviceFact f, std::vector<std::uint64_t> values, std::uint64_t other) {
    if (values.empty()) return;
    values.push_back(other);
    device_fact(d, f, std::move(values));
  }

  void device_fact(DeviceIndex d, DeviceFact f, std::vector<std::uint64_t> values) {
    const Device& device = request_.host.device(d);
    if (device.facts[f]) return;
    const FactRow& row = row_of(f);
    if (values.empty()) values.assign(row.candidates.begin(), row.candidates.end());
    add("devices." + device.id + "." + std::string(row.key), row, std::move(values),
        [d, f](Request& r, std::uint64_t v) { r.host.devices[d.index()].facts[f] = v; });
  }

  void cpu_vendor(std::size_t v) {
    const VirtualMachine& vm = request_.vms[v];
    if (!vm.memory.size || vm.machine.cpu_vendor) return;
    const bool pc = vm.machine.type ? *vm.machine.type == MachineType::q35 || *vm.machine.type == MachineType::pc
                                    : arch_of(request_.host) == Arch::x86_64;
    if (!pc) return;
    missing_.push_back({"vms." + vm.name + ".machine.cpu_vendor",
                        {0, 1},
                        [v](Request& r, std::uint64_t x) { r.vms[v].machine.cpu_vendor = static_cast<CpuVendor>(x); },
                        [](std::uint64_t x) { return std::string(kCpuVendorNames[x]); }});
  }

  void add(std::string path, const FactRow& row, std::vector<std::uint64_t> candidates,
           std::function<void(Request&, std::uint64_t)> set) {
    missing_.push_back({std::move(path), std::move(candidates), std::move(set),
                        [&row](std::uint64_t v) { return ioplan::show(row, v); }});
  }

  const Request& request_;
  Scope scope_;
  Asked asked_;
  bool pasid_matters_ = false;
  std::vector<MissingFact> missing_;
};

MachineType stock_machine(const Host& host) {
  switch (arch_of(host)) {
    case Arch::x86_64: return MachineType::q35;
    case Arch::s390x: return MachineType::s390;
    case Arch::aarch64:
    case Arch::riscv64: break;
  }
  return MachineType::virt;
}

bool scalable_mode_matters(const Request& request, const Scope& scope) {
  return std::ranges::any_of(scope.units, [&](UnitIndex u) {
    const Unit& unit = request.host.unit(u);
    return unit.driver == Driver::intel && unit.facts[UnitFact::ecap] && bit(*unit.facts[UnitFact::ecap], 43);
  });
}

}  // namespace

std::vector<MissingFact> unknown_facts(const Request& request) { return Collector(request).collect(); }

std::vector<Assumption> assumed_facts(const Request& request) {
  const Scope scope = scope_of(request);
  const Kernel& kernel = request.host.kernel;
  std::vector<Assumption> found;
  const auto assume = [&](std::string fact, std::string value, std::vector<std::string> subjects = {}) {
    found.push_back({std::move(fact), std::move(value), std::move(subjects)});
  };
  if (!kernel.arch) assume("kernel.arch", std::string(name_of(arch_of(request.host))));
  if (!kernel.release) assume("kernel.release", "7.2.13");
  if (!kernel.facts[KernelFact::page_size]) assume("kernel.page_size", "4KiB");
  if (!kernel.facts[KernelFact::isolated_msi] && std::ranges::any_of(scope.members, [&](DeviceIndex d) {
        return !request.host.device(d).facts[DeviceFact::isolated_msi];
      })) {
    assume("kernel.isolated_msi", "true");
  }
  if (!kernel.facts[KernelFact::intel_iommu_sm] && scalable_mode_matters(request, scope)) {
    assume("kernel.intel_iommu_sm", "true");
  }
  std::vector<std::string> own_regions;
  for (DeviceIndex d : scope.members) {
    if (!request.host.device(d).reserved) own_regions.push_back(request.host.device(d).id);
  }
  if (!own_regions.empty()) assume("devices.reserved", "driver", std::move(own_regions));
  for (UnitIndex u : scope.units) {
    const Unit& unit = request.host.unit(u);
    if (unit.driver == Driver::virtio && !unit.facts[UnitFact::input_last]) {
      assume("iommus." + unit.id + ".input_range", "[0x0, 0xffffffffffffffff]");
    }
    if (unit.driver == Driver::smmuv3 && unit.facts[UnitFact::features] && !unit.facts[UnitFact::idr5]) {
      assume("iommus." + unit.id + ".granule", "kernel.page_size");
    }
  }
  for (const VirtualMachine& vm : request.vms) {
    if (!vm.memory.backing) assume("vms." + vm.name + ".memory.backing", "4KiB");
    if (vm.memory.size && !vm.machine.type) {
      assume("vms." + vm.name + ".machine.type", std::string(kMachineTypeNames[static_cast<std::size_t>(stock_machine(request.host))]));
    }
  }
  std::ranges::sort(found);
  return found;
}

Request with_assumptions_stated(Request request, const Law& law) {
  const Scope scope = scope_of(request);
  Kernel& kernel = request.host.kernel;
  kernel.arch = arch_of(request.host);
  if (!kernel.release) kernel.release = "7.2.13";
  for (KernelFact f : {KernelFact::isolated_msi, KernelFact::intel_iommu_sm}) {
    if (!kernel.facts[f]) kernel.facts[f] = row_of(f).stock;
  }
  if (!kernel.facts[KernelFact::page_size]) kernel.facts[KernelFact::page_size] = 4096;
  for (DeviceIndex d : scope.members) {
    Device& device = request.host.devices[d.index()];
    if (!device.reserved) device.reserved = law.own_regions(request.host, d);
  }
  for (UnitIndex u : scope.units) {
    Unit& unit = request.host.units[u.index()];
    if (unit.driver == Driver::virtio && !unit.facts[UnitFact::input_last]) {
      unit.facts[UnitFact::input_start] = 0;
      unit.facts[UnitFact::input_last] = ~std::uint64_t{0};
    }
  }
  for (VirtualMachine& vm : request.vms) {
    if (!vm.memory.backing) vm.memory.backing = 4096;
    if (!vm.machine.type) vm.machine.type = stock_machine(request.host);
  }
  return request;
}

}  // namespace ioplan
