#pragma once

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule type1_page_sizes{
    .name = "type1.page-sizes",
    .phase = Phase::cover,
    .law = "What is mapped in a type1 container is aligned to the smallest page size that all of its domains have.",
    .source = "Linux drivers/vfio/vfio_iommu_type1.c vfio_update_pgsize_bitmap, vfio_dma_do_map",
    .refusal = "the domains of {vm} have no page size in common that fits its memory",
};

}  // namespace ioplan::rules
