#include "engine/check/outright.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>

#include "engine/check/check.h"
#include "engine/check/joining.h"

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

// Whatever the order: a container takes no mediated device, its kernel asks one device of a group for the group's own
// domain, and that domain must come out and reach the memory even where it is left for another.
void refuse_container(const World& world, const Scene& scene, std::vector<Outright>& refusals) {
  for (const std::string& mdev : scene.mediated) {
    refusals.push_back({obligation::joining, {scene.vm->name, mdev}, fmt::format("`{}` joins no container", mdev)});
  }
  for (const Item& item : scene.items) {
    const std::string& id = world.id(item.assigned.front());
    const HwptQuantities own = own_domain(world, scene, item);
    for (std::size_t device : item.members) {
      if (world.law.allocate(scene.quantities.at(device), 0) == own) continue;
      refusals.push_back({obligation::joining,
                          {scene.vm->name, id},
                          fmt::format("the devices of the group of `{}` make different domains", id)});
      break;
    }
    const DeviceQuantities& q = scene.quantities.at(item.assigned.front());
    const Values values{&own, &q, &scene.asks};
    if (world.statutes.broken(Phase::allocation, values) == nullptr &&
        world.statutes.broken(Phase::fit, values) == nullptr && attaches_in_linux(world, scene, item, own)) {
      continue;
    }
    refusals.push_back({obligation::joining,
                        {scene.vm->name, id},
                        fmt::format("the group of `{}` gets no domain of its own that serves `{}`", id, scene.vm->name)});
  }
}

}  // namespace

std::vector<Outright> outright_refusals(const World& world, const Scene& scene) {
  std::vector<Outright> refusals;
  refuse_peers(world, scene, refusals);
  refuse_mediated(world, scene, refusals);
  if (world.law.interface() == KernelInterface::type1) refuse_container(world, scene, refusals);
  return refusals;
}

}  // namespace ioplan::check
