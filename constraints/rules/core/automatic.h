#pragma once

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule core_automatic{
    .name = "core.automatic",
    .phase = Phase::cover,
    .law = "SMMUv2 HWPTs are made by attaching to the IOAS, so devices of a VM behind one unit share one.",
    .source =
        "Linux drivers/iommu/arm/arm-smmu/arm-smmu.c (a HWPT_ALLOC domain has no aperture before its first attach)",
    .refusal = "all devices of {vm} behind {unit} share the HWPT that the kernel makes",
};

}  // namespace ioplan::rules
