#pragma once

#include <cerrno>

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule intel_second_stage_width{
    .name = "intel.second-stage.width",
    .phase = Phase::attach,
    .law = "A second-stage HWPT must not be wider than CAP.MGAW of the target unit.",
    .source = "Linux drivers/iommu/intel/iommu.c paging_domain_compatible_second_stage",
    .refusal = "{unit} translates {right} bits (CAP.MGAW), and the HWPT is {left} bits wide",
    .errno_value = EINVAL,
    .when = {{HwptQ::driver, Relation::equal, driver_term(Driver::intel)},
             {DeviceQ::driver, Relation::equal, driver_term(Driver::intel)},
             {HwptQ::stage, Relation::equal, std::uint64_t{2}}},
    .require = {{HwptQ::address_bits, Relation::at_most, DeviceQ::mgaw}},
};

}  // namespace ioplan::rules
