#pragma once

#include <cerrno>

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule intel_second_stage_write_buffer{
    .name = "intel.second-stage.write-buffer",
    .phase = Phase::attach,
    .law = "A unit with RWBF or caching mode accepts only a HWPT that flushes after mapping.",
    .source = "Linux drivers/iommu/intel/iommu.c paging_domain_compatible_second_stage",
    .refusal = "{unit} needs flushes after mapping (CAP.RWBF or CAP.CM), and the HWPT does none",
    .errno_value = EINVAL,
    .when = {{HwptQ::driver, Relation::equal, driver_term(Driver::intel)},
             {DeviceQ::driver, Relation::equal, driver_term(Driver::intel)},
             {HwptQ::stage, Relation::equal, std::uint64_t{2}}},
    .require = {{DeviceQ::stage2_sync_map, Relation::within, HwptQ::sync_map}},
};

}  // namespace ioplan::rules
