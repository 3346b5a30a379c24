#include "backends/intake/hw_info.h"

#include <fmt/format.h>

#include <cstring>
#include <vector>

#include "backends/iommufd/calls.h"
#include "backends/vfio/device.h"

namespace ioplan::intake {

namespace {

using namespace iommufd;

struct Register {
  UnitFact fact;
  std::uint64_t value;
};

std::vector<Register> registers_of(const HwInfo& info) {
  switch (info.type) {
    case uapi::IOMMU_HW_INFO_TYPE_INTEL_VTD: {
      const auto vtd = info.as<uapi::iommu_hw_info_vtd>();
      return {{UnitFact::cap, vtd.cap_reg}, {UnitFact::ecap, vtd.ecap_reg}};
    }
    case uapi::IOMMU_HW_INFO_TYPE_AMD: {
      const auto amd = info.as<uapi::iommu_hw_info_amd>();
      return {{UnitFact::efr, amd.efr}, {UnitFact::efr2, amd.efr2}};
    }
    case uapi::IOMMU_HW_INFO_TYPE_ARM_SMMUV3: {
      const auto smmu = info.as<uapi::iommu_hw_info_arm_smmuv3>();
      return {{UnitFact::idr0, smmu.idr[0]}, {UnitFact::idr1, smmu.idr[1]}, {UnitFact::idr3, smmu.idr[3]}, {UnitFact::idr5, smmu.idr[5]}};
    }
    default: return {};
  }
}

// The words of an errno as a failure of the step that met it.
std::string words_of(const char* step, int errno_value) { return fmt::format("{} failed: {}", step, std::strerror(errno_value)); }

Result<HwInfo> ask(System& system, int iommu, const std::string& id) {
  const auto path = vfio::find_cdev(system, id);
  if (!path) return tl::make_unexpected(path.error());
  const auto file = system.open(*path);
  if (!file) return failure(words_of(("opening " + *path).c_str(), file.error().value));
  const Descriptor device = Descriptor::owned(system, *file);
  const auto bound = vfio_bind(system, device.get(), iommu);
  if (!bound) return failure(words_of("binding it to iommufd", bound.error().value));
  const auto info = get_hw_info(system, iommu, *bound);
  if (!info) return failure(words_of("GET_HW_INFO", info.error().value));
  return *info;
}

// False when the unit must be asked again by way of another device.
bool state_registers(System& system, int iommu, const Host& host, const Device& device, Findings& findings) {
  const auto info = ask(system, iommu, device.id);
  if (!info) {
    findings.miss({About::device, device.id, "hw_info"}, info.error().message, "let nobody else use it meanwhile");
    return false;
  }
  const std::string& unit_id = host.unit(*device.unit).id;
  for (const Register& r : registers_of(*info)) findings.state(unit(unit_id, r.fact), r.value, "GET_HW_INFO of " + device.id);
  return true;
}

}  // namespace

void ask_iommufd(System& system, const Host& host, Findings& findings) {
  const auto iommu = system.open("/dev/iommu");
  if (!iommu) {
    return findings.miss({About::host, {}, "hw_info"}, words_of("opening /dev/iommu", iommu.error().value),
                         "run as root on a kernel with CONFIG_IOMMUFD");
  }
  const Descriptor context = Descriptor::owned(system, *iommu);
  std::vector<bool> told(host.units.size());
  bool asked = false;
  for (const Device& device : host.devices) {
    if (device.bound_driver != "vfio-pci" || !device.unit || told[device.unit->index()]) continue;
    asked = true;
    told[device.unit->index()] = state_registers(system, context.get(), host, device, findings);
  }
  if (!asked) findings.miss({About::host, {}, "hw_info"}, "no device is bound to vfio-pci", "bind one device of each unit to vfio-pci");
}

}  // namespace ioplan::intake
