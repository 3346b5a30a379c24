// AMD-Vi. Registers: AMD I/O Virtualization Technology specification, extended feature registers; what Linux makes of
// them: drivers/iommu/amd/init.c (get_global_efr, table widths), iommu.c (amd_iommu_domain_alloc_paging_flags).

#include <algorithm>

#include "constraints/drivers/drivers.h"
#include "engine/base/log2.h"

namespace ioplan::drivers {

namespace {

// The kernel uses the features that all units share; only HDSUP is asked of a unit itself.
std::uint64_t common_features(const Host& host, UnitFact reg) {
  std::uint64_t features = ~std::uint64_t{0};
  for (const Unit& u : host.units) {
    if (u.driver == Driver::amd && u.facts[reg]) features &= *u.facts[reg];
  }
  return features;
}

struct Features {
  std::uint64_t efr, efr2;
  bool five_level_cpu, snp;

  unsigned hats() const { return static_cast<unsigned>(bits(efr, 11, 10)); }
  bool host_tables() const { return hats() != 3; }
  bool five_level_guest() const { return five_level_cpu && bits(efr, 13, 12) == 1; }
  bool guest_tables() const { return bit(efr, 4) && bit(efr, 48) && !snp; }  // GT, GIOSUP
  bool pasid() const {                                                      // PPR, EPHSUP
    return guest_tables() && bit(efr, 1) && bit(efr, 50) && (!five_level_cpu || five_level_guest());
  }
  bool nest() const { return bit(efr, 4) && bit(efr, 48) && bit(efr2, 3); }  // GCR3TRPMODE
};

StageTables host_tables(const Host& host, const Unit& unit, const Features& f) {
  const Facts<KernelFact>& kernel = host.kernel.facts;
  const std::uint64_t limit = (f.hats() + 3) * 9 + 21;
  const auto wanted = static_cast<unsigned>(std::min(unit.facts.value_or_stock(UnitFact::va_size), limit));
  const unsigned width = wanted > 64 ? 0 : wanted;  // no table spans more than 64 bits
  std::uint64_t pages = last_of_width(52) & ~last_of_width(12) & ~(std::uint64_t{1} << 39);
  if (kernel.value_or_stock(KernelFact::amd_iommu_v2_pgsizes_only) != 0) pages = k4K | k2M | k1G;
  if (kernel.value_or_stock(KernelFact::amd_iommu_nohugepages) != 0) pages = k4K;
  return {.available = f.host_tables(),
          .format = PageTableFormat::amdv1,
          .levels = 3,  // grows with the addresses that are mapped
          .bits = width,
          .aperture = {0, last_of_width(width)},
          .page_sizes = fitting_page_sizes(pages, width)};
}

// The top bit is left out, so that one table is valid for a RID and for a PASID.
StageTables guest_tables(const Features& f) {
  const unsigned width = f.five_level_guest() ? 56 : 47;
  return {.available = f.guest_tables(),
          .format = PageTableFormat::x86_64,
          .levels = f.five_level_guest() ? 5U : 4U,
          .bits = width,
          .aperture = {0, last_of_width(width)},
          .page_sizes = k4K | k2M | k1G};
}

// Without flags the command line's table is tried first, then the other.
unsigned default_stage(const Host& host, const Features& f) {
  const bool wants_v2 = host.kernel.facts.value_or_stock(KernelFact::amd_iommu_pgtbl_v2) != 0;
  if (wants_v2) return f.guest_tables() ? 1 : 2;
  return f.host_tables() ? 2 : 1;
}

}  // namespace

// A unit whose EFR2 nobody stated does not promise it.
bool amd_ignores_hypertransport_range(const Host& host) {
  return std::ranges::all_of(host.units, [](const Unit& u) {
    return u.driver != Driver::amd || bit(u.facts[UnitFact::efr2].value_or(0), 11);
  });
}

void describe_amd(const Host& host, const Unit& unit, const Device& device, DeviceQuantities& q) {
  const Features f{.efr = common_features(host, UnitFact::efr),
                   .efr2 = common_features(host, UnitFact::efr2),
                   .five_level_cpu = host.kernel.facts.value_or_stock(KernelFact::la57) != 0,
                   .snp = host.kernel.facts.value_or_stock(KernelFact::amd_snp) != 0};
  q[DeviceQ::enforce_cache_coherency] = 1;
  q[DeviceQ::dirty_capable] = f.host_tables() && bit(unit.facts.at(UnitFact::efr), 52);
  q[DeviceQ::nested] = f.nest();
  q[DeviceQ::pasid_alloc] = f.pasid();
  q[DeviceQ::pasid_attach] = 0;
  q[DeviceQ::pasid_bits] =
      f.pasid() ? std::min(device.facts.value_or_stock(DeviceFact::pasid_bits), bits(f.efr, 36, 32) + 1) : 0;
  set_stage(q, 1, guest_tables(f));
  set_stage(q, 2, host_tables(host, unit, f));
  FlagSets sets;
  sets.add(0, default_stage(host, f));
  sets.add(kDirtyTracking, 2);
  sets.add(kNestParent, 2);
  sets.add(kDirtyTracking | kNestParent, 2);
  sets.add(kPasid, 1);
  sets.write_to(q);
}

}  // namespace ioplan::drivers
