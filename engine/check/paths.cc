// Paths of facts, as plans name them: "kernel.release", "iommus.dmar0.cap", "devices.0000:01:00.0.pasid_bits",
// "vms.vm0.memory.backing". Ids may hold dots, so the key is what follows the last one.

#include <algorithm>
#include <optional>

#include "engine/check/gaps.h"

namespace ioplan::check {

namespace {

// What the documents say of a fact; nothing when there is no such fact.
struct Standing {
  bool present = false;
  bool has_default = false;  // a stock machine's value stands in for it
};
using Presence = std::optional<Standing>;

Presence with_default(bool present) { return Standing{present, true}; }
Presence without_default(bool present) { return Standing{present, false}; }

// Defaults that the tables do not hold: the architecture's page size, the kernel's isolated MSI.
bool has_default(KernelFact f) { return row_of(f).stock || f == KernelFact::page_size; }
bool has_default(UnitFact f) { return row_of(f).stock.has_value(); }
bool has_default(DeviceFact f) { return row_of(f).stock || f == DeviceFact::isolated_msi; }

template <class Fact>
Presence presence(const Facts<Fact>& facts, std::string_view key, DriverSet drivers = kEveryDriver) {
  for (std::size_t i = 0; i < kFactCount<Fact>; ++i) {
    const auto fact = static_cast<Fact>(i);
    if (row_of(fact).key == key && (row_of(fact).drivers & drivers) != 0) {
      return Standing{facts[fact].has_value(), has_default(fact)};
    }
  }
  return std::nullopt;
}

Presence kernel_fact(const Kernel& kernel, std::string_view key) {
  if (key == "arch") return with_default(kernel.arch.has_value());
  if (key == "release") return with_default(kernel.release.has_value());
  return presence(kernel.facts, key);
}

// Some keys of the documents stand for several facts.
Presence unit_fact(const Unit& unit, std::string_view key) {
  const auto has = [&](UnitFact f) { return unit.facts[f].has_value(); };
  if (key == "input_range") return with_default(has(UnitFact::input_start) || has(UnitFact::input_last));
  if (key == "domain_range") return with_default(has(UnitFact::domain_first) || has(UnitFact::domain_last));
  if (key == "dma_range") return without_default(has(UnitFact::dma_start) || has(UnitFact::dma_last));
  if (key == "idr" || key == "idr[0]") return without_default(has(UnitFact::idr0));
  if (key == "idr[1]") return without_default(has(UnitFact::idr1));
  if (key == "idr[3]") return without_default(has(UnitFact::idr3));
  if (key == "idr[5]") return without_default(has(UnitFact::idr5));
  if (key == "granule") return with_default(has(UnitFact::idr5));
  return presence(unit.facts, key, driver_set(unit.driver));
}

Presence device_fact(const Device& device, std::string_view key) {
  if (key == "iommu") return without_default(device.unit.has_value());
  if (key == "group") return without_default(device.group.has_value());
  if (key == "reserved") return with_default(device.reserved.has_value());
  return presence(device.facts, key);
}

Presence vm_fact(const VirtualMachine& vm, std::string_view key) {
  if (key == "memory.backing") return with_default(vm.memory.backing.has_value());
  if (key == "machine.type") return with_default(vm.machine.type.has_value());
  if (key == "machine.cpu_vendor") return without_default(vm.machine.cpu_vendor.has_value());
  if (key == "machine.pci_hole64_size") return with_default(vm.machine.pci_hole64_size.has_value());
  return std::nullopt;
}

Presence fact_of_vm(const Request& request, std::string_view rest) {
  for (const VirtualMachine& vm : request.vms) {
    const std::size_t n = vm.name.size();
    if (rest.size() > n && rest.substr(0, n) == vm.name && rest[n] == '.') return vm_fact(vm, rest.substr(n + 1));
  }
  return std::nullopt;
}

Presence find(const Request& request, std::string_view path) {
  const std::size_t dot = path.find('.');
  if (dot == std::string_view::npos) return std::nullopt;
  const std::string_view room = path.substr(0, dot);
  const std::string_view rest = path.substr(dot + 1);
  if (room == "kernel") return kernel_fact(request.host.kernel, rest);
  if (room == "vms") return fact_of_vm(request, rest);
  const std::size_t last = rest.rfind('.');
  if (last == std::string_view::npos) return std::nullopt;
  const std::string_view id = rest.substr(0, last);
  const std::string_view key = rest.substr(last + 1);
  if (room == "iommus") {
    const auto unit = request.host.find_unit(id);
    return unit ? unit_fact(request.host.unit(*unit), key) : std::nullopt;
  }
  const auto device = room == "devices" ? request.host.find_device(id) : std::nullopt;
  return device ? device_fact(request.host.device(*device), key) : std::nullopt;
}

}  // namespace

bool nameable(const Request& request, const std::string& path) { return find(request, path).has_value(); }

bool defaulted(const Request& request, const std::string& path) {
  const Presence fact = find(request, path);
  return fact && !fact->present && fact->has_default;
}

bool unknown(const Request& request, const std::string& path) {
  const Presence fact = find(request, path);
  return fact && !fact->present && !fact->has_default;
}

}  // namespace ioplan::check
