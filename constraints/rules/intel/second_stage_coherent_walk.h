#pragma once

#include <cerrno>

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule intel_second_stage_coherent_walk{
    .name = "intel.second-stage.coherent-walk",
    .phase = Phase::attach,
    .law = "A second-stage HWPT written without cache flushes needs a unit that snoops when it walks.",
    .source = "Linux drivers/iommu/intel/iommu.c paging_domain_compatible_second_stage",
    .refusal = "{unit} does not snoop when it walks second-stage tables, and the HWPT is written without flushes",
    .errno_value = EINVAL,
    .when = {{HwptQ::driver, Relation::equal, driver_term(Driver::intel)},
             {DeviceQ::driver, Relation::equal, driver_term(Driver::intel)},
             {HwptQ::stage, Relation::equal, std::uint64_t{2}}},
    .require = {{HwptQ::coherent_walk, Relation::within, DeviceQ::stage2_coherent_walk}},
};

}  // namespace ioplan::rules
