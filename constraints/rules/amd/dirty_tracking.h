#pragma once

#include <cerrno>

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule amd_dirty_tracking{
    .name = "amd.dirty-tracking",
    .phase = Phase::attach,
    .law = "A dirty-tracking HWPT needs EFR.HDSUP of the target unit.",
    .source = "Linux drivers/iommu/amd/iommu.c amd_iommu_attach_device",
    .refusal = "{unit} cannot track dirty pages (EFR.HDSUP), and the HWPT does",
    .errno_value = EINVAL,
    .when = {{HwptQ::driver, Relation::equal, driver_term(Driver::amd)},
             {DeviceQ::driver, Relation::equal, driver_term(Driver::amd)}},
    .require = {{HwptQ::dirty_tracking, Relation::within, DeviceQ::dirty_capable}},
};

}  // namespace ioplan::rules
