#pragma once

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule lifecycle_promise{
    .name = "lifecycle.promise",
    .phase = Phase::cover,
    .law = "A plug is promised when it succeeds in frozen mode, with all other promises, in every order.",
    .source = "engine/lifecycle/README.md 7",
    .refusal = "{device} cannot be promised",
};

}  // namespace ioplan::rules
