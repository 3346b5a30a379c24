#pragma once

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule policy_cache_coherency{
    .name = "policy.cache-coherency",
    .phase = Phase::placement,
    .law = "A `require: enforce_cache_coherency` rule asks for a HWPT that has it.",
    .source = "ioplan policy: Policy.rules[].require",
    .refusal = "a policy rule requires `enforce_cache_coherency` for {device}, and the HWPT does not have it",
    .require = {{DeviceQ::required_cache_coherency, Relation::within, HwptQ::enforce_cache_coherency}},
};

}  // namespace ioplan::rules
