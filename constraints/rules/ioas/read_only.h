#pragma once

#include <cerrno>

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule ioas_read_only{
    .name = "ioas.read-only",
    .phase = Phase::fit,
    .law = "An Intel nesting parent cannot hold read-only mappings (erratum 772415).",
    .source = "Linux drivers/iommu/intel/iommu.c intel_iommu_domain_alloc_second_stage (FORCE_WRITEABLE)",
    .refusal = "{vm} maps read-only memory, which an Intel nesting parent cannot hold",
    .errno_value = EINVAL,
    .require = {{VmQ::read_only_memory, Relation::within, HwptQ::takes_read_only}},
};

}  // namespace ioplan::rules
