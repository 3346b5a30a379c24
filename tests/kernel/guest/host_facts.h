// The guest as a Host: what sysfs says of its IOMMU, its devices and its groups, and a few mock devices beside them.
#pragma once

#include "engine/model/host.h"

namespace ioplan::kernel_test {

// What sysfs does not say (virtio-iommu's configuration) is what QEMU 7.2 builds.
Host gather_host();

}  // namespace ioplan::kernel_test
