#pragma once

#include <cerrno>

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule intel_first_stage_coherent_walk{
    .name = "intel.first-stage.coherent-walk",
    .phase = Phase::attach,
    .law = "A first-stage HWPT written without cache flushes needs ECAP.SMPWC of the target unit.",
    .source = "Linux drivers/iommu/intel/iommu.c paging_domain_compatible_first_stage",
    .refusal =
        "{unit} does not snoop when it walks first-stage tables (ECAP.SMPWC), and the HWPT is written without flushes",
    .errno_value = EINVAL,
    .when = {{HwptQ::driver, Relation::equal, driver_term(Driver::intel)},
             {DeviceQ::driver, Relation::equal, driver_term(Driver::intel)},
             {HwptQ::stage, Relation::equal, std::uint64_t{1}}},
    .require = {{HwptQ::coherent_walk, Relation::within, DeviceQ::stage1_coherent_walk}},
};

}  // namespace ioplan::rules
