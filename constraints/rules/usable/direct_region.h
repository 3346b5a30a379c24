#pragma once

#include <cerrno>

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule usable_direct_region{
    .name = "usable.direct-region",
    .phase = Phase::group,
    .law = "No device of the group may have a DIRECT reserved region: firmware wants it mapped 1:1.",
    .source = "Linux drivers/iommu/iommu.c __iommu_device_set_domain (require_direct), VT-d RMRR, AMD IVMD",
    .refusal = "firmware demands a 1:1 mapping for {device} (a `direct` reserved region)",
    .errno_value = EINVAL,
    .require = {{DeviceQ::direct_region, Relation::equal, std::uint64_t{0}}},
};

}  // namespace ioplan::rules
