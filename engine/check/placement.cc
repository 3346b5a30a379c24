// placement, groups: who is where. References of the plan are resolved here for all other obligations.

#include <algorithm>
#include <map>
#include <set>

#include "engine/check/court.h"

namespace ioplan::check {

bool Seat::holds(std::size_t device) const { return std::binary_search(devices.begin(), devices.end(), device); }

namespace {

using obligation::groups;
using obligation::placement;

void check_address_spaces(const Court& court) {
  std::set<std::string> ids;
  std::map<std::string, int> of_vm;
  for (const PlannedIoas& ioas : court.plan.ioas) {
    if (!ids.insert(ioas.id).second) court.object(placement, {ioas.id}, fmt::format("two IOASes are `{}`", ioas.id));
    if (court.world.scene(ioas.vm) == nullptr) {
      court.object(placement, {ioas.id},
                   fmt::format("`{}` belongs to `{}`, which is not asked about", ioas.id, ioas.vm));
    }
    ++of_vm[ioas.vm];
  }
  for (const Scene& scene : court.world.scenes) {
    const int there = of_vm[scene.vm->name], wanted = scene.has_devices() ? 1 : 0;
    if (there != wanted) {
      court.object(placement, {scene.vm->name},
                   fmt::format("`{}` has {} IOASes instead of {}", scene.vm->name, there, wanted == 1 ? "one" : "none"));
    }
  }
}

const Scene* scene_of(const Court& court, const std::string& ioas) {
  for (const PlannedIoas& planned : court.plan.ioas) {
    if (planned.id == ioas) return court.world.scene(planned.vm);
  }
  return nullptr;
}

std::optional<std::size_t> assigned_device(const Court& court, const Scene* scene, const std::string& id) {
  const auto device = court.world.host().find_device(id);
  if (!device || scene == nullptr || !scene->assigns(device->index())) return std::nullopt;
  return device->index();
}

void resolve_devices(const Court& court, Seat& seat) {
  const PlannedHwpt& planned = *seat.planned;
  const bool waits = std::any_of(court.plan.promises.begin(), court.plan.promises.end(),
                                 [&](const Promise& p) { return p.hwpt == planned.id; });
  if (planned.devices.empty() && !waits) court.object(placement, {planned.id}, fmt::format("`{}` holds no device", planned.id));
  for (const std::string& id : planned.devices) {
    const auto device = assigned_device(court, seat.scene, id);
    if (!device) {
      court.object(placement, {planned.id, id}, fmt::format("`{}` in `{}` is not assigned to its VM", id, planned.id));
    } else if (!seat.devices.empty() && seat.devices.back() >= *device) {
      court.object(placement, {planned.id, id}, fmt::format("`{}` in `{}` is out of order or twice", id, planned.id));
    } else {
      seat.devices.push_back(*device);
    }
  }
}

void resolve_items(Seat& seat) {
  if (seat.scene == nullptr) return;
  for (const Item& item : seat.scene->items) {
    const auto inside = [&](std::size_t d) { return seat.holds(d); };
    if (std::any_of(item.assigned.begin(), item.assigned.end(), inside)) seat.items.push_back(&item);
  }
}

Seat resolve(const Court& court, const PlannedHwpt& planned) {
  Seat seat{&planned, scene_of(court, planned.ioas), {}, {}, {}, {}};
  if (seat.scene == nullptr) {
    court.object(placement, {planned.id},
                 fmt::format("`{}` is in `{}`, which is not an IOAS of the plan", planned.id, planned.ioas));
  }
  resolve_devices(court, seat);
  resolve_items(seat);
  seat.allocator = assigned_device(court, seat.scene, planned.allocator);
  if (seat.allocator && planned.flags < kHwptFlagSets) {
    seat.hwpt = court.world.law.allocate(seat.scene->quantities.at(*seat.allocator), planned.flags);
  }
  return seat;
}

void check_ids(const Court& court) {
  std::set<std::string> ids;
  for (const PlannedHwpt& hwpt : court.plan.hwpts) {
    if (!ids.insert(hwpt.id).second) court.object(placement, {hwpt.id}, fmt::format("two HWPTs are `{}`", hwpt.id));
  }
}

void check_each_device_once(const Court& court, const std::vector<Seat>& seats) {
  std::map<std::size_t, int> times;
  for (const Seat& seat : seats) {
    for (std::size_t device : seat.devices) ++times[device];
  }
  for (const Scene& scene : court.world.scenes) {
    for (const AssignedDevice* entry : scene.entries) {
      const std::size_t device = entry->host->index();
      if (times[device] == 1) continue;
      const std::string& id = court.world.id(device);
      court.object(placement, {id}, fmt::format("`{}` is in {} HWPTs instead of one", id, times[device]));
    }
  }
}

void check_group(const Court& court, const Seat& seat, const Item& item) {
  for (std::size_t device : item.assigned) {
    if (seat.holds(device)) continue;
    const std::string& id = court.world.id(device);
    court.object(groups, {seat.planned->id, id},
                 fmt::format("`{}` is in one group with a device in `{}`, and is not there", id, seat.planned->id));
  }
}

// Devices of a VM behind one SMMUv2 share the HWPT that the kernel makes.
void check_automatic_units(const Court& court, const std::vector<Seat>& seats) {
  std::map<std::pair<const Scene*, std::size_t>, const Seat*> home;
  const Host& host = court.world.host();
  for (const Seat& seat : seats) {
    for (std::size_t device : seat.devices) {
      const UnitIndex unit = *host.devices[device].unit;
      if (!court.world.law.automatic_only(host.unit(unit).driver)) continue;
      const auto [it, fresh] = home.try_emplace({seat.scene, unit.index()}, &seat);
      if (fresh || it->second == &seat) continue;
      court.object(groups, {seat.planned->id, host.unit(unit).id},
                   fmt::format("devices behind `{}` are in `{}` and in `{}`, and the kernel makes only one HWPT",
                               host.unit(unit).id, it->second->planned->id, seat.planned->id));
    }
  }
}

}  // namespace

std::vector<Seat> check_placement(const Court& court) {
  check_address_spaces(court);
  check_ids(court);
  std::vector<Seat> seats;
  for (const PlannedHwpt& planned : court.plan.hwpts) seats.push_back(resolve(court, planned));
  check_each_device_once(court, seats);
  for (const Seat& seat : seats) {
    for (const Item* item : seat.items) check_group(court, seat, *item);
  }
  check_automatic_units(court, seats);
  return seats;
}

}  // namespace ioplan::check
