// /sys/class/iommu: which units there are, and what each driver shows of them.
#include <algorithm>
#include <string>
#include <string_view>

#include "backends/intake/sysfs.h"

namespace ioplan::intake {

namespace {

const std::string kClass = "/sys/class/iommu/";
const std::string kFromLog = "`ioplan import --dmesg` with the boot log";
const std::string kFromHardware = "`ioplan scan --iommufd` as root with a device bound to vfio-pci";

void scan_intel(Sysfs& sysfs, const std::string& id) {
  const std::string folder = kClass + id + "/intel-iommu/";
  sysfs.state_hex(unit(id, UnitFact::cap), folder + "cap");
  sysfs.state_hex(unit(id, UnitFact::ecap), folder + "ecap");
  sysfs.state_hex(unit(id, "address"), folder + "address");
  sysfs.state_text(unit(id, "version"), folder + "version");
}

// `features` is "EFR:EFR2" (amd/init.c amd_iommu_show_features), the other way round in some older kernels, and EFR alone
// in yet older ones. Which is which shows: EFR2 has no feature above bit 15, and no EFR is below that.
void scan_features(Sysfs& sysfs, const std::string& id) {
  const std::string path = kClass + id + "/amd-iommu/features";
  const std::string line = sysfs.text(path).value_or("");
  const std::size_t colon = std::min(line.find(':'), line.size());
  const auto first = number_of(std::string_view(line).substr(0, colon), 16);
  const auto second = colon == line.size() ? std::optional<std::uint64_t>(0) : number_of(std::string_view(line).substr(colon + 1), 16);
  if (!first || !second) {
    const std::string why = line.empty() ? path + " cannot be read" : path + " holds no registers";
    sysfs.findings().miss(unit(id, UnitFact::efr), why, kFromLog);
    return sysfs.findings().miss(unit(id, UnitFact::efr2), why, kFromLog);
  }
  sysfs.findings().state(unit(id, UnitFact::efr), std::max(*first, *second), path);
  if (colon == line.size()) return sysfs.findings().miss(unit(id, UnitFact::efr2), path + " shows EFR alone", kFromLog);
  sysfs.findings().state(unit(id, UnitFact::efr2), std::min(*first, *second), path);
}

// The IVRS table's IVinfo: a width for all units, and whether EFR is in the table. Where it is not, Linux computes the
// width before it has read the register, as if HATS were 0 (amd/init.c early_amd_iommu_init).
void scan_ivrs(Sysfs& sysfs, const std::string& id) {
  constexpr std::size_t kIvinfo = 36;
  constexpr std::uint64_t kWidthWithoutEfr = 48;
  const std::string path = "/sys/firmware/acpi/tables/IVRS";
  const auto table = sysfs.bytes(path, kIvinfo + 4, [](std::string_view t) { return std::string(t); });
  if (!table || table->size() < kIvinfo + 4 || !table->starts_with("IVRS")) {
    return sysfs.findings().miss(unit(id, UnitFact::va_size), path + " cannot be read", "run as root");
  }
  std::uint32_t ivinfo = 0;
  for (std::size_t i = 0; i < 4; ++i) {
    ivinfo |= static_cast<std::uint32_t>(static_cast<unsigned char>((*table)[kIvinfo + i])) << (8 * i);
  }
  const std::uint64_t stated = ivinfo >> 15 & 0x7fU;
  const std::uint64_t width = stated == 0 ? 64 : stated;
  const bool has_efr = (ivinfo & 1U) != 0;
  sysfs.findings().state(unit(id, UnitFact::va_size), has_efr ? width : std::min(width, kWidthWithoutEfr), path);
}

void scan_amd(Sysfs& sysfs, const std::string& id) {
  scan_features(sysfs, id);
  scan_ivrs(sysfs, id);
}

void miss_registers(Sysfs& sysfs, const std::string& id, std::initializer_list<const char*> keys, const std::string& supply) {
  for (const char* key : keys) sysfs.findings().miss(unit(id, key), "sysfs does not show it", supply);
}

// "smmu3.0x000000002b400000": the registers' address (arm-smmu-v3.c, arm-smmu.c).
void scan_smmu(Sysfs& sysfs, const std::string& id) {
  const std::string_view address = std::string_view(id).substr(id.find('.') + 1);
  if (const auto value = number_of(address, 16)) sysfs.findings().state(unit(id, "address"), *value, kClass + id);
  if (id.starts_with("smmu3.")) {
    miss_registers(sysfs, id, {"idr"}, kFromHardware + ", or " + kFromLog);
    miss_registers(sysfs, id, {"coherent", "httu"}, kFromLog);
  } else {
    miss_registers(sysfs, id, {"page_mask", "coherent", "stage1", "stage2", "input_bits", "ipa_bits"}, kFromLog);
  }
}

// Which driver a unit has shows in its name. virtio-iommu names a unit after the device that it is.
std::optional<Driver> driver_of(Sysfs& sysfs, const std::string& id) {
  if (id.starts_with("dmar")) return Driver::intel;
  if (id.starts_with("ivhd")) return Driver::amd;
  if (id.starts_with("smmu3.")) return Driver::smmuv3;
  if (id.starts_with("smmu.")) return Driver::smmuv2;
  if (id.starts_with("riscv-iommu@")) return Driver::riscv;
  if (id.starts_with("s390-iommu.")) return Driver::s390;
  if (id.starts_with("iommufd_selftest_iommu")) return Driver::mock;
  const std::string bus_driver = sysfs.link(kClass + id + "/device/driver").value_or("");
  return bus_driver.starts_with("virtio") ? std::optional(Driver::virtio) : std::nullopt;
}

void scan_registers(Sysfs& sysfs, const std::string& id, Driver driver) {
  switch (driver) {
    case Driver::intel: return scan_intel(sysfs, id);
    case Driver::amd: return scan_amd(sysfs, id);
    case Driver::smmuv3:
    case Driver::smmuv2: return scan_smmu(sysfs, id);
    case Driver::virtio: return miss_registers(sysfs, id, {"page_mask"}, kFromLog);
    case Driver::riscv: return miss_registers(sysfs, id, {"capabilities"}, "the platform's documentation");
    case Driver::s390: return miss_registers(sysfs, id, {"dma_range"}, "the function's CLP information");
    case Driver::mock: return;
  }
}

}  // namespace

DriverSet scan_units(Sysfs& sysfs) {
  const std::vector<std::string> ids = sysfs.list("/sys/class/iommu");
  if (ids.empty()) {
    sysfs.findings().miss({About::host, {}, "iommus"}, "/sys/class/iommu is empty: no IOMMU is in use",
                          "turn it on in the firmware and on the kernel's command line (`intel_iommu=on`)");
  }
  DriverSet drivers = 0;
  for (const std::string& id : ids) {
    const auto driver = driver_of(sysfs, id);
    if (!driver) {
      sysfs.findings().miss(unit(id, "driver"), "it is none of the drivers that ioplan knows", {});
      continue;
    }
    drivers |= driver_set(*driver);
    sysfs.findings().state(unit(id, "driver"), std::string(name_of(*driver)), kClass + id);
    scan_registers(sysfs, id, *driver);
  }
  return drivers;
}

}  // namespace ioplan::intake
