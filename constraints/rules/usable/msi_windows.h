#pragma once

#include <cerrno>

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule usable_msi_windows{
    .name = "usable.msi-windows",
    .phase = Phase::usable,
    .law = "A device has one MSI window: not a hardware and a software one, nor two software ones.",
    .source = "Linux drivers/iommu/iommufd/io_pagetable.c iopt_table_enforce_dev_resv_regions",
    .refusal = "{device} has both hardware and software MSI windows, or two software ones",
    .errno_value = EINVAL,
    .require = {{DeviceQ::mixed_msi_windows, Relation::equal, std::uint64_t{0}}},
};

}  // namespace ioplan::rules
