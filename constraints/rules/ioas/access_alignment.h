#pragma once

#include <cerrno>

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule ioas_access_alignment{
    .name = "ioas.access-alignment",
    .phase = Phase::cover,
    .law = "What a VM with a mediated device maps must be aligned to the kernel's page: its access pins pages.",
    .source =
        "Linux drivers/iommu/iommufd/device.c iommufd_access_attach, io_pagetable.c iopt_add_access; run on 7.2.13 in "
        "QEMU",
    .refusal = "{vm} has the mediated device {device} and maps memory that is not aligned to the kernel's page",
    .errno_value = EADDRINUSE,
};

}  // namespace ioplan::rules
