#pragma once

#include <cerrno>

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule s390_dma_range{
    .name = "s390.dma-range",
    .phase = Phase::attach,
    .law = "The DMA range of the target function must meet the HWPT's aperture.",
    .source = "Linux drivers/iommu/s390-iommu.c s390_iommu_attach_device",
    .refusal = "the DMA range of {device} starts at {left}, past the HWPT's last address {right}",
    .errno_value = EINVAL,
    .when = {{HwptQ::driver, Relation::equal, driver_term(Driver::s390)},
             {DeviceQ::driver, Relation::equal, driver_term(Driver::s390)}},
    .require = {{DeviceQ::dma_start, Relation::at_most, HwptQ::aperture_last}},
};

}  // namespace ioplan::rules
