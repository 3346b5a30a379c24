#pragma once

#include <cerrno>

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule alloc_flag_combination{
    .name = "alloc.flag-combination",
    .phase = Phase::allocation,
    .law =
        "A driver allocates only the flag combinations that it knows; drivers without domain_alloc_paging_flags know "
        "none.",
    .source =
        "Linux drivers/iommu/iommufd/hw_pagetable.c iommufd_hwpt_paging_alloc; the drivers' domain_alloc_paging_flags; "
        "run on 7.2.13 in QEMU",
    .refusal = "the driver of {unit} knows no HWPT with flags {hwpt.flags}",
    .errno_value = EOPNOTSUPP,
    .require = {{HwptQ::flag_set, Relation::within, DeviceQ::flag_sets}},
};

}  // namespace ioplan::rules
