#pragma once

#include "constraints/terms.h"

namespace ioplan::rules {

inline constexpr Rule needs_p2p{
    .name = "needs.p2p",
    .phase = Phase::cover,
    .law =
        "Devices that reach each other's BARs have an IOMMU of their own and a kernel that maps BARs into an IOAS "
        "(6.19).",
    .source = "Linux IOMMU_IOAS_MAP_FILE of a VFIO dma-buf; VirtualMachine.needs.p2p",
    .refusal = "{device} and {other} cannot reach each other's BARs",
};

}  // namespace ioplan::rules
