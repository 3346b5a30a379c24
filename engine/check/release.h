// Kernel releases, and the one wish that depends on them: devices that reach each other's BARs.
#pragma once

#include <optional>
#include <string>
#include <utility>

#include "engine/check/scene.h"

namespace ioplan::check {

// The kernel maps BARs into an IOAS (IOMMU_IOAS_MAP_FILE of a VFIO dma-buf): 6.19 and later. Absent: the stock kernel.
bool maps_bars(const Kernel& kernel);

// The first pair of `needs.p2p` that cannot work; nothing when all can.
std::optional<std::pair<std::string, std::string>> broken_peers(const World& world, const Scene& scene);

}  // namespace ioplan::check
