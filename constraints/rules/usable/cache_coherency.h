#pragma once

#include <cerrno>

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule usable_cache_coherency{
    .name = "usable.cache-coherency",
    .phase = Phase::usable,
    .law = "A device's IOMMU must translate client DMA coherently.",
    .source =
        "Linux drivers/vfio/vfio_main.c __vfio_register_dev, drivers/iommu/iommufd/device.c iommufd_device_bind "
        "(IOMMU_CAP_CACHE_COHERENCY)",
    .refusal = "{unit} does not make the DMA of {device} cache coherent (IOMMU_CAP_CACHE_COHERENCY is missing)",
    .errno_value = EINVAL,
    .require = {{DeviceQ::cache_coherency, Relation::equal, std::uint64_t{1}}},
};

}  // namespace ioplan::rules
