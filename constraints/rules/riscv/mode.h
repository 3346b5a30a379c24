#pragma once

#include <cerrno>

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule riscv_mode{
    .name = "riscv.mode",
    .phase = Phase::attach,
    .law = "The target unit must support the HWPT's paging mode.",
    .source = "Linux drivers/iommu/riscv/iommu.c riscv_iommu_attach_paging_domain",
    .refusal = "{unit} does not support the HWPT's paging mode of {hwpt.levels} levels",
    .errno_value = ENODEV,
    .when = {{HwptQ::driver, Relation::equal, driver_term(Driver::riscv)},
             {DeviceQ::driver, Relation::equal, driver_term(Driver::riscv)}},
    .require = {{HwptQ::level_bit, Relation::within, DeviceQ::walk_levels}},
};

}  // namespace ioplan::rules
