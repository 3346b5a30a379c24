#pragma once

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule usable_assumed_coherency{
    .name = "usable.assumed-coherency",
    .phase = Phase::usable,
    .law = "With `assumed_coherency: refuse`, no device may rest on a merely assumed coherency fact.",
    .source = "ioplan policy (seed question S5): Policy.assumed_coherency",
    .refusal = "whether the DMA of {device} is coherent is only assumed, and the policy says `assumed_coherency: refuse`",
    .require = {{DeviceQ::coherency_assumed, Relation::within, VmQ::assumed_coherency}},
};

}  // namespace ioplan::rules
