#pragma once

#include <cerrno>

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule ioas_granule{
    .name = "ioas.granule",
    .phase = Phase::fit,
    .law = "The smallest page of a HWPT must not be larger than the kernel's page.",
    .source = "Linux drivers/iommu/iommufd/io_pagetable.c iopt_table_add_domain",
    .refusal = "the smallest page of the HWPT ({left}) is larger than the kernel's page ({right})",
    .errno_value = EINVAL,
    .require = {{HwptQ::smallest_page, Relation::at_most, VmQ::page_size}},
};

}  // namespace ioplan::rules
