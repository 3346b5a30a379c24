#pragma once

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule needs_dirty_tracking{
    .name = "needs.dirty-tracking",
    .phase = Phase::fit,
    .law = "A VM that needs dirty tracking needs it of each of its HWPTs.",
    .source = "VirtualMachine.needs.dirty_tracking; Linux IOMMU_HWPT_ALLOC_DIRTY_TRACKING",
    .refusal = "{vm} says `needs.dirty_tracking: required`",
    .require = {{VmQ::needs_dirty_tracking, Relation::within, HwptQ::dirty_tracking}},
};

}  // namespace ioplan::rules
