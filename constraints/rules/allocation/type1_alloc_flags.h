#pragma once

#include <cerrno>

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule type1_alloc_flags{
    .name = "type1.alloc-flags",
    .phase = Phase::allocation,
    .law = "A type1 container makes its domains by itself: they track no dirty pages, nest nothing and take no PASID.",
    .source = "Linux drivers/vfio/vfio_iommu_type1.c vfio_iommu_domain_alloc (iommu_paging_domain_alloc, no flags)",
    .refusal = "VFIO type1 has no HWPT with {hwpt.flags}: iommufd has",
    .errno_value = ENOTTY,
    .when = {{std::uint64_t{1}, Relation::at_most, DeviceQ::type1_stage}},
    .require = {{HwptQ::flags, Relation::equal, std::uint64_t{0}}},
};

}  // namespace ioplan::rules
