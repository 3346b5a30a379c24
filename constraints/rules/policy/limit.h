#pragma once

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule policy_limit{
    .name = "policy.limit",
    .phase = Phase::cover,
    .law = "A `limit` rule bounds the HWPTs of a VM.",
    .source = "ioplan policy: Policy.rules[].limit",
    .refusal = "policy rule `{rule}` allows {vm} at most {right} HWPTs",
};

}  // namespace ioplan::rules
