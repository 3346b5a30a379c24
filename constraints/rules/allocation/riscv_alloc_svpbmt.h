#pragma once

#include <cerrno>

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule riscv_alloc_svpbmt{
    .name = "riscv.alloc.svpbmt",
    .phase = Phase::allocation,
    .law = "RISC-V units with SVPBMT cannot allocate: the table format lacks the feature that the driver asks for.",
    .source = "Linux drivers/iommu/riscv/iommu.c, generic_pt/fmt/iommu_riscv64.c",
    .refusal = "{unit} has SVPBMT, which the kernel's table format does not take",
    .errno_value = EOPNOTSUPP,
    .when = {{HwptQ::driver, Relation::equal, driver_term(Driver::riscv)}},
    .require = {{DeviceQ::riscv_svpbmt, Relation::equal, std::uint64_t{0}}},
};

}  // namespace ioplan::rules
