#include "tests/support/oracle_kernel.h"

#include <algorithm>
#include <array>
#include <tuple>

#include "engine/base/log2.h"

namespace ioplan::oracle {

namespace {

constexpr std::uint64_t kTop = ~std::uint64_t{0};
constexpr std::uint64_t kKiB = 1024, kMiB = kKiB * 1024, kGiB = kMiB * 1024, kTiB = kGiB * 1024;
constexpr std::uint64_t k4KiB = 4 * kKiB, k2MiB = 2 * kMiB;
}  // namespace

const Unit& unit_of(const Host& host, const Device& device) { return host.unit(device.unit.value()); }

// product.md: the page size of the architecture; all that ioplan knows of have 4 KiB as their stock.
std::uint64_t page_size(const Host& host) { return host.kernel.facts[KernelFact::page_size].value_or(k4KiB); }

namespace {

std::uint64_t of_kernel(const Host& host, KernelFact f) { return host.kernel.facts.value_or_stock(f); }
std::uint64_t of_unit(const Unit& unit, UnitFact f) { return unit.facts.value_or_stock(f); }

std::uint64_t without_too_large(std::uint64_t sizes, unsigned vasz) {  // KR 4: minus sizes >= 2^(vasz-1)
  return sizes & last_of_width(vasz - 1);
}

// ---- Intel, KR 3.1

struct Intel {
  explicit Intel(const Host& host, const Unit& unit) {
    const std::uint64_t cap = of_unit(unit, UnitFact::cap), ecap = of_unit(unit, UnitFact::ecap);
    mgaw = static_cast<unsigned>(bits(cap, 21, 16)) + 1;
    sagaw = static_cast<unsigned>(bits(cap, 12, 8));
    sm = of_kernel(host, KernelFact::intel_iommu_sm) != 0 && bit(ecap, 43);
    sp_off = of_kernel(host, KernelFact::intel_iommu_sp_off) != 0;
    smpwc = bit(ecap, 48);
    ssads = sm && bit(ecap, 45) && smpwc;
    nested = sm && bit(ecap, 26);
    pw_coherent = sm ? smpwc : bit(ecap, 0);
    rwbf = of_unit(unit, UnitFact::rwbf_quirk) != 0 || bit(cap, 4);
    cm = bit(cap, 7);
    slts = bit(ecap, 46);
    flts = bit(ecap, 47);
    sc = bit(ecap, 7);
    fl5lp = bit(cap, 60);
    fl1gp = bit(cap, 56);
    ss_2m = bit(cap, 34);
    ss_1g = bit(cap, 35);
  }
  unsigned mgaw, sagaw;
  bool sm, sp_off, smpwc, ssads, nested, pw_coherent, rwbf, cm, slts, flts, sc, fl5lp, fl1gp, ss_2m, ss_1g;
};

std::optional<Table> intel_first_stage(const Intel& u, std::uint8_t flags) {
  if ((flags & ~kPasid) != 0 || !u.sm || !u.flts) return std::nullopt;
  Table t;
  t.stage = 1;
  t.format = PageTableFormat::x86_64;
  const bool five = u.mgaw > 48 && u.fl5lp;
  t.levels = five ? 5 : 4;
  t.address_bits = std::min(five ? 57U : 48U, u.mgaw);
  t.aperture = {0, last_of_width(t.address_bits - 1)};
  t.page_sizes = u.sp_off ? k4KiB : (k4KiB | k2MiB | (u.fl1gp ? kGiB : 0));
  t.incoherent = !u.smpwc;
  t.sync_map = u.rwbf;
  return t;
}

struct Shape {
  unsigned levels = 0, vasz = 0;
};

// compute_vasz_lg2_ss: not the smallest level. SAGAW bits: 1 = 3 levels, 2 = 4, 3 = 5; 4 is reserved, and asks for 6.
std::optional<Shape> intel_second_stage_shape(const Intel& u) {
  if (u.mgaw > 48 && u.sagaw >= 8) return Shape{5, std::min(57U, u.mgaw)};
  if (u.mgaw > 39 && u.sagaw >= 4) {
    return Shape{(u.sagaw & 8) != 0 ? 5U : (u.sagaw & 16) != 0 ? 6U : 4U, std::min(48U, u.mgaw)};
  }
  if (u.mgaw > 30 && u.sagaw >= 2) {
    return Shape{(u.sagaw & 4) != 0 ? 4U : (u.sagaw & 8) != 0 ? 5U : (u.sagaw & 16) != 0 ? 6U : 3U, std::min(39U, u.mgaw)};
  }
  return std::nullopt;
}

// generic_pt makes at most five levels, and a root of at least a byte (8 bytes an entry): tests/kernel/law.
bool intel_makes(const Table& t) { return t.levels <= 5 && t.address_bits + 3 >= 12 + 9 * (t.levels - 1); }

std::optional<Table> intel_second_stage(const Intel& u, std::uint8_t flags) {
  if ((flags & kNestParent) != 0 && !u.nested) return std::nullopt;
  if ((flags & kDirtyTracking) != 0 && !u.ssads) return std::nullopt;
  if (u.sm && !u.slts) return std::nullopt;
  const auto shape = intel_second_stage_shape(u);
  if (!shape) return std::nullopt;
  Table t;
  t.stage = 2;
  t.format = PageTableFormat::vtd_ss;
  t.levels = shape->levels;
  t.address_bits = shape->vasz;
  t.aperture = {0, last_of_width(shape->vasz)};
  t.page_sizes = u.sp_off ? k4KiB : (k4KiB | (u.ss_2m ? k2MiB : 0) | (u.ss_1g ? kGiB : 0));
  t.incoherent = !u.pw_coherent;
  t.sync_map = u.rwbf || u.cm;
  return t;
}

std::optional<Table> intel_allocate(const Host& host, const Unit& unit, std::uint8_t flags) {
  const Intel u(host, unit);
  auto t = intel_first_stage(u, flags);
  if (!t) t = intel_second_stage(u, flags);
  if (!t || !intel_makes(*t)) return std::nullopt;
  t->page_sizes = without_too_large(t->page_sizes, t->address_bits);
  t->enforces = u.sc;  // KR 1.4, 6: decided by the allocating device
  return t;
}

bool intel_attaches(const Host& host, const Table& h, const Unit& unit) {
  const Intel t(host, unit);
  if (h.stage == 1) {
    return t.sm && t.flts && (t.smpwc || h.incoherent) && (t.fl5lp || h.address_bits <= 48) &&
           (t.fl1gp || (h.page_sizes & kGiB) == 0) && (!t.rwbf || h.sync_map) &&
           // The two strict extra rules (KR 3.1 notes, KR 10.6): the kernel does not check them.
           (!h.enforces || t.sc) && t.mgaw >= h.address_bits;
  }
  const unsigned sagaw_bit = h.levels - 2;  // 3 levels -> bit 1
  return ((h.flags & kDirtyTracking) == 0 || t.ssads) && ((h.flags & kNestParent) == 0 || t.nested) &&
         (!t.sm || t.slts) && (t.pw_coherent || h.incoherent) && t.mgaw >= h.address_bits &&
         (t.sagaw >> sagaw_bit & 1) != 0 && (t.ss_2m || (h.page_sizes & k2MiB) == 0) &&
         (t.ss_1g || (h.page_sizes & kGiB) == 0) && (!(t.rwbf || t.cm) || h.sync_map) && (!h.enforces || t.sc);
}

// ---- AMD, KR 3.2

// EFR is the AND over all AMD units; HDSUP alone is read from the unit.
std::uint64_t amd_global(const Host& host, UnitFact fact) {
  std::uint64_t all = kTop;
  for (const Unit& u : host.units) {
    if (u.driver == Driver::amd) all &= of_unit(u, fact);
  }
  return all;
}

struct Amd {
  explicit Amd(const Host& host) {
    const std::uint64_t efr = amd_global(host, UnitFact::efr), efr2 = amd_global(host, UnitFact::efr2);
    hats = static_cast<unsigned>(bits(efr, 11, 10));
    host_tables = hats != 3;
    snp = of_kernel(host, KernelFact::amd_snp) != 0;
    const bool gt = bit(efr, 4), giosup = bit(efr, 48);
    guest_tables = gt && giosup;
    nest_parent = gt && giosup && bit(efr2, 3);
    const bool la57 = of_kernel(host, KernelFact::la57) != 0;
    five_level_guest = la57 && bits(efr, 13, 12) == 1;  // amd_iommu_gpt_level
    pasid = guest_tables && bit(efr, 1) && bit(efr, 50) && !snp && (!la57 || five_level_guest);
    ht_range_ignored = bit(efr2, 11);
  }
  unsigned hats;
  bool host_tables, snp, guest_tables, nest_parent, five_level_guest, pasid, ht_range_ignored;
};

bool amd_tracks_dirty(const Host& host, const Unit& unit) {
  return Amd(host).host_tables && bit(of_unit(unit, UnitFact::efr), 52);
}

std::optional<Table> amd_v1(const Host& host, const Unit& unit) {
  const Amd amd(host);
  if (!amd.host_tables) return std::nullopt;
  Table t;
  t.stage = 2;  // host tables: what a guest's (v2) tables nest in
  t.format = PageTableFormat::amdv1;
  t.levels = 3;
  t.grows = true;
  const unsigned of_hats = (amd.hats + 3) * 9 + 21;
  t.address_bits = std::min(static_cast<unsigned>(of_unit(unit, UnitFact::va_size)), of_hats);
  if (t.address_bits > 64) return std::nullopt;
  t.aperture = {0, last_of_width(t.address_bits)};
  const std::uint64_t all = (last_of_width(52) & ~last_of_width(12)) & ~pow2(39);
  t.page_sizes = without_too_large(all, t.address_bits);
  if (of_kernel(host, KernelFact::amd_iommu_v2_pgsizes_only) != 0) t.page_sizes &= k4KiB | k2MiB | kGiB;
  if (of_kernel(host, KernelFact::amd_iommu_nohugepages) != 0) t.page_sizes = k4KiB;
  return t;
}

std::optional<Table> amd_v2(const Host& host) {
  const Amd amd(host);
  if (!amd.guest_tables || amd.snp) return std::nullopt;
  Table t;
  t.stage = 1;
  t.format = PageTableFormat::x86_64;
  t.levels = amd.five_level_guest ? 5 : 4;
  t.address_bits = amd.five_level_guest ? 56 : 47;  // the top bit is removed from the table, not only from its use
  t.aperture = {0, last_of_width(t.address_bits)};
  t.page_sizes = k4KiB | k2MiB | kGiB;
  return t;
}

std::optional<Table> amd_paging(const Host& host, const Unit& unit, std::uint8_t flags) {
  if (flags == 0) {
    const bool v2_first = of_kernel(host, KernelFact::amd_iommu_pgtbl_v2) != 0;
    auto t = v2_first ? amd_v2(host) : amd_v1(host, unit);
    return t ? t : v2_first ? amd_v1(host, unit) : amd_v2(host);
  }
  if (flags == kPasid) return Amd(host).pasid ? amd_v2(host) : std::nullopt;
  if ((flags & kPasid) != 0) return std::nullopt;
  if ((flags & kDirtyTracking) != 0 && !amd_tracks_dirty(host, unit)) return std::nullopt;
  if ((flags & kNestParent) != 0 && !Amd(host).nest_parent) return std::nullopt;
  return amd_v1(host, unit);
}

std::optional<Table> amd_allocate(const Host& host, const Unit& unit, std::uint8_t flags) {
  auto t = amd_paging(host, unit, flags);
  if (t) t->enforces = true;
  return t;
}

bool amd_attaches(const Host& host, const Table& h, const Unit& unit) {
  return (h.flags & kDirtyTracking) == 0 || amd_tracks_dirty(host, unit);
}

// ---- Arm, KR 3.3 and 3.4

struct Granule {
  std::uint64_t size = 0, page_sizes = 0;
  unsigned max_bits = 48;
};

// arm_lpae_restrict_pgsizes: the kernel's page size, else the largest smaller one, else the smallest bigger one.
Granule arm_granule(const Host& host, std::uint64_t granules, unsigned output_bits) {
  const std::uint64_t kernel = page_size(host);
  std::uint64_t size = granules & kernel;
  if (size == 0) size = highest_bit(granules & (kernel - 1));
  if (size == 0) size = lowest_bit(granules & ~(kernel - 1));
  if (size == 4 * kKiB) return {size, k4KiB | k2MiB | kGiB, 48};
  if (size == 16 * kKiB) return {size, 16 * kKiB | 32 * kMiB, 48};
  if (size == 64 * kKiB) return {size, 64 * kKiB | 512 * kMiB | (output_bits > 48 ? 4 * kTiB : 0), 52};
  return {};
}

// io-pgtable-arm: as many levels as the width needs; stage 2 drops the topmost one, for concatenated tables of the next
// level, only where the architecture demands that (arm_lpae_concat_mandatory; D5).
bool must_concatenate(unsigned leaf_lg2, unsigned width) {
  return (leaf_lg2 == 12 && (width == 40 || width == 42)) || (leaf_lg2 == 14 && (width == 40 || width == 48));
}

Table arm_table(const Granule& g, unsigned stage, unsigned width) {
  Table t;
  t.stage = stage;
  t.format = PageTableFormat::arm_lpae;
  t.leaf_lg2 = width_of_last(g.size - 1);
  t.bits_a_level = t.leaf_lg2 - 3;
  const unsigned to_resolve = width - t.leaf_lg2;
  t.levels = (to_resolve + t.bits_a_level - 1) / t.bits_a_level;
  const unsigned root_bits = to_resolve - (t.levels - 1) * t.bits_a_level;
  if (stage == 2 && must_concatenate(t.leaf_lg2, width)) {
    --t.levels;
    t.root_tables = pow2(root_bits);
  }
  t.address_bits = width;
  t.aperture = {0, last_of_width(width)};
  t.page_sizes = g.page_sizes;
  return t;
}

struct Smmuv3 {
  explicit Smmuv3(const Host& host, const Unit& unit) {
    const std::uint64_t idr0 = of_unit(unit, UnitFact::idr0), idr5 = of_unit(unit, UnitFact::idr5);
    s1 = bit(idr0, 1);
    s2 = bit(idr0, 0);
    coherent = of_unit(unit, UnitFact::coherent) != 0;
    nesting = s1 && s2 && of_unit(unit, UnitFact::nesting_erratum) == 0;
    // Firmware's word (IORT), else what the register says (KR 3.3).
    tracks_dirty = unit.facts[UnitFact::httu].value_or(std::min<std::uint64_t>(bits(idr0, 7, 6), 2)) == 2 && coherent;
    constexpr std::array<unsigned, 8> kOutputBits = {32, 36, 40, 42, 44, 48, 52, 52};
    oas = kOutputBits[bits(idr5, 2, 0)];
    granule = arm_granule(
        host, (bit(idr5, 4) ? 4 * kKiB : 0) | (bit(idr5, 5) ? 16 * kKiB : 0) | (bit(idr5, 6) ? 64 * kKiB : 0), oas);
    const unsigned wide = bits(idr5, 11, 10) == 1 ? 52 : 48;
    s1_bits = std::min({wide, static_cast<unsigned>(of_kernel(host, KernelFact::va_bits)), granule.max_bits});
    s2_bits = std::min(oas, granule.max_bits);
    asid_bits = bit(idr0, 12) ? 16 : 8;
    vmid_bits = bit(idr0, 18) ? 16 : 8;
  }
  bool s1, s2, coherent, nesting, tracks_dirty;
  unsigned oas, s1_bits, s2_bits, asid_bits, vmid_bits;
  Granule granule;
};

std::optional<Table> smmuv3_allocate(const Host& host, const Unit& unit, const Device& device, std::uint8_t flags) {
  const Smmuv3 smmu(host, unit);
  if (smmu.granule.size == 0) return std::nullopt;
  if ((flags & kDirtyTracking) != 0 && !smmu.tracks_dirty) return std::nullopt;  // KR 1.4, 3
  unsigned stage = 1;
  if (flags == 0) stage = smmu.s1 ? 1 : 2;
  if (flags == kNestParent) stage = 2;
  if ((flags & kNestParent) != 0 && (flags != kNestParent || !smmu.nesting)) return std::nullopt;
  if (stage == 1 && !smmu.s1) return std::nullopt;
  if (stage == 2 && !smmu.s2) return std::nullopt;
  Table t = arm_table(smmu.granule, stage, stage == 1 ? smmu.s1_bits : smmu.s2_bits);
  t.enforces = device.facts.value_or_stock(DeviceFact::canwbs) != 0;
  return t;
}

// Finalised at the first attach; no flags op (KR 3.4).
std::optional<Table> smmuv2_allocate(const Host& host, const Unit& unit, std::uint8_t flags) {
  if (flags != 0) return std::nullopt;
  const bool s1 = of_unit(unit, UnitFact::stage1) != 0, s2 = of_unit(unit, UnitFact::stage2) != 0;
  if (!s1 && !s2) return std::nullopt;
  const std::uint64_t mask = of_unit(unit, UnitFact::page_sizes);
  const Granule g = arm_granule(host, mask & (4 * kKiB | 16 * kKiB | 64 * kKiB), 48);
  if (g.size == 0) return std::nullopt;
  const auto width = static_cast<unsigned>(of_unit(unit, s1 ? UnitFact::input_bits : UnitFact::ipa_bits));
  Table t = arm_table(g, s1 ? 1 : 2, std::min(width, g.max_bits));
  t.page_sizes = g.page_sizes & mask;
  return t;
}

// ---- virtio (KR 3.5), s390 (KR 3.7), the mock (KR 8.2)

std::optional<Table> virtio_allocate(const Host& host, const Unit& unit, std::uint8_t flags) {
  const std::uint64_t mask = of_unit(unit, UnitFact::page_sizes);
  if (flags != 0 || mask == 0 || lowest_bit(mask) > page_size(host)) return std::nullopt;
  Table t;
  t.stage = 1;
  t.format = PageTableFormat::virtio;
  t.levels = 0;
  t.aperture = {of_unit(unit, UnitFact::input_start), of_unit(unit, UnitFact::input_last)};
  t.address_bits = width_of_last(t.aperture.last);
  t.page_sizes = mask;
  return t;
}

std::optional<Table> s390_allocate(const Unit& unit, std::uint8_t flags) {
  if (flags != 0) return std::nullopt;
  const std::uint64_t last = of_unit(unit, UnitFact::dma_last);
  const bool rs = of_unit(unit, UnitFact::table_rs) != 0, rf = of_unit(unit, UnitFact::table_rf) != 0;
  Table t;
  t.stage = 1;
  t.format = PageTableFormat::s390;
  t.address_bits = last <= last_of_width(42) ? 42 : last <= last_of_width(53) && rs ? 53 : rf ? 64 : 42;
  t.levels = t.address_bits == 42 ? 3 : t.address_bits == 53 ? 4 : 5;
  t.aperture = {0, last_of_width(t.address_bits)};
  t.page_sizes = k4KiB;
  return t;
}

bool s390_attaches(const Host& host, const Table& h, const Unit& unit) {
  const Range dma = {of_unit(unit, UnitFact::dma_start), of_unit(unit, UnitFact::dma_last)};
  return h.aperture.overlaps(dma) &&
         of_unit(host.unit(h.unit), UnitFact::rtr_avail) == of_unit(unit, UnitFact::rtr_avail);
}

bool mock_no_dirty(const Device& device) { return device.facts.value_or_stock(DeviceFact::no_dirty) != 0; }

std::optional<Table> mock_allocate(const Device& device, std::uint8_t flags) {
  if ((flags & kDirtyTracking) != 0 && mock_no_dirty(device)) return std::nullopt;
  Table t;
  t.stage = 2;  // AMD's host format (KR 8.2)
  t.format = PageTableFormat::mock;
  t.levels = 3;
  t.grows = true;
  t.leaf_lg2 = 11;
  t.bits_a_level = 9;
  t.address_bits = 56;
  t.aperture = {pow2(24), pow2(31) - 1};
  t.page_sizes = last_of_width(37) & ~last_of_width(11);
  return t;
}

// --------------------------------------------------------------------------------------- KR 2.5: reserved regions

constexpr Range kX86Msi = {0xfee00000, 0xfeefffff};
constexpr Range kAmdHt = {0xfd00000000, 0xffffffffff};
constexpr Range kSoftwareMsi = {0x08000000, 0x080fffff};

// Those that the driver itself declares (KR 3.1 .. 3.8), when the document gives none.
std::vector<ReservedRegion> own_regions(const Host& host, const Unit& unit) {
  switch (unit.driver) {
    case Driver::intel:
      return {{kX86Msi, ReservedType::msi}};
    case Driver::amd: {
      std::vector<ReservedRegion> regions = {{kX86Msi, ReservedType::msi}};
      if (!Amd(host).ht_range_ignored) regions.push_back({kAmdHt, ReservedType::reserved});
      return regions;
    }
    case Driver::smmuv3:
    case Driver::smmuv2:
    case Driver::virtio:
      return {{kSoftwareMsi, ReservedType::sw_msi}};
    case Driver::s390: {
      std::vector<ReservedRegion> regions;
      const std::uint64_t start = of_unit(unit, UnitFact::dma_start), last = of_unit(unit, UnitFact::dma_last);
      if (start > 0) regions.push_back({{0, start - 1}, ReservedType::reserved});
      if (last < kTop) regions.push_back({{last + 1, kTop}, ReservedType::reserved});
      return regions;
    }
    case Driver::riscv:
    case Driver::mock:
      return {};
  }
  return {};
}

bool contradictory_msi(const std::vector<ReservedRegion>& regions) {
  const auto count = [&](ReservedType type) { return std::ranges::count(regions, type, &ReservedRegion::type); };
  return count(ReservedType::sw_msi) > 1 || (count(ReservedType::sw_msi) > 0 && count(ReservedType::msi) > 0);
}

// ------------------------------------------------------------------------------------------- D5: bytes of page tables

// A run of leaves of one size, as the map path lays them (largest first, KR 4).
struct Run {
  std::uint64_t start = 0, leaf = 0, count = 0;
};

std::vector<Run> runs_of(const Range& gpa, std::uint64_t page_sizes, std::uint64_t backing) {
  std::vector<Run> runs;
  const std::uint64_t smallest = lowest_bit(page_sizes);  // at most PAGE_SIZE, which memory always has
  const std::uint64_t allowed = smallest | (page_sizes & (backing | (backing - 1)));
  std::uint64_t at = gpa.start, left = gpa.extent() + 1;
  while (left != 0) {
    std::uint64_t leaf = smallest, next_larger = 0;
    for (std::uint64_t sizes = allowed; sizes != 0; sizes &= sizes - 1) {
      const std::uint64_t size = lowest_bit(sizes);
      const bool fits = at % size == 0 && size <= left;
      if (fits) leaf = size;
    }
    for (std::uint64_t sizes = allowed; sizes != 0 && next_larger == 0; sizes &= sizes - 1) {
      if (lowest_bit(sizes) > leaf) next_larger = lowest_bit(sizes);
    }
    // The leaf stays the best one up to the next place where a larger one could begin.
    std::uint64_t count = left / leaf;
    if (next_larger != 0) {
      const std::uint64_t to_boundary = next_larger - at % next_larger;
      count = std::min(count, to_boundary / leaf);
    }
    count = std::max<std::uint64_t>(count, 1);
    runs.push_back({at, leaf, count});
    at += leaf * count;
    left -= std::min(left, leaf * count);
  }
  return runs;
}

// The bytes that one table of a level occupies.
std::uint64_t table_size(const Table& t, unsigned level) {
  if (t.format == PageTableFormat::s390) return level == 0 ? 2 * kKiB : 16 * kKiB;
  return 8 * pow2(t.bits_a_level);
}

// log2 of what one entry of a level maps, level 0 being the lowest.
unsigned entry_lg2(const Table& t, unsigned level) {
  if (t.format == PageTableFormat::s390) return level == 0 ? 12 : 20 + 11 * (level - 1);
  return t.leaf_lg2 + t.bits_a_level * level;
}

unsigned level_of_leaf(const Table& t, unsigned levels, std::uint64_t leaf) {
  unsigned level = 0;
  while (level + 1 < levels && entry_lg2(t, level + 1) <= 63 && pow2(entry_lg2(t, level + 1)) <= leaf) ++level;
  return level;
}

std::uint64_t table_index(const Table& t, unsigned level, std::uint64_t address) {
  const unsigned span = entry_lg2(t, level + 1);
  return span >= 64 ? 0 : address >> span;
}

std::uint64_t less_used(std::uint64_t capacity, const Unit& unit) {
  const std::uint64_t used = of_unit(unit, UnitFact::domains_used);
  return capacity > used ? capacity - used : 0;
}

bool isolated_msi(const Host& host, const Device& device) {
  const auto own = device.facts[DeviceFact::isolated_msi];
  return own ? *own != 0 : of_kernel(host, KernelFact::isolated_msi) != 0;
}

}  // namespace

std::optional<Table> allocate(const Host& host, DeviceIndex allocator, std::uint8_t flags) {
  const Device& device = host.device(allocator);
  const Unit& unit = unit_of(host, device);
  std::optional<Table> t;
  switch (unit.driver) {
    case Driver::intel:
      t = intel_allocate(host, unit, flags);
      break;
    case Driver::amd:
      t = amd_allocate(host, unit, flags);
      break;
    case Driver::smmuv3:
      t = smmuv3_allocate(host, unit, device, flags);
      break;
    case Driver::smmuv2:
      t = smmuv2_allocate(host, unit, flags);
      break;
    case Driver::virtio:
      t = virtio_allocate(host, unit, flags);
      break;
    case Driver::riscv:
      break;  // no `.capable` op: its devices are never VFIO devices (KR 3.6)
    case Driver::s390:
      t = s390_allocate(unit, flags);
      break;
    case Driver::mock:
      t = mock_allocate(device, flags);
      break;
  }
  if (!t) return std::nullopt;
  t->allocator = allocator;
  t->flags = flags;
  t->driver = unit.driver;
  t->unit = device.unit.value();
  return t;
}

bool attaches(const Host& host, const Table& h, const Device& device) {
  const Unit& unit = unit_of(host, device);
  if (unit.driver != h.driver) return false;
  const bool same_unit = device.unit.value() == h.unit;
  switch (unit.driver) {
    case Driver::intel:
      return intel_attaches(host, h, unit);
    case Driver::amd:
      return amd_attaches(host, h, unit);
    case Driver::smmuv3:
      return same_unit && (!h.enforces || device.facts.value_or_stock(DeviceFact::canwbs) != 0);
    case Driver::smmuv2:
    case Driver::virtio:
      return same_unit;
    case Driver::riscv:
      return false;
    case Driver::s390:
      return s390_attaches(host, h, unit);
    case Driver::mock:
      return (h.flags & kDirtyTracking) == 0 || !mock_no_dirty(device);
  }
  return false;
}

// KR 3.0, row "CACHE_COHERENCY cap".
bool has_cache_coherency(const Host& host, const Device& device) {
  const Unit& unit = unit_of(host, device);
  const bool coherent_walk = of_unit(unit, UnitFact::coherent) != 0;
  switch (unit.driver) {
    case Driver::smmuv3:
      return coherent_walk;
    case Driver::smmuv2:
      return coherent_walk || device.facts[DeviceFact::dma_coherent].value_or(0) != 0;
    case Driver::riscv:
      return false;
    default:
      return true;
  }
}

// KR 3.0, row "ENFORCE cap"; KR 5.3.
bool can_enforce(const Host& host, const Device& device) {
  const Unit& unit = unit_of(host, device);
  switch (unit.driver) {
    case Driver::intel:
      return bit(of_unit(unit, UnitFact::ecap), 7);
    case Driver::amd:
      return true;
    case Driver::smmuv3:
      return device.facts.value_or_stock(DeviceFact::canwbs) != 0;
    default:
      return false;
  }
}

// Could this device attach a HWPT to one of its PASIDs (KR 2.2)? The driver needs set_dev_pasid (KR 3.0: not amd's
// paging domains, and no driver without the PASID flag), the IOMMU and the device need PASIDs (KR 3.1, 3.3, 8.2).
bool can_attach_pasid(const Host& host, const Device& device) {
  const Unit& unit = unit_of(host, device);
  if (device.facts.value_or_stock(DeviceFact::pasid_bits) == 0) return false;
  switch (unit.driver) {
    case Driver::intel:
      return Intel(host, unit).sm && bit(of_unit(unit, UnitFact::ecap), 40);
    case Driver::smmuv3:
      return bits(of_unit(unit, UnitFact::idr1), 10, 6) > 0;
    case Driver::mock:
      return true;
    default:
      return false;
  }
}

std::vector<ReservedRegion> regions_of(const Host& host, const Device& device) {
  return device.reserved ? *device.reserved : own_regions(host, unit_of(host, device));
}

std::vector<Range> reserved_by(const Host& host, const Device& device) {
  std::vector<Range> reserved;
  for (const ReservedRegion& r : regions_of(host, device)) {
    if (r.type != ReservedType::direct_relaxable) reserved.push_back(r.range);
  }
  return reserved;
}

bool same_owner(const Host& host, const Table& table, const Device& device) {
  const Unit& unit = unit_of(host, device);
  if (unit.driver != table.driver) return false;
  return unit.driver != Driver::s390 ||
         of_unit(unit, UnitFact::rtr_avail) == of_unit(host.unit(table.unit), UnitFact::rtr_avail);
}

bool equal_attributes(const Host& host, const Table& a, const Table& b) {
  if (!same_owner(host, a, host.device(b.allocator))) return false;
  const bool of_one_instance = a.driver == Driver::smmuv3 || a.driver == Driver::smmuv2 || a.driver == Driver::virtio;
  if (of_one_instance && a.unit != b.unit) return false;
  const auto kind = [](const Table& t) {
    return std::tuple(t.flags, t.stage, t.format, t.levels, t.address_bits, t.aperture, t.page_sizes, t.enforces,
                      t.incoherent, t.sync_map);
  };
  return kind(a) == kind(b);
}

// D2: a DIRECT region or a device without isolated MSI anywhere in the group refuses all of it.
std::vector<std::string> group_refusals(const Host& host, const Device& device) {
  std::vector<std::string> why;
  const bool mock = unit_of(host, device).driver == Driver::mock;
  if (!mock && !isolated_msi(host, device) && of_kernel(host, KernelFact::allow_unsafe_interrupts) == 0) {
    why.push_back("no isolated MSI: " + device.id);
  }
  if (std::ranges::count(regions_of(host, device), ReservedType::direct, &ReservedRegion::type) > 0) {
    why.push_back("DIRECT region: " + device.id);
  }
  return why;
}

// KR 5.1: provenance of coherency, and who maintains the caches of a device that is not coherent.
std::vector<std::string> usable_refusals(const Host& host, const Device& device, const VirtualMachine& vm,
                                         const Policy& policy) {
  std::vector<std::string> why;
  if (!has_cache_coherency(host, device)) why.push_back("no CACHE_COHERENCY: " + device.id);
  const auto given = device.facts[DeviceFact::dma_coherent];
  const bool mock = unit_of(host, device).driver == Driver::mock;                     // D9: does no DMA
  const bool coherent = given ? *given != 0 : mock || arch_of(host) == Arch::x86_64;  // PCI on x86: architecture
  if (!coherent && !vm.guest_cache_maintenance) why.push_back("not DMA coherent: " + device.id);
  if (given && device.dma_coherent_source == CoherencySource::assumed &&
      policy.assumed_coherency == Permission::refuse) {
    why.push_back("assumed coherency: " + device.id);
  }
  if (contradictory_msi(regions_of(host, device))) why.push_back("contradictory MSI regions: " + device.id);
  if (policy.coherency == CoherencyPolicy::required && !can_enforce(host, device)) {
    why.push_back("policy requires coherency: " + device.id);
  }
  return why;
}

bool aligned(const std::vector<MemoryRange>& memory, std::uint64_t alignment) {
  return std::ranges::all_of(
      memory, [&](const MemoryRange& m) { return m.gpa.start % alignment == 0 && (m.gpa.last + 1) % alignment == 0; });
}

bool takes_read_only(const Table& t) { return t.driver != Driver::intel || (t.flags & kNestParent) == 0; }

bool can_hold(const Host& host, const Table& t, const std::vector<MemoryRange>& memory) {
  const std::uint64_t granule = lowest_bit(t.page_sizes);
  if (granule == 0 || granule > page_size(host) || !aligned(memory, granule)) return false;
  return std::ranges::all_of(memory, [&](const MemoryRange& m) {
    return t.aperture.contains(m.gpa) && (m.access == Access::read_write || takes_read_only(t));
  });
}

std::uint64_t page_table_bytes(const Table& t, const std::vector<MemoryRange>& memory, std::uint64_t backing) {
  if (t.format == PageTableFormat::virtio) return 0;
  unsigned levels = t.levels;
  const std::uint64_t last = memory.empty() ? 0 : memory.back().gpa.last;
  while (t.grows && entry_lg2(t, levels) < 64 && last >= pow2(entry_lg2(t, levels))) ++levels;
  std::vector<RangeSet> tables(levels);  // by level, the indices of tables that some leaf needs
  for (const MemoryRange& m : memory) {
    for (const Run& run : runs_of(m.gpa, t.page_sizes, backing)) {
      for (unsigned level = level_of_leaf(t, levels, run.leaf); level + 1 < levels; ++level) {
        tables[level].add(
            {table_index(t, level, run.start), table_index(t, level, run.start + run.leaf * run.count - 1)});
      }
    }
  }
  std::uint64_t bytes = t.root_tables * table_size(t, levels - 1);
  for (unsigned level = 0; level + 1 < levels; ++level) {
    for (const Range& r : tables[level].ranges()) bytes += (r.extent() + 1) * table_size(t, level);
  }
  return bytes;
}

std::vector<DeviceIndex> group_of(const Host& host, DeviceIndex device) {
  std::vector<DeviceIndex> members;
  for (std::size_t i = 0; i < host.devices.size(); ++i) {
    if (host.devices[i].group == host.device(device).group) members.emplace_back(i);
  }
  return members;
}

std::optional<Pool> pool_of(const Host& host, UnitIndex index, unsigned stage) {
  const Unit& unit = host.unit(index);
  switch (unit.driver) {
    case Driver::intel:
      return Pool{unit.id,
                  less_used(pow2(4 + 2 * static_cast<unsigned>(bits(of_unit(unit, UnitFact::cap), 2, 0))) - 2, unit)};
    case Driver::amd:
      return Pool{"amd", less_used(65535, unit)};
    case Driver::smmuv3: {
      const Smmuv3 smmu(host, unit);
      if (stage == 1) return Pool{"asid", less_used(pow2(smmu.asid_bits) - 1, unit)};
      return Pool{unit.id + " vmid", less_used(pow2(smmu.vmid_bits) - 1, unit)};
    }
    case Driver::smmuv2:
      return Pool{unit.id, less_used(of_unit(unit, UnitFact::context_banks), unit)};
    case Driver::virtio:
      return Pool{unit.id,
                  less_used(of_unit(unit, UnitFact::domain_last) - of_unit(unit, UnitFact::domain_first) + 1, unit)};
    default:
      return std::nullopt;
  }
}

}  // namespace ioplan::oracle
