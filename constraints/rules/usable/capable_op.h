#pragma once

#include <cerrno>

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule usable_capable_op{
    .name = "usable.capable-op",
    .phase = Phase::usable,
    .law = "A device's IOMMU driver must answer capability queries, or VFIO never registers the device.",
    .source = "Linux drivers/vfio/vfio_main.c __vfio_register_dev; drivers without a .capable op (riscv)",
    .refusal = "the driver of {unit} has no .capable operation, so VFIO never registers {device}",
    .errno_value = EINVAL,
    .require = {{DeviceQ::capable_op, Relation::equal, std::uint64_t{1}}},
};

}  // namespace ioplan::rules
