#pragma once

#include <cerrno>

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule alloc_table{
    .name = "alloc.table",
    .phase = Phase::allocation,
    .law = "A page table needs a page size that its unit walks, and an address width that reaches its root.",
    .source =
        "Linux drivers/iommu/io-pgtable-arm.c arm_lpae_alloc_pgtable, drivers/iommu/generic_pt/pt_iter.h "
        "pt_top_memsize_lg2",
    .refusal = "{unit} reports no page size that a table for {device} could use",
    .errno_value = ENOMEM,
    .when = {{std::uint64_t{1}, Relation::at_most, HwptQ::address_bits},
             {HwptQ::levels, Relation::at_most, std::uint64_t{5}}},
    .require = {{std::uint64_t{1}, Relation::at_most, HwptQ::smallest_page}},
};

}  // namespace ioplan::rules
