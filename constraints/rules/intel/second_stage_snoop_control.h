#pragma once

#include <cerrno>

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule intel_second_stage_snoop_control{
    .name = "intel.second-stage.snoop-control",
    .phase = Phase::attach,
    .law = "A second-stage HWPT that enforces cache coherency needs ECAP.SC of the target unit.",
    .source = "Linux drivers/iommu/intel/iommu.c paging_domain_compatible_second_stage",
    .refusal = "{unit} cannot block no-snoop (ECAP.SC), and the HWPT enforces cache coherency",
    .errno_value = EINVAL,
    .when = {{HwptQ::driver, Relation::equal, driver_term(Driver::intel)},
             {DeviceQ::driver, Relation::equal, driver_term(Driver::intel)},
             {HwptQ::stage, Relation::equal, std::uint64_t{2}}},
    .require = {{HwptQ::enforce_cache_coherency, Relation::within, DeviceQ::snoop_control}},
};

}  // namespace ioplan::rules
