#pragma once

#include <cerrno>

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule intel_second_stage_nest_parent{
    .name = "intel.second-stage.nest-parent",
    .phase = Phase::attach,
    .law = "A nesting parent needs ECAP.NEST of the target unit.",
    .source = "Linux drivers/iommu/intel/iommu.c paging_domain_compatible_second_stage",
    .refusal = "{unit} cannot nest (ECAP.NEST), and the HWPT is a nesting parent",
    .errno_value = EINVAL,
    .when = {{HwptQ::driver, Relation::equal, driver_term(Driver::intel)},
             {DeviceQ::driver, Relation::equal, driver_term(Driver::intel)},
             {HwptQ::stage, Relation::equal, std::uint64_t{2}}},
    .require = {{HwptQ::nest_parent, Relation::within, DeviceQ::nested}},
};

}  // namespace ioplan::rules
