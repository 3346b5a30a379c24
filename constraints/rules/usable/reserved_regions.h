#pragma once

#include <cerrno>

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule usable_reserved_regions{
    .name = "usable.reserved-regions",
    .phase = Phase::usable,
    .law = "What a VM maps must not lie over a reserved region of its devices.",
    .source =
        "Linux drivers/iommu/iommufd/io_pagetable.c iopt_table_enforce_dev_resv_regions, iopt_reserve_iova; run on "
        "7.2.13 in QEMU",
    .refusal = "a reserved region of {device} lies over memory that {vm} maps",
    .errno_value = EADDRINUSE,
    .require = {{DeviceQ::region_over_memory, Relation::equal, std::uint64_t{0}}},
};

}  // namespace ioplan::rules
