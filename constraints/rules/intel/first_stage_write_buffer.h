#pragma once

#include <cerrno>

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule intel_first_stage_write_buffer{
    .name = "intel.first-stage.write-buffer",
    .phase = Phase::attach,
    .law = "A unit that needs write-buffer flushing accepts only a HWPT that flushes after mapping.",
    .source = "Linux drivers/iommu/intel/iommu.c paging_domain_compatible_first_stage",
    .refusal = "{unit} needs its write buffer flushed (CAP.RWBF), and the HWPT does not flush after mapping",
    .errno_value = EINVAL,
    .when = {{HwptQ::driver, Relation::equal, driver_term(Driver::intel)},
             {DeviceQ::driver, Relation::equal, driver_term(Driver::intel)},
             {HwptQ::stage, Relation::equal, std::uint64_t{1}}},
    .require = {{DeviceQ::stage1_sync_map, Relation::within, HwptQ::sync_map}},
};

}  // namespace ioplan::rules
