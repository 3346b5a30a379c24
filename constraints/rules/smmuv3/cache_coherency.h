#pragma once

#include <cerrno>

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule smmuv3_cache_coherency{
    .name = "smmuv3.cache-coherency",
    .phase = Phase::attach,
    .law = "A HWPT that enforces cache coherency needs CANWBS of the target device.",
    .source = "Linux drivers/iommu/arm/arm-smmu-v3/arm-smmu-v3.c arm_smmu_attach_prepare",
    .refusal =
        "the root complex of {device} cannot force write-back (IORT CANWBS), and the HWPT enforces cache coherency",
    .errno_value = EINVAL,
    .when = {{HwptQ::driver, Relation::equal, driver_term(Driver::smmuv3)},
             {DeviceQ::driver, Relation::equal, driver_term(Driver::smmuv3)}},
    .require = {{HwptQ::enforce_cache_coherency, Relation::within, DeviceQ::enforce_cache_coherency}},
};

}  // namespace ioplan::rules
