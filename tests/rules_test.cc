// Every rule of the catalog says yes to something and no to something, through real registers.
//
// A case is a small host as documents describe it: a unit and a device `a` that allocates a HWPT, and a device `b` that
// the rule is asked about, behind the same unit or another one. The quantities come from the law (describe, allocate)
// and from the VM's problem, never from hand-made numbers, so a case also holds the way from a register to a rule. A
// rule must have something to say in both of its cases (its `when` atoms hold), and what it says when it refuses is
// compared word for word. Rules without atoms belong to all HWPTs together; for them whole requests are planned.
//
// The catalog itself is held here too: a rule without an accepting or a refusing case, without a source, with a
// placeholder that nobody fills, or in a file that its name does not lead to, fails.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "constraints/catalog.h"
#include "constraints/kernel_law.h"
#include "engine/document/load.h"
#include "engine/explain/sentence.h"
#include "engine/planner/planner.h"
#include "engine/solve/problem.h"
#include "tests/support/paths.h"

namespace ioplan {
namespace {

// ------------------------------------------------------------------------------------------------------ registers

constexpr std::uint64_t bit_of(unsigned n) { return std::uint64_t{1} << n; }

// VT-d: CAP_REG and ECAP_REG by the names of KR 3.1.
constexpr std::uint64_t kRwbf = bit_of(4), kCm = bit_of(7), kSs2m = bit_of(34), kSs1g = bit_of(35), kFs1g = bit_of(56),
                        kFs5l = bit_of(60);
constexpr std::uint64_t kC = bit_of(0), kSc = bit_of(7), kNest = bit_of(26), kPss20 = std::uint64_t{19} << 35,
                        kPasidCap = bit_of(40), kSmts = bit_of(43), kSsads = bit_of(45), kSsts = bit_of(46),
                        kFsts = bit_of(47), kSmpwc = bit_of(48);
constexpr std::uint64_t k3Levels = 2, k4Levels = 4, k5Levels = 8, k6Levels = 16;

constexpr std::uint64_t cap(unsigned mgaw, std::uint64_t sagaw, std::uint64_t more) {
  return std::uint64_t{mgaw - 1} << 16 | sagaw << 8 | more;
}

constexpr std::uint64_t kCap = cap(48, k4Levels, kSs2m | kSs1g | kFs1g);
constexpr std::uint64_t kLegacy = kC | kSc;                                       // no scalable mode
constexpr std::uint64_t kSecond = kSc | kNest | kSmts | kSsads | kSsts | kSmpwc;  // scalable, second stage only
constexpr std::uint64_t kFirst = kSecond | kFsts | kPasidCap | kPss20;

std::string intel(std::uint64_t cap_reg, std::uint64_t ecap) {
  return fmt::format("driver: intel, cap: {:#x}, ecap: {:#x}", cap_reg, ecap);
}

// AMD-Vi: PPR, GT, GIOSUP, EPHSUP and HDSUP of EFR; GCR3TRPMODE of EFR2.
constexpr std::uint64_t kPpr = bit_of(1), kGt = bit_of(4), kGiosup = bit_of(48), kEphsup = bit_of(50),
                        kHdsup = bit_of(52);
constexpr std::uint64_t kHats6 = 2 << 10;  // six levels: 66 bits
constexpr std::uint64_t kGcr3 = bit_of(3);
constexpr std::uint64_t kEfr = kPpr | kGt | kGiosup | kEphsup | kHdsup | std::uint64_t{7} << 32;

std::string amd(std::uint64_t efr, std::uint64_t efr2 = kGcr3) {
  return fmt::format("driver: amd, efr: {:#x}, efr2: {:#x}", efr, efr2);
}

// SMMUv3: stages of IDR0, granules and output size of IDR5.
constexpr std::uint64_t kS2p = 1, kS1p = 2, kHttu = 2 << 6, kGran4k = 1 << 4, kGran64k = 1 << 6, kOas48 = 5;

std::string smmuv3(std::uint64_t idr0, std::uint64_t idr5, const char* coherent = "true") {
  return fmt::format("driver: smmuv3, idr: [{:#x}, 0x0e739d10, 0x0, 0x0, 0x0, {:#x}], coherent: {}", idr0, idr5,
                     coherent);
}
const std::string kSmmu = smmuv3(kS1p | kS2p | kHttu, kGran4k | kOas48);

std::string virtio(std::uint64_t pages, const char* more = "") {
  return fmt::format("driver: virtio, page_mask: {:#x}{}", pages, more);
}
constexpr std::uint64_t kAllPages = 0xfffffffffffff000;

std::string riscv(std::uint64_t capabilities) {
  return fmt::format("driver: riscv, capabilities: {:#x}", capabilities);
}
constexpr std::uint64_t kSv39 = bit_of(9), kSv48 = bit_of(10), kSv57 = bit_of(11), kSvpbmt = bit_of(15);

std::string s390(const char* range, const char* more = "") {
  return fmt::format("driver: s390, dma_range: {}{}", range, more);
}
const std::string kMock = "driver: mock";

// ----------------------------------------------------------------------------------------------------------- cases

struct Case {
  const char* rule;
  bool holds;
  std::string a;       // the unit in front of device a, the allocator
  std::string b = {};  // the unit in front of device b, of whom the rule is asked; empty: the same unit
  std::uint8_t flags = 0;
  std::string device_a = {}, device_b = {};  // facts
  std::string kernel = {}, memory = {}, vm = {}, policy = {};
  std::string says = {};  // the refusal
};

// Memory that every driver can map, the mock's window included.
const char* const kMemory = "{ranges: [{gpa: [0x40000000, 0x7fffffff]}]}";

std::string host_text(const Case& c) {
  std::string text = "apiVersion: ioplan/v1\nkind: Host\nkernel: {isolated_msi: true, la57: false" +
                     (c.kernel.empty() ? "" : ", " + c.kernel) + "}\niommus:\n  - {id: ua, " + c.a + "}\n";
  if (!c.b.empty()) text += "  - {id: ub, " + c.b + "}\n";
  const auto device = [](const char* id, const char* unit, int group, const std::string& more) {
    // Not PCI ids, so whether their DMA is coherent must be said.
    const bool said = more.find("dma_coherent") != std::string::npos;
    const char* coherent = said ? "" : ", dma_coherent: {value: true, source: firmware}";
    return fmt::format("  - {{id: {}, iommu: {}, group: {}{}{}{}}}\n", id, unit, group, coherent,
                       more.empty() ? "" : ", ", more);
  };
  return text + "devices:\n" + device("a", "ua", 1, c.device_a) + device("b", c.b.empty() ? "ua" : "ub", 2, c.device_b);
}

Request request_of(const Case& c) {
  std::string text = host_text(c) + "---\napiVersion: ioplan/v1\nkind: VirtualMachine\nname: vm0\nmemory: " +
                     (c.memory.empty() ? kMemory : c.memory) + "\ndevices: [{host: a}, {host: b}]\n" + c.vm + "\n";
  if (!c.policy.empty()) text += "---\napiVersion: ioplan/v1\nkind: Policy\n" + c.policy + "\n";
  auto loaded = load_text("case", text);
  if (!loaded) {
    ADD_FAILURE() << to_text(loaded.error()) << "\n" << text;
    return {};
  }
  return std::move(loaded->request);
}

const std::string kHugeNeed = "rules: [{name: big, require: {page_size: 1GiB}, for: {host: b}}]";
const std::string kNeedsPasid = "needs: {pasid: required}";

std::string require_for_b(const char* what) {
  return fmt::format("rules: [{{name: r, require: {{{}: true}}, for: {{host: b}}}}]", what);
}

std::vector<Case> cases() {
  const std::string scalable = intel(kCap, kSecond), first = intel(kCap, kFirst), legacy = intel(kCap, kLegacy);
  const std::uint64_t both_granules = kGran4k | kGran64k | kOas48;
  return {
      // ---- may the device be bound at all
      {.rule = "usable.capable-op", .holds = true, .a = scalable},
      {.rule = "usable.capable-op",
       .holds = false,
       .a = riscv(kSv48),
       .says = "the driver of ua has no .capable operation, so VFIO never registers b"},
      {.rule = "usable.cache-coherency", .holds = true, .a = kSmmu},
      {.rule = "usable.cache-coherency",
       .holds = false,
       .a = smmuv3(kS1p, kGran4k | kOas48, "false"),
       .says = "ua does not make the DMA of b cache coherent (IOMMU_CAP_CACHE_COHERENCY is missing)"},
      {.rule = "usable.dma-coherency",
       .holds = true,
       .a = kSmmu,
       .device_b = "dma_coherent: {value: false, source: firmware}",
       .vm = "guest_cache_maintenance: true"},
      {.rule = "usable.dma-coherency",
       .holds = false,
       .a = kSmmu,
       .device_b = "dma_coherent: {value: false, source: firmware}",
       .says = "b does DMA that does not snoop CPU caches, and vm0 does not say `guest_cache_maintenance: true`"},
      {.rule = "usable.assumed-coherency",
       .holds = true,
       .a = kSmmu,
       .device_b = "dma_coherent: {value: true, source: firmware}",
       .policy = "assumed_coherency: refuse"},
      {.rule = "usable.assumed-coherency",
       .holds = false,
       .a = kSmmu,
       .device_b = "dma_coherent: {value: true, source: assumed}",
       .policy = "assumed_coherency: refuse",
       .says = "whether the DMA of b is coherent is only assumed, and the policy says `assumed_coherency: refuse`"},
      {.rule = "usable.enforceable", .holds = true, .a = scalable, .policy = "coherency: required"},
      {.rule = "usable.enforceable",
       .holds = false,
       .a = intel(kCap, kSecond & ~kSc),
       .policy = "coherency: required",
       .says = "the IOMMU of b (ua) cannot block no-snoop DMA, and the policy says `coherency: required`"},
      {.rule = "usable.msi-windows",
       .holds = true,
       .a = kSmmu,
       .device_b = "reserved: [{range: [0x8000000, 0x80fffff], type: sw-msi}]"},
      {.rule = "usable.msi-windows",
       .holds = false,
       .a = kSmmu,
       .device_b =
           "reserved: [{range: [0x8000000, 0x80fffff], type: sw-msi}, {range: [0xfee00000, 0xfeefffff], type: msi}]",
       .says = "b has both hardware and software MSI windows, or two software ones"},
      {.rule = "usable.reserved-regions", .holds = true, .a = scalable},  // the MSI window lies above the memory
      {.rule = "usable.reserved-regions",
       .holds = true,
       .a = scalable,
       .device_b = "reserved: [{range: [0x50000000, 0x5fffffff], type: direct-relaxable}]"},
      {.rule = "usable.reserved-regions",
       .holds = false,
       .a = scalable,
       .memory = "{ranges: [{gpa: [0x40000000, 0xffffffff]}]}",
       .says = "a reserved region of b lies over memory that vm0 maps"},
      {.rule = "usable.isolated-msi", .holds = true, .a = scalable, .device_b = "isolated_msi: true"},
      {.rule = "usable.isolated-msi",
       .holds = true,
       .a = scalable,
       .device_b = "isolated_msi: false",
       .kernel = "allow_unsafe_interrupts: true"},
      {.rule = "usable.isolated-msi", .holds = true, .a = kMock, .device_b = "isolated_msi: false"},
      {.rule = "usable.isolated-msi",
       .holds = false,
       .a = scalable,
       .device_b = "isolated_msi: false",
       .says = "b has no isolated MSI and `allow_unsafe_interrupts` is off"},
      {.rule = "usable.direct-region",
       .holds = true,
       .a = scalable,
       .device_b = "reserved: [{range: [0x7c000000, 0x7fffffff], type: direct-relaxable}]"},
      {.rule = "usable.direct-region",
       .holds = false,
       .a = scalable,
       .device_b = "reserved: [{range: [0xa0000000, 0xa000ffff], type: direct}]",
       .says = "firmware demands a 1:1 mapping for b (a `direct` reserved region)"},
      {.rule = "usable.pasid-width", .holds = true, .a = first, .device_b = "pasid_bits: 20", .vm = kNeedsPasid},
      {.rule = "usable.pasid-width",
       .holds = false,
       .a = scalable,
       .device_b = "pasid_bits: 20",
       .vm = kNeedsPasid,
       .says = "b behind ua has no usable PASIDs, and vm0 needs them"},
      {.rule = "usable.pasid-width",
       .holds = false,
       .a = first,
       .device_b = "pasid_bits: 0",
       .vm = kNeedsPasid,
       .says = "b behind ua has no usable PASIDs, and vm0 needs them"},
      {.rule = "usable.pasid-attach", .holds = true, .a = kSmmu, .vm = kNeedsPasid},
      {.rule = "usable.pasid-attach",
       .holds = false,
       .a = amd(kEfr),
       .vm = kNeedsPasid,
       .says = "the driver of ua cannot attach page tables to PASIDs, and vm0 needs them"},

      // ---- does HWPT_ALLOC succeed
      {.rule = "alloc.flag-combination", .holds = true, .a = kSmmu, .flags = kDirtyTracking | kPasid},
      {.rule = "alloc.flag-combination",
       .holds = false,
       .a = kSmmu,
       .flags = kDirtyTracking | kNestParent,
       .says = "the driver of ua knows no HWPT with flags dirty-tracking, nest-parent"},
      {.rule = "alloc.flag-combination",
       .holds = false,
       .a = virtio(kAllPages),
       .flags = kPasid,
       .says = "the driver of ua knows no HWPT with flags pasid"},
      {.rule = "alloc.dirty-tracking", .holds = true, .a = scalable, .flags = kDirtyTracking},
      {.rule = "alloc.dirty-tracking",
       .holds = false,
       .a = intel(kCap, kSecond & ~kSsads),
       .flags = kDirtyTracking,
       .says = "ua cannot track dirty pages, so a cannot allocate a dirty-tracking HWPT"},
      {.rule = "alloc.dirty-tracking",
       .holds = false,
       .a = intel(kCap, kSecond & ~kSmpwc),
       .flags = kDirtyTracking,
       .says = "ua cannot track dirty pages, so a cannot allocate a dirty-tracking HWPT"},
      {.rule = "alloc.nest-parent", .holds = true, .a = scalable, .flags = kNestParent},
      {.rule = "alloc.nest-parent", .holds = true, .a = amd(kEfr), .flags = kNestParent},
      {.rule = "alloc.nest-parent",
       .holds = false,
       .a = amd(kEfr, 0),
       .flags = kNestParent,
       .says = "ua cannot nest, so a cannot allocate a nesting parent"},
      {.rule = "alloc.nest-parent",
       .holds = false,
       .a = legacy,
       .flags = kNestParent,
       .says = "ua cannot nest, so a cannot allocate a nesting parent"},
      {.rule = "alloc.pasid", .holds = true, .a = amd(kEfr), .flags = kPasid},
      {.rule = "alloc.pasid",
       .holds = false,
       .a = amd(kEfr & ~kPpr),
       .flags = kPasid,
       .says = "ua does not support PASID, so a cannot allocate a PASID HWPT"},
      {.rule = "alloc.stage-1", .holds = true, .a = kSmmu, .flags = kDirtyTracking},
      {.rule = "alloc.stage-1",
       .holds = false,
       .a = smmuv3(kS2p | kHttu, kGran4k | kOas48),
       .flags = kDirtyTracking,
       .says = "ua has no stage-1 tables for a"},
      {.rule = "alloc.stage-2", .holds = true, .a = legacy},
      {.rule = "alloc.stage-2",
       .holds = false,
       .a = intel(kCap, kFirst & ~kSsts),
       .flags = kDirtyTracking,
       .says = "ua has no stage-2 tables for a"},
      {.rule = "alloc.width", .holds = true, .a = legacy},
      {.rule = "alloc.width",
       .holds = false,
       .a = intel(cap(30, k3Levels, 0), kLegacy),
       .says = "ua reports no usable address width for a"},
      {.rule = "alloc.width",
       .holds = false,
       .a = amd(kEfr | kHats6) + ", va_size: 65",
       .says = "ua reports no usable address width for a"},
      {.rule = "alloc.levels", .holds = true, .a = legacy},
      {.rule = "alloc.levels",
       .holds = false,
       .a = intel(cap(48, k6Levels, 0), kLegacy),
       .says = "ua asks for tables of 6 levels for a, which do not exist"},
      {.rule = "alloc.table", .holds = true, .a = legacy},
      {.rule = "alloc.table",
       .holds = false,
       .a = smmuv3(kS1p, kOas48),
       .says = "ua reports no page size that a table for a could use"},
      {.rule = "alloc.table",
       .holds = false,
       .a = intel(cap(44, k5Levels, 0), kLegacy),
       .says = "ua reports no page size that a table for a could use"},
      {.rule = "alloc.table", .holds = true, .a = intel(cap(45, k5Levels, 0), kLegacy)},
      {.rule = "virtio.alloc.granule", .holds = true, .a = virtio(kAllPages)},
      {.rule = "virtio.alloc.granule",
       .holds = false,
       .a = virtio(0xffffffffffff0000),
       .says = "the smallest page of ua (64KiB) is larger than the kernel's page (4KiB)"},
      {.rule = "riscv.alloc.svpbmt", .holds = true, .a = riscv(kSv48)},
      {.rule = "riscv.alloc.svpbmt",
       .holds = false,
       .a = riscv(kSv48 | kSvpbmt),
       .says = "ua has SVPBMT, which the kernel's table format does not take"},

      // ---- can the HWPT join the VM's IOAS and serve its needs
      {.rule = "ioas.aperture", .holds = true, .a = kMock},
      {.rule = "ioas.aperture",
       .holds = false,
       .a = kMock,
       .memory = "{ranges: [{gpa: [0x0, 0x7fffffff]}]}",
       .says = "memory that vm0 maps lies outside the aperture of the HWPT (0x1000000 against 0x0)"},
      {.rule = "ioas.aperture",
       .holds = false,
       .a = intel(cap(39, k3Levels, 0), kLegacy),
       .memory = "{ranges: [{gpa: [0x40000000, 0x803fffffff]}]}",
       .says = "memory that vm0 maps lies outside the aperture of the HWPT (0x803fffffff against 0x7fffffffff)"},
      {.rule = "ioas.alignment", .holds = true, .a = kSmmu, .memory = "{ranges: [{gpa: [0x40000000, 0x40000fff]}]}"},
      {.rule = "ioas.alignment",
       .holds = false,
       .a = smmuv3(kS1p, both_granules),
       .kernel = "page_size: 64KiB",
       .memory = "{ranges: [{gpa: [0x40000000, 0x40000fff]}]}",
       .says = "vm0 maps memory aligned to 4KiB, and the smallest page of the HWPT is 64KiB"},
      {.rule = "ioas.granule", .holds = true, .a = smmuv3(kS1p, both_granules), .kernel = "page_size: 64KiB"},
      {.rule = "ioas.granule",
       .holds = false,
       .a = smmuv3(kS1p, kGran64k | kOas48),
       .says = "the smallest page of the HWPT (64KiB) is larger than the kernel's page (4KiB)"},
      {.rule = "ioas.read-only",
       .holds = true,
       .a = scalable,
       .flags = kDirtyTracking,
       .memory = "{ranges: [{gpa: [0x40000000, 0x7fffffff], access: ro}]}"},
      {.rule = "ioas.read-only",
       .holds = true,
       .a = amd(kEfr),
       .flags = kNestParent,
       .memory = "{ranges: [{gpa: [0x40000000, 0x7fffffff], access: ro}]}"},
      {.rule = "ioas.read-only",
       .holds = false,
       .a = scalable,
       .flags = kNestParent,
       .memory = "{ranges: [{gpa: [0x40000000, 0x7fffffff], access: ro}]}",
       .says = "vm0 maps read-only memory, which an Intel nesting parent cannot hold"},
      {.rule = "needs.dirty-tracking",
       .holds = true,
       .a = scalable,
       .flags = kDirtyTracking,
       .vm = "needs: {dirty_tracking: required}"},
      {.rule = "needs.dirty-tracking",
       .holds = false,
       .a = scalable,
       .vm = "needs: {dirty_tracking: required}",
       .says = "vm0 says `needs.dirty_tracking: required`"},
      {.rule = "needs.nest-parent",
       .holds = true,
       .a = scalable,
       .flags = kNestParent,
       .vm = "needs: {nest_parent: required}"},
      {.rule = "needs.nest-parent",
       .holds = false,
       .a = scalable,
       .vm = "needs: {nest_parent: required}",
       .says = "vm0 says `needs.nest_parent: required`"},
      {.rule = "needs.pasid", .holds = true, .a = first, .flags = kPasid, .vm = kNeedsPasid},
      {.rule = "needs.pasid",
       .holds = false,
       .a = first,
       .vm = kNeedsPasid,
       .says = "vm0 says `needs.pasid: required`"},

      // ---- does the driver accept
      {.rule = "core.owner", .holds = true, .a = scalable, .b = legacy},
      {.rule = "core.owner",
       .holds = false,
       .a = scalable,
       .b = kMock,
       .says = "b is driven by another IOMMU driver (`mock`) than the HWPT (`intel`)"},
      {.rule = "core.owner",
       .holds = false,
       .a = s390("[0x0, 0x3ffffffffff]"),
       .b = s390("[0x0, 0x3ffffffffff]", ", rtr_avail: true"),
       .says = "b is driven by another IOMMU driver (`s390`) than the HWPT (`s390`)"},
      {.rule = "core.instance", .holds = true, .a = kSmmu},
      {.rule = "core.instance", .holds = true, .a = amd(kEfr), .b = amd(kEfr)},
      {.rule = "core.instance",
       .holds = false,
       .a = kSmmu,
       .b = kSmmu,
       .says = "the HWPT belongs to another IOMMU instance than ub, in front of b"},
      {.rule = "core.instance",
       .holds = false,
       .a = virtio(kAllPages),
       .b = virtio(kAllPages),
       .says = "the HWPT belongs to another IOMMU instance than ub, in front of b"},

      {.rule = "intel.first-stage.support", .holds = true, .a = first, .b = first},
      {.rule = "intel.first-stage.support",
       .holds = false,
       .a = first,
       .b = scalable,
       .says = "ub has no first-stage tables (scalable mode and ECAP.FSTS)"},
      {.rule = "intel.first-stage.support",
       .holds = false,
       .a = first,
       .b = intel(kCap, (kFirst & ~kSmts) | kC),
       .says = "ub has no first-stage tables (scalable mode and ECAP.FSTS)"},
      {.rule = "intel.first-stage.coherent-walk", .holds = true, .a = intel(kCap, kFirst & ~kSmpwc), .b = first},
      {.rule = "intel.first-stage.coherent-walk",
       .holds = false,
       .a = first,
       .b = intel(kCap, kFirst & ~kSmpwc),
       .says =
           "ub does not snoop when it walks first-stage tables (ECAP.SMPWC), and the HWPT is written without flushes"},
      {.rule = "intel.first-stage.levels", .holds = true, .a = first, .b = intel(cap(57, k5Levels, kFs5l), kFirst)},
      {.rule = "intel.first-stage.levels",
       .holds = false,
       .a = intel(cap(57, k5Levels, kFs5l), kFirst),
       .b = first,
       .says = "ub cannot walk five levels (CAP.FS5LP), and the HWPT is 57 bits wide"},
      {.rule = "intel.first-stage.page-sizes", .holds = true, .a = intel(kCap & ~kFs1g, kFirst), .b = first},
      {.rule = "intel.first-stage.page-sizes",
       .holds = false,
       .a = first,
       .b = intel(kCap & ~kFs1g, kFirst),
       .says = "ub walks first-stage pages 4KiB 2MiB, and the HWPT may hold 4KiB 2MiB 1GiB"},
      {.rule = "intel.first-stage.write-buffer",
       .holds = true,
       .a = intel(kCap | kRwbf, kFirst),
       .b = intel(kCap | kRwbf, kFirst)},
      {.rule = "intel.first-stage.write-buffer",
       .holds = true,
       .a = first,
       .b = intel(kCap | kCm, kFirst)},  // CM is second stage's
      {.rule = "intel.first-stage.write-buffer",
       .holds = false,
       .a = first,
       .b = intel(kCap | kRwbf, kFirst),
       .says = "ub needs its write buffer flushed (CAP.RWBF), and the HWPT does not flush after mapping"},
      {.rule = "intel.first-stage.write-buffer",
       .holds = false,
       .a = first,
       .b = first + ", rwbf_quirk: true",
       .says = "ub needs its write buffer flushed (CAP.RWBF), and the HWPT does not flush after mapping"},
      {.rule = "intel.first-stage.snoop-control", .holds = true, .a = intel(kCap, kFirst & ~kSc), .b = first},
      {.rule = "intel.first-stage.snoop-control",
       .holds = false,
       .a = first,
       .b = intel(kCap, kFirst & ~kSc),
       .says = "ub cannot block no-snoop (ECAP.SC), and the HWPT enforces cache coherency"},
      {.rule = "intel.first-stage.width", .holds = true, .a = intel(cap(39, k3Levels, 0), kFirst), .b = first},
      {.rule = "intel.first-stage.width",
       .holds = false,
       .a = first,
       .b = intel(cap(39, k3Levels, kFs1g), kFirst),
       .says = "ub translates 39 bits (CAP.MGAW), and the HWPT is 48 bits wide"},

      {.rule = "intel.second-stage.dirty-tracking",
       .holds = true,
       .a = scalable,
       .b = scalable,
       .flags = kDirtyTracking},
      {.rule = "intel.second-stage.dirty-tracking",
       .holds = false,
       .a = scalable,
       .b = legacy,
       .flags = kDirtyTracking,
       .says = "ub cannot track dirty pages (ECAP.SSADS and SMPWC), and the HWPT does"},
      {.rule = "intel.second-stage.nest-parent", .holds = true, .a = scalable, .b = scalable, .flags = kNestParent},
      {.rule = "intel.second-stage.nest-parent",
       .holds = false,
       .a = scalable,
       .b = intel(kCap, kSecond & ~kNest),
       .flags = kNestParent,
       .says = "ub cannot nest (ECAP.NEST), and the HWPT is a nesting parent"},
      {.rule = "intel.second-stage.support", .holds = true, .a = scalable, .b = legacy},
      {.rule = "intel.second-stage.support",
       .holds = false,
       .a = legacy,
       .b = intel(kCap, kFirst & ~kSsts),
       .says = "ub is in scalable mode without second-stage tables (ECAP.SSTS)"},
      {.rule = "intel.second-stage.coherent-walk", .holds = true, .a = intel(kCap, kSc), .b = legacy},
      {.rule = "intel.second-stage.coherent-walk",
       .holds = false,
       .a = legacy,
       .b = intel(kCap, kSc),
       .says = "ub does not snoop when it walks second-stage tables, and the HWPT is written without flushes"},
      // In scalable mode SMPWC counts, in legacy mode C (KR 3.1).
      {.rule = "intel.second-stage.coherent-walk",
       .holds = false,
       .a = legacy,
       .b = intel(kCap, (kSecond & ~kSmpwc) | kC),
       .says = "ub does not snoop when it walks second-stage tables, and the HWPT is written without flushes"},
      {.rule = "intel.second-stage.width", .holds = true, .a = intel(cap(39, k3Levels, 0), kLegacy), .b = legacy},
      {.rule = "intel.second-stage.width",
       .holds = false,
       .a = legacy,
       .b = intel(cap(46, k4Levels, kSs2m | kSs1g), kLegacy),
       .says = "ub translates 46 bits (CAP.MGAW), and the HWPT is 48 bits wide"},
      {.rule = "intel.second-stage.levels",
       .holds = true,
       .a = legacy,
       .b = intel(cap(48, k4Levels | k5Levels, 0), kLegacy)},
      {.rule = "intel.second-stage.levels",
       .holds = false,
       .a = intel(cap(48, k4Levels | k5Levels, 0), kLegacy),
       .b = legacy,
       .says = "ub does not walk the HWPT's 5 levels (CAP.SAGAW)"},
      {.rule = "intel.second-stage.page-sizes", .holds = true, .a = intel(kCap & ~kSs1g, kLegacy), .b = legacy},
      {.rule = "intel.second-stage.page-sizes",
       .holds = false,
       .a = legacy,
       .b = intel(kCap & ~kSs1g, kLegacy),
       .says = "ub walks second-stage pages 4KiB 2MiB, and the HWPT may hold 4KiB 2MiB 1GiB"},
      {.rule = "intel.second-stage.page-sizes",
       .holds = true,
       .a = legacy,
       .b = intel(kCap & ~kSs1g, kLegacy),
       .kernel = "intel_iommu_sp_off: true"},
      {.rule = "intel.second-stage.write-buffer",
       .holds = true,
       .a = intel(kCap | kCm, kLegacy),
       .b = intel(kCap | kRwbf, kLegacy)},
      {.rule = "intel.second-stage.write-buffer",
       .holds = false,
       .a = legacy,
       .b = intel(kCap | kCm, kLegacy),
       .says = "ub needs flushes after mapping (CAP.RWBF or CAP.CM), and the HWPT does none"},
      {.rule = "intel.second-stage.snoop-control", .holds = true, .a = intel(kCap, kC), .b = legacy},
      {.rule = "intel.second-stage.snoop-control",
       .holds = false,
       .a = legacy,
       .b = intel(kCap, kC),
       .says = "ub cannot block no-snoop (ECAP.SC), and the HWPT enforces cache coherency"},

      {.rule = "amd.dirty-tracking", .holds = true, .a = amd(kEfr), .b = amd(kEfr), .flags = kDirtyTracking},
      {.rule = "amd.dirty-tracking",
       .holds = false,
       .a = amd(kEfr),
       .b = amd(kEfr & ~kHdsup),
       .flags = kDirtyTracking,
       .says = "ub cannot track dirty pages (EFR.HDSUP), and the HWPT does"},
      {.rule = "smmuv3.cache-coherency",
       .holds = true,
       .a = kSmmu,
       .device_a = "canwbs: false",
       .device_b = "canwbs: true"},
      {.rule = "smmuv3.cache-coherency",
       .holds = false,
       .a = kSmmu,
       .device_a = "canwbs: true",
       .device_b = "canwbs: false",
       .says = "the root complex of b cannot force write-back (IORT CANWBS), and the HWPT enforces cache coherency"},
      {.rule = "riscv.mode", .holds = true, .a = riscv(kSv39), .b = riscv(kSv39 | kSv57)},
      {.rule = "riscv.mode",
       .holds = false,
       .a = riscv(kSv39 | kSv57),
       .b = riscv(kSv39 | kSv48),
       .says = "ub does not support the HWPT's paging mode of 5 levels"},
      {.rule = "s390.dma-range",
       .holds = true,
       .a = s390("[0x0, 0x3ffffffffff]"),
       .b = s390("[0x3ffffffffff, 0x4ffffffffff]")},
      {.rule = "s390.dma-range",
       .holds = false,
       .a = s390("[0x0, 0x3ffffffffff]"),
       .b = s390("[0x40000000000, 0x4ffffffffff]"),
       .says = "the DMA range of b starts at 0x40000000000, past the HWPT's last address 0x3ffffffffff"},
      {.rule = "mock.dirty-tracking", .holds = true, .a = kMock, .flags = kDirtyTracking},
      {.rule = "mock.dirty-tracking",
       .holds = false,
       .a = kMock,
       .flags = kDirtyTracking,
       .device_b = "no_dirty: true",
       .says = "b is a mock device without dirty tracking, and the HWPT has it"},

      // ---- what the VM and the operator ask of the HWPT
      {.rule = "coherency.safe", .holds = true, .a = scalable, .b = scalable},
      {.rule = "coherency.safe",
       .holds = false,
       .a = kSmmu,
       .device_a = "canwbs: true",
       .device_b = "canwbs: true",
       .says = "the IOMMU of b can block no-snoop, the HWPT does not, and the policy says `coherency: safe`"},
      {.rule = "coherency.strict", .holds = true, .a = legacy, .b = legacy, .policy = "coherency: strict"},
      {.rule = "coherency.strict",
       .holds = false,
       .a = intel(kCap, kC),
       .b = legacy,
       .policy = "coherency: strict",
       .says = "the IOMMU of b can block no-snoop, the HWPT does not, and the policy says `coherency: strict`"},
      {.rule = "coherency.required", .holds = true, .a = legacy, .b = legacy, .policy = "coherency: required"},
      {.rule = "coherency.required",
       .holds = false,
       .a = intel(kCap, kC),
       .b = legacy,
       .policy = "coherency: required",
       .says = "the IOMMU of b can block no-snoop, the HWPT does not, and the policy says `coherency: required`"},
      {.rule = "policy.page-size", .holds = true, .a = legacy, .policy = kHugeNeed},
      {.rule = "policy.page-size",
       .holds = false,
       .a = intel(kCap & ~kSs1g, kLegacy),
       .policy = kHugeNeed,
       .says = "a policy rule requires a page of at least 1GiB for b, and the largest page of the HWPT is 2MiB"},
      {.rule = "policy.dirty-tracking",
       .holds = true,
       .a = scalable,
       .flags = kDirtyTracking,
       .policy = require_for_b("dirty_tracking")},
      {.rule = "policy.dirty-tracking",
       .holds = false,
       .a = scalable,
       .policy = require_for_b("dirty_tracking"),
       .says = "a policy rule requires `dirty_tracking` for b, and the HWPT does not have it"},
      {.rule = "policy.nest-parent",
       .holds = true,
       .a = scalable,
       .flags = kNestParent,
       .policy = require_for_b("nest_parent")},
      {.rule = "policy.nest-parent",
       .holds = false,
       .a = scalable,
       .policy = require_for_b("nest_parent"),
       .says = "a policy rule requires `nest_parent` for b, and the HWPT does not have it"},
      {.rule = "policy.pasid", .holds = true, .a = first, .flags = kPasid, .policy = require_for_b("pasid")},
      {.rule = "policy.pasid",
       .holds = false,
       .a = first,
       .policy = require_for_b("pasid"),
       .says = "a policy rule requires `pasid` for b, and the HWPT does not have it"},
      {.rule = "policy.cache-coherency",
       .holds = true,
       .a = legacy,
       .policy = require_for_b("enforce_cache_coherency")},
      {.rule = "policy.cache-coherency",
       .holds = false,
       .a = intel(kCap, kC),
       .policy = require_for_b("enforce_cache_coherency"),
       .says = "a policy rule requires `enforce_cache_coherency` for b, and the HWPT does not have it"},

      // ---- what a container adds
      {.rule = "type1.alloc-flags", .holds = true, .a = scalable},
      {.rule = "type1.alloc-flags",
       .holds = false,
       .a = scalable,
       .flags = kDirtyTracking,
       .says = "VFIO type1 has no HWPT with dirty-tracking: iommufd has"},
      {.rule = "type1.operations", .holds = true, .a = first, .b = first},
      {.rule = "type1.operations",
       .holds = false,
       .a = first,
       .b = scalable,
       .says = "type1 makes tables of stage 2 for b, which never share with tables of stage 1"},
      {.rule = "type1.cache-coherency", .holds = true, .a = scalable, .b = legacy},
      {.rule = "type1.cache-coherency",
       .holds = false,
       .a = intel(kCap, kSecond & ~kSc),
       .b = scalable,
       .says = "type1 never lets devices whose IOMMU can block no-snoop share with devices whose IOMMU cannot, and b "
               "would have to"},
      {.rule = "type1.reserved-regions", .holds = true, .a = scalable},
      {.rule = "type1.reserved-regions",
       .holds = false,
       .a = scalable,
       .memory = "{ranges: [{gpa: [0x40000000, 0xffffffff]}]}",
       .says = "a reserved region of b, which joins the container with its group, lies over memory that vm0 maps"},
  };
}

bool of_type1(std::string_view rule) { return rule.starts_with("type1."); }

const Law& law_for(std::string_view rule) { return of_type1(rule) ? type1_law() : kernel_law(); }

bool has_atoms(const Rule& rule) { return rule.require.begin() != rule.require.end(); }

bool asked_of_hwpt(Phase phase) { return phase != Phase::usable && phase != Phase::group; }

struct Reading {
  HwptQuantities hwpt;
  DeviceQuantities device;
  VmQuantities vm;
  Names names;
};

const DeviceQuantities& quantities_of(const Problem& problem, DeviceIndex d) {
  for (const DeviceClass& cls : problem.classes) {
    if (std::ranges::binary_search(cls.assigned, d)) return cls.quantities;
  }
  throw std::logic_error("the device is of no class");
}

// What the rule reads: the HWPT that `a` allocates, and `b`; an allocation rule is asked of the allocator.
Reading read(const Case& c, const Rule& rule, const Request& request) {
  const Law& law = law_for(rule.name);
  const Problem problem = make_problem(request, VmIndex(std::size_t{0}), request.vms[0].needs, law);
  const DeviceIndex a = request.host.find_device("a").value();
  const DeviceIndex target = rule.phase == Phase::allocation ? a : request.host.find_device("b").value();
  Reading r;
  r.hwpt = law.allocate(quantities_of(problem, a), c.flags);
  r.device = quantities_of(problem, target);
  r.vm = problem.quantities;
  r.names.device = request.host.device(target).id;
  r.names.unit = request.host.unit(request.host.device(target).unit.value()).id;
  r.names.vm = "vm0";
  return r;
}

// `coherency.safe` needs a VM in which every device can be enforced and a HWPT that does not: only a HWPT without
// enforcement among such devices breaks it, which no driver allocates. The case takes the HWPT of a device without
// CANWBS to the devices of a VM that have it.
HwptQuantities not_enforcing(HwptQuantities hwpt) {
  hwpt[HwptQ::enforce_cache_coherency] = 0;
  return hwpt;
}

TEST(Rules, HoldAndRefuseWhatTheyShould) {
  for (const Case& c : cases()) {
    SCOPED_TRACE(fmt::format("{} {}", c.rule, c.holds ? "accepts" : "refuses"));
    const Rule* rule = find_rule(c.rule);
    ASSERT_NE(rule, nullptr);
    const Request request = request_of(c);
    if (request.vms.empty()) continue;
    Reading r = read(c, *rule, request);
    if (c.rule == std::string_view("coherency.safe") && !c.holds) r.hwpt = not_enforcing(r.hwpt);
    const Values values{asked_of_hwpt(rule->phase) ? &r.hwpt : nullptr, &r.device, &r.vm};
    EXPECT_TRUE(applies(*rule, values)) << "the rule has nothing to say here";
    EXPECT_EQ(holds(*rule, values), c.holds);
    if (!c.holds) {
      EXPECT_EQ(refusal(*rule, values, r.names), c.says);
    }
  }
}

// ----------------------------------------------------------------------- rules of all HWPTs together, as whole plans

struct PlanCase {
  const char* rule;
  Case accepted, refused;
  const char* conflict;  // rule that the conflict of the refused one names
};

std::string separate_a_b() { return "rules: [{name: apart, separate: {a: {host: a}, b: {host: b}}}]"; }

const std::string kFewIds = "driver: virtio, page_mask: 0xfffffffffffff000, domain_range: [1, 1]";
const std::string kSmmu2 =
    "driver: smmuv2, page_mask: 0x40201000, coherent: true, stage1: true, stage2: false, input_bits: 48, ipa_bits: 40";

std::vector<PlanCase> plan_cases() {
  const std::string scalable = intel(kCap, kSecond), legacy = intel(kCap, kLegacy);
  const std::string coherent = "dma_coherent: {value: true, source: firmware}, canwbs: false, pasid_bits: 0";
  const std::string both = "rules: [{name: apart, separate: {a: {host: a}, b: {host: b}}}, ";
  return {
      {"policy.separate",
       {.rule = "", .holds = true, .a = legacy, .policy = separate_a_b()},
       {.rule = "", .holds = false, .a = legacy, .policy = both + "{name: one, limit: {hwpts: 1}}]"},
       "policy.separate"},
      {"policy.limit",
       {.rule = "", .holds = true, .a = legacy, .policy = both + "{name: two, limit: {hwpts: 2}}]"},
       {.rule = "", .holds = false, .a = legacy, .policy = both + "{name: one, limit: {hwpts: 1}}]"},
       "policy.limit"},
      {"policy.together",
       {.rule = "", .holds = true, .a = legacy, .policy = "rules: [{name: pair, together: {host: [a, b]}}]"},
       {.rule = "",
        .holds = false,
        .a = kSmmu,
        .b = kSmmu,
        .device_a = coherent,
        .device_b = coherent,
        .policy = "rules: [{name: pair, together: {host: [a, b]}}]"},
       "policy.together"},
      {"policy.assumptions",
       {.rule = "",
        .holds = true,
        .a = legacy,
        .device_a = "reserved: []",
        .device_b = "reserved: []",
        .kernel = "arch: x86_64, release: 7.2.13, page_size: 4KiB",
        .memory = "{ranges: [{gpa: [0x40000000, 0x7fffffff]}], backing: 4KiB}",
        .policy = "assumptions: refuse"},
       {.rule = "", .holds = false, .a = legacy, .policy = "assumptions: refuse"},
       "policy.assumptions"},
      // Two devices of one group are placed together: keeping them apart is impossible.
      {"core.group",
       {.rule = "", .holds = true, .a = legacy, .policy = separate_a_b()},
       {.rule = "one group", .holds = false, .a = legacy, .policy = separate_a_b()},
       "policy.separate"},
      {"core.automatic",
       {.rule = "",
        .holds = true,
        .a = kSmmu2,
        .b = kSmmu2,
        .device_a = coherent,
        .device_b = coherent,
        .policy = separate_a_b()},
       {.rule = "", .holds = false, .a = kSmmu2, .device_a = coherent, .device_b = coherent, .policy = separate_a_b()},
       "core.automatic"},
      {"core.domain-ids",
       {.rule = "", .holds = true, .a = kFewIds, .device_a = coherent, .device_b = coherent},
       {.rule = "", .holds = false, .a = kFewIds, .device_a = coherent, .device_b = coherent, .policy = separate_a_b()},
       "core.domain-ids"},
      {"coherency.mediated",
       {.rule = "mdev", .holds = true, .a = legacy, .policy = "coherency: strict"},
       {.rule = "mdev", .holds = false, .a = legacy, .policy = "coherency: required"},
       "coherency.mediated"},
      {"ioas.access-alignment",
       {.rule = "mdev",
        .holds = true,
        .a = legacy,
        .kernel = "page_size: 64KiB",
        .memory = "{ranges: [{gpa: [0x40000000, 0x4000ffff]}]}"},
       {.rule = "mdev",
        .holds = false,
        .a = legacy,
        .kernel = "page_size: 64KiB",
        .memory = "{ranges: [{gpa: [0x40000000, 0x40000fff]}]}"},
       "ioas.access-alignment"},
      {"needs.p2p",
       {.rule = "", .holds = true, .a = legacy, .vm = "needs: {p2p: [[a, b]]}"},
       {.rule = "old kernel", .holds = false, .a = legacy, .kernel = "release: 6.12.0", .vm = "needs: {p2p: [[a, b]]}"},
       "needs.p2p"},
      // Containers. Like groups share whatever the policy says.
      {"type1.first-fit",
       {.rule = "", .holds = true, .a = legacy, .b = intel(kCap, kC), .policy = separate_a_b()},
       {.rule = "", .holds = false, .a = legacy, .policy = separate_a_b()},
       "type1.first-fit"},
      {"type1.group",
       {.rule = "one group", .holds = true, .a = legacy},
       {.rule = "one group", .holds = false, .a = legacy, .b = intel(kCap, kC)},
       "type1.group"},
      {"type1.mediated",
       {.rule = "", .holds = true, .a = legacy},
       {.rule = "mdev", .holds = false, .a = legacy},
       "type1.mediated"},
      {"type1.page-sizes",
       {.rule = "",
        .holds = true,
        .a = smmuv3(kS1p, kGran64k | kOas48),
        .b = smmuv3(kS1p, kGran64k | kOas48),
        .device_a = coherent,
        .device_b = coherent,
        .kernel = "page_size: 64KiB"},
       {.rule = "",
        .holds = false,
        .a = smmuv3(kS1p, kGran4k | kOas48),
        .b = smmuv3(kS1p, kGran64k | kOas48),
        .device_a = coherent,
        .device_b = coherent,
        .kernel = "page_size: 64KiB"},
       "type1.page-sizes"},
  };
}

Request request_of_plan(const Case& c) {
  const std::string special = c.rule;
  Request request = request_of(c);
  for (Device& d : request.host.devices) {  // no PCI addresses, so no architecture that says it
    if (d.facts[DeviceFact::dma_coherent]) continue;
    d.facts[DeviceFact::dma_coherent] = 1;
    d.dma_coherent_source = CoherencySource::firmware;
  }
  if (special == "one group") request.host.devices[1].group = request.host.devices[0].group;
  if (special == "mdev") {
    AssignedDevice mediated;
    mediated.mdev = "4b20d080-1b54-4048-85b3-a6a62d165c01";
    request.vms[0].devices.push_back(mediated);
  }
  return request;
}

TEST(Rules, OfTheCoverAcceptAndRefuse) {
  for (const PlanCase& c : plan_cases()) {
    SCOPED_TRACE(c.rule);
    const Plan yes = make_plan(request_of_plan(c.accepted), law_for(c.rule));
    EXPECT_EQ(yes.verdict, Verdict::feasible);
    for (const Conflict& x : yes.conflict) ADD_FAILURE() << x.rule << ": " << x.because;
    for (const UnknownFact& u : yes.unknown) ADD_FAILURE() << u.fact;
    const Plan no = make_plan(request_of_plan(c.refused), law_for(c.rule));
    EXPECT_EQ(no.verdict, Verdict::infeasible);
    std::string named;
    for (const Conflict& x : no.conflict) named += x.rule + ": " + x.because + "\n";
    EXPECT_TRUE(std::ranges::any_of(no.conflict, [&](const Conflict& x) { return x.rule == c.conflict; })) << named;
  }
}

// ------------------------------------------------------------------------------------------------------ the catalog

TEST(Catalog, EveryRuleHasAnAcceptingAndARefusingCase) {
  std::map<std::string_view, std::set<bool>> seen;
  for (const Case& c : cases()) seen[find_rule(c.rule)->name].insert(c.holds);
  for (const PlanCase& c : plan_cases()) seen[find_rule(c.rule)->name] = {true, false};
  for (const Rule* rule : catalog()) {
    if (rule->name.starts_with("lifecycle.")) seen[rule->name] = {true, false};  // of running VMs: lifecycle_test.cc
  }
  for (const Rule* rule : catalog()) {
    EXPECT_TRUE(seen[rule->name].contains(true)) << rule->name << " has no accepting case";
    EXPECT_TRUE(seen[rule->name].contains(false)) << rule->name << " has no refusing case";
    EXPECT_EQ(has_atoms(*rule), rule->phase != Phase::cover) << rule->name;
  }
}

TEST(Catalog, NamesAreUniqueAndEveryRuleIsWhole) {
  std::set<std::string_view> names, laws;
  for (const Rule* rule : catalog()) {
    SCOPED_TRACE(rule->name);
    EXPECT_TRUE(names.insert(rule->name).second) << "duplicate name";
    EXPECT_TRUE(rule->phase == Phase::attach || laws.insert(rule->law).second) << "duplicate law";
    EXPECT_FALSE(rule->source.empty());
    ASSERT_FALSE(rule->law.empty());
    EXPECT_EQ(rule->law.back(), '.') << "a law is a sentence";
    EXPECT_TRUE(std::isupper(static_cast<unsigned char>(rule->law.front())) != 0);
    ASSERT_FALSE(rule->refusal.empty());
    EXPECT_NE(rule->refusal.back(), '.') << "a refusal becomes part of a sentence";
    EXPECT_EQ(find_rule(rule->name), rule);
    EXPECT_FALSE(rule->strict && rule->errno_value != 0) << "a strict rule is one that Linux does not check";
    if (rule->phase == Phase::attach || rule->phase == Phase::allocation) {
      EXPECT_TRUE(rule->strict || rule->errno_value != 0 || of_type1(rule->name)) << "the kernel answers with an errno";
    }
  }
}

std::vector<std::string> placeholders(std::string_view text) {
  std::vector<std::string> found;
  for (std::size_t open = text.find('{'); open != std::string_view::npos; open = text.find('{', open + 1)) {
    const std::size_t close = text.find('}', open);
    found.emplace_back(text.substr(open + 1, close - open - 1));
  }
  return found;
}

// A placeholder that the sentence writer does not know becomes "it".
TEST(Catalog, PlaceholdersAreKnown) {
  const Names names{"D", "U", "V", "R", "O", "F"};
  const HwptQuantities hwpt;
  const DeviceQuantities device;
  const VmQuantities vm;
  for (const Rule* rule : catalog()) {
    SCOPED_TRACE(rule->name);
    EXPECT_EQ(std::ranges::count(rule->refusal, '{'), std::ranges::count(rule->refusal, '}'));
    for (const std::string& key : placeholders(rule->refusal)) {
      if (key == "left" || key == "right" || (!has_atoms(*rule) && key == "value")) continue;
      Rule only = *rule;
      const std::string text = "{" + key + "}";
      only.refusal = text;
      EXPECT_NE(refusal(only, {&hwpt, &device, &vm}, names), "it") << "nobody fills {" << key << "}";
    }
  }
}

// Atoms name only subjects that the phase has.
TEST(Catalog, AtomsReadWhatTheirPhaseHas) {
  for (const Rule* rule : catalog()) {
    SCOPED_TRACE(rule->name);
    const auto check = [&](const Term& t) {
      EXPECT_TRUE(t.subject != Subject::hwpt || asked_of_hwpt(rule->phase));
      EXPECT_TRUE(t.subject != Subject::device || rule->phase != Phase::fit);
    };
    for (const Atoms* atoms : {&rule->when, &rule->require}) {
      for (const Atom& a : *atoms) {
        check(a.left);
        check(a.right);
      }
    }
  }
}

// "intel.second-stage.levels" -> intel/second_stage_levels.h; allocation rules keep their whole name:
// allocation/alloc_width.h.
std::string file_of(const Rule& rule) {
  std::string name(rule.name);
  std::string folder = name.substr(0, name.find('.'));
  if (rule.phase == Phase::allocation)
    folder = "allocation";
  else
    name = name.substr(name.find('.') + 1);
  std::ranges::replace(name, '.', '_');
  std::ranges::replace(name, '-', '_');
  return folder + "/" + name + ".h";
}

TEST(Catalog, FilesAreWhereTheNamesSay) {
  const std::filesystem::path root = source_folder() / "constraints" / "rules";
  std::set<std::string> expected;
  for (const Rule* rule : catalog()) {
    expected.insert(file_of(*rule));
    std::ifstream in(root / file_of(*rule));
    std::stringstream text;
    text << in.rdbuf();
    EXPECT_NE(text.str().find(fmt::format(".name = \"{}\"", rule->name)), std::string::npos) << file_of(*rule);
  }
  for (const auto& entry : std::filesystem::recursive_directory_iterator(root)) {
    if (!entry.is_regular_file()) continue;
    EXPECT_TRUE(expected.contains(entry.path().lexically_relative(root).generic_string()))
        << entry.path() << " is in no catalog";
  }
}

}  // namespace
}  // namespace ioplan
