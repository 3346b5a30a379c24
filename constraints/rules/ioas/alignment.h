#pragma once

#include <cerrno>

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule ioas_alignment{
    .name = "ioas.alignment",
    .phase = Phase::fit,
    .law = "Every mapping's start and size must be aligned to the smallest page of each HWPT.",
    .source =
        "Linux drivers/iommu/iommufd/io_pagetable.c iopt_table_add_domain, iopt_check_iova_alignment; run on 7.2.13 in "
        "QEMU",
    .refusal = "{vm} maps memory aligned to {right}, and the smallest page of the HWPT is {left}",
    .errno_value = EADDRINUSE,
    .require = {{HwptQ::smallest_page, Relation::at_most, VmQ::memory_alignment}},
};

}  // namespace ioplan::rules
