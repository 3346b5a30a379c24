#pragma once

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule policy_assumptions{
    .name = "policy.assumptions",
    .phase = Phase::cover,
    .law = "With `assumptions: refuse`, no stock default may decide.",
    .source = "ioplan policy: Policy.assumptions",
    .refusal = "the answer rests on the default `{fact}: {value}`, and the policy says `assumptions: refuse`",
};

}  // namespace ioplan::rules
