#include "tests/kernel/guest/host_facts.h"

#include <cstdio>
#include <cstdlib>
#include <sstream>

#include "tests/kernel/guest/boot.h"

namespace ioplan::kernel_test {

namespace {

std::uint64_t hex(const std::string& text) { return std::strtoull(text.c_str(), nullptr, 16); }

Unit read_unit(const std::string& id) {
  const std::string folder = "/sys/class/iommu/" + id;
  Unit unit;
  unit.id = id;
  if (const std::string cap = read_file(folder + "/intel-iommu/cap"); !cap.empty()) {
    unit.driver = Driver::intel;
    unit.facts[UnitFact::cap] = hex(cap);
    unit.facts[UnitFact::ecap] = hex(read_file(folder + "/intel-iommu/ecap"));
  } else if (const std::string features = read_file(folder + "/amd-iommu/features"); !features.empty()) {
    unit.driver = Driver::amd;
    unit.facts[UnitFact::efr] = hex(features);
    unit.facts[UnitFact::efr2] = hex(features.substr(features.find(':') + 1));
    // QEMU's IVRS does not say EFRSup, so Linux computes the width before it has read EFR, as if HATS were 0
    // (amd/init.c early_amd_iommu_init).
    unit.facts[UnitFact::va_size] = 48;
  } else {
    unit.driver = Driver::virtio;
    unit.facts[UnitFact::page_sizes] = ~std::uint64_t{0xfff};
    unit.facts[UnitFact::input_start] = 0;
    unit.facts[UnitFact::input_last] = ~std::uint64_t{0};
    unit.facts[UnitFact::domain_first] = 0;
    unit.facts[UnitFact::domain_last] = 0xffffffff;
  }
  return unit;
}

ReservedType type_of(const std::string& name) {
  for (std::size_t i = 0; i < kReservedTypeNames.size(); ++i) {
    if (kReservedTypeNames[i] == name) return static_cast<ReservedType>(i);
  }
  return ReservedType::reserved;
}

std::vector<ReservedRegion> read_regions(const std::string& group) {
  std::vector<ReservedRegion> regions;
  std::istringstream lines(read_file("/sys/kernel/iommu_groups/" + group + "/reserved_regions"));
  for (std::string start, last, type; lines >> start >> last >> type;) regions.push_back({{hex(start), hex(last)}, type_of(type)});
  return regions;
}

Device read_device(const std::string& id, const Host& host) {
  const std::string folder = "/sys/bus/pci/devices/" + id;
  Device device;
  device.id = id;
  device.unit = host.find_unit(link_name(folder + "/iommu"));
  const std::string group = link_name(folder + "/iommu_group");
  device.group = static_cast<std::uint32_t>(std::strtoul(group.c_str(), nullptr, 10));
  device.facts[DeviceFact::device_class] = hex(read_file(folder + "/class"));
  device.facts[DeviceFact::vendor] = hex(read_file(folder + "/vendor"));
  device.facts[DeviceFact::device] = hex(read_file(folder + "/device"));
  device.facts[DeviceFact::dma_coherent] = 1;
  device.facts[DeviceFact::pasid_bits] = 0;
  device.reserved = read_regions(group);
  return device;
}

// One plain, one that cannot track dirty pages, one with PASIDs.
void add_mock_devices(Host& host) {
  Unit unit;
  unit.id = "mock";
  unit.driver = Driver::mock;
  host.units.push_back(unit);
  for (unsigned i = 0; i < 3; ++i) {
    Device device;
    device.id = "mock" + std::to_string(i);
    device.unit = UnitIndex(static_cast<std::uint32_t>(host.units.size() - 1));
    device.group = 1000 + i;
    device.facts[DeviceFact::no_dirty] = i == 1;
    device.facts[DeviceFact::pasid_bits] = i == 2 ? 20 : 0;
    device.facts[DeviceFact::dma_coherent] = 1;
    device.reserved.emplace();
    host.devices.push_back(device);
  }
}

}  // namespace

Host gather_host() {
  Host host;
  host.name = "guest";
  host.kernel.arch = Arch::x86_64;
  host.kernel.release = "7.2.13";
  host.kernel.facts[KernelFact::page_size] = 4096;
  host.kernel.facts[KernelFact::intel_iommu_sm] = command_line("intel_iommu", "").find("sm_on") != std::string::npos;
  host.kernel.facts[KernelFact::isolated_msi] = command_line("ioplan.isolated_msi", "1") == "1";
  host.kernel.facts[KernelFact::allow_unsafe_interrupts] = command_line("iommufd.allow_unsafe_interrupts", "0") == "1";
  for (const std::string& id : list_folder("/sys/class/iommu")) {
    if (!list_folder("/sys/class/iommu/" + id + "/devices").empty()) host.units.push_back(read_unit(id));
  }
  for (const std::string& id : list_folder("/sys/bus/pci/devices")) {
    if (!link_name("/sys/bus/pci/devices/" + id + "/iommu").empty()) host.devices.push_back(read_device(id, host));
  }
  add_mock_devices(host);
  sort_by_id(host);
  return host;
}

}  // namespace ioplan::kernel_test
