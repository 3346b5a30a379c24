#pragma once

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule lifecycle_frozen{
    .name = "lifecycle.frozen",
    .phase = Phase::cover,
    .law = "In frozen mode no HWPT is made, none goes, no device moves, and what the guest sees stays.",
    .source = "engine/lifecycle/README.md 3",
    .refusal = "frozen mode makes no new HWPT for {vm}",
};

}  // namespace ioplan::rules
