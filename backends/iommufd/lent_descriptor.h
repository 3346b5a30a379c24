// Whether a descriptor that was passed to us is what its giver says, before anything is done with it. Asks the kernel
// what changes nothing: /dev/iommu for its accounting mode; a VFIO device that is not bound refuses every call but the
// bind with EINVAL (vfio_main.c vfio_device_fops_unl_ioctl), other files do not know VFIO's calls. Where sysfs can be
// read, it tells which device the node belongs to. Held by tests/iommufd_backend_test.cc and, on Linux, by
// tests/kernel (refusals).
#pragma once

#include <string>

#include "backends/vfio/system.h"

namespace ioplan::iommufd {

// Errors: not open, not /dev/iommu.
Result<void> require_iommu(vfio::System& system, int fd);

// Errors: not open, no VFIO device, another device's, bound already.
Result<void> require_unbound_device(vfio::System& system, const std::string& id, int fd);

}  // namespace ioplan::iommufd
