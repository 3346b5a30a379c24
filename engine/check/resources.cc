// kvm, resources, objectives: numbers that follow from who is where.

#include <algorithm>
#include <bit>

#include "engine/check/court.h"

namespace ioplan::check {

namespace {

constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;

std::uint64_t mapped_bytes(const Scene& scene) {
  std::uint64_t bytes = 0;
  for (const MemoryRange& m : scene.memory) bytes += m.gpa.last - m.gpa.start + 1;
  return bytes;
}

void expect(const Court& court, std::string_view obligation, std::string_view what, std::uint64_t stated,
            std::uint64_t real) {
  if (stated == real) return;
  court.object(obligation, {}, fmt::format("`{}` is stated as {}, and is {}", what, stated, real));
}

bool capable(const Scene& scene, std::size_t device) {
  return scene.quantities.at(device)[DeviceQ::enforce_cache_coherency] != 0;
}

std::uint64_t exposed_devices(const Seat& seat) {
  if ((*seat.hwpt)[HwptQ::enforce_cache_coherency] != 0) return 0;
  return static_cast<std::uint64_t>(
      std::count_if(seat.devices.begin(), seat.devices.end(), [&](std::size_t d) { return capable(*seat.scene, d); }));
}

// Flags that the operator's rules ask for devices that are promised.
unsigned promised_flags(const Court& court, const Scene& scene) {
  unsigned flags = 0;
  for (const Promise& p : court.plan.promises) {
    AssignedDevice device;
    device.host = court.world.host().find_device(p.device);
    if (!device.host || p.vm != scene.vm->name) continue;
    for (const PolicyRule& rule : court.world.request.policy.rules) {
      const auto* require = std::get_if<RequireRule>(&rule.what);
      if (require == nullptr || !selects(require->which, court.world.host(), device)) continue;
      if (require->dirty_tracking) flags |= kDirtyTracking;
      if (require->nest_parent) flags |= kNestParent;
      if (require->pasid) flags |= kPasid;
    }
  }
  return flags;
}

std::uint64_t idle_flags(const Court& court, const Seat& seat) {
  const unsigned needed = needed_flags(*seat.scene) | promised_flags(court, *seat.scene);
  const unsigned idle = seat.planned->flags & ~needed;
  return static_cast<std::uint64_t>(std::popcount(idle));
}

}  // namespace

void check_kvm(const Court& court) {
  std::vector<std::size_t> hosts;
  std::vector<std::string> mediated;
  for (const Scene& scene : court.world.scenes) {
    for (const AssignedDevice* entry : scene.entries) {
      if (!capable(scene, entry->host->index())) hosts.push_back(entry->host->index());
    }
    mediated.insert(mediated.end(), scene.mediated.begin(), scene.mediated.end());
  }
  std::sort(hosts.begin(), hosts.end());
  std::sort(mediated.begin(), mediated.end());
  std::vector<std::string> because;
  because.reserve(hosts.size() + mediated.size());
  for (std::size_t device : hosts) because.push_back(court.world.id(device));
  because.insert(because.end(), mediated.begin(), mediated.end());
  const KvmVerdict& stated = court.plan.kvm;
  if (stated.noncoherent_dma == because.empty()) {
    court.object(obligation::kvm, {},
                 fmt::format("`noncoherent_dma` is {}, not {}", !because.empty(), stated.noncoherent_dma));
  }
  if (stated.because != because) {
    court.object(obligation::kvm, stated.because,
                 "`because` does not list the devices that KVM counts as non-coherent");
  }
}

void check_resources(const Court& court, const std::vector<Seat>& seats) {
  std::uint64_t pinned = 0;
  std::uint64_t allowance = 0;
  ObjectiveValues values;
  for (const Scene& scene : court.world.scenes) {
    if (!scene.has_devices()) continue;
    ++values[Objective::ioas];
    pinned += mapped_bytes(scene);
    allowance += scene.entries.empty() ? 0 : kGiB;
  }
  for (const Seat& seat : seats) {
    ++values[Objective::hwpts];
    if (!seat.hwpt) continue;
    const std::uint64_t bytes = page_table_bytes(*seat.scene, *seat.hwpt);
    values[Objective::page_tables] += bytes;
    values[Objective::coherency] += exposed_devices(seat);
    values[Objective::unneeded_flags] += idle_flags(court, seat);
    expect(court, obligation::resources, seat.planned->id + ".page_table_bytes", seat.planned->page_table_bytes, bytes);
  }
  const Resources& stated = court.plan.resources;
  expect(court, obligation::resources, "pinned_bytes", stated.pinned_bytes, pinned);
  expect(court, obligation::resources, "page_table_bytes", stated.page_table_bytes, values[Objective::page_tables]);
  expect(court, obligation::resources, "memlock_bytes", stated.memlock_bytes, pinned + allowance);
  for (std::size_t i = 0; i < kObjectiveNames.size(); ++i) {
    expect(court, obligation::objectives, kObjectiveNames[i], court.plan.objectives.by_objective[i],
           values.by_objective[i]);
  }
}

}  // namespace ioplan::check
