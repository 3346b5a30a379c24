#pragma once

#include <cerrno>

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule intel_first_stage_support{
    .name = "intel.first-stage.support",
    .phase = Phase::attach,
    .law = "A first-stage HWPT needs scalable mode and ECAP.FSTS of the target unit.",
    .source = "Linux drivers/iommu/intel/iommu.c paging_domain_compatible_first_stage",
    .refusal = "{unit} has no first-stage tables (scalable mode and ECAP.FSTS)",
    .errno_value = EINVAL,
    .when = {{HwptQ::driver, Relation::equal, driver_term(Driver::intel)},
             {DeviceQ::driver, Relation::equal, driver_term(Driver::intel)},
             {HwptQ::stage, Relation::equal, std::uint64_t{1}}},
    .require = {{DeviceQ::stage1, Relation::equal, std::uint64_t{1}}},
};

}  // namespace ioplan::rules
