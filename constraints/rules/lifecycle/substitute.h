#pragma once

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule lifecycle_substitute{
    .name = "lifecycle.substitute",
    .phase = Phase::cover,
    .law = "Every device of a VM that migrates needs one of its class at the destination.",
    .source = "engine/lifecycle/README.md 9",
    .refusal = "{device} has no substitute",
};

}  // namespace ioplan::rules
