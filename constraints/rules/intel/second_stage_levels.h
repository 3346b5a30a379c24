#pragma once

#include <cerrno>

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule intel_second_stage_levels{
    .name = "intel.second-stage.levels",
    .phase = Phase::attach,
    .law = "The target unit must walk exactly the HWPT's number of second-stage levels (CAP.SAGAW).",
    .source = "Linux drivers/iommu/intel/iommu.c paging_domain_compatible_second_stage",
    .refusal = "{unit} does not walk the HWPT's {hwpt.levels} levels (CAP.SAGAW)",
    .errno_value = EINVAL,
    .when = {{HwptQ::driver, Relation::equal, driver_term(Driver::intel)},
             {DeviceQ::driver, Relation::equal, driver_term(Driver::intel)},
             {HwptQ::stage, Relation::equal, std::uint64_t{2}}},
    .require = {{HwptQ::level_bit, Relation::within, DeviceQ::walk_levels}},
};

}  // namespace ioplan::rules
