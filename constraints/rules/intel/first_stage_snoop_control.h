#pragma once

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule intel_first_stage_snoop_control{
    .name = "intel.first-stage.snoop-control",
    .phase = Phase::attach,
    .law = "A first-stage HWPT that enforces cache coherency needs ECAP.SC of the target unit; Linux does not check.",
    .source =
        "VT-d 9.6 (PASID-table entry PGSNP is reserved without ECAP.SC); gap in Linux drivers/iommu/intel/iommu.c "
        "paging_domain_compatible_first_stage",
    .refusal = "{unit} cannot block no-snoop (ECAP.SC), and the HWPT enforces cache coherency",
    .strict = true,
    .when = {{HwptQ::driver, Relation::equal, driver_term(Driver::intel)},
             {DeviceQ::driver, Relation::equal, driver_term(Driver::intel)},
             {HwptQ::stage, Relation::equal, std::uint64_t{1}}},
    .require = {{HwptQ::enforce_cache_coherency, Relation::within, DeviceQ::snoop_control}},
};

}  // namespace ioplan::rules
