#pragma once

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule coherency_strict{
    .name = "coherency.strict",
    .phase = Phase::placement,
    .law = "With `coherency: strict`, a device whose IOMMU can block no-snoop sits in a HWPT that does.",
    .source = "ioplan policy: Policy.coherency; invariant of Linux drivers/vfio/group.c vfio_group_enforced_coherent",
    .refusal = "the IOMMU of {device} can block no-snoop, the HWPT does not, and the policy says `coherency: strict`",
    .when = {{VmQ::coherency, Relation::equal, policy_term(CoherencyPolicy::strict)}},
    .require = {{DeviceQ::enforce_cache_coherency, Relation::within, HwptQ::enforce_cache_coherency}},
};

}  // namespace ioplan::rules
