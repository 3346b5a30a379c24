#include "tests/support/oracle.h"

#include <algorithm>
#include <array>
#include <bit>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <stdexcept>
#include <tuple>

#include "engine/base/log2.h"
#include "engine/base/text.h"

namespace ioplan::oracle {

namespace {

using Order = std::array<Objective, 5>;
using Mask = std::uint32_t;  // a set of elements or items, by index

// Lexicographic under the order.
bool less_cost(const ObjectiveValues& a, const ObjectiveValues& b, const Order& order) {
  for (Objective o : order) {
    if (a[o] != b[o]) return a[o] < b[o];
  }
  return false;
}

ObjectiveValues sum(ObjectiveValues a, const ObjectiveValues& b) {
  for (std::size_t i = 0; i < a.by_objective.size(); ++i) a.by_objective[i] += b.by_objective[i];
  return a;
}

bool holds(Mask set, std::size_t i) { return (set >> i & 1) != 0; }

// Every partition of n elements, as block_of vectors whose blocks are numbered by their lowest element, in
// lexicographic order: the first best one met is therefore the canonical one (D8). `admissible(block)` is asked of
// growing blocks, so it must be false for every superset of a block that it refuses.
class Partitions {
 public:
  Partitions(std::size_t n, std::function<bool(Mask)> admissible,
             std::function<void(const std::vector<std::uint32_t>&, const std::vector<Mask>&)> visit)
      : n_(n), admissible_(std::move(admissible)), visit_(std::move(visit)) {}

  void run() { place(0); }

 private:
  void place(std::size_t i) {
    if (i == n_) return visit_(block_of_, blocks_);
    const std::size_t open = blocks_.size();
    for (std::size_t b = 0; b <= open; ++b) {
      if (b == open) blocks_.push_back(0);
      const Mask before = blocks_[b];
      blocks_[b] |= Mask{1} << i;
      if (admissible_(blocks_[b])) {
        block_of_.push_back(static_cast<std::uint32_t>(b));
        place(i + 1);
        block_of_.pop_back();
      }
      blocks_[b] = before;
    }
    blocks_.pop_back();
  }

  std::size_t n_;
  std::function<bool(Mask)> admissible_;
  std::function<void(const std::vector<std::uint32_t>&, const std::vector<Mask>&)> visit_;
  std::vector<std::uint32_t> block_of_;
  std::vector<Mask> blocks_;
};

std::size_t largest_clique(std::size_t n, const std::function<bool(std::size_t, std::size_t)>& adjacent) {
  std::vector<Mask> neighbours(n, 0);
  for (std::size_t a = 0; a < n; ++a) {
    for (std::size_t b = 0; b < n; ++b) {
      if (a != b && adjacent(a, b)) neighbours[a] |= Mask{1} << b;
    }
  }
  std::size_t largest = 0;
  for (Mask set = 0; set < Mask{1} << n; ++set) {
    bool clique = true;
    for (std::size_t a = 0; a < n && clique; ++a) {
      clique = !holds(set, a) || (set & ~neighbours[a]) == Mask{1} << a;
    }
    if (clique) largest = std::max(largest, static_cast<std::size_t>(std::popcount(set)));
  }
  return largest;
}

// ---------------------------------------------------------------------------------------------- the abstract cover

Mask mask_of(const ElementSet& set) {
  Mask mask = 0;
  for (std::size_t i = 0; i < set.size(); ++i) {
    if (set.test(i)) mask |= Mask{1} << i;
  }
  return mask;
}

ObjectiveValues cost_of(const CoverInstance& instance, Mask block, const CoverCandidate& candidate) {
  ObjectiveValues cost;
  cost[Objective::hwpts] = 1;
  for (std::size_t i = 0; i < instance.elements; ++i) {
    if (holds(block, i) && !candidate.enforces) cost[Objective::coherency] += instance.enforceable[i];
  }
  cost[Objective::page_tables] = candidate.page_table_bytes;
  cost[Objective::unneeded_flags] = candidate.unneeded_flags;
  return cost;
}

bool holds_apart_pair(const CoverInstance& instance, Mask block) {
  return std::ranges::any_of(instance.apart,
                             [&](const auto& pair) { return holds(block, pair.first) && holds(block, pair.second); });
}

// The least cost of each block, by stage of the candidate (pools ask for the stage); nothing where none accepts.
using BlockCosts = std::vector<std::map<unsigned, ObjectiveValues>>;

BlockCosts block_costs(const CoverInstance& instance) {
  BlockCosts costs(std::size_t{1} << instance.elements);
  for (Mask block = 1; block < costs.size(); ++block) {
    if (holds_apart_pair(instance, block)) continue;
    for (const CoverCandidate& c : instance.candidates) {
      if ((block & ~mask_of(c.accepts)) != 0) continue;
      const ObjectiveValues cost = cost_of(instance, block, c);
      const auto [at, is_new] = costs[block].emplace(c.stage, cost);
      if (!is_new && less_cost(cost, at->second, instance.order)) at->second = cost;
    }
  }
  return costs;
}

bool within_pools(const CoverInstance& instance, const std::vector<Mask>& blocks, const std::vector<unsigned>& stages) {
  return std::ranges::all_of(instance.pools, [&](const CoverPool& pool) {
    std::uint64_t drawn = 0;
    for (std::size_t b = 0; b < blocks.size(); ++b) {
      if (stages[b] == pool.stage && (blocks[b] & mask_of(pool.elements)) != 0) ++drawn;
    }
    return drawn <= pool.capacity;
  });
}

// The least cost of a partition over every choice of stages that the pools allow.
std::optional<ObjectiveValues> partition_cost(const CoverInstance& instance, const BlockCosts& costs,
                                              const std::vector<Mask>& blocks, std::vector<unsigned>& stages) {
  if (stages.size() == blocks.size()) {
    if (!within_pools(instance, blocks, stages)) return std::nullopt;
    ObjectiveValues total;
    for (std::size_t b = 0; b < blocks.size(); ++b) total = sum(total, costs[blocks[b]].at(stages[b]));
    return total;
  }
  std::optional<ObjectiveValues> best;
  for (const auto& [stage, cost] : costs[blocks[stages.size()]]) {
    stages.push_back(stage);
    const auto total = partition_cost(instance, costs, blocks, stages);
    stages.pop_back();
    if (total && (!best || less_cost(*total, *best, instance.order))) best = total;
  }
  return best;
}

}  // namespace

bool exclusive(const CoverInstance& instance, std::size_t a, std::size_t b) {
  const Mask pair = Mask{1} << a | Mask{1} << b;
  return holds_apart_pair(instance, pair) || std::ranges::none_of(instance.candidates, [&](const CoverCandidate& c) {
           return (pair & ~mask_of(c.accepts)) == 0;
         });
}

CoverAnswer brute_force_cover(const CoverInstance& instance) {
  const BlockCosts costs = block_costs(instance);
  CoverAnswer answer;
  answer.clique = largest_clique(instance.elements, [&](auto a, auto b) { return exclusive(instance, a, b); });
  const auto visit = [&](const std::vector<std::uint32_t>& block_of, const std::vector<Mask>& blocks) {
    if (instance.max_blocks && blocks.size() > *instance.max_blocks) return;
    std::vector<unsigned> stages;
    const auto cost = partition_cost(instance, costs, blocks, stages);
    if (!cost) return;
    answer.fewest_blocks = answer.feasible ? std::min(answer.fewest_blocks, blocks.size()) : blocks.size();
    if (answer.feasible && !less_cost(*cost, answer.values, instance.order)) return;
    answer.feasible = true;
    answer.values = *cost;
    answer.block_of = block_of;
  };
  Partitions(
      instance.elements, [&](Mask block) { return !costs[block].empty(); }, visit)
      .run();
  return answer;
}

// ------------------------------------------------------------------------------------------- KR 3: facts and registers

namespace {

constexpr std::uint64_t kTop = ~std::uint64_t{0};
constexpr std::uint64_t kKiB = 1024, kMiB = kKiB * 1024, kGiB = kMiB * 1024, kTiB = kGiB * 1024;
constexpr std::uint64_t k4KiB = 4 * kKiB, k2MiB = 2 * kMiB;

std::uint64_t of_kernel(const Host& host, KernelFact f) { return host.kernel.facts.value_or_stock(f); }
std::uint64_t of_unit(const Unit& unit, UnitFact f) { return unit.facts.value_or_stock(f); }
const Unit& unit_of(const Host& host, const Device& device) { return host.unit(device.unit.value()); }

// product.md: page size of the architecture; all that ioplan knows of have 4 KiB as their stock.
std::uint64_t page_size(const Host& host) { return host.kernel.facts[KernelFact::page_size].value_or(k4KiB); }

// A HWPT as HWPT_ALLOC makes it. Fixed by the allocating device and the flags, never changed later (KR 0).
struct Table {
  DeviceIndex allocator;
  std::uint8_t flags = 0;
  Driver driver = Driver::intel;
  UnitIndex unit;
  unsigned stage = 1;
  PageTableFormat format = PageTableFormat::x86_64;
  unsigned levels = 0;
  unsigned address_bits = 0;
  Range aperture;
  std::uint64_t page_sizes = 0;
  bool enforces = false;
  // How the format lays out its tables (D5).
  unsigned leaf_lg2 = 12;  // what the lowest level's entries map
  unsigned bits_a_level = 9;
  bool grows = false;             // starts with `levels` and grows until the last address fits
  std::uint64_t root_tables = 1;  // concatenated
  // Intel only.
  bool incoherent = false, sync_map = false;
};

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

// ---- all drivers

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

// The driver's attach check (KR 3); a HWPT of another driver is refused by the core (KR 2.2).
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

std::vector<ReservedRegion> regions_of(const Host& host, const Device& device) {
  return device.reserved ? *device.reserved : own_regions(host, unit_of(host, device));
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

// ------------------------------------------------------------------------------------------------- one VM's problem

template <class T>
bool asks_and_misses(const std::vector<T>& wanted, const std::vector<T>& has) {
  return !wanted.empty() && std::ranges::none_of(wanted, [&](const T& w) { return std::ranges::count(has, w) > 0; });
}

std::vector<std::uint64_t> as_list(const std::optional<std::uint64_t>& value) {
  return value ? std::vector<std::uint64_t>{*value} : std::vector<std::uint64_t>{};
}

// D3: keys joined by "and", values by "or".
bool selects(const Selector& s, const Device& device, const AssignedDevice& assigned) {
  std::vector<std::string> labels = device.labels;
  labels.insert(labels.end(), assigned.labels.begin(), assigned.labels.end());
  if (asks_and_misses(s.host, {device.id})) return false;
  if (asks_and_misses(s.name, {device.name, assigned.name})) return false;
  if (asks_and_misses(s.label, labels)) return false;
  if (asks_and_misses(s.vendor, as_list(device.facts[DeviceFact::vendor]))) return false;
  if (asks_and_misses(s.device, as_list(device.facts[DeviceFact::device]))) return false;
  if (asks_and_misses(s.numa, as_list(device.facts[DeviceFact::numa]))) return false;
  const auto code = device.facts[DeviceFact::device_class];
  return s.device_class.empty() || (code && std::ranges::any_of(s.device_class, [&](const auto& m) {
                                      return (*code & m.mask) == (m.code & m.mask);
                                    }));
}

// Groups that end up in one HWPT by themselves or by a `together` rule.
struct Item {
  std::vector<DeviceIndex> assigned;  // ascending
  std::vector<DeviceIndex> members;   // all devices of its groups, assigned or not
  std::uint64_t enforceable = 0;      // how many assigned devices are CC-capable
  std::uint8_t required_flags = 0;    // that `require` rules ask of the HWPT of one of its devices
};

struct Problem {
  const Request* request = nullptr;
  std::size_t vm_index = 0;
  std::vector<MemoryRange> memory;
  std::uint64_t backing = k4KiB;
  std::vector<DeviceIndex> assigned;
  bool has_mdev = false;
  std::vector<Item> items;                                 // by lowest assigned device
  std::vector<std::pair<std::size_t, std::size_t>> apart;  // items
  std::optional<std::uint64_t> limit;
  std::vector<std::string> why;  // reasons that make the VM infeasible whatever the HWPTs

  // Of templates that are usable; accepts[t] says which items the t-th takes.
  std::vector<Table> templates;
  std::vector<std::uint64_t> bytes;
  std::vector<Mask> accepts;
  std::uint8_t needed = 0;  // flags that required needs and adopted preferences ask for

  const Host& host() const { return request->host; }
  const VirtualMachine& vm() const { return request->vms[vm_index]; }
  const Policy& policy() const { return request->policy; }
};

const AssignedDevice& entry_of(const Problem& p, DeviceIndex d) {
  for (const AssignedDevice& a : p.vm().devices) {
    if (a.host == d) return a;
  }
  throw std::logic_error("device is not assigned");
}

std::vector<DeviceIndex> selected(const Problem& p, const Selector& s) {
  std::vector<DeviceIndex> chosen;
  for (DeviceIndex d : p.assigned) {
    if (selects(s, p.host().device(d), entry_of(p, d))) chosen.push_back(d);
  }
  return chosen;
}

std::vector<DeviceIndex> group_of(const Host& host, DeviceIndex device) {
  std::vector<DeviceIndex> members;
  for (std::size_t i = 0; i < host.devices.size(); ++i) {
    if (host.devices[i].group == host.device(device).group) members.emplace_back(i);
  }
  return members;
}

// Items: start from one set a group, then merge the sets that a `together` rule touches.
std::vector<Item> items_of(const Problem& p) {
  std::vector<std::set<DeviceIndex>> sets;
  const auto merge = [&](const std::vector<DeviceIndex>& devices) {
    std::set<DeviceIndex> merged(devices.begin(), devices.end());
    std::vector<std::set<DeviceIndex>> rest;
    for (const auto& s : sets) {
      const bool touches = std::ranges::any_of(devices, [&](DeviceIndex d) { return s.contains(d); });
      if (touches) {
        merged.insert(s.begin(), s.end());
      } else {
        rest.push_back(s);
      }
    }
    rest.push_back(std::move(merged));
    sets = std::move(rest);
  };
  for (DeviceIndex d : p.assigned) merge(group_of(p.host(), d));
  for (const PolicyRule& rule : p.policy().rules) {
    const auto* together = std::get_if<TogetherRule>(&rule.what);
    if (together == nullptr) continue;
    const auto chosen = selected(p, together->which);
    if (!chosen.empty()) merge(chosen);
  }
  std::vector<Item> items;
  for (const auto& s : sets) {
    Item item;
    item.members.assign(s.begin(), s.end());
    for (DeviceIndex d : item.members) {
      if (std::ranges::count(p.assigned, d) > 0) item.assigned.push_back(d);
    }
    items.push_back(std::move(item));
  }
  std::ranges::sort(items, {}, [](const Item& i) { return i.assigned.front(); });
  return items;
}

std::size_t item_with(const Problem& p, DeviceIndex d) {
  for (std::size_t i = 0; i < p.items.size(); ++i) {
    if (std::ranges::count(p.items[i].assigned, d) > 0) return i;
  }
  throw std::logic_error("device is in no item");
}

void read_rules(Problem& p) {
  for (const PolicyRule& rule : p.policy().rules) {
    if (const auto* limit = std::get_if<LimitRule>(&rule.what)) {
      p.limit = std::min(p.limit.value_or(kTop), limit->hwpts);
    }
    const auto* separate = std::get_if<SeparateRule>(&rule.what);
    if (separate == nullptr) continue;
    for (DeviceIndex a : selected(p, separate->a)) {
      for (DeviceIndex b : selected(p, separate->b)) {
        if (a == b) continue;
        const std::size_t i = item_with(p, a), j = item_with(p, b);
        if (i == j) p.why.push_back("separate pair inside an item: " + rule.name);
        p.apart.emplace_back(i, j);
      }
    }
  }
}

// D4: the VM has a device that is not CC-capable, or a mediated one.
bool noncoherent(const Problem& p) {
  return p.has_mdev ||
         std::ranges::any_of(p.assigned, [&](DeviceIndex d) { return !can_enforce(p.host(), p.host().device(d)); });
}

bool isolated_msi(const Host& host, const Device& device) {
  const auto own = device.facts[DeviceFact::isolated_msi];
  return own ? *own != 0 : of_kernel(host, KernelFact::isolated_msi) != 0;
}

// KR 2.1 for the group, D2: a DIRECT region or a device without isolated MSI anywhere in it refuses all of it.
void check_group_members(Problem& p) {
  for (const Item& item : p.items) {
    for (DeviceIndex d : item.members) {
      const Device& device = p.host().device(d);
      const bool mock = unit_of(p.host(), device).driver == Driver::mock;
      if (!mock && !isolated_msi(p.host(), device) && of_kernel(p.host(), KernelFact::allow_unsafe_interrupts) == 0) {
        p.why.push_back("no isolated MSI: " + device.id);
      }
      if (std::ranges::count(regions_of(p.host(), device), ReservedType::direct, &ReservedRegion::type) > 0) {
        p.why.push_back("DIRECT region: " + device.id);
      }
    }
  }
}

// KR 5.1: provenance of coherency, and who maintains the caches of a device that is not coherent.
void check_dma_coherency(Problem& p, const Device& device) {
  const auto given = device.facts[DeviceFact::dma_coherent];
  const bool mock = p.host().unit(*device.unit).driver == Driver::mock;                   // D9: does no DMA
  const bool coherent = given ? *given != 0 : mock || arch_of(p.host()) == Arch::x86_64;  // PCI on x86: architecture
  if (!coherent && !p.vm().guest_cache_maintenance) p.why.push_back("not DMA coherent: " + device.id);
  if (given && device.dma_coherent_source == CoherencySource::assumed &&
      p.policy().assumed_coherency == Permission::refuse) {
    p.why.push_back("assumed coherency: " + device.id);
  }
}

void check_regions(Problem& p, const Device& device) {
  const auto regions = regions_of(p.host(), device);
  if (contradictory_msi(regions)) p.why.push_back("contradictory MSI regions: " + device.id);
  for (const ReservedRegion& r : regions) {
    if (r.type == ReservedType::direct_relaxable) continue;
    for (const MemoryRange& m : p.memory) {
      if (m.gpa.overlaps(r.range)) p.why.push_back("memory in a reserved region: " + device.id);
    }
  }
}

bool aligned(const std::vector<MemoryRange>& memory, std::uint64_t alignment) {
  return std::ranges::all_of(
      memory, [&](const MemoryRange& m) { return m.gpa.start % alignment == 0 && (m.gpa.last + 1) % alignment == 0; });
}

void check_assigned(Problem& p) {
  for (DeviceIndex d : p.assigned) {
    const Device& device = p.host().device(d);
    if (!has_cache_coherency(p.host(), device)) p.why.push_back("no CACHE_COHERENCY: " + device.id);
    check_dma_coherency(p, device);
    check_regions(p, device);
    if (p.policy().coherency == CoherencyPolicy::required && !can_enforce(p.host(), device)) {
      p.why.push_back("policy requires coherency: " + device.id);
    }
  }
  if (p.has_mdev && p.policy().coherency == CoherencyPolicy::required)
    p.why.push_back("policy requires coherency: mdev");
  if (p.has_mdev && !aligned(p.memory, page_size(p.host()))) p.why.push_back("memory is not aligned for mdev");
}

// What the IOAS asks of every HWPT (KR 2.6, KR 10.8).
bool fits_ioas(const Problem& p, const Table& t) {
  const std::uint64_t granule = lowest_bit(t.page_sizes);
  if (granule == 0 || granule > page_size(p.host()) || !aligned(p.memory, granule)) return false;
  return std::ranges::all_of(p.memory, [&](const MemoryRange& m) {
    const bool read_only_in_nest_parent =
        m.access == Access::read_only && t.driver == Driver::intel && (t.flags & kNestParent) != 0;
    return t.aperture.contains(m.gpa) && !read_only_in_nest_parent;
  });
}

std::uint8_t flags_of(const RequireRule& r) {
  return static_cast<std::uint8_t>((r.dirty_tracking ? kDirtyTracking : 0) | (r.nest_parent ? kNestParent : 0) |
                                   (r.pasid ? kPasid : 0));
}

// The flags that `require` rules ask of this device's HWPT.
std::uint8_t required_flags(const Problem& p, DeviceIndex d) {
  std::uint8_t flags = 0;
  for (const PolicyRule& rule : p.policy().rules) {
    const auto* require = std::get_if<RequireRule>(&rule.what);
    if (require != nullptr && selects(require->which, p.host().device(d), entry_of(p, d))) flags |= flags_of(*require);
  }
  return flags;
}

bool meets_require(const Table& t, const RequireRule& r) {
  return highest_bit(t.page_sizes) >= r.page_size && (flags_of(r) & ~t.flags) == 0 &&
         (!r.enforce_cache_coherency || t.enforces);
}

// Placement rules: D2, D3, D4.
bool may_be_placed(const Problem& p, const Table& t, DeviceIndex d) {
  const Device& device = p.host().device(d);
  if (can_enforce(p.host(), device) && !t.enforces) {
    if (p.policy().coherency != CoherencyPolicy::safe || !noncoherent(p)) return false;
  }
  return std::ranges::all_of(p.policy().rules, [&](const PolicyRule& rule) {
    const auto* require = std::get_if<RequireRule>(&rule.what);
    return require == nullptr || !selects(require->which, device, entry_of(p, d)) || meets_require(t, *require);
  });
}

bool accepts(const Problem& p, const Table& t, const Item& item) {
  return std::ranges::all_of(item.members, [&](DeviceIndex d) { return attaches(p.host(), t, p.host().device(d)); }) &&
         std::ranges::all_of(item.assigned, [&](DeviceIndex d) { return may_be_placed(p, t, d); });
}

std::uint8_t needs_of(const VirtualMachine& vm, Need need) {
  return static_cast<std::uint8_t>((vm.needs.dirty_tracking == need ? kDirtyTracking : 0) |
                                   (vm.needs.nest_parent == need ? kNestParent : 0) |
                                   (vm.needs.pasid == need ? kPasid : 0));
}

// D1: every assigned device with every flag set, as far as the rules let it. `needed` must be carried by all.
void make_templates(Problem& p, std::uint8_t needed) {
  p.needed = needed;
  p.templates.clear();
  p.bytes.clear();
  p.accepts.clear();
  const bool no_pasids =
      std::ranges::any_of(p.assigned, [&](DeviceIndex d) { return !can_attach_pasid(p.host(), p.host().device(d)); });
  if ((needed & kPasid) != 0 && no_pasids) return;  // whatever the HWPT, the need is not met
  for (DeviceIndex d : p.assigned) {
    for (std::uint8_t flags = 0; flags < kHwptFlagSets; ++flags) {
      if ((needed & ~flags) != 0) continue;
      const auto t = allocate(p.host(), d, flags);
      if (!t || !fits_ioas(p, *t)) continue;
      p.templates.push_back(*t);
      p.bytes.push_back(page_table_bytes(*t, p.memory, p.backing));
      Mask taken = 0;
      for (std::size_t i = 0; i < p.items.size(); ++i) taken |= accepts(p, *t, p.items[i]) ? Mask{1} << i : 0;
      p.accepts.push_back(taken);
    }
  }
}

Problem problem_of(const Request& request, std::size_t vm_index) {
  Problem p;
  p.request = &request;
  p.vm_index = vm_index;
  p.memory = memory_of(p.vm());
  p.backing = p.vm().memory.backing.value_or(k4KiB);
  for (const AssignedDevice& a : p.vm().devices) {
    if (a.host) {
      p.assigned.push_back(*a.host);
    } else {
      p.has_mdev = true;
    }
  }
  std::ranges::sort(p.assigned);
  p.items = items_of(p);
  for (Item& item : p.items) {
    for (DeviceIndex d : item.assigned) {
      item.required_flags |= required_flags(p, d);
      item.enforceable += can_enforce(p.host(), p.host().device(d));
    }
  }
  read_rules(p);
  check_group_members(p);
  check_assigned(p);
  return p;
}

// --------------------------------------------------------------------------------------------- the search over
// partitions

// Items of one or of several VMs in one order; no block may hold items of two.
struct Joint {
  std::vector<const Problem*> problems;
  struct Slot {
    std::size_t problem, item;
  };
  std::vector<Slot> slots;  // by lowest assigned device

  bool one_vm(Mask block) const {
    std::set<std::size_t> vms;
    for (std::size_t i = 0; i < slots.size(); ++i) {
      if (holds(block, i)) vms.insert(slots[i].problem);
    }
    return vms.size() == 1;
  }
};

// A block as the VM it belongs to sees it.
struct Block {
  const Problem* problem = nullptr;
  Mask items = 0;
};

Block block_in(const Joint& j, Mask block) {
  Block b;
  for (std::size_t i = 0; i < j.slots.size(); ++i) {
    if (!holds(block, i)) continue;
    b.problem = j.problems[j.slots[i].problem];
    b.items |= Mask{1} << j.slots[i].item;
  }
  return b;
}

bool apart_inside(const Block& b) {
  return std::ranges::any_of(
      b.problem->apart, [&](const auto& pair) { return holds(b.items, pair.first) && holds(b.items, pair.second); });
}

std::vector<DeviceIndex> devices_of(const Block& b) {
  std::vector<DeviceIndex> devices;
  for (std::size_t i = 0; i < b.problem->items.size(); ++i) {
    const Item& item = b.problem->items[i];
    if (holds(b.items, i)) devices.insert(devices.end(), item.assigned.begin(), item.assigned.end());
  }
  std::ranges::sort(devices);
  return devices;
}

std::set<UnitIndex> units_of(const Block& b) {
  std::set<UnitIndex> units;
  for (std::size_t i = 0; i < b.problem->items.size(); ++i) {
    if (!holds(b.items, i)) continue;
    for (DeviceIndex d : b.problem->items[i].members) units.insert(b.problem->host().device(d).unit.value());
  }
  return units;
}

// D11: all items of the VM behind one SMMUv2 unit share one HWPT.
bool holds_all_of_smmuv2(const Block& b, const Table& t) {
  if (t.driver != Driver::smmuv2) return true;
  for (std::size_t i = 0; i < b.problem->items.size(); ++i) {
    const auto& members = b.problem->items[i].members;
    const bool behind =
        std::ranges::any_of(members, [&](DeviceIndex d) { return b.problem->host().device(d).unit == t.unit; });
    if (behind && !holds(b.items, i)) return false;
  }
  return true;
}

ObjectiveValues cost_of(const Block& b, std::size_t t) {
  const Problem& p = *b.problem;
  const Table& table = p.templates[t];
  ObjectiveValues cost;
  cost[Objective::hwpts] = 1;
  std::uint8_t needed = p.needed;
  for (std::size_t i = 0; i < p.items.size(); ++i) {
    needed |= p.items[i].required_flags;  // D6: wherever the device sits
    if (!holds(b.items, i)) continue;
    if (!table.enforces) cost[Objective::coherency] += p.items[i].enforceable;
  }
  cost[Objective::page_tables] = p.bytes[t];
  cost[Objective::unneeded_flags] =
      static_cast<std::uint64_t>(std::popcount(static_cast<unsigned>(table.flags & ~needed)));
  return cost;
}

// What a block may be, by stage of its HWPT (domain-id pools ask for the stage only).
struct Options {
  bool acceptable = false;  // some template takes all of it and nothing in it must be apart; holds for subsets too
  std::map<unsigned, ObjectiveValues> least;
};

Options options_of(const Joint& j, Mask mask, const Order& order) {
  Options options;
  if (!j.one_vm(mask)) return options;
  const Block b = block_in(j, mask);
  if (apart_inside(b)) return options;
  for (std::size_t t = 0; t < b.problem->templates.size(); ++t) {
    if ((b.items & ~b.problem->accepts[t]) != 0) continue;
    options.acceptable = true;
    if (!holds_all_of_smmuv2(b, b.problem->templates[t])) continue;
    const ObjectiveValues cost = cost_of(b, t);
    const auto [at, is_new] = options.least.emplace(b.problem->templates[t].stage, cost);
    if (!is_new && less_cost(cost, at->second, order)) at->second = cost;
  }
  return options;
}

// KR 10.10, D9: where a HWPT of the stage takes domain ids when it is attached to a device behind the unit.
struct Pool {
  std::string key;
  std::uint64_t capacity = 0;
};

std::uint64_t less_used(std::uint64_t capacity, const Unit& unit) {
  const std::uint64_t used = of_unit(unit, UnitFact::domains_used);
  return capacity > used ? capacity - used : 0;
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

// Do the blocks, under HWPTs of the given stages, keep within every pool?
bool within_pools(const Joint& j, const std::vector<Mask>& blocks, const std::vector<unsigned>& stages) {
  std::map<std::string, std::uint64_t> drawn, capacity;
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    const Block b = block_in(j, blocks[i]);
    std::set<std::string> mine;  // one id for each pool that the HWPT touches
    for (UnitIndex u : units_of(b)) {
      const auto pool = pool_of(b.problem->host(), u, stages[i]);
      if (!pool) continue;
      mine.insert(pool->key);
      const auto [at, is_new] = capacity.emplace(pool->key, pool->capacity);
      if (!is_new) at->second = std::min(at->second, pool->capacity);
    }
    for (const std::string& key : mine) ++drawn[key];
  }
  return std::ranges::all_of(drawn, [&](const auto& d) { return d.second <= capacity.at(d.first); });
}

enum class Pools : bool { ignored, kept };

struct Solution {
  ObjectiveValues cost;
  std::vector<Mask> blocks;            // of slots, in order
  std::vector<std::size_t> templates;  // by block, of the VM that the block belongs to
};

class Search {
 public:
  Search(const Joint& joint, Pools pools, const Order& order) : j_(joint), pools_(pools), order_(order) {
    options_.resize(std::size_t{1} << j_.slots.size());
    for (Mask m = 1; m < options_.size(); ++m) options_[m] = options_of(j_, m, order_);
  }

  std::optional<Solution> run() {
    Partitions(
        j_.slots.size(), [&](Mask m) { return options_[m].acceptable; },
        [&](const auto&, const std::vector<Mask>& blocks) { consider(blocks); })
        .run();
    if (best_) choose_templates();
    return best_;
  }

  std::size_t fewest() const { return fewest_; }

 private:
  void consider(const std::vector<Mask>& blocks) {
    if (std::ranges::any_of(blocks, [&](Mask m) { return options_[m].least.empty(); }) || !within_limits(blocks))
      return;
    const auto cost = least_cost(blocks);
    if (!cost) return;
    fewest_ = best_ ? std::min(fewest_, blocks.size()) : blocks.size();
    // Partitions come in canonical order, so the first of equal cost stays.
    if (!best_ || less_cost(*cost, best_->cost, order_)) best_ = Solution{*cost, blocks, {}};
  }

  bool within_limits(const std::vector<Mask>& blocks) const {
    for (const Problem* p : j_.problems) {
      const auto count = std::ranges::count_if(blocks, [&](Mask m) { return block_in(j_, m).problem == p; });
      if (p->limit && static_cast<std::uint64_t>(count) > *p->limit) return false;
    }
    return true;
  }

  // Every choice of stages, with its cost, that the pools allow.
  void each_choice(const std::vector<Mask>& blocks, std::vector<unsigned>& stages, const ObjectiveValues& cost,
                   const std::function<void(const std::vector<unsigned>&, const ObjectiveValues&)>& visit) const {
    if (stages.size() == blocks.size()) {
      if (pools_ == Pools::ignored || within_pools(j_, blocks, stages)) visit(stages, cost);
      return;
    }
    for (const auto& [stage, least] : options_[blocks[stages.size()]].least) {
      stages.push_back(stage);
      each_choice(blocks, stages, sum(cost, least), visit);
      stages.pop_back();
    }
  }

  std::optional<ObjectiveValues> least_cost(const std::vector<Mask>& blocks) const {
    std::optional<ObjectiveValues> least;
    std::vector<unsigned> stages;
    each_choice(blocks, stages, {}, [&](const auto&, const ObjectiveValues& cost) {
      if (!least || less_cost(cost, *least, order_)) least = cost;
    });
    return least;
  }

  // D8: HWPT by HWPT, attached allocators first, then the lowest device, the fewest flags, the lowest flag bits.
  void choose_templates() {
    std::vector<std::vector<unsigned>> choices;  // of stages, that reach the least cost
    std::vector<unsigned> stages;
    each_choice(best_->blocks, stages, {}, [&](const std::vector<unsigned>& s, const ObjectiveValues& cost) {
      if (cost == best_->cost) choices.push_back(s);
    });
    for (std::size_t i = 0; i < best_->blocks.size(); ++i) {
      const std::size_t chosen = choose_template(i, choices);
      const unsigned stage = block_in(j_, best_->blocks[i]).problem->templates[chosen].stage;
      std::erase_if(choices, [&](const auto& s) { return s[i] != stage; });
      best_->templates.push_back(chosen);
    }
  }

  std::size_t choose_template(std::size_t i, const std::vector<std::vector<unsigned>>& choices) const {
    const Block b = block_in(j_, best_->blocks[i]);
    const auto attached = devices_of(b);
    std::optional<std::tuple<bool, DeviceIndex, int, std::uint8_t, std::size_t>> best;
    for (std::size_t t = 0; t < b.problem->templates.size(); ++t) {
      const Table& table = b.problem->templates[t];
      if ((b.items & ~b.problem->accepts[t]) != 0 || !holds_all_of_smmuv2(b, table)) continue;
      const bool possible = std::ranges::any_of(choices, [&](const auto& s) { return s[i] == table.stage; });
      if (!possible || cost_of(b, t) != options_[best_->blocks[i]].least.at(table.stage)) continue;
      const bool foreign = std::ranges::count(attached, table.allocator) == 0;
      const std::tuple key(foreign, table.allocator, std::popcount(static_cast<unsigned>(table.flags)), table.flags, t);
      if (!best || key < *best) best = key;
    }
    return std::get<4>(best.value());
  }

  const Joint& j_;
  Pools pools_;
  Order order_;
  std::vector<Options> options_;
  std::optional<Solution> best_;
  std::size_t fewest_ = 0;
};

Joint join(const std::vector<Problem>& problems) {
  Joint j;
  for (std::size_t p = 0; p < problems.size(); ++p) {
    j.problems.push_back(&problems[p]);
    for (std::size_t i = 0; i < problems[p].items.size(); ++i) j.slots.push_back({p, i});
  }
  std::ranges::sort(j.slots, {}, [&](const auto& s) { return problems[s.problem].items[s.item].assigned.front(); });
  return j;
}

Joint alone(const Problem& p) {
  Joint j;
  j.problems.push_back(&p);
  for (std::size_t i = 0; i < p.items.size(); ++i) j.slots.push_back({0, i});
  return j;
}

// ------------------------------------------------------------------------------------------------ D7: preferred needs

// Not worse in any objective up to and including `hwpts`.
bool costs_nothing(const ObjectiveValues& with, const ObjectiveValues& without, const Order& order) {
  for (Objective o : order) {
    if (with[o] != without[o]) return with[o] < without[o];
    if (o == Objective::hwpts) return true;
  }
  return true;
}

struct Solved {
  std::optional<Solution> solution;
  std::uint8_t adopted = 0;
  std::size_t fewest = 0;
};

// Leaves `p` with the templates of what was adopted.
Solved solve_alone(Problem& p, const Order& order) {
  const std::uint8_t required = needs_of(p.vm(), Need::required), preferred = needs_of(p.vm(), Need::preferred);
  const auto solve = [&](std::uint8_t adopted) {
    make_templates(p, required | adopted);
    const Joint j = alone(p);
    Search search(j, Pools::ignored, order);
    auto solution = search.run();
    return Solved{std::move(solution), adopted, search.fewest()};
  };
  Solved base = solve(0);
  if (!base.solution) return base;
  // Largest sets first, then by the order dirty_tracking, nest_parent, pasid (the order of the bits).
  constexpr std::array<std::uint8_t, 7> kSets = {7, 3, 5, 6, 1, 2, 4};
  for (std::uint8_t set : kSets) {
    if ((set & ~preferred) != 0) continue;
    Solved with = solve(set);
    with.fewest = base.fewest;
    if (with.solution && costs_nothing(with.solution->cost, base.solution->cost, order)) return with;
  }
  return solve(0);
}

// ------------------------------------------------------------------------------------------------------- the answer

std::vector<Hwpt> hwpts_of(const Joint& j, const Solution& s) {
  std::vector<Hwpt> hwpts;
  for (std::size_t i = 0; i < s.blocks.size(); ++i) {
    const Block b = block_in(j, s.blocks[i]);
    const Table& t = b.problem->templates[s.templates[i]];
    const Host& host = b.problem->host();
    Hwpt h;
    h.allocator = host.device(t.allocator).id;
    h.flags = t.flags;
    h.kind = (t.flags & kNestParent) != 0 ? HwptKind::nest_parent : HwptKind::paging;
    h.driver = t.driver;
    h.stage = t.stage;
    h.format = t.format;
    h.levels = t.levels;
    h.address_bits = t.address_bits;
    h.aperture = t.aperture;
    h.page_sizes = t.page_sizes;
    h.enforce_cache_coherency = t.enforces;
    h.automatic = t.driver == Driver::smmuv2;
    h.page_table_bytes = b.problem->bytes[s.templates[i]];
    for (DeviceIndex d : devices_of(b)) h.devices.push_back(host.device(d).id);
    hwpts.push_back(std::move(h));
  }
  return hwpts;
}

// KR 2.5, 2.6: what is left of the address space after every attach.
Ioas ioas_of(const Problem& p, const std::vector<Table>& tables) {
  RangeSet usable{{0, kTop}};
  Ioas ioas;
  ioas.vm = p.vm().name;
  for (DeviceIndex d : p.assigned) {
    for (const ReservedRegion& r : regions_of(p.host(), p.host().device(d))) {
      if (r.type != ReservedType::direct_relaxable) usable.subtract(r.range);
    }
  }
  if (p.has_mdev) ioas.alignment = page_size(p.host());
  for (const Table& t : tables) {
    if (t.aperture.start > 0) usable.subtract({0, t.aperture.start - 1});
    if (t.aperture.last < kTop) usable.subtract({t.aperture.last + 1, kTop});
    ioas.alignment = std::max(ioas.alignment, lowest_bit(t.page_sizes));
  }
  ioas.ranges.assign(usable.ranges().begin(), usable.ranges().end());
  return ioas;
}

void add_ioases(Answer& answer, const Joint& j, const Solution& s) {
  for (const Problem* p : j.problems) {
    std::vector<Table> tables;
    for (std::size_t i = 0; i < s.blocks.size(); ++i) {
      if (block_in(j, s.blocks[i]).problem == p) tables.push_back(p->templates[s.templates[i]]);
    }
    answer.ioas.push_back(ioas_of(*p, tables));
  }
}

void add_resources(Answer& answer, const Problem& p) {
  std::uint64_t pinned = 0;
  for (const MemoryRange& m : p.memory) pinned += m.gpa.extent() + 1;
  answer.pinned_bytes += pinned;
  answer.memlock_bytes += pinned + (p.assigned.empty() ? 0 : kGiB);  // D12
}

void add_kvm_verdict(Answer& answer, const Request& request) {
  std::set<DeviceIndex> devices;
  std::set<std::string> mdevs;
  for (const VirtualMachine& vm : request.vms) {
    for (const AssignedDevice& a : vm.devices) {
      if (!a.host) mdevs.insert(a.mdev);
      if (a.host && !can_enforce(request.host, request.host.device(*a.host))) devices.insert(*a.host);
    }
  }
  for (DeviceIndex d : devices) answer.because.push_back(request.host.device(d).id);
  answer.because.insert(answer.because.end(), mdevs.begin(), mdevs.end());
  answer.noncoherent_dma = !answer.because.empty();
}

bool may_share(const Problem& p, std::size_t a, std::size_t b) {
  const Mask pair = Mask{1} << a | Mask{1} << b;
  if (apart_inside({&p, pair})) return false;
  return std::ranges::any_of(p.accepts, [&](Mask taken) { return (pair & ~taken) == 0; });
}

std::size_t clique_of(const Problem& p) {
  return largest_clique(p.items.size(), [&](std::size_t a, std::size_t b) { return !may_share(p, a, b); });
}

std::vector<std::string> preference_names(const Problem& p, std::uint8_t adopted) {
  constexpr std::array<std::string_view, 3> kNames = {"dirty_tracking", "nest_parent", "pasid"};
  std::vector<std::string> names;
  for (unsigned f = 0; f < 3; ++f) {
    if ((adopted >> f & 1) != 0) names.push_back(p.vm().name + "." + std::string(kNames[f]));
  }
  return names;
}

void add_solution(Answer& answer, const Joint& j, const Solution& s) {
  answer.objectives = sum(answer.objectives, s.cost);
  const auto hwpts = hwpts_of(j, s);
  answer.hwpts.insert(answer.hwpts.end(), hwpts.begin(), hwpts.end());
  add_ioases(answer, j, s);
}

void finish(Answer& answer, const Request& request, const std::vector<Problem>& problems) {
  answer.feasible = true;
  answer.objectives[Objective::ioas] = problems.size();
  std::ranges::sort(answer.hwpts, natural_less, [](const Hwpt& h) { return h.devices.front(); });
  std::ranges::sort(answer.ioas, {}, &Ioas::vm);
  for (const Hwpt& h : answer.hwpts) answer.page_table_bytes += h.page_table_bytes;
  for (const Problem& p : problems) add_resources(answer, p);
  add_kvm_verdict(answer, request);
}

// Overdrawn when the plans made one by one do not keep within the pools together.
bool overdrawn(const std::vector<Problem>& problems, const std::vector<Solved>& solved) {
  const Joint together = join(problems);
  std::vector<Mask> blocks;
  std::vector<unsigned> stages;
  for (std::size_t p = 0; p < problems.size(); ++p) {
    const Solution& s = *solved[p].solution;
    for (std::size_t i = 0; i < s.blocks.size(); ++i) {
      Mask block = 0;
      for (std::size_t k = 0; k < together.slots.size(); ++k) {
        if (together.slots[k].problem == p && holds(s.blocks[i], together.slots[k].item)) block |= Mask{1} << k;
      }
      blocks.push_back(block);
      stages.push_back(problems[p].templates[s.templates[i]].stage);
    }
  }
  return !within_pools(together, blocks, stages);
}

}  // namespace

std::vector<MemoryRange> memory_of(const VirtualMachine& vm) {
  if (!vm.memory.size) return vm.memory.ranges;
  const MachineType type = vm.machine.type.value();
  return machine_layout(type, vm.machine.cpu_vendor.value_or(CpuVendor::intel), *vm.memory.size,
                        vm.machine.pci_hole64_size.value_or(default_pci_hole64_size(type)), vm.hotplug.memory);
}

bool same_plan(const Answer& a, const Answer& b) {
  if (!a.feasible || !b.feasible) return a.feasible == b.feasible;
  return a.objectives == b.objectives && a.ioas == b.ioas && a.hwpts == b.hwpts &&
         a.noncoherent_dma == b.noncoherent_dma && a.because == b.because && a.pinned_bytes == b.pinned_bytes &&
         a.page_table_bytes == b.page_table_bytes && a.memlock_bytes == b.memlock_bytes &&
         a.preferences == b.preferences;
}

Answer judge(const Request& request) {
  Answer answer;
  const Order& order = request.policy.objectives;
  std::vector<Problem> problems;
  for (std::size_t v = 0; v < request.vms.size(); ++v) {
    if (!request.vms[v].devices.empty()) problems.push_back(problem_of(request, v));
  }
  std::vector<Solved> solved;
  bool feasible = true;
  for (Problem& p : problems) {
    if (!p.why.empty()) {
      answer.why.insert(answer.why.end(), p.why.begin(), p.why.end());
      return answer;
    }
    solved.push_back(solve_alone(p, order));
    feasible = feasible && solved.back().solution.has_value();
    answer.fewest_hwpts += solved.back().fewest;
    answer.clique += clique_of(p);
  }
  if (!feasible) return answer;
  for (std::size_t p = 0; p < problems.size(); ++p) {
    for (auto& name : preference_names(problems[p], solved[p].adopted)) answer.preferences.push_back(std::move(name));
  }
  if (!overdrawn(problems, solved)) {
    for (std::size_t p = 0; p < problems.size(); ++p) add_solution(answer, alone(problems[p]), *solved[p].solution);
  } else {
    const Joint j = join(problems);
    Search search(j, Pools::kept, order);
    const auto solution = search.run();
    if (!solution) {
      answer.why.push_back("domain ids run out");
      return answer;
    }
    answer.fewest_hwpts = search.fewest();
    add_solution(answer, j, *solution);
  }
  finish(answer, request, problems);
  return answer;
}

bool exclusive(const Request& request, const std::string& device_a, const std::string& device_b) {
  const DeviceIndex a = request.host.find_device(device_a).value(), b = request.host.find_device(device_b).value();
  for (std::size_t v = 0; v < request.vms.size(); ++v) {
    Problem p = problem_of(request, v);
    const bool has_a = std::ranges::count(p.assigned, a) > 0, has_b = std::ranges::count(p.assigned, b) > 0;
    if (has_a != has_b) return true;  // VMs share no HWPT
    if (!has_a) continue;
    make_templates(p, needs_of(p.vm(), Need::required));
    const std::size_t i = item_with(p, a), j = item_with(p, b);
    return i != j && !may_share(p, i, j);
  }
  return false;
}

// --------------------------------------------------------------------------------------------------- D10: absent facts

namespace {

// Which of class, vendor, device and numa do the policy's selectors ask for?
bool asked_by_selectors(const Policy& policy, DeviceFact fact) {
  const auto asks = [&](const Selector& s) {
    switch (fact) {
      case DeviceFact::device_class:
        return !s.device_class.empty();
      case DeviceFact::vendor:
        return !s.vendor.empty();
      case DeviceFact::device:
        return !s.device.empty();
      case DeviceFact::numa:
        return !s.numa.empty();
      default:
        return false;
    }
  };
  return std::ranges::any_of(policy.rules, [&](const PolicyRule& rule) {
    if (const auto* r = std::get_if<SeparateRule>(&rule.what)) return asks(r->a) || asks(r->b);
    if (const auto* r = std::get_if<TogetherRule>(&rule.what)) return asks(r->which);
    if (const auto* r = std::get_if<RequireRule>(&rule.what)) return asks(r->which);
    return false;
  });
}

// Facts that some rule above reads. The rest (idr1, idr3, pasid_bits, ...) decides nothing, whatever its value.
bool read_by_rules(const Request& request, Driver driver, DeviceFact fact) {
  switch (fact) {
    case DeviceFact::dma_coherent:
      return driver != Driver::mock && arch_of(request.host) != Arch::x86_64;
    case DeviceFact::canwbs:
      return driver == Driver::smmuv3;
    case DeviceFact::pasid_bits:
      return true;
    default:
      return asked_by_selectors(request.policy, fact);
  }
}

bool read_by_rules(const Unit& unit, UnitFact fact) {
  switch (fact) {
    case UnitFact::httu:
      return false;  // IDR0 says, unless firmware overrides it
    case UnitFact::features:
    case UnitFact::oas:
      return false;  // stand for idr words, which the generator always gives or leaves out alone
    default:
      return (row_of(fact).drivers & driver_set(unit.driver)) != 0;
  }
}

template <class Fact>
void add_if_absent(std::vector<AbsentFact>& absent, const Facts<Fact>& facts, Fact fact, AbsentFact::Of of,
                   std::size_t index, const std::string& path) {
  const FactRow& row = row_of(fact);
  if (facts[fact] || row.stock || row.candidates.empty()) return;
  absent.push_back({of,
                    index,
                    static_cast<std::size_t>(fact),
                    {row.candidates.begin(), row.candidates.end()},
                    path + "." + std::string(row.key)});
}

// Judges every completion; stops at the first that differs.
bool all_alike(Request& request, const std::vector<AbsentFact>& absent, std::size_t next,
               std::optional<Answer>& first) {
  if (next == absent.size()) {
    const Answer answer = judge(request);
    if (!first) first = answer;
    return same_plan(*first, answer);
  }
  return std::ranges::all_of(absent[next].candidates, [&](std::uint64_t value) {
    set_fact(request.host, absent[next], value);
    return all_alike(request, absent, next + 1, first);
  });
}

}  // namespace

void set_fact(Host& host, const AbsentFact& absent, std::uint64_t value) {
  switch (absent.of) {
    case AbsentFact::Of::kernel:
      host.kernel.facts[static_cast<KernelFact>(absent.fact)] = value;
      break;
    case AbsentFact::Of::unit:
      host.units[absent.index].facts[static_cast<UnitFact>(absent.fact)] = value;
      break;
    case AbsentFact::Of::device:
      host.devices[absent.index].facts[static_cast<DeviceFact>(absent.fact)] = value;
      break;
  }
}

std::vector<AbsentFact> absent_facts(const Request& request) {
  std::set<DeviceIndex> devices;
  for (const VirtualMachine& vm : request.vms) {
    for (const AssignedDevice& a : vm.devices) {
      if (!a.host) continue;
      for (DeviceIndex d : group_of(request.host, *a.host)) devices.insert(d);
    }
  }
  std::set<UnitIndex> units;
  std::vector<AbsentFact> absent;
  for (DeviceIndex d : devices) {
    const Device& device = request.host.device(d);
    const Driver driver = unit_of(request.host, device).driver;
    units.insert(device.unit.value());
    for (std::size_t f = 0; f < kFactCount<DeviceFact>; ++f) {
      const auto fact = static_cast<DeviceFact>(f);
      if (!read_by_rules(request, driver, fact)) continue;
      add_if_absent(absent, device.facts, fact, AbsentFact::Of::device, d.index(), device.id);
    }
  }
  bool amd = false;
  for (UnitIndex u : units) {
    const Unit& unit = request.host.unit(u);
    amd = amd || unit.driver == Driver::amd;
    for (std::size_t f = 0; f < kFactCount<UnitFact>; ++f) {
      const auto fact = static_cast<UnitFact>(f);
      if (!read_by_rules(unit, fact)) continue;
      add_if_absent(absent, unit.facts, fact, AbsentFact::Of::unit, u.index(), unit.id);
    }
  }
  if (amd) add_if_absent(absent, request.host.kernel.facts, KernelFact::la57, AbsentFact::Of::kernel, 0, "kernel");
  return absent;
}

bool undecided(const Request& request) {
  const auto absent = absent_facts(request);
  if (absent.empty()) return false;
  Request completed = request;
  std::optional<Answer> first;
  return !all_alike(completed, absent, 0, first);
}

}  // namespace ioplan::oracle
