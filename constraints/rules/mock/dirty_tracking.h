#pragma once

#include <cerrno>

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule mock_dirty_tracking{
    .name = "mock.dirty-tracking",
    .phase = Phase::attach,
    .law = "A dirty-tracking HWPT is refused by a mock device flagged NO_DIRTY.",
    .source = "Linux drivers/iommu/iommufd/selftest.c mock_domain_nop_attach; run on 7.2.13 in QEMU",
    .refusal = "{device} is a mock device without dirty tracking, and the HWPT has it",
    .errno_value = EINVAL,
    .when = {{HwptQ::driver, Relation::equal, driver_term(Driver::mock)},
             {DeviceQ::driver, Relation::equal, driver_term(Driver::mock)}},
    .require = {{HwptQ::dirty_tracking, Relation::within, DeviceQ::dirty_capable}},
};

}  // namespace ioplan::rules
