// Registers to page tables, worked by hand: what each driver of Linux 7.2.13 makes of its unit's registers.
//
// The expected values come from the kernel rules (reference/kernel-rules.md 3.1 to 3.8, 4, 10.10) and from the drivers'
// own arithmetic, not from ours. A row names a unit as a document would, the host's options and the flags of
// HWPT_ALLOC; it expects the HWPT's stage, levels, width, aperture and page sizes, or that no such table exists. The
// second-stage arithmetic of VT-d is small enough to be compared over every pair of MGAW and SAGAW.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <strings.h>

#include <bit>
#include <optional>
#include <string>
#include <vector>

#include "constraints/catalog.h"
#include "constraints/kernel_law.h"
#include "engine/base/text.h"
#include "engine/document/load.h"
#include "engine/solve/offers.h"

namespace ioplan {
namespace {

constexpr std::uint64_t kKiB = 1024, kMiB = kKiB * 1024, kGiB = kMiB * 1024, kTiB = kGiB * 1024;
constexpr std::uint64_t k4K2M1G = 4 * kKiB | 2 * kMiB | kGiB;
constexpr std::uint64_t bit_of(unsigned n) { return std::uint64_t{1} << n; }
constexpr std::uint64_t last_of(unsigned width) { return width >= 64 ? ~0ULL : bit_of(width) - 1; }

// A host of these units (`u0`, `u1`, ...), with one device behind each (`d0`, ...).
Host host_of(const std::vector<std::string>& units, const std::string& kernel = {}, const std::string& device = {}) {
  std::string text = "apiVersion: ioplan/v1\nkind: Host\nkernel: {isolated_msi: true" +
                     (kernel.empty() ? "" : ", " + kernel) + "}\niommus:\n";
  for (std::size_t i = 0; i < units.size(); ++i) text += fmt::format("  - {{id: u{}, {}}}\n", i, units[i]);
  text += "devices:\n";
  for (std::size_t i = 0; i < units.size(); ++i) {
    text += fmt::format("  - {{id: d{}, iommu: u{}, group: {}{}}}\n", i, i, i, device.empty() ? "" : ", " + device);
  }
  auto loaded = load_text("units", text);
  if (!loaded) {
    ADD_FAILURE() << to_text(loaded.error()) << "\n" << text;
    return {};
  }
  return std::move(loaded->request.host);
}

DeviceQuantities describe(const Host& host, std::size_t device = 0) {
  return kernel_law().describe(host, DeviceIndex(device));
}

struct Expected {
  unsigned stage, levels, bits;
  std::uint64_t aperture_last, page_sizes;
  PageTableFormat format;
};

// What HWPT_ALLOC on the device gives; nothing when an allocation rule refuses.
std::optional<HwptQuantities> allocated(const DeviceQuantities& device, std::uint8_t flags) {
  const HwptQuantities hwpt = kernel_law().allocate(device, flags);
  const RuleBook rules(kernel_law());
  const VmQuantities vm;
  if (!rules.hold(Phase::allocation, {&hwpt, &device, &vm})) return std::nullopt;
  return hwpt;
}

void expect_table(const DeviceQuantities& device, std::uint8_t flags, const std::optional<Expected>& expected) {
  const auto h = allocated(device, flags);
  ASSERT_EQ(h.has_value(), expected.has_value());
  if (!h) return;
  EXPECT_EQ((*h)[HwptQ::stage], expected->stage);
  EXPECT_EQ((*h)[HwptQ::levels], expected->levels);
  EXPECT_EQ((*h)[HwptQ::address_bits], expected->bits);
  EXPECT_EQ((*h)[HwptQ::aperture_last], expected->aperture_last) << format_hex((*h)[HwptQ::aperture_last]);
  EXPECT_EQ((*h)[HwptQ::page_sizes], expected->page_sizes) << format_page_sizes((*h)[HwptQ::page_sizes]);
  EXPECT_EQ((*h)[HwptQ::format], static_cast<std::uint64_t>(expected->format));
}

struct Row {
  std::string unit, kernel;
  std::uint8_t flags;
  std::optional<Expected> expected;
};

void expect_rows(const std::vector<Row>& rows) {
  for (const Row& row : rows) {
    SCOPED_TRACE(fmt::format("{{{}}} kernel {{{}}} flags {}", row.unit, row.kernel, row.flags));
    const Host host = host_of({row.unit}, row.kernel);
    if (host.devices.empty()) continue;
    expect_table(describe(host), row.flags, row.expected);
  }
}

// ----------------------------------------------------------------------------------------------------- Intel VT-d

// Names of KR 3.1.
constexpr std::uint64_t kRwbf = bit_of(4), kCm = bit_of(7), k2m = bit_of(34), k1g = bit_of(35), kFs1g = bit_of(56),
                        kFs5l = bit_of(60);
constexpr std::uint64_t kC = 1, kSc = bit_of(7), kNest = bit_of(26), kPasidCap = bit_of(40), kSmts = bit_of(43),
                        kSsads = bit_of(45), kSsts = bit_of(46), kFsts = bit_of(47), kSmpwc = bit_of(48);

std::string intel(unsigned mgaw, std::uint64_t sagaw, std::uint64_t more_cap, std::uint64_t ecap) {
  return fmt::format("driver: intel, cap: {:#x}, ecap: {:#x}", std::uint64_t{mgaw - 1} << 16 | sagaw << 8 | more_cap,
                     ecap);
}

Expected ss(unsigned levels, unsigned bits, std::uint64_t pages = k4K2M1G) {
  return {2, levels, bits, last_of(bits), pages, PageTableFormat::vtd_ss};
}
Expected fs(unsigned levels, unsigned bits, std::uint64_t pages = k4K2M1G) {
  return {1, levels, bits, last_of(bits - 1), pages, PageTableFormat::x86_64};
}

TEST(Intel, SecondStageShapesByHand) {
  struct Shape {
    unsigned mgaw;
    std::uint64_t sagaw;
    unsigned levels, bits;
  };
  // SAGAW bits: 2 is 39 bits and three levels, 4 is 48 and four, 8 is 57 and five.
  constexpr Shape kShapes[] = {
      {57, 8, 5, 57},  {57, 12, 5, 57}, {57, 14, 5, 57}, {57, 4, 4, 48}, {57, 6, 4, 48},  {57, 2, 3, 39},
      {52, 8, 5, 52},  {64, 8, 5, 57},  {64, 4, 4, 48},  {49, 8, 5, 49}, {48, 4, 4, 48},  {48, 6, 4, 48},
      {48, 8, 5, 48},  {48, 12, 5, 48},  // not the smallest: five where five exist
      {48, 14, 5, 48}, {48, 10, 5, 48}, {48, 2, 3, 39},  {46, 4, 4, 46}, {46, 12, 5, 46}, {40, 4, 4, 40},
      {40, 2, 3, 39},  {39, 2, 3, 39},  {39, 4, 4, 39},  {39, 6, 4, 39}, {39, 12, 4, 39}, {39, 14, 4, 39},
      {36, 2, 3, 36},  {36, 6, 4, 36}, {31, 2, 3, 31},   {30, 2, 0, 0},  {30, 14, 0, 0},  {39, 1, 0, 0},
      {39, 0, 0, 0},   {1, 4, 0, 0},
      // An entry of the root would span more than eight times the width.
      {39, 8, 0, 0},   {39, 10, 0, 0},  {44, 12, 0, 0},  {45, 12, 5, 45}, {35, 4, 0, 0},  {31, 4, 0, 0},
      // Six levels, which a reserved bit asks for.
      {48, 16, 0, 0},  {39, 18, 0, 0},  {57, 16, 5, 57},
  };
  for (const Shape& s : kShapes) {
    SCOPED_TRACE(fmt::format("MGAW {} SAGAW {:#x}", s.mgaw, s.sagaw));
    const DeviceQuantities q = describe(host_of({intel(s.mgaw, s.sagaw, k2m | k1g, kC)}));
    if (s.levels == 0) {
      EXPECT_FALSE(allocated(q, 0));
      continue;
    }
    // A page of half the space or more is not offered.
    expect_table(q, 0, ss(s.levels, s.bits, s.bits == 31 ? 4 * kKiB | 2 * kMiB : k4K2M1G));
  }
}

// compute_vasz_lg2_ss in the kernel's terms: SAGAW compared as a number, top level by ffs.
TEST(Intel, SecondStageShapesAreTheKernels) {
  for (unsigned mgaw = 1; mgaw <= 64; ++mgaw) {
    for (unsigned sagaw = 0; sagaw < 16; ++sagaw) {
      unsigned top = 0, bits = 0;
      if (mgaw > 48 && sagaw >= 8) {
        top = 4;
        bits = std::min(57U, mgaw);
      } else if (mgaw > 39 && sagaw >= 4) {
        top = 3 + static_cast<unsigned>(ffs(static_cast<int>(sagaw >> 3)));
        bits = std::min(48U, mgaw);
      } else if (mgaw > 30 && sagaw >= 2) {
        top = 2 + static_cast<unsigned>(ffs(static_cast<int>(sagaw >> 2)));
        bits = std::min(39U, mgaw);
      }
      const DeviceQuantities q = describe(host_of({intel(mgaw, sagaw, 0, kC)}));
      EXPECT_EQ(q[DeviceQ::stage2_levels], bits == 0 ? 0 : top + 1) << mgaw << " " << sagaw;
      EXPECT_EQ(q[DeviceQ::stage2_bits], bits) << mgaw << " " << sagaw;
      EXPECT_EQ(q[DeviceQ::mgaw], mgaw);
      EXPECT_EQ(q[DeviceQ::walk_levels], sagaw);
    }
  }
}

TEST(Intel, FirstStageWidths) {
  constexpr std::uint64_t kEcap = kSmts | kFsts | kSmpwc;
  const std::uint64_t small = 4 * kKiB | 2 * kMiB;
  expect_rows({
      {intel(48, 4, kFs1g, kEcap), "", 0, fs(4, 48)},
      {intel(48, 12, kFs1g | kFs5l, kEcap), "", 0, fs(4, 48)},  // five levels only beyond 48 bits
      {intel(57, 12, kFs1g | kFs5l, kEcap), "", 0, fs(5, 57)},
      {intel(52, 12, kFs1g | kFs5l, kEcap), "", 0, fs(5, 52)},
      {intel(64, 12, kFs1g | kFs5l, kEcap), "", 0, fs(5, 57)},
      {intel(57, 12, kFs1g, kEcap), "", 0, fs(4, 48)},        // no FS5LP
      {intel(39, 2, kFs1g, kEcap), "", 0, fs(4, 39)},         // SAGAW says nothing about the first stage
      {intel(39, 2, 0, kEcap), "", 0, fs(4, 39, small)},      // no FS1GP
      {intel(36, 2, kFs1g, kEcap), "", 0, fs(4, 36)},
      {intel(35, 2, kFs1g, kEcap), "", 0, std::nullopt},  // an entry of the root would span more than eight times that
      {intel(48, 4, kFs1g | k2m | k1g, kEcap), "intel_iommu_sp_off: true", 0, fs(4, 48, 4 * kKiB)},
      {intel(48, 4, kFs1g, kEcap), "", kPasid, fs(4, 48)},
  });
}

// First stage where flags are none or PASID, the mode is scalable and FSTS is there; else second stage (KR 3.1, 1 and
// 2).
TEST(Intel, StageByFlagsAndMode) {
  constexpr std::uint64_t kBoth = kSc | kNest | kSmts | kSsads | kSsts | kFsts | kSmpwc;
  const std::string both = intel(48, 4, k2m | k1g | kFs1g, kBoth);
  const std::string first_only = intel(48, 4, k2m | k1g | kFs1g, kBoth & ~kSsts);
  const std::string second_only = intel(48, 4, k2m | k1g | kFs1g, kBoth & ~kFsts);
  expect_rows({
      {both, "", 0, fs(4, 48)},
      {both, "", kPasid, fs(4, 48)},
      {both, "", kDirtyTracking, ss(4, 48)},
      {both, "", kNestParent, ss(4, 48)},
      {both, "", kDirtyTracking | kNestParent | kPasid, ss(4, 48)},
      {both, "intel_iommu_sm: false", 0, ss(4, 48)},  // legacy mode: second stage
      {both, "intel_iommu_sm: false", kPasid, ss(4, 48)},
      {both, "intel_iommu_sm: false", kDirtyTracking, std::nullopt},  // SSADS and NEST count in scalable mode only
      {both, "intel_iommu_sm: false", kNestParent, std::nullopt},
      {first_only, "", 0, fs(4, 48)},
      {first_only, "", kDirtyTracking, std::nullopt},
      {first_only, "intel_iommu_sm: false", 0, ss(4, 48)},  // legacy mode needs no SSTS
      {second_only, "", 0, ss(4, 48)},
      {second_only, "", kPasid | kNestParent, ss(4, 48)},
      {intel(48, 4, k2m, kBoth & ~kFsts), "", 0, ss(4, 48, 4 * kKiB | 2 * kMiB)},
      {intel(48, 4, 0, kBoth & ~kFsts), "", 0, ss(4, 48, 4 * kKiB)},
      {intel(48, 4, k1g, kBoth & ~kFsts), "", 0, ss(4, 48, 4 * kKiB | kGiB)},
      {second_only, "intel_iommu_sp_off: true", 0, ss(4, 48, 4 * kKiB)},
      {intel(48, 4, 0, kBoth & ~(kFsts | kSmpwc)), "", kDirtyTracking, std::nullopt},  // SSADS needs SMPWC too
      {intel(48, 4, 0, kBoth & ~(kFsts | kSsads)), "", kDirtyTracking, std::nullopt},
      {intel(48, 4, 0, kBoth & ~(kFsts | kNest)), "", kNestParent, std::nullopt},
  });
}

struct Walk {
  std::uint64_t cap, ecap;
  const char* kernel;
  unsigned coherent1, coherent2, sync1, sync2;
};

TEST(Intel, CoherentWalkAndSyncMap) {
  constexpr std::uint64_t kScalable = kSmts | kSsts | kFsts;
  constexpr Walk kWalks[] = {
      {0, kC, "", 0, 1, 0, 0},  // legacy: C
      {0, 0, "", 0, 0, 0, 0},
      {0, kScalable | kC, "", 0, 0, 0, 0},  // scalable: SMPWC, whatever C says
      {0, kScalable | kSmpwc, "", 1, 1, 0, 0},
      {0, kScalable | kSmpwc, "intel_iommu_sm: false", 1, 0, 0, 0},
      {kRwbf, kScalable | kSmpwc, "", 1, 1, 1, 1},
      {kCm, kScalable | kSmpwc, "", 1, 1, 0, 1},  // caching mode matters to the second stage only
      {kCm | kRwbf, kC, "", 0, 1, 1, 1},
  };
  for (const Walk& w : kWalks) {
    SCOPED_TRACE(fmt::format("cap {:#x} ecap {:#x} {}", w.cap, w.ecap, w.kernel));
    const DeviceQuantities q = describe(host_of({intel(48, 4, w.cap, w.ecap)}, w.kernel));
    EXPECT_EQ(q[DeviceQ::stage1_coherent_walk], w.coherent1);
    EXPECT_EQ(q[DeviceQ::stage2_coherent_walk], w.coherent2);
    EXPECT_EQ(q[DeviceQ::stage1_sync_map], w.sync1);
    EXPECT_EQ(q[DeviceQ::stage2_sync_map], w.sync2);
  }
  const DeviceQuantities quirk = describe(host_of({intel(48, 4, 0, kC) + ", rwbf_quirk: true"}));
  EXPECT_EQ(quirk[DeviceQ::stage2_sync_map], 1U);
}

TEST(Intel, PasidWidthIsTheSmallerOfUnitAndDevice) {
  const auto width = [](std::uint64_t ecap, const char* kernel, const char* device) {
    return describe(host_of({intel(48, 4, 0, ecap)}, kernel, device))[DeviceQ::pasid_bits];
  };
  constexpr std::uint64_t kPss19 = std::uint64_t{19} << 35, kPss7 = std::uint64_t{7} << 35;
  EXPECT_EQ(width(kSmts | kPasidCap | kPss19, "", "pasid_bits: 20"), 20U);  // max_pasids = 2 << PSS
  EXPECT_EQ(width(kSmts | kPasidCap | kPss19, "", "pasid_bits: 16"), 16U);
  EXPECT_EQ(width(kSmts | kPasidCap | kPss7, "", "pasid_bits: 20"), 8U);
  EXPECT_EQ(width(kSmts | kPss19, "", "pasid_bits: 20"), 0U);
  EXPECT_EQ(width(kPasidCap | kPss19, "", "pasid_bits: 20"), 0U);
  EXPECT_EQ(width(kSmts | kPasidCap | kPss19, "intel_iommu_sm: false", "pasid_bits: 20"), 0U);
}

// KR 3.1 names what the registers of a Panther Lake machine say; examples/three-drhd has the older pair.
TEST(Intel, RegistersOfRealMachines) {
  const DeviceQuantities graphics = describe(host_of({"driver: intel, cap: 0xd2008c40660462, ecap: 0x1aca9a00f0ef5e"}));
  EXPECT_EQ(graphics[DeviceQ::snoop_control], 0U);
  EXPECT_EQ(graphics[DeviceQ::enforce_cache_coherency], 0U);
  EXPECT_EQ(graphics[DeviceQ::nested], 0U);
  EXPECT_EQ(graphics[DeviceQ::scalable_mode], 1U);
  EXPECT_EQ(graphics[DeviceQ::stage1], 1U);
  EXPECT_EQ(graphics[DeviceQ::stage2], 1U);
  EXPECT_EQ(graphics[DeviceQ::stage1_coherent_walk], 0U);
  EXPECT_EQ(graphics[DeviceQ::dirty_capable], 0U);
  EXPECT_EQ(graphics[DeviceQ::pasid_bits], 0U);
  const DeviceQuantities others = describe(host_of({"driver: intel, cap: 0xd2008c40660462, ecap: 0x1ac89804f0efda"}));
  EXPECT_EQ(others[DeviceQ::snoop_control], 1U);
  EXPECT_EQ(others[DeviceQ::nested], 1U);
  EXPECT_EQ(others[DeviceQ::stage1], 1U);
  EXPECT_EQ(others[DeviceQ::stage1_coherent_walk], 0U);

  // CAP 0xd2008c40660462: SAGAW 4, MGAW 39, 2MiB and 1GiB; ECAP 0xf050da: SC, no C, no scalable mode.
  const DeviceQuantities old = describe(host_of({"driver: intel, cap: 0xd2008c40660462, ecap: 0xf050da"}));
  EXPECT_EQ(old[DeviceQ::mgaw], 39U);
  EXPECT_EQ(old[DeviceQ::scalable_mode], 0U);
  EXPECT_EQ(old[DeviceQ::snoop_control], 1U);
  EXPECT_EQ(old[DeviceQ::stage2_coherent_walk], 0U);
  expect_table(old, 0, ss(4, 39));
}

// -------------------------------------------------------------------------------------------------------- AMD-Vi

constexpr std::uint64_t kPpr = bit_of(1), kGt = bit_of(4), kGiosup = bit_of(48), kEphsup = bit_of(50),
                        kHdsup = bit_of(52);
constexpr std::uint64_t kGuest = kPpr | kGt | kGiosup | kEphsup | std::uint64_t{15} << 32;
constexpr std::uint64_t kGcr3 = bit_of(3);

std::uint64_t hats(std::uint64_t n) { return n << 10; }
std::uint64_t gats(std::uint64_t n) { return n << 12; }
std::string amd(std::uint64_t efr, const char* more = "", std::uint64_t efr2 = 0) {
  return fmt::format("driver: amd, efr: {:#x}, efr2: {:#x}{}", efr, efr2, more);
}

Expected v1(unsigned bits, std::uint64_t pages) { return {2, 3, bits, last_of(bits), pages, PageTableFormat::amdv1}; }
Expected v2(unsigned levels, unsigned bits) {
  return {1, levels, bits, last_of(bits), k4K2M1G, PageTableFormat::x86_64};
}

// Every power of two from 4KiB up to 2^51 but 2^39, below half the space.
std::uint64_t v1_pages(unsigned top_lg2) { return (last_of(top_lg2 + 1) & ~last_of(12)) & ~bit_of(39); }

TEST(Amd, HostTables) {
  const char* const kNo = "la57: false";
  expect_rows({
      {amd(hats(0)), kNo, 0, v1(48, v1_pages(46))},
      {amd(hats(1)), kNo, 0, v1(57, v1_pages(51))},
      {amd(hats(2)), kNo, 0, v1(64, v1_pages(51))},  // 66 bits, and IVRS says 64 where it says nothing
      {amd(hats(3)), kNo, 0, std::nullopt},          // no host tables, and no guest tables either
      {amd(hats(3) | kGuest), kNo, 0, v2(4, 47)},    // falls back to the other kind
      {amd(hats(3) | kGuest | kHdsup), kNo, kDirtyTracking, std::nullopt},
      {amd(hats(1), ", va_size: 48"), kNo, 0, v1(48, v1_pages(46))},
      {amd(hats(0), ", va_size: 40"), kNo, 0, v1(40, v1_pages(38))},
      {amd(hats(0)), "la57: false, amd_iommu_nohugepages: true", 0, v1(48, 4 * kKiB)},
      {amd(hats(0)), "la57: false, amd_iommu_v2_pgsizes_only: true", 0, v1(48, k4K2M1G)},
      {amd(hats(0) | kHdsup), kNo, kDirtyTracking, v1(48, v1_pages(46))},
      {amd(hats(0)), kNo, kDirtyTracking, std::nullopt},
      {amd(hats(0) | kGuest, "", kGcr3), kNo, kNestParent, v1(48, v1_pages(46))},
      {amd(hats(0) | kGuest | kHdsup, "", kGcr3), kNo, kNestParent | kDirtyTracking, v1(48, v1_pages(46))},
      {amd(hats(0) | kGuest, "", 0), kNo, kNestParent, std::nullopt},
      {amd(hats(0) | (kGuest & ~kGt), "", kGcr3), kNo, kNestParent, std::nullopt},
      {amd(hats(0) | kGuest | kHdsup, "", kGcr3), kNo, kPasid | kDirtyTracking, std::nullopt},
  });
}

TEST(Amd, GuestTables) {
  const char* const kV2 = "la57: false, amd_iommu_pgtbl_v2: true";
  expect_rows({
      {amd(hats(0) | kGuest), "la57: false", 0, v1(48, v1_pages(46))},  // v1 unless the command line says otherwise
      {amd(hats(0) | kGuest), kV2, 0, v2(4, 47)},
      {amd(hats(0) | kGuest | gats(1)), kV2, 0, v2(4, 47)},  // five levels need the CPU's too
      {amd(hats(0) | kGuest | gats(1)), "la57: true, amd_iommu_pgtbl_v2: true", 0, v2(5, 56)},
      {amd(hats(0) | kGuest | gats(0)), "la57: true, amd_iommu_pgtbl_v2: true", 0, v2(4, 47)},
      {amd(hats(0) | kGt | kGiosup), kV2, 0, v2(4, 47)},  // GT and GIOSUP are all it needs
      {amd(hats(0) | (kGuest & ~kGiosup)), kV2, 0, v1(48, v1_pages(46))},
      {amd(hats(0) | kGuest), "la57: false, amd_iommu_pgtbl_v2: true, amd_snp: true", 0, v1(48, v1_pages(46))},
      {amd(hats(0) | kGuest), "la57: false, amd_iommu_nohugepages: true, amd_iommu_pgtbl_v2: true", 0, v2(4, 47)},
      {amd(hats(0) | kGuest), "la57: false", kPasid, v2(4, 47)},
      {amd(hats(0) | kGuest | gats(1)), "la57: true", kPasid, v2(5, 56)},
      {amd(hats(0) | kGuest | gats(0)), "la57: true", kPasid, std::nullopt},  // widths of CPU and IOMMU differ
      {amd(hats(0) | (kGuest & ~kPpr)), "la57: false", kPasid, std::nullopt},
      {amd(hats(0) | (kGuest & ~kEphsup)), "la57: false", kPasid, std::nullopt},
      {amd(hats(0) | kGuest), "la57: false, amd_snp: true", kPasid, std::nullopt},
  });
}

// The kernel uses the AND of all units' registers; only HDSUP is asked of the unit itself.
TEST(Amd, FeaturesAreThoseOfAllUnits) {
  const Host host = host_of({amd(hats(1) | kGuest | kHdsup, "", kGcr3), amd(hats(0) | (kGuest & ~kPpr), "", 0)},
                            "la57: false, amd_iommu_pgtbl_v2: false");
  const DeviceQuantities a = describe(host, 0), b = describe(host, 1);
  expect_table(a, 0, v1(48, v1_pages(46)));    // HATS 1 AND 0
  expect_table(a, kPasid, std::nullopt);       // PPR is missing elsewhere
  expect_table(a, kNestParent, std::nullopt);  // so is GCR3TRPMODE
  EXPECT_EQ(a[DeviceQ::dirty_capable], 1U);
  EXPECT_EQ(b[DeviceQ::dirty_capable], 0U);
  EXPECT_EQ(a[DeviceQ::enforce_cache_coherency], 1U);
  EXPECT_EQ(a[DeviceQ::pasid_attach], 0U);        // paging domains have no set_dev_pasid
  EXPECT_EQ(a[DeviceQ::unit], b[DeviceQ::unit]);  // HWPTs are shared by all units
}

// -------------------------------------------------------------------------------------------------------- SMMUv3

constexpr std::uint64_t kS2 = 1, kS1 = 2, kAsid16 = bit_of(12), kVmid16 = bit_of(18);
constexpr std::uint64_t httu(std::uint64_t n) { return n << 6; }
enum Gran : std::uint64_t { kG4 = 1 << 4, kG16 = 1 << 5, kG64 = 1 << 6, kVax = 1 << 10 };

std::string smmuv3(std::uint64_t idr0, std::uint64_t idr5, const char* more = "") {
  return fmt::format("driver: smmuv3, idr: [{:#x}, 0x0e739d10, 0x0, 0x0, 0x0, {:#x}], coherent: true{}", idr0, idr5,
                     more);
}

Expected arm(unsigned stage, unsigned levels, unsigned bits, std::uint64_t pages) {
  return {stage, levels, bits, last_of(bits), pages, PageTableFormat::arm_lpae};
}

constexpr std::uint64_t k4 = k4K2M1G, k16 = 16 * kKiB | 32 * kMiB, k64 = 64 * kKiB | 512 * kMiB;

TEST(Smmuv3, StageOneGranulesAndWidths) {
  const std::uint64_t all = kG4 | kG16 | kG64;
  expect_rows({
      {smmuv3(kS1, all | 5), "", 0, arm(1, 4, 48, k4)},
      {smmuv3(kS1, all | 5), "page_size: 16KiB", 0, arm(1, 4, 48, k16)},
      {smmuv3(kS1, all | 5), "page_size: 64KiB", 0, arm(1, 3, 48, k64)},
      {smmuv3(kS1, all | 5 | kVax), "", 0, arm(1, 4, 48, k4)},  // 4K tables end at 48 bits
      {smmuv3(kS1, all | 5 | kVax), "page_size: 64KiB", 0, arm(1, 3, 52, k64)},
      {smmuv3(kS1, all | 6 | kVax), "page_size: 64KiB", 0, arm(1, 3, 52, k64 | 4 * kTiB)},  // OAS 52
      {smmuv3(kS1, all | 6), "page_size: 64KiB", 0, arm(1, 3, 48, k64 | 4 * kTiB)},
      {smmuv3(kS1, all | 6), "", 0, arm(1, 4, 48, k4)},
      {smmuv3(kS1, all | 5), "va_bits: 39", 0, arm(1, 3, 39, k4)},
      {smmuv3(kS1, all | 5), "va_bits: 36, page_size: 16KiB", 0, arm(1, 2, 36, k16)},
      {smmuv3(kS1, all | 5), "va_bits: 42, page_size: 64KiB", 0, arm(1, 2, 42, k64)},
      {smmuv3(kS1, all | 5), "va_bits: 47, page_size: 16KiB", 0, arm(1, 3, 47, k16)},
      // The kernel's page is not among the granules: the largest smaller one, else the smallest bigger one.
      {smmuv3(kS1, kG4 | kG16 | 5), "page_size: 64KiB", 0, arm(1, 4, 48, k16)},
      {smmuv3(kS1, kG4 | kG64 | 5), "page_size: 16KiB", 0, arm(1, 4, 48, k4)},
      {smmuv3(kS1, kG16 | kG64 | 5), "", 0, arm(1, 4, 48, k16)},
      {smmuv3(kS1, kG64 | 5), "", 0, arm(1, 3, 48, k64)},
      {smmuv3(kS1, 5), "", 0, std::nullopt},
  });
}

// IDR5.OAS 0..7 is 32, 36, 40, 42, 44, 48, 52 and, reserved, 48 bits. Where the architecture demands it (DDI 0487
// R_DXBSH, R_SRKBC) the walk starts one level lower, with concatenated root tables.
TEST(Smmuv3, StageTwoIsAsWideAsTheOutput) {
  struct Shape {
    unsigned oas, bits, levels4, bits16, levels16, levels64;
  };
  constexpr Shape kShapes[] = {
      {0, 32, 3, 32, 2, 2},  // 20 bits to resolve: 9+9+2, 11+7, 13+3
      {1, 36, 3, 36, 2, 2},
      {2, 40, 3, 40, 2, 2},  // 4K: four levels become three, two roots; 16K: three become two, sixteen roots
      {3, 42, 3, 42, 3, 2},  // 4K: eight roots
      {4, 44, 4, 44, 3, 3},
      {5, 48, 4, 48, 3, 3},  // 16K: two roots
      {7, 48, 4, 48, 3, 3},
  };
  for (const Shape& s : kShapes) {
    const std::string unit = smmuv3(kS2, kG4 | kG16 | kG64 | s.oas);
    expect_rows({{unit, "", 0, arm(2, s.levels4, s.bits, k4)},
                 {unit, "page_size: 16KiB", 0, arm(2, s.levels16, s.bits16, k16)},
                 {unit, "page_size: 64KiB", 0, arm(2, s.levels64, s.bits, k64)}});
  }
  const std::string wide = smmuv3(kS2, kG4 | kG16 | kG64 | 6);  // 52 bits; 4K and 16K tables end at 48
  expect_rows({{wide, "", 0, arm(2, 4, 48, k4)},
               {wide, "page_size: 16KiB", 0, arm(2, 3, 48, k16)},
               {wide, "page_size: 64KiB", 0, arm(2, 3, 52, k64 | 4 * kTiB)}});
}

TEST(Smmuv3, StageByFlags) {
  const std::uint64_t both = kS1 | kS2 | httu(2);
  const Expected first = arm(1, 4, 48, k4), second = arm(2, 4, 48, k4);
  expect_rows({
      {smmuv3(both, kG4 | 5), "", 0, first},
      {smmuv3(both, kG4 | 5), "", kNestParent, second},
      {smmuv3(both, kG4 | 5), "", kDirtyTracking, first},
      {smmuv3(both, kG4 | 5), "", kPasid, first},
      {smmuv3(both, kG4 | 5), "", kDirtyTracking | kPasid, first},
      {smmuv3(both, kG4 | 5), "", kDirtyTracking | kNestParent, std::nullopt},
      {smmuv3(both, kG4 | 5), "", kPasid | kNestParent, std::nullopt},
      {smmuv3(both, kG4 | 5, ", nesting_erratum: true"), "", kNestParent, std::nullopt},
      {smmuv3(kS2 | httu(2), kG4 | 5), "", 0, second},
      {smmuv3(kS2 | httu(2), kG4 | 5), "", kDirtyTracking, std::nullopt},
      {smmuv3(kS2, kG4 | 5), "", kNestParent, std::nullopt},
      {smmuv3(kS1, kG4 | 5), "", kNestParent, std::nullopt},
  });
}

// Access and dirty updates, and coherent walks: both.
TEST(Smmuv3, DirtyTrackingNeedsHttuAndCoherency) {
  const auto dirty = [](std::uint64_t idr0, const char* more) {
    return describe(host_of({smmuv3(idr0, kG4 | 5, more)}))[DeviceQ::dirty_capable];
  };
  EXPECT_EQ(dirty(kS1 | httu(0), ""), 0U);
  EXPECT_EQ(dirty(kS1 | httu(1), ""), 0U);
  EXPECT_EQ(dirty(kS1 | httu(2), ""), 1U);
  EXPECT_EQ(dirty(kS1 | httu(3), ""), 1U);
  EXPECT_EQ(dirty(kS1 | httu(3), ", httu: 1"), 0U);  // firmware overrides the register
  EXPECT_EQ(dirty(kS1 | httu(0), ", httu: 2"), 1U);
  const std::string incoherent =
      fmt::format("driver: smmuv3, idr: [{:#x}, 0x0, 0x0, 0x0, 0x0, 0x15], coherent: false", kS1 | httu(2));
  EXPECT_EQ(describe(host_of({incoherent}))[DeviceQ::dirty_capable], 0U);
  EXPECT_EQ(describe(host_of({incoherent}))[DeviceQ::cache_coherency], 0U);
}

// The boot log's feature mask instead of registers: S1 9, S2 10, COHERENCY 8, VAX 14, HD 22.
TEST(Smmuv3, FeatureMaskOfTheBootLog) {
  const std::uint64_t mask = bit_of(8) | bit_of(9) | bit_of(10) | bit_of(22);
  const DeviceQuantities q = describe(host_of({fmt::format("driver: smmuv3, features: {:#x}, oas: 44", mask)}));
  EXPECT_EQ(q[DeviceQ::cache_coherency], 1U);
  EXPECT_EQ(q[DeviceQ::dirty_capable], 1U);
  expect_table(q, 0, arm(1, 4, 48, k4));
  expect_table(q, kNestParent, arm(2, 4, 44, k4));
}

TEST(Smmuv3, BelongsToOneInstance) {
  const Host host = host_of({smmuv3(kS1, kG4 | 5), smmuv3(kS1, kG4 | 5)});
  EXPECT_NE(describe(host, 0)[DeviceQ::unit], describe(host, 1)[DeviceQ::unit]);
  EXPECT_NE(describe(host, 0)[DeviceQ::unit], 0U);
}

// ------------------------------------------------------------------------------------------- SMMUv2, virtio, others

TEST(Smmuv2, StageOneElseStageTwo) {
  const auto unit = [](bool s1, bool s2, unsigned input, unsigned ipa, std::uint64_t pages = 0x40201000) {
    return fmt::format(
        "driver: smmuv2, page_mask: {:#x}, coherent: true, stage1: {}, stage2: {}, input_bits: {}, ipa_bits: {}", pages,
        s1, s2, input, ipa);
  };
  expect_rows({
      {unit(true, true, 48, 40), "", 0, arm(1, 4, 48, k4)},
      {unit(true, false, 39, 40), "", 0, arm(1, 3, 39, k4)},
      {unit(true, false, 49, 40), "", 0, arm(1, 4, 48, k4)},
      {unit(false, true, 48, 40), "", 0, arm(2, 3, 40, k4)},  // two concatenated roots
      {unit(false, true, 48, 36), "", 0, arm(2, 3, 36, k4)},
      {unit(false, true, 48, 48), "", 0, arm(2, 4, 48, k4)},
      {unit(false, false, 48, 40), "", 0, std::nullopt},
      {unit(true, true, 48, 40), "", kDirtyTracking, std::nullopt},
      {unit(true, true, 48, 40, 0x60211000), "page_size: 64KiB", 0, arm(1, 3, 48, k64)},
      {unit(true, true, 48, 40, 0x60211000), "", 0, arm(1, 4, 48, 4 * kKiB | 2 * kMiB | kGiB)},
      {unit(true, true, 48, 40, 0x201000), "", 0, arm(1, 4, 48, 4 * kKiB | 2 * kMiB)},
  });
  EXPECT_TRUE(kernel_law().automatic_only(Driver::smmuv2));
  // Coherent walks or a coherent device: either will do.
  const auto coherent = [](const char* walk, const char* device) {
    return describe(host_of({fmt::format("driver: smmuv2, page_mask: 0x1000, coherent: {}, stage1: true, stage2: true, "
                                         "input_bits: 48, ipa_bits: 40",
                                         walk)},
                            "", device))[DeviceQ::cache_coherency];
  };
  EXPECT_EQ(coherent("true", "dma_coherent: {value: false, source: firmware}"), 1U);
  EXPECT_EQ(coherent("false", "dma_coherent: {value: true, source: firmware}"), 1U);
  EXPECT_EQ(coherent("false", "dma_coherent: {value: false, source: firmware}"), 0U);
}

TEST(Virtio, EverythingComesFromItsConfiguration) {
  const std::string all = "driver: virtio, page_mask: 0xfffffffffffff000";
  const Expected whole{1, 0, 64, ~0ULL, ~0xfffULL, PageTableFormat::virtio};
  expect_rows({
      {all, "", 0, whole},
      {all + ", input_range: [0x0, 0xffffffffff]", "", 0,
       Expected{1, 0, 40, last_of(40), ~0xfffULL, PageTableFormat::virtio}},
      {all, "", kPasid, std::nullopt},
      {"driver: virtio, page_mask: 0xffffffffffff0000", "", 0,
       std::nullopt},  // a larger page than the kernel's: ENODEV
      {"driver: virtio, page_mask: 0xffffffffffff0000", "page_size: 64KiB", 0,
       Expected{1, 0, 64, ~0ULL, ~0xffffULL, PageTableFormat::virtio}},
  });
  const DeviceQuantities q = describe(host_of({all + ", input_range: [0x1000, 0xffffffff]"}));
  EXPECT_EQ(q[DeviceQ::stage1_aperture_start], 0x1000U);
  EXPECT_EQ(q[DeviceQ::enforce_cache_coherency], 0U);
  EXPECT_EQ(q[DeviceQ::cache_coherency], 1U);
}

TEST(Riscv, WidestModeAndItsLowerHalf) {
  const std::uint64_t napot = 4 * kKiB | 64 * kKiB | 2 * kMiB | kGiB;
  const auto unit = [](std::uint64_t caps) { return fmt::format("driver: riscv, capabilities: {:#x}", caps); };
  const auto sv = [](unsigned levels, unsigned bits, std::uint64_t pages) {
    return Expected{1, levels, bits, last_of(bits - 1), pages, PageTableFormat::riscv};
  };
  expect_rows({
      {unit(bit_of(9)), "", 0, sv(3, 39, napot)},
      {unit(bit_of(9) | bit_of(10)), "", 0, sv(4, 48, napot | 512 * kGiB)},
      {unit(bit_of(9) | bit_of(10) | bit_of(11)), "", 0, sv(5, 57, napot | 512 * kGiB | 256 * kTiB)},
      {unit(bit_of(11)), "", 0, sv(5, 57, napot | 512 * kGiB | 256 * kTiB)},
      {unit(bit_of(8)), "", 0, std::nullopt},               // Sv32 only
      {unit(bit_of(9) | bit_of(15)), "", 0, std::nullopt},  // SVPBMT
      {unit(bit_of(9)), "", kPasid, std::nullopt},
  });
  EXPECT_EQ(describe(host_of({unit(bit_of(9) | bit_of(11))}))[DeviceQ::walk_levels], 0b1010U);  // three and five levels
  EXPECT_EQ(describe(host_of({unit(bit_of(9))}))[DeviceQ::capable_op], 0U);
}

TEST(S390, SmallestTableThatHoldsTheRange) {
  const auto unit = [](const char* range, const char* more = "") {
    return fmt::format("driver: s390, dma_range: {}{}", range, more);
  };
  const auto table = [](unsigned levels, unsigned bits) {
    return Expected{1, levels, bits, last_of(bits), 4 * kKiB, PageTableFormat::s390};
  };
  const char* const kRs = ", table_rs: true";
  const char* const kBoth = ", table_rs: true, table_rf: true";
  expect_rows({
      {unit("[0x100000000, 0x1ffffffffff]"), "", 0, table(3, 42)},
      {unit("[0x0, 0x3ffffffffff]", kBoth), "", 0, table(3, 42)},  // region third holds 2^42
      {unit("[0x0, 0x40000000000]", kRs), "", 0, table(4, 53)},
      {unit("[0x0, 0x40000000000]"), "", 0, table(3, 42)},  // no larger table: region third, less range
      {unit("[0x0, 0x1fffffffffffff]", kBoth), "", 0, table(4, 53)},
      {unit("[0x1000, 0x20000000000000]", kBoth), "", 0, table(5, 64)},
      {unit("[0x1000, 0x20000000000000]", kRs), "", 0, table(3, 42)},
      {unit("[0x0, 0x40000000000]", ", table_rf: true"), "", 0, table(5, 64)},
      {unit("[0x0, 0x3ffffffffff]"), "", kDirtyTracking, std::nullopt},
  });
  // The two kinds of functions have different domain operations.
  const Host host = host_of({unit("[0x0, 0x3ffffffffff]"), unit("[0x0, 0x3ffffffffff]", ", rtr_avail: true")});
  EXPECT_NE(describe(host, 0)[DeviceQ::owner], describe(host, 1)[DeviceQ::owner]);
}

TEST(Mock, TablesOfTheSelftest) {
  const Expected table{2, 3, 56, (1ULL << 31) - 1, last_of(37) & ~last_of(11), PageTableFormat::mock};
  const DeviceQuantities q = describe(host_of({"driver: mock"}));
  for (std::uint8_t flags = 0; flags < kHwptFlagSets; ++flags) expect_table(q, flags, table);
  EXPECT_EQ(q[DeviceQ::stage2_aperture_start], 1U << 24);
  EXPECT_EQ(q[DeviceQ::enforce_cache_coherency], 0U);
  const DeviceQuantities no_dirty = describe(host_of({"driver: mock"}, "", "no_dirty: true"));
  expect_table(no_dirty, 0, table);
  expect_table(no_dirty, kDirtyTracking, std::nullopt);
}

// ------------------------------------------------------------------------------------------- regions and domain ids

std::vector<ReservedRegion> regions(const std::string& unit) {
  return kernel_law().own_regions(host_of({unit}, "la57: false"), DeviceIndex(std::size_t{0}));
}

TEST(OwnRegions, OfEveryDriver) {
  const ReservedRegion msi{{0xfee00000, 0xfeefffff}, ReservedType::msi};
  const ReservedRegion sw_msi{{0x8000000, 0x80fffff}, ReservedType::sw_msi};
  const ReservedRegion ht{{0xfd00000000, 0xffffffffff}, ReservedType::reserved};
  EXPECT_EQ(regions(intel(48, 4, 0, kC)), std::vector{msi});
  EXPECT_EQ(regions(amd(0)), (std::vector{msi, ht}));
  EXPECT_EQ(regions(amd(0, "", bit_of(11))), std::vector{msi});  // HT_RANGE_IGNORE
  EXPECT_EQ(regions(smmuv3(kS1, kG4 | 5)), std::vector{sw_msi});
  EXPECT_EQ(regions("driver: virtio, page_mask: 0x1000"), std::vector{sw_msi});
  EXPECT_EQ(regions("driver: mock"), std::vector<ReservedRegion>{});
  EXPECT_EQ(regions("driver: riscv, capabilities: 0x200"), std::vector<ReservedRegion>{});
  EXPECT_EQ(regions("driver: s390, dma_range: [0x1000, 0x3ffffffffff]"),
            (std::vector<ReservedRegion>{{{0, 0xfff}, ReservedType::reserved},
                                         {{0x40000000000, ~0ULL}, ReservedType::reserved}}));
}

// KR 3.2: the kernel knows EFR2 only as the AND over all units, HT_RANGE_IGNORE included.
TEST(OwnRegions, HyperTransportHoleIsAskedOfAllUnits) {
  const Host host = host_of({amd(0, "", bit_of(11)), amd(0, "", 0)}, "la57: false");
  EXPECT_EQ(kernel_law().own_regions(host, DeviceIndex(std::size_t{0})).size(), 2U);
  EXPECT_EQ(kernel_law().own_regions(host, DeviceIndex(std::size_t{1})).size(), 2U);
}

struct PoolCase {
  std::string unit;
  unsigned stage;
  std::optional<std::uint64_t> capacity;
};

TEST(DomainIds, OfEveryDriver) {
  const std::vector<PoolCase> kCases = {
      {intel(48, 4, 0, kC), 2, 16 - 2},  // ND 0: 2^4, ids from 2
      {intel(48, 4, 2, kC), 2, 256 - 2},
      {intel(48, 4, 6, kC), 2, 65536 - 2},
      {intel(48, 4, 6, kC) + ", domains_used: 65000", 2, 534},
      {intel(48, 4, 0, kC) + ", domains_used: 100", 2, 0},
      {amd(0), 2, 65535},
      {smmuv3(kS1 | kS2, kG4 | 5), 1, 255},
      {smmuv3(kS1 | kS2 | kAsid16, kG4 | 5), 1, 65535},
      {smmuv3(kS1 | kS2 | kAsid16, kG4 | 5), 2, 255},
      {smmuv3(kS1 | kS2 | kVmid16, kG4 | 5), 2, 65535},
      {"driver: smmuv2, page_mask: 0x1000, coherent: true, stage1: true, stage2: true, input_bits: 48, ipa_bits: 40, "
       "context_banks: 8",
       1, 8},
      {"driver: virtio, page_mask: 0x1000, domain_range: [3, 5]", 1, 3},
      {"driver: riscv, capabilities: 0x200", 1, (1 << 20) - 1},
      {"driver: s390, dma_range: [0x0, 0xffffffff]", 1, std::nullopt},
      {"driver: mock", 2, std::nullopt},
  };
  for (const PoolCase& c : kCases) {
    SCOPED_TRACE(c.unit);
    const auto pool = kernel_law().domain_pool(host_of({c.unit}, "la57: false"), UnitIndex(std::size_t{0}), c.stage);
    ASSERT_EQ(pool.has_value(), c.capacity.has_value());
    if (pool) {
      EXPECT_EQ(pool->capacity, *c.capacity);
    }
  }
}

// Intel's ids and SMMU's VMIDs are each unit's own; AMD's ids and ASIDs are the host's.
TEST(DomainIds, WhichPoolsAreOne) {
  const auto same = [](const std::string& unit, unsigned stage) {
    const Host host = host_of({unit, unit}, "la57: false");
    return kernel_law().domain_pool(host, UnitIndex(std::size_t{0}), stage)->key ==
           kernel_law().domain_pool(host, UnitIndex(std::size_t{1}), stage)->key;
  };
  EXPECT_FALSE(same(intel(48, 4, 0, kC), 2));
  EXPECT_TRUE(same(amd(0), 2));
  EXPECT_TRUE(same(smmuv3(kS1 | kS2, kG4 | 5), 1));
  EXPECT_FALSE(same(smmuv3(kS1 | kS2, kG4 | 5), 2));
  EXPECT_FALSE(same("driver: virtio, page_mask: 0x1000", 1));
}

}  // namespace
}  // namespace ioplan
