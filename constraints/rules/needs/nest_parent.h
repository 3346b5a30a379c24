#pragma once

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule needs_nest_parent{
    .name = "needs.nest-parent",
    .phase = Phase::fit,
    .law = "A VM that needs a nesting parent needs it of each of its HWPTs.",
    .source = "VirtualMachine.needs.nest_parent; Linux IOMMU_HWPT_ALLOC_NEST_PARENT",
    .refusal = "{vm} says `needs.nest_parent: required`",
    .require = {{VmQ::needs_nest_parent, Relation::within, HwptQ::nest_parent}},
};

}  // namespace ioplan::rules
