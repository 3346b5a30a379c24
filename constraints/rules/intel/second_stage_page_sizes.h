#pragma once

#include <cerrno>

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule intel_second_stage_page_sizes{
    .name = "intel.second-stage.page-sizes",
    .phase = Phase::attach,
    .law = "Every large page that a second-stage HWPT may hold must be in CAP.SSLPS of the target unit.",
    .source = "Linux drivers/iommu/intel/iommu.c paging_domain_compatible_second_stage",
    .refusal = "{unit} walks second-stage pages {right}, and the HWPT may hold {left}",
    .errno_value = EINVAL,
    .when = {{HwptQ::driver, Relation::equal, driver_term(Driver::intel)},
             {DeviceQ::driver, Relation::equal, driver_term(Driver::intel)},
             {HwptQ::stage, Relation::equal, std::uint64_t{2}}},
    .require = {{HwptQ::page_sizes, Relation::within, DeviceQ::second_stage_pages}},
};

}  // namespace ioplan::rules
