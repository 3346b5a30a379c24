#include "engine/check/release.h"

#include <algorithm>
#include <cstdio>

namespace ioplan::check {

bool maps_bars(const Kernel& kernel) {
  if (!kernel.release) return true;
  unsigned major = 0;
  unsigned minor = 0;
  if (std::sscanf(kernel.release->c_str(), "%u.%u", &major, &minor) < 1) return true;
  return major > 6 || (major == 6 && minor >= 19);
}

namespace {

bool has_iommu(const World& world, const Scene& scene, const std::string& name) {
  return std::any_of(scene.entries.begin(), scene.entries.end(), [&](const AssignedDevice* entry) {
    const Device& device = world.host().device(*entry->host);
    return entry->name == name || device.id == name || device.name == name;
  });
}

}  // namespace

std::optional<std::pair<std::string, std::string>> broken_peers(const World& world, const Scene& scene) {
  for (const auto& pair : scene.vm->needs.p2p) {
    const bool both = has_iommu(world, scene, pair.first) && has_iommu(world, scene, pair.second);
    if (!both || !maps_bars(world.host().kernel)) return pair;
  }
  return std::nullopt;
}

}  // namespace ioplan::check
