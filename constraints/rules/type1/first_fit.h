#pragma once

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule type1_first_fit{
    .name = "type1.first-fit",
    .phase = Phase::cover,
    .law = "A group joins the newest domain of the container that takes it; only the order of joining can be chosen.",
    .source = "Linux drivers/vfio/vfio_iommu_type1.c vfio_iommu_type1_attach_group",
    .refusal = "no order in which the groups of {vm} join a type1 container keeps the policy",
};

}  // namespace ioplan::rules
