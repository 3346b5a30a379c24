#pragma once

#include <cerrno>

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule usable_pasid_width{
    .name = "usable.pasid-width",
    .phase = Phase::usable,
    .law = "A VM that needs PASID needs devices and units with a PASID width.",
    .source = "Linux drivers/iommu/iommu.c iommu_attach_device_pasid (max_pasids)",
    .refusal = "{device} behind {unit} has no usable PASIDs, and {vm} needs them",
    .errno_value = EINVAL,
    .when = {{VmQ::needs_pasid, Relation::equal, std::uint64_t{1}}},
    .require = {{std::uint64_t{1}, Relation::at_most, DeviceQ::pasid_bits}},
};

}  // namespace ioplan::rules
