#pragma once

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule needs_pasid{
    .name = "needs.pasid",
    .phase = Phase::fit,
    .law = "A VM that needs PASID needs it of each of its HWPTs.",
    .source = "VirtualMachine.needs.pasid; Linux IOMMU_HWPT_ALLOC_PASID",
    .refusal = "{vm} says `needs.pasid: required`",
    .require = {{VmQ::needs_pasid, Relation::within, HwptQ::pasid}},
};

}  // namespace ioplan::rules
