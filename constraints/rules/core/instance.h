#pragma once

#include <cerrno>

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule core_instance{
    .name = "core.instance",
    .phase = Phase::attach,
    .law = "SMMU and virtio-iommu HWPTs belong to one IOMMU instance.",
    .source = "Linux arm_smmu_attach_dev (v3 and v2), viommu_attach_dev",
    .refusal = "the HWPT belongs to another IOMMU instance than {unit}, in front of {device}",
    .errno_value = EINVAL,
    .when = {{HwptQ::owner, Relation::equal, DeviceQ::owner}},
    .require = {{HwptQ::unit, Relation::equal, DeviceQ::unit}},
};

}  // namespace ioplan::rules
