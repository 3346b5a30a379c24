#pragma once

#include <cerrno>

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule ioas_aperture{
    .name = "ioas.aperture",
    .phase = Phase::fit,
    .law = "All that a VM maps must lie inside the aperture of each of its HWPTs.",
    .source = "Linux drivers/iommu/iommufd/io_pagetable.c iopt_table_add_domain; run on 7.2.13 in QEMU",
    .refusal = "memory that {vm} maps lies outside the aperture of the HWPT ({left} against {right})",
    .errno_value = EADDRINUSE,
    .require = {{HwptQ::aperture_start, Relation::at_most, VmQ::memory_first},
                {VmQ::memory_last, Relation::at_most, HwptQ::aperture_last}},
};

}  // namespace ioplan::rules
