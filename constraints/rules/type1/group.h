#pragma once

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule type1_group{
    .name = "type1.group",
    .phase = Phase::cover,
    .law = "VFIO type1 asks one device of a group for a domain of the group's own, which must come out whichever it asks.",
    .source = "Linux drivers/vfio/vfio_iommu_type1.c vfio_iommu_type1_attach_group (iommu_group_for_each_dev)",
    .refusal = "which device of the group of {device} type1 asks for a domain is not known, and they would make different ones",
};

}  // namespace ioplan::rules
