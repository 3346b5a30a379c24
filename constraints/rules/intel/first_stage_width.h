#pragma once

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule intel_first_stage_width{
    .name = "intel.first-stage.width",
    .phase = Phase::attach,
    .law = "A first-stage HWPT must not be wider than CAP.MGAW of the target unit; Linux does not check.",
    .source =
        "VT-d 3.6 and 10.4.2 (MGAW); gap in Linux drivers/iommu/intel/iommu.c paging_domain_compatible_first_stage",
    .refusal = "{unit} translates {right} bits (CAP.MGAW), and the HWPT is {left} bits wide",
    .strict = true,
    .when = {{HwptQ::driver, Relation::equal, driver_term(Driver::intel)},
             {DeviceQ::driver, Relation::equal, driver_term(Driver::intel)},
             {HwptQ::stage, Relation::equal, std::uint64_t{1}}},
    .require = {{HwptQ::address_bits, Relation::at_most, DeviceQ::mgaw}},
};

}  // namespace ioplan::rules
