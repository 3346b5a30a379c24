#pragma once

#include <cerrno>

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule usable_isolated_msi{
    .name = "usable.isolated-msi",
    .phase = Phase::group,
    .law = "Every device of the group must have isolated MSI, unless allow_unsafe_interrupts is set.",
    .source =
        "Linux drivers/iommu/iommufd/device.c iommufd_device_bind (iommu_group_has_isolated_msi); run on 7.2.13 in "
        "QEMU",
    .refusal = "{device} has no isolated MSI and `allow_unsafe_interrupts` is off",
    .errno_value = EPERM,
    .require = {{DeviceQ::unsafe_interrupts, Relation::equal, std::uint64_t{0}}},
};

}  // namespace ioplan::rules
