#pragma once

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule policy_dirty_tracking{
    .name = "policy.dirty-tracking",
    .phase = Phase::placement,
    .law = "A `require: dirty_tracking` rule asks for a HWPT that has it.",
    .source = "ioplan policy: Policy.rules[].require",
    .refusal = "a policy rule requires `dirty_tracking` for {device}, and the HWPT does not have it",
    .require = {{DeviceQ::required_dirty_tracking, Relation::within, HwptQ::dirty_tracking}},
};

}  // namespace ioplan::rules
