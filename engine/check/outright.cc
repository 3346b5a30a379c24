#include "engine/check/outright.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>

#include "engine/check/check.h"

namespace ioplan::check {

namespace {

// IOMMU_IOAS_MAP_FILE of a VFIO dma-buf: 6.19 and later. Without a release the stock kernel's is meant.
bool maps_bars(const Kernel& kernel) {
  unsigned major = 0;
  unsigned minor = 0;
  if (!kernel.release || std::sscanf(kernel.release->c_str(), "%u.%u", &major, &minor) < 1) return true;
  return major > 6 || (major == 6 && minor >= 19);
}

bool has_iommu(const World& world, const Scene& scene, const std::string& name) {
  return std::any_of(scene.entries.begin(), scene.entries.end(), [&](const AssignedDevice* entry) {
    const Device& device = world.host().device(*entry->host);
    return entry->name == name || device.id == name || device.name == name;
  });
}

void refuse_peers(const World& world, const Scene& scene, std::vector<Outright>& refusals) {
  for (const auto& [one, other] : scene.vm->needs.p2p) {
    const bool both = has_iommu(world, scene, one) && has_iommu(world, scene, other);
    if (both && maps_bars(world.host().kernel)) continue;
    refusals.push_back({obligation::needs,
                        {scene.vm->name, one, other},
                        fmt::format("`{}` and `{}` cannot reach each other's BARs", one, other)});
  }
}

void refuse_mediated(const World& world, const Scene& scene, std::vector<Outright>& refusals) {
  if (scene.mediated.empty()) return;
  const std::string& mdev = scene.mediated.front();
  if (world.request.policy.coherency == CoherencyPolicy::required) {
    refusals.push_back(
        {obligation::policy,
         {scene.vm->name, mdev},
         fmt::format("the mediated device `{}` makes KVM non-coherent, and the policy requires coherency", mdev)});
  }
  const std::uint64_t page = world.kernel_page();
  const auto aligned = [&](const MemoryRange& m) { return m.gpa.start % page == 0 && m.gpa.last % page == page - 1; };
  if (!std::all_of(scene.memory.begin(), scene.memory.end(), aligned)) {
    refusals.push_back(
        {obligation::needs,
         {scene.vm->name, mdev},
         fmt::format("the mediated device `{}` pins whole pages, and `{}` maps parts of some", mdev, scene.vm->name)});
  }
}

}  // namespace

std::vector<Outright> outright_refusals(const World& world, const Scene& scene) {
  std::vector<Outright> refusals;
  refuse_peers(world, scene, refusals);
  refuse_mediated(world, scene, refusals);
  return refusals;
}

}  // namespace ioplan::check
