#pragma once

#include <cerrno>

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule alloc_nest_parent{
    .name = "alloc.nest-parent",
    .phase = Phase::allocation,
    .law = "A nesting parent needs an allocating device whose IOMMU nests.",
    .source =
        "Linux intel_iommu_domain_alloc_second_stage (NEST), amd is_nest_parent_supported (GT, GIOSUP, GCR3TRPMODE), "
        "arm_smmu_domain_alloc_paging_flags (S1P and S2P); run on 7.2.13 in QEMU",
    .refusal = "{unit} cannot nest, so {device} cannot allocate a nesting parent",
    .errno_value = EOPNOTSUPP,
    .require = {{HwptQ::nest_parent, Relation::within, DeviceQ::nested}},
};

}  // namespace ioplan::rules
