// Rules about a VM as a whole: coherency.mediated, ioas.access-alignment and needs.p2p.

#include <algorithm>
#include <cstdio>

#include <fmt/format.h>

#include "engine/base/text.h"
#include "engine/solve/solver.h"

namespace ioplan {

namespace {

// KVM counts a mediated device as non-coherent, whatever the HWPTs.
std::optional<VmRefusal> refuse_mediated(const Request& request, const VirtualMachine& vm) {
  if (request.policy.coherency != CoherencyPolicy::required) return std::nullopt;
  const auto mdev = std::ranges::find_if(vm.devices, [](const AssignedDevice& a) { return !a.host; });
  if (mdev == vm.devices.end()) return std::nullopt;
  return VmRefusal{"coherency.mediated",
                   {mdev->mdev},
                   fmt::format("the mediated device {} always makes KVM non-coherent, and the policy says "
                               "`coherency: required`",
                               mdev->mdev)};
}

// The access of a mediated device raises the alignment of the IOAS to the kernel's page.
std::optional<VmRefusal> refuse_access(const Request& request, const VirtualMachine& vm) {
  const auto mdev = std::ranges::find_if(vm.devices, [](const AssignedDevice& a) { return !a.host; });
  if (mdev == vm.devices.end()) return std::nullopt;
  const std::uint64_t page = request.host.kernel.facts[KernelFact::page_size].value_or(4096);
  for (const MemoryRange& m : memory_of(vm, request.host)) {
    if (((m.gpa.start | (m.gpa.last + 1)) & (page - 1)) == 0) continue;
    return VmRefusal{"ioas.access-alignment",
                     {mdev->mdev},
                     fmt::format("{} has the mediated device {} and maps {:#x}-{:#x}, which is not aligned to the kernel's "
                                 "page of {}",
                                 vm.name, mdev->mdev, m.gpa.start, m.gpa.last, format_size(page))};
  }
  return std::nullopt;
}

// IOMMU_IOAS_MAP_FILE takes a BAR, as a dma-buf of VFIO, since Linux 6.19.
bool maps_bars(const std::optional<std::string>& release) {
  unsigned major = 0, minor = 0;
  if (!release || std::sscanf(release->c_str(), "%u.%u", &major, &minor) != 2) return true;  // stock: 7.2.13
  return major > 6 || (major == 6 && minor >= 19);
}

std::optional<VmRefusal> refuse_p2p(const Request& request, const VirtualMachine& vm) {
  for (const auto& [a, b] : vm.needs.p2p) {
    if (!maps_bars(request.host.kernel.release)) {
      return VmRefusal{"needs.p2p",
                       {vm.name},
                       fmt::format("{} and {} are to reach each other's BARs, and Linux {} cannot map BARs into an IOAS "
                                   "(6.19 can)",
                                   a, b, *request.host.kernel.release)};
    }
    for (const AssignedDevice& device : vm.devices) {
      if (device.host || (device.name != a && device.name != b && device.mdev != a && device.mdev != b)) continue;
      return VmRefusal{"needs.p2p",
                       {device.mdev},
                       fmt::format("{} and {} are to reach each other's BARs, and {} is mediated: it has no IOMMU", a, b,
                                   device.mdev)};
    }
  }
  return std::nullopt;
}

}  // namespace

std::optional<VmRefusal> refuse_vm(const Request& request, VmIndex index) {
  const VirtualMachine& vm = request.vms[index.index()];
  if (auto refusal = refuse_mediated(request, vm)) return refusal;
  if (auto refusal = refuse_access(request, vm)) return refusal;
  return refuse_p2p(request, vm);
}

}  // namespace ioplan
