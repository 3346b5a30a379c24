#pragma once

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule core_group{
    .name = "core.group",
    .phase = Phase::cover,
    .law = "The devices of an IOMMU group are placed together, in one HWPT.",
    .source = "Linux drivers/iommu/iommufd/device.c iommufd_hw_pagetable_attach; run on 7.2.13 in QEMU",
    .refusal = "{device} and {other} are in one IOMMU group",
};

}  // namespace ioplan::rules
