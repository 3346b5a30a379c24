// Intel VT-d. Registers: VT-d specification 11.4.2 (CAP_REG) and 11.4.3 (ECAP_REG); what Linux makes of them:
// drivers/iommu/intel/iommu.c intel_iommu_domain_alloc_first_stage, _second_stage, compute_vasz_lg2_fs, _ss.

#include <algorithm>
#include <bit>

#include "constraints/drivers/drivers.h"
#include "engine/base/log2.h"

namespace ioplan::drivers {

namespace {

// CAP_REG and ECAP_REG of one DRHD, and the two choices that the kernel's command line makes.
struct Registers {
  std::uint64_t cap, ecap;
  bool scalable_mode;  // wanted and supported
  bool large_pages;
  bool rwbf_quirk;

  unsigned mgaw() const { return static_cast<unsigned>(bits(cap, 21, 16)) + 1; }
  unsigned sagaw() const { return static_cast<unsigned>(bits(cap, 12, 8)); }
  bool write_buffer() const { return bit(cap, 4) || rwbf_quirk; }
  bool caching_mode() const { return bit(cap, 7); }
  bool first_stage_1g() const { return bit(cap, 56); }
  bool five_levels() const { return bit(cap, 60); }
  bool snoop_control() const { return bit(ecap, 7); }
  bool nest() const { return scalable_mode && bit(ecap, 26); }
  bool walk_snoops() const { return bit(ecap, 48); }  // SMPWC
  bool page_walk_coherent() const { return scalable_mode ? walk_snoops() : bit(ecap, 0); }
  bool dirty() const { return scalable_mode && bit(ecap, 45) && walk_snoops(); }
  bool pasid() const { return scalable_mode && bit(ecap, 40); }
};

Registers read(const Host& host, const Unit& unit) {
  const std::uint64_t ecap = unit.facts.at(UnitFact::ecap);
  return {.cap = unit.facts.at(UnitFact::cap),
          .ecap = ecap,
          .scalable_mode = host.kernel.facts.value_or_stock(KernelFact::intel_iommu_sm) != 0 && bit(ecap, 43),
          .large_pages = host.kernel.facts.value_or_stock(KernelFact::intel_iommu_sp_off) == 0,
          .rwbf_quirk = unit.facts.value_or_stock(UnitFact::rwbf_quirk) != 0};
}

std::uint64_t first_stage_pages(const Registers& r) {
  if (!r.large_pages) return k4K;
  return k4K | k2M | (r.first_stage_1g() ? k1G : 0);
}

std::uint64_t second_stage_pages(const Registers& r) {
  if (!r.large_pages) return k4K;
  return k4K | (bit(r.cap, 34) ? k2M : 0) | (bit(r.cap, 35) ? k1G : 0);
}

// Linux makes the root as large as the address width needs. Where that is less than a byte, because the root's level lies
// above the width, it asks for gigabytes (generic_pt's pt_top_memsize_lg2) and gets no table.
std::uint64_t pages_of(unsigned levels, unsigned address_bits, std::uint64_t pages) {
  const unsigned root_entry_lg2 = levels == 0 ? 0 : 12 + 9 * (levels - 1);
  return address_bits + 3 < root_entry_lg2 ? 0 : fitting_page_sizes(pages, address_bits);
}

StageTables first_stage(const Registers& r) {
  const bool five = r.mgaw() > 48 && r.five_levels();
  const unsigned width = five ? std::min(57U, r.mgaw()) : std::min(48U, r.mgaw());
  return {.available = r.scalable_mode && bit(r.ecap, 47),
          .format = PageTableFormat::x86_64,
          .levels = five ? 5U : 4U,
          .bits = width,
          .aperture = {0, last_of_width(width - 1)},  // sign-extended: the lower half
          .page_sizes = pages_of(five ? 5 : 4, width, first_stage_pages(r)),
          .coherent_walk = r.walk_snoops(),
          .sync_map = r.write_buffer()};
}

// The kernel compares SAGAW as a number and takes the lowest supported level above the wanted one, if there is one, even
// where a reserved bit of SAGAW asks for six.
struct SecondStageShape {
  unsigned bits = 0;
  unsigned levels = 0;
};
SecondStageShape second_stage_shape(unsigned mgaw, unsigned sagaw) {
  const auto levels_above = [&](unsigned levels) {
    const unsigned above = sagaw >> (levels - 1);
    return above == 0 ? levels : levels + 1 + static_cast<unsigned>(std::countr_zero(above));
  };
  SecondStageShape shape;
  if (mgaw > 48 && sagaw >= 8) {
    shape = {std::min(57U, mgaw), 5};
  } else if (mgaw > 39 && sagaw >= 4) {
    shape = {std::min(48U, mgaw), levels_above(4)};
  } else if (mgaw > 30 && sagaw >= 2) {
    shape = {std::min(39U, mgaw), levels_above(3)};
  }
  return shape;
}

StageTables second_stage(const Registers& r) {
  const SecondStageShape shape = second_stage_shape(r.mgaw(), r.sagaw());
  return {.available = !r.scalable_mode || bit(r.ecap, 46),
          .format = PageTableFormat::vtd_ss,
          .levels = shape.levels,
          .bits = shape.bits,
          .aperture = {0, last_of_width(shape.bits)},
          .page_sizes = pages_of(shape.levels, shape.bits, second_stage_pages(r)),
          .coherent_walk = r.page_walk_coherent(),
          .sync_map = r.write_buffer() || r.caching_mode()};
}

}  // namespace

void describe_intel(const Host& host, const Unit& unit, const Device& device, DeviceQuantities& q) {
  const Registers r = read(host, unit);
  const StageTables first = first_stage(r);
  q[DeviceQ::enforce_cache_coherency] = r.snoop_control();
  q[DeviceQ::snoop_control] = r.snoop_control();
  q[DeviceQ::dirty_capable] = r.dirty();
  q[DeviceQ::nested] = r.nest();
  q[DeviceQ::pasid_attach] = 1;
  q[DeviceQ::pasid_bits] = r.pasid() ? std::min(device.facts.value_or_stock(DeviceFact::pasid_bits),
                                                bits(r.ecap, 39, 35) + 1)
                                     : 0;
  q[DeviceQ::read_only_nest_parent] = 0;
  q[DeviceQ::mgaw] = r.mgaw();
  q[DeviceQ::walk_levels] = r.sagaw();
  q[DeviceQ::first_stage_limit] = r.five_levels() ? 57 : 48;
  q[DeviceQ::first_stage_pages] = first_stage_pages(r);
  q[DeviceQ::second_stage_pages] = second_stage_pages(r);
  q[DeviceQ::scalable_mode] = r.scalable_mode;
  set_stage(q, 1, first);
  set_stage(q, 2, second_stage(r));
  FlagSets sets;
  for (std::uint8_t flags = 0; flags < kHwptFlagSets; ++flags) {
    sets.add(flags, first.available && (flags & ~kPasid) == 0 ? 1 : 2);
  }
  sets.write_to(q);
}

}  // namespace ioplan::drivers
