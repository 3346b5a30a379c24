// attributes, acceptance: is each HWPT what its allocator and flags make, and does every group take it.

#include <algorithm>

#include "engine/check/court.h"

namespace ioplan::check {

namespace {

using obligation::acceptance;
using obligation::attributes;

class Compare {
 public:
  Compare(const Court& court, const PlannedHwpt& planned) : court_(court), planned_(planned) {}

  template <class T>
  void operator()(std::string_view what, const T& stated, const T& lawful) const {
    if (stated == lawful) return;
    court_.object(attributes, {planned_.id},
                  fmt::format("`{}` of `{}` is stated as {}, and is {}", what, planned_.id, stated, lawful));
  }

 private:
  const Court& court_;
  const PlannedHwpt& planned_;
};

void check_fields(const Court& court, const Seat& seat) {
  const PlannedHwpt& p = *seat.planned;
  const HwptQuantities& h = *seat.hwpt;
  const Compare same(court, p);
  const auto number = [](auto v) { return static_cast<std::uint64_t>(v); };
  const HwptKind kind = (p.flags & kNestParent) != 0 ? HwptKind::nest_parent : HwptKind::paging;
  same("kind", number(p.kind), number(kind));
  same("driver", number(p.driver), h[HwptQ::driver]);
  same("stage", number(p.stage), h[HwptQ::stage]);
  same("format", number(p.format), h[HwptQ::format]);
  same("levels", number(p.levels), h[HwptQ::levels]);
  same("address_bits", number(p.address_bits), h[HwptQ::address_bits]);
  same("aperture start", p.aperture.start, h[HwptQ::aperture_start]);
  same("aperture last", p.aperture.last, h[HwptQ::aperture_last]);
  same("page_sizes", p.page_sizes, h[HwptQ::page_sizes]);
  same("enforce_cache_coherency", number(p.enforce_cache_coherency), h[HwptQ::enforce_cache_coherency]);
  const Driver driver = court.world.host().unit(*court.world.host().devices[*seat.allocator].unit).driver;
  same("automatic", p.automatic, court.in_containers() || court.world.law.automatic_only(driver));
}

void check_allocation(const Court& court, const Seat& seat) {
  const DeviceQuantities& q = seat.scene->quantities.at(*seat.allocator);
  const Rule* rule = court.world.statutes.broken(Phase::allocation, {&*seat.hwpt, &q, &seat.scene->asks});
  if (rule == nullptr) return;
  court.object(
      attributes, {seat.planned->id, seat.planned->allocator},
      fmt::format("`{}` cannot allocate `{}` (rule `{}`)", seat.planned->allocator, seat.planned->id, rule->name));
}

// An automatic HWPT is made by the first device that attaches.
void check_allocator(const Court& court, const Seat& seat) {
  const PlannedHwpt& p = *seat.planned;
  if (p.flags >= kHwptFlagSets) {
    court.object(attributes, {p.id}, fmt::format("`{}` has flags that do not exist ({:#x})", p.id, p.flags));
  }
  if (!seat.allocator) {
    court.object(attributes, {p.id, p.allocator},
                 fmt::format("`{}` allocates `{}`, and is not assigned to its VM", p.allocator, p.id));
  } else if (p.automatic && !seat.holds(*seat.allocator)) {
    court.object(attributes, {p.id, p.allocator},
                 fmt::format("`{}` allocates the automatic `{}` without being in it", p.allocator, p.id));
  }
}

void check_acceptance(const Court& court, const Seat& seat) {
  for (const Item* item : seat.items) {
    const Refusal refusal = refused_by_driver(court.world, *seat.scene, *item, *seat.hwpt);
    if (!refusal) continue;
    const std::string& id = court.world.id(refusal.device);
    court.object(acceptance, {seat.planned->id, id},
                 fmt::format("`{}` does not take `{}` (rule `{}`)", id, seat.planned->id, refusal.rule->name));
  }
}

}  // namespace

void check_attributes(const Court& court, const std::vector<Seat>& seats) {
  for (const Seat& seat : seats) {
    check_allocator(court, seat);
    if (!seat.hwpt) continue;
    check_fields(court, seat);
    check_allocation(court, seat);
    check_acceptance(court, seat);
  }
}

}  // namespace ioplan::check
