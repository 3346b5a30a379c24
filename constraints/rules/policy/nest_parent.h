#pragma once

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule policy_nest_parent{
    .name = "policy.nest-parent",
    .phase = Phase::placement,
    .law = "A `require: nest_parent` rule asks for a HWPT that has it.",
    .source = "ioplan policy: Policy.rules[].require",
    .refusal = "a policy rule requires `nest_parent` for {device}, and the HWPT does not have it",
    .require = {{DeviceQ::required_nest_parent, Relation::within, HwptQ::nest_parent}},
};

}  // namespace ioplan::rules
