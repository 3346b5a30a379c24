#pragma once

#include <cerrno>

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule core_owner{
    .name = "core.owner",
    .phase = Phase::attach,
    .law = "A HWPT is accepted only by devices of the driver that made it.",
    .source = "Linux drivers/iommu/iommu.c (domain->owner); run on 7.2.13 in QEMU",
    .refusal = "{device} is driven by another IOMMU driver (`{device.driver}`) than the HWPT (`{hwpt.driver}`)",
    .errno_value = EINVAL,
    .require = {{HwptQ::owner, Relation::equal, DeviceQ::owner}},
};

}  // namespace ioplan::rules
