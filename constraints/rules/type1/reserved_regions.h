#pragma once

#include <cerrno>

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule type1_reserved_regions{
    .name = "type1.reserved-regions",
    .phase = Phase::group,
    .law = "A type1 container offers no IOVA of a reserved region of any device of its groups, assigned or not.",
    .source = "Linux drivers/vfio/vfio_iommu_type1.c vfio_iommu_resv_exclude, vfio_iommu_iova_dma_valid",
    .refusal = "a reserved region of {device}, which joins the container with its group, lies over memory that {vm} maps",
    .errno_value = EINVAL,
    .when = {{std::uint64_t{1}, Relation::at_most, DeviceQ::type1_stage}},
    .require = {{DeviceQ::region_over_memory, Relation::equal, std::uint64_t{0}}},
};

}  // namespace ioplan::rules
