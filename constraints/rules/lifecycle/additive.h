#pragma once

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule lifecycle_additive{
    .name = "lifecycle.additive",
    .phase = Phase::cover,
    .law = "In additive mode devices that are there stay in their HWPTs.",
    .source = "engine/lifecycle/README.md 3",
    .refusal = "nothing that stays may move",
};

}  // namespace ioplan::rules
