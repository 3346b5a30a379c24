#pragma once

#include <cerrno>

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule intel_second_stage_support{
    .name = "intel.second-stage.support",
    .phase = Phase::attach,
    .law = "In scalable mode a second-stage HWPT needs ECAP.SSTS of the target unit.",
    .source = "Linux drivers/iommu/intel/iommu.c paging_domain_compatible_second_stage",
    .refusal = "{unit} is in scalable mode without second-stage tables (ECAP.SSTS)",
    .errno_value = EINVAL,
    .when = {{HwptQ::driver, Relation::equal, driver_term(Driver::intel)},
             {DeviceQ::driver, Relation::equal, driver_term(Driver::intel)},
             {HwptQ::stage, Relation::equal, std::uint64_t{2}}},
    .require = {{DeviceQ::stage2, Relation::equal, std::uint64_t{1}}},
};

}  // namespace ioplan::rules
