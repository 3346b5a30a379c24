#pragma once

#include <cerrno>

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule alloc_levels{
    .name = "alloc.levels",
    .phase = Phase::allocation,
    .law = "A page table has at most five levels; reserved bits of CAP.SAGAW ask for more.",
    .source =
        "Linux drivers/iommu/intel/iommu.c compute_vasz_lg2_ss, drivers/iommu/generic_pt/fmt/vtdss.h "
        "vtdss_pt_iommu_fmt_init",
    .refusal = "{unit} asks for tables of {left} levels for {device}, which do not exist",
    .errno_value = EOPNOTSUPP,
    .require = {{HwptQ::levels, Relation::at_most, std::uint64_t{5}}},
};

}  // namespace ioplan::rules
