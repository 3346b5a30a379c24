#pragma once

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule type1_cache_coherency{
    .name = "type1.cache-coherency",
    .phase = Phase::attach,
    .law = "VFIO type1 puts a group only into a domain that enforces cache coherency exactly when its own domain does.",
    .source = "Linux drivers/vfio/vfio_iommu_type1.c vfio_iommu_type1_attach_group (enforce_cache_coherency)",
    .refusal = "type1 never lets devices whose IOMMU can block no-snoop share with devices whose IOMMU cannot, and "
               "{device} would have to",
    .when = {{std::uint64_t{1}, Relation::at_most, DeviceQ::type1_stage},
             {HwptQ::owner, Relation::equal, DeviceQ::owner}},
    .require = {{HwptQ::enforce_cache_coherency, Relation::equal, DeviceQ::enforce_cache_coherency}},
};

}  // namespace ioplan::rules
