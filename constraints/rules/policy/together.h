#pragma once

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule policy_together{
    .name = "policy.together",
    .phase = Phase::cover,
    .law = "A `together` rule puts all chosen devices of a VM into one HWPT.",
    .source = "ioplan policy: Policy.rules[].together",
    .refusal = "policy rule `{rule}` wants {device} and {other} in one HWPT",
};

}  // namespace ioplan::rules
