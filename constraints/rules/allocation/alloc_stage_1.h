#pragma once

#include <cerrno>

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule alloc_stage_1{
    .name = "alloc.stage-1",
    .phase = Phase::allocation,
    .law = "A stage-1 HWPT needs an allocating device whose unit has stage-1 tables.",
    .source =
        "Linux intel_iommu_domain_alloc_first_stage, amd_iommu_domain_alloc_paging_v2, "
        "arm_smmu_domain_alloc_paging_flags",
    .refusal = "{unit} has no stage-1 tables for {device}",
    .errno_value = EOPNOTSUPP,
    .when = {{HwptQ::stage, Relation::equal, std::uint64_t{1}}},
    .require = {{DeviceQ::stage1, Relation::equal, std::uint64_t{1}}},
};

}  // namespace ioplan::rules
