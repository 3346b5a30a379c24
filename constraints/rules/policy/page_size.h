#pragma once

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule policy_page_size{
    .name = "policy.page-size",
    .phase = Phase::placement,
    .law = "A `require: page_size` rule asks for a HWPT with a page of at least that size.",
    .source = "ioplan policy: Policy.rules[].require",
    .refusal =
        "a policy rule requires a page of at least {left} for {device}, and the largest page of the HWPT is {right}",
    .require = {{DeviceQ::required_page, Relation::at_most, HwptQ::largest_page}},
};

}  // namespace ioplan::rules
