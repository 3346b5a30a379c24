#pragma once

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule coherency_required{
    .name = "coherency.required",
    .phase = Phase::placement,
    .law = "With `coherency: required`, every device sits in a HWPT that blocks no-snoop.",
    .source = "ioplan policy: Policy.coherency; invariant of Linux drivers/vfio/group.c vfio_group_enforced_coherent",
    .refusal = "the IOMMU of {device} can block no-snoop, the HWPT does not, and the policy says `coherency: required`",
    .when = {{VmQ::coherency, Relation::equal, policy_term(CoherencyPolicy::required)}},
    .require = {{DeviceQ::enforce_cache_coherency, Relation::within, HwptQ::enforce_cache_coherency}},
};

}  // namespace ioplan::rules
