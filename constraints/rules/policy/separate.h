#pragma once

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule policy_separate{
    .name = "policy.separate",
    .phase = Phase::cover,
    .law = "A `separate` rule keeps a device of `a` and another device of `b` out of one HWPT.",
    .source = "ioplan policy: Policy.rules[].separate",
    .refusal = "policy rule `{rule}` keeps {device} and {other} apart",
};

}  // namespace ioplan::rules
