#pragma once

#include <cerrno>

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule alloc_width{
    .name = "alloc.width",
    .phase = Phase::allocation,
    .law = "A page table needs an address width that its unit can walk and 64 bits can hold.",
    .source =
        "Linux drivers/iommu/intel/iommu.c compute_vasz_lg2_ss, drivers/iommu/generic_pt/iommu_pt.h pt_iommu_init",
    .refusal = "{unit} reports no usable address width for {device}",
    .errno_value = EINVAL,
    .require = {{std::uint64_t{1}, Relation::at_most, HwptQ::address_bits}},
};

}  // namespace ioplan::rules
