#include "backends/sim/domain.h"

#include <algorithm>
#include <array>

#include "backends/sim/page_table/ordered_map.h"
#include "engine/base/log2.h"

namespace ioplan::sim {

namespace {

// SMMU_IDR5.OAS, or what the boot log printed.
unsigned smmuv3_output_bits(const Unit& unit) {
  constexpr std::array<unsigned, 8> kOas = {32, 36, 40, 42, 44, 48, 52, 48};
  if (unit.facts[UnitFact::features] && !unit.facts[UnitFact::idr0] && unit.facts[UnitFact::oas]) {
    return static_cast<unsigned>(*unit.facts[UnitFact::oas]);
  }
  return kOas[bits(unit.facts[UnitFact::idr5].value_or(5), 2, 0)];
}

unsigned smmu_output_bits(const Unit& unit, std::uint64_t page_sizes) {
  const unsigned reach = lowest_bit(page_sizes) == pow2(16) ? 52 : 48;  // only 64K descriptors have 52 bits here
  const unsigned own = unit.driver == Driver::smmuv3
                           ? smmuv3_output_bits(unit)
                           : static_cast<unsigned>(unit.facts.value_or_stock(UnitFact::ipa_bits));
  return std::min(reach, own);
}

unsigned output_bits_of(const Unit& unit, PageTableFormat format, std::uint64_t page_sizes) {
  switch (format) {
    case PageTableFormat::vtd_ss:
    case PageTableFormat::x86_64:
    case PageTableFormat::amdv1: return 52;
    case PageTableFormat::mock: return 51;
    case PageTableFormat::arm_lpae: return smmu_output_bits(unit, page_sizes);
    case PageTableFormat::riscv: return 56;
    case PageTableFormat::s390:
    case PageTableFormat::virtio: break;
  }
  return 64;
}

}  // namespace

PageTableShape shape_of(const HwptQuantities& a, const Unit& unit) {
  PageTableShape shape;
  shape.format = static_cast<PageTableFormat>(a[HwptQ::format]);
  shape.stage = static_cast<unsigned>(a[HwptQ::stage]);
  shape.levels = static_cast<unsigned>(a[HwptQ::levels]);
  shape.address_bits = static_cast<unsigned>(a[HwptQ::address_bits]);
  shape.aperture = {a[HwptQ::aperture_start], a[HwptQ::aperture_last]};
  shape.page_sizes = a[HwptQ::page_sizes];
  shape.output_bits = output_bits_of(unit, shape.format, shape.page_sizes);
  shape.dirty_tracking = a[HwptQ::dirty_tracking] != 0;
  const bool enforces = a[HwptQ::enforce_cache_coherency] != 0;
  shape.force_coherence = shape.format == PageTableFormat::amdv1 ||  // AMD's driver always sets FC
                          (shape.format == PageTableFormat::vtd_ss && enforces);
  shape.force_writeable = a[HwptQ::takes_read_only] == 0;
  return shape;
}

bool Domain::finalise(TableArena& arena) {
  table = PageTable::create(shape_, arena);
  return table != nullptr;
}

bool Domain::enforce_cache_coherency(TableArena& arena) {
  attributes[HwptQ::enforce_cache_coherency] = 1;
  if (shape_.format != PageTableFormat::vtd_ss || shape_.force_coherence) return true;
  shape_.force_coherence = true;
  return !table || finalise(arena);
}

Translation Domain::translate(const TableArena& arena, std::uint64_t iova, DmaAccess access) const {
  if (shape_.levels == 0) {  // virtio: the device keeps the mappings
    Translation t;
    const auto pa = table->iova_to_phys(iova);
    const unsigned granted = static_cast<const OrderedMap&>(*table).protection(iova);
    if (!pa) {
      t.fault = "nothing is mapped there";
    } else if ((granted & (access == DmaAccess::write ? kWrite : kRead)) == 0) {
      t.fault = access == DmaAccess::write ? "the mapping forbids writes" : "the mapping forbids reads";
    }
    t.pa = pa.value_or(0);
    t.page_size = lowest_bit(shape_.page_sizes);
    return t;
  }
  PageTableShape shape = shape_;
  shape.dirty_tracking = logs_dirty();
  return walk(arena, shape, table->root(), iova, access);
}

}  // namespace ioplan::sim
