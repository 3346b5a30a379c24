#pragma once

#include <cerrno>

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule virtio_alloc_granule{
    .name = "virtio.alloc.granule",
    .phase = Phase::allocation,
    .law = "The smallest page of a virtio-iommu must not be larger than the kernel's page.",
    .source = "Linux drivers/iommu/virtio-iommu.c viommu_domain_alloc_paging",
    .refusal = "the smallest page of {unit} ({left}) is larger than the kernel's page ({right})",
    .errno_value = ENODEV,
    .when = {{HwptQ::driver, Relation::equal, driver_term(Driver::virtio)}},
    .require = {{HwptQ::smallest_page, Relation::at_most, DeviceQ::kernel_page_size}},
};

}  // namespace ioplan::rules
