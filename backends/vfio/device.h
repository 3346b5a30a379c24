// From a device's name to its VFIO cdev, by sysfs; and in the user's words why there is none.
//
// A PCI address is /sys/bus/pci/devices/ADDRESS, a mediated device's UUID /sys/bus/mdev/devices/UUID; a VFIO driver
// puts vfio-dev/vfioN into either, which is /dev/vfio/devices/vfioN where the kernel has CONFIG_VFIO_DEVICE_CDEV
// (Linux 6.6); iommu_group leads to /dev/vfio/NUMBER where it has CONFIG_VFIO_GROUP. Nothing here changes anything. Source: drivers/vfio/vfio_main.c __vfio_register_dev,
// drivers/vfio/device_cdev.c. Held by tests/iommufd_backend_test.cc.
#pragma once

#include <string>
#include <string_view>

#include "backends/vfio/system.h"

namespace ioplan::vfio {

// "/dev/vfio/devices/vfio3". Errors: no such device, bound to no VFIO driver (with the commands), a kernel without
// cdevs.
Result<std::string> find_cdev(System& system, const std::string& id);

// "/dev/vfio/12", of the PCI device's group. Errors: as above, but cdevs are not asked for; behind no IOMMU.
Result<std::string> find_group(System& system, const std::string& address);

// Whether all of a PCI device's group may be owned by user space. Errors name the members in the way and what drives
// them, or say that the device has no group. Requires: find_cdev found it.
Result<void> require_viable_group(System& system, const std::string& address);

}  // namespace ioplan::vfio
