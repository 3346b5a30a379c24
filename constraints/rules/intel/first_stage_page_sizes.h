#pragma once

#include <cerrno>

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule intel_first_stage_page_sizes{
    .name = "intel.first-stage.page-sizes",
    .phase = Phase::attach,
    .law = "A first-stage HWPT that may hold 1GiB pages needs CAP.FS1GP of the target unit.",
    .source = "Linux drivers/iommu/intel/iommu.c paging_domain_compatible_first_stage",
    .refusal = "{unit} walks first-stage pages {right}, and the HWPT may hold {left}",
    .errno_value = EINVAL,
    .when = {{HwptQ::driver, Relation::equal, driver_term(Driver::intel)},
             {DeviceQ::driver, Relation::equal, driver_term(Driver::intel)},
             {HwptQ::stage, Relation::equal, std::uint64_t{1}}},
    .require = {{HwptQ::page_sizes, Relation::within, DeviceQ::first_stage_pages}},
};

}  // namespace ioplan::rules
