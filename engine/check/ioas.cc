// ioas: what each address space maps, and what stays usable, reserved and aligned (KR 2.5, 2.6).

#include <algorithm>

#include "engine/base/text.h"
#include "engine/check/court.h"
#include "engine/check/joining.h"

namespace ioplan::check {

namespace {

using obligation::ioas;

std::string text_of(const Range& r) { return fmt::format("[{}, {}]", format_hex(r.start), format_hex(r.last)); }

std::uint64_t lowest_page(const HwptQuantities& hwpt) {
  const std::uint64_t pages = hwpt[HwptQ::page_sizes];
  return pages & (~pages + 1);
}

// The HWPTs and attached devices of one IOAS.
struct Space {
  const PlannedIoas* planned;
  const Scene* scene;
  std::vector<const Seat*> seats;
};

// Devices whose regions count. A container takes groups whole.
std::vector<std::size_t> attached_to(const Court& court, const Seat& seat) {
  if (!court.in_containers()) return seat.devices;
  std::vector<std::size_t> all;
  for (const Item* item : seat.items) all.insert(all.end(), item->members.begin(), item->members.end());
  return all;
}

std::vector<ReservedRegion> regions_of(const Court& court, const Space& space) {
  std::array<std::vector<Range>, kReservedTypeNames.size()> by_type;
  for (const Seat* seat : space.seats) {
    for (std::size_t device : attached_to(court, *seat)) {
      for (const ReservedRegion& r : binding_regions(court.world, device)) {
        by_type[static_cast<std::size_t>(r.type)].push_back(r.range);
      }
    }
  }
  std::vector<ReservedRegion> regions;
  for (std::size_t type = 0; type < by_type.size(); ++type) {
    for (const Range& r : merged(by_type[type])) regions.push_back({r, static_cast<ReservedType>(type)});
  }
  std::sort(regions.begin(), regions.end());
  return regions;
}

// In a container also the domains count that groups had before they found one to share.
Intervals usable_iova(const Court& court, const Space& space, const std::vector<ReservedRegion>& regions) {
  Intervals usable = {kEverything};
  for (const ReservedRegion& r : regions) usable = without(usable, r.range);
  for (const Seat* seat : space.seats) {
    const HwptQuantities& h = *seat->hwpt;
    usable = within(usable, {h[HwptQ::aperture_start], h[HwptQ::aperture_last]});
    if (!court.in_containers()) continue;
    for (const Item* item : seat->items) {
      const HwptQuantities own = own_domain(court.world, *space.scene, *item);
      usable = within(usable, {own[HwptQ::aperture_start], own[HwptQ::aperture_last]});
    }
  }
  return usable;
}

// A mediated device pins whole pages of the kernel.
std::uint64_t alignment_of(const Court& court, const Space& space) {
  if (court.in_containers()) {
    std::vector<HwptQuantities> hwpts;
    for (const Seat* seat : space.seats) hwpts.push_back(*seat->hwpt);
    const std::uint64_t pages = common_pages(court.world, hwpts);
    return pages & (~pages + 1);
  }
  std::uint64_t alignment = space.scene->mediated.empty() ? 1 : court.world.kernel_page();
  for (const Seat* seat : space.seats) alignment = std::max(alignment, lowest_page(*seat->hwpt));
  return alignment;
}

void check_memory(const Court& court, const Space& space, const Intervals& usable) {
  const PlannedIoas& p = *space.planned;
  if (p.memory != space.scene->memory) {
    court.object(ioas, {p.id}, fmt::format("`{}` does not map what `{}` needs", p.id, p.vm));
  }
  if (p.backing != space.scene->backing) {
    court.object(
        ioas, {p.id},
        fmt::format("the memory of `{}` is backed by pages of {}, not of {}", p.vm, space.scene->backing, p.backing));
  }
  for (const MemoryRange& m : p.memory) {
    if (covers(usable, m.gpa)) continue;
    court.object(ioas, {p.id}, fmt::format("`{}` maps {}, which is not usable there", p.id, text_of(m.gpa)));
  }
}

void check_space(const Court& court, const Space& space) {
  const PlannedIoas& p = *space.planned;
  const std::vector<ReservedRegion> regions = regions_of(court, space);
  const Intervals usable = usable_iova(court, space, regions);
  if (p.reserved != regions) {
    court.object(ioas, {p.id}, fmt::format("the reserved regions of `{}` are not those of its devices", p.id));
  }
  if (p.ranges != usable) {
    court.object(ioas, {p.id}, fmt::format("the usable ranges of `{}` are not what its devices and HWPTs leave", p.id));
  }
  const std::uint64_t alignment = alignment_of(court, space);
  if (p.alignment != alignment) {
    court.object(ioas, {p.id}, fmt::format("the alignment of `{}` is {}, not {}", p.id, alignment, p.alignment));
  }
  if (court.in_containers() && !pages_fit(*space.scene, alignment)) {
    court.object(ioas, {p.id}, fmt::format("no page size of all domains of `{}` fits its memory", p.id));
  }
  check_memory(court, space, usable);
}

}  // namespace

void check_ioas(const Court& court, const std::vector<Seat>& seats) {
  for (const PlannedIoas& planned : court.plan.ioas) {
    Space space{&planned, court.world.scene(planned.vm), {}};
    if (space.scene == nullptr) continue;  // placement has objected
    for (const Seat& seat : seats) {
      if (seat.planned->ioas == planned.id && seat.hwpt) space.seats.push_back(&seat);
    }
    check_space(court, space);
  }
}

}  // namespace ioplan::check
