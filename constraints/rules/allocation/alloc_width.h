#pragma once

#include <cerrno>

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule alloc_width{
    .name = "alloc.width",
    .phase = Phase::allocation,
    .law = "A page table needs an address width and a page size that its unit can walk.",
    .source =
        "Linux drivers/iommu/intel/iommu.c compute_vasz_lg2_ss, drivers/iommu/io-pgtable-arm.c arm_lpae_alloc_pgtable",
    .refusal = "{unit} reports no usable address width or page size for {device}",
    .errno_value = EINVAL,
    .require = {{std::uint64_t{1}, Relation::at_most, HwptQ::address_bits},
                {std::uint64_t{1}, Relation::at_most, HwptQ::smallest_page}},
};

}  // namespace ioplan::rules
