#pragma once

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule policy_pasid{
    .name = "policy.pasid",
    .phase = Phase::placement,
    .law = "A `require: pasid` rule asks for a HWPT that has it.",
    .source = "ioplan policy: Policy.rules[].require",
    .refusal = "a policy rule requires `pasid` for {device}, and the HWPT does not have it",
    .require = {{DeviceQ::required_pasid, Relation::within, HwptQ::pasid}},
};

}  // namespace ioplan::rules
