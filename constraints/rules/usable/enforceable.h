#pragma once

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule usable_enforceable{
    .name = "usable.enforceable",
    .phase = Phase::usable,
    .law = "With `coherency: required`, every device's IOMMU must be able to block no-snoop.",
    .source = "ioplan policy: Policy.coherency; Linux IOMMU_CAP_ENFORCE_CACHE_COHERENCY",
    .refusal = "the IOMMU of {device} ({unit}) cannot block no-snoop DMA, and the policy says `coherency: required`",
    .when = {{VmQ::coherency, Relation::equal, policy_term(CoherencyPolicy::required)}},
    .require = {{DeviceQ::enforce_cache_coherency, Relation::equal, std::uint64_t{1}}},
};

}  // namespace ioplan::rules
