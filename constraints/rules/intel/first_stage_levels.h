#pragma once

#include <cerrno>

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule intel_first_stage_levels{
    .name = "intel.first-stage.levels",
    .phase = Phase::attach,
    .law = "A first-stage HWPT wider than 48 bits needs CAP.FS5LP of the target unit.",
    .source = "Linux drivers/iommu/intel/iommu.c paging_domain_compatible_first_stage",
    .refusal = "{unit} cannot walk five levels (CAP.FS5LP), and the HWPT is {left} bits wide",
    .errno_value = EINVAL,
    .when = {{HwptQ::driver, Relation::equal, driver_term(Driver::intel)},
             {DeviceQ::driver, Relation::equal, driver_term(Driver::intel)},
             {HwptQ::stage, Relation::equal, std::uint64_t{1}}},
    .require = {{HwptQ::address_bits, Relation::at_most, DeviceQ::first_stage_limit}},
};

}  // namespace ioplan::rules
