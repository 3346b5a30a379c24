#pragma once

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule coherency_safe{
    .name = "coherency.safe",
    .phase = Phase::placement,
    .law =
        "With `coherency: safe`, a device whose IOMMU can block no-snoop sits in a HWPT that does, unless the VM has "
        "a device whose IOMMU cannot.",
    .source = "ioplan policy: Policy.coherency; invariant of Linux drivers/vfio/group.c vfio_group_enforced_coherent",
    .refusal = "the IOMMU of {device} can block no-snoop, the HWPT does not, and the policy says `coherency: safe`",
    .when = {{VmQ::coherency, Relation::equal, policy_term(CoherencyPolicy::safe)},
             {VmQ::all_enforceable, Relation::equal, std::uint64_t{1}}},
    .require = {{DeviceQ::enforce_cache_coherency, Relation::within, HwptQ::enforce_cache_coherency}},
};

}  // namespace ioplan::rules
