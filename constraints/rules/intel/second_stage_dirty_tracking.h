#pragma once

#include <cerrno>

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule intel_second_stage_dirty_tracking{
    .name = "intel.second-stage.dirty-tracking",
    .phase = Phase::attach,
    .law = "A dirty-tracking HWPT needs ECAP.SSADS and SMPWC of the target unit.",
    .source = "Linux drivers/iommu/intel/iommu.c paging_domain_compatible_second_stage",
    .refusal = "{unit} cannot track dirty pages (ECAP.SSADS and SMPWC), and the HWPT does",
    .errno_value = EINVAL,
    .when = {{HwptQ::driver, Relation::equal, driver_term(Driver::intel)},
             {DeviceQ::driver, Relation::equal, driver_term(Driver::intel)},
             {HwptQ::stage, Relation::equal, std::uint64_t{2}}},
    .require = {{HwptQ::dirty_tracking, Relation::within, DeviceQ::dirty_capable}},
};

}  // namespace ioplan::rules
