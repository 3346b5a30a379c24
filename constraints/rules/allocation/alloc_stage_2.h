#pragma once

#include <cerrno>

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule alloc_stage_2{
    .name = "alloc.stage-2",
    .phase = Phase::allocation,
    .law = "A stage-2 HWPT needs an allocating device whose unit has stage-2 tables.",
    .source =
        "Linux intel_iommu_domain_alloc_second_stage, amd_iommu_domain_alloc_paging_v1, "
        "arm_smmu_domain_alloc_paging_flags",
    .refusal = "{unit} has no stage-2 tables for {device}",
    .errno_value = EOPNOTSUPP,
    .when = {{HwptQ::stage, Relation::equal, std::uint64_t{2}}},
    .require = {{DeviceQ::stage2, Relation::equal, std::uint64_t{1}}},
};

}  // namespace ioplan::rules
