// Facts about a host, as the documents give them: present or absent, never invented.
//
// Every scalar fact lives in a small array of optional 64-bit values, named by an enumeration and described by one
// table row (facts.cc): its key in the documents, its kind, the drivers it matters to, the stock default if it has one,
// and values worth trying when it is absent. The document reader, the fingerprint, the list of assumptions and the
// search for facts that would decide an answer (engine/planner/planner.cc) all walk these tables; a new fact is one row.
// A row without drivers changes no plan: people and other tools want to know it, and the fingerprint leaves it out.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace ioplan {

// The IOMMU driver of a unit; the names are those of the documents.
enum class Driver : std::uint8_t { intel, amd, smmuv3, smmuv2, virtio, riscv, s390, mock };
inline constexpr std::array<std::string_view, 8> kDriverNames = {"intel",  "amd",   "smmuv3", "smmuv2",
                                                                 "virtio", "riscv", "s390",   "mock"};
constexpr std::string_view name_of(Driver d) { return kDriverNames[static_cast<std::size_t>(d)]; }

using DriverSet = std::uint16_t;
constexpr DriverSet driver_set(Driver d) { return static_cast<DriverSet>(1U << static_cast<unsigned>(d)); }
inline constexpr DriverSet kEveryDriver = 0xff;
inline constexpr DriverSet kNoDriver = 0;

enum class KernelFact : std::uint8_t {
  page_size,
  intel_iommu_sm,         // scalable mode wanted by command line or configuration
  intel_iommu_sp_off,     // `intel_iommu=sp_off`: 4K pages only
  amd_iommu_pgtbl_v2,     // `amd_iommu=pgtbl_v2`: host tables default to v2
  amd_iommu_nohugepages,  // `amd_iommu=nohugepages`
  amd_iommu_v2_pgsizes_only,
  amd_snp,   // SEV-SNP enabled on the host
  la57,      // the CPU pages with five levels
  va_bits,   // CONFIG_ARM64_VA_BITS
  isolated_msi,
  allow_unsafe_interrupts,
  phys_bits,   // the CPU's physical addresses
  memory_kib,  // as /proc/meminfo counts it
  count
};

enum class UnitFact : std::uint8_t {
  cap,   // VT-d CAP_REG
  ecap,  // VT-d ECAP_REG
  rwbf_quirk,
  efr,   // AMD-Vi extended feature register
  efr2,
  va_size,  // IVRS virtual address size, bits
  idr0,     // SMMUv3 identification registers
  idr1,
  idr3,
  idr5,
  features,  // the kernel's ARM_SMMU_FEAT_* mask as its boot log prints it, instead of idr
  oas,       // output address bits as the boot log prints it
  coherent,  // SMMU: page walks and client DMA are coherent, as firmware says
  httu,      // SMMUv3 hardware updates allowed by firmware: 0 none, 1 access, 2 access and dirty
  nesting_erratum,  // SMMUv3 silicon on which the driver turns nesting off
  page_sizes,       // smmuv2, virtio (`page_mask`): bitmap
  stage1,           // smmuv2
  stage2,
  input_bits,   // smmuv2 stage-1 input width
  ipa_bits,     // smmuv2 stage-2 input width
  context_banks,
  input_start,  // virtio input_range
  input_last,
  domain_first,  // virtio domain_range
  domain_last,
  riscv_capabilities,
  dma_start,  // s390 zdev DMA range
  dma_last,
  table_rs,  // s390: region-second tables allowed (dtsm)
  table_rf,
  rtr_avail,
  domains_used,  // domain ids already taken on the host
  count
};

enum class DeviceFact : std::uint8_t {
  device_class,  // 24 bits
  vendor,
  device,
  numa,
  dma_coherent,
  canwbs,  // the root complex can force write-back (IORT CANWBS)
  pasid_bits,
  isolated_msi,
  no_dirty,  // mock: a device flagged NO_DIRTY
  ats,       // it has the capability; so `pri`
  pri,
  acs,              // ACS capability register
  acs_enabled,      // ACS control register
  no_snoop,         // the function may issue no-snoop requests (Device Control)
  sriov_total_vfs,  // of a physical function
  count
};

// Where a coherency fact comes from, strongest first.
enum class CoherencySource : std::uint8_t { reg, architecture, firmware, driver, assumed };
inline constexpr std::array<std::string_view, 5> kCoherencySourceNames = {"register", "architecture", "firmware",
                                                                          "driver", "assumed"};

enum class FactKind : std::uint8_t { boolean, integer, hex, size };

struct FactRow {
  std::string_view key;  // in the documents
  FactKind kind;
  unsigned width;                           // bits that a value may use
  DriverSet drivers;                        // whose behaviour it can change
  std::optional<std::uint64_t> stock;       // the value of a stock machine; nothing when absence means unknown
  std::span<const std::uint64_t> candidates;  // values to try while unknown
};

template <class Fact>
inline constexpr std::size_t kFactCount = static_cast<std::size_t>(Fact::count);

const FactRow& row_of(KernelFact);
const FactRow& row_of(UnitFact);
const FactRow& row_of(DeviceFact);

// Values by fact. Reading an absent fact with `at` is a broken invariant: whoever plans completes the facts first.
template <class Fact>
class Facts {
 public:
  std::optional<std::uint64_t>& operator[](Fact f) { return values_[static_cast<std::size_t>(f)]; }
  const std::optional<std::uint64_t>& operator[](Fact f) const { return values_[static_cast<std::size_t>(f)]; }
  std::uint64_t at(Fact f) const { return (*this)[f].value(); }
  std::uint64_t value_or_stock(Fact f) const { return (*this)[f].value_or(row_of(f).stock.value_or(0)); }

  friend bool operator==(const Facts&, const Facts&) = default;

 private:
  std::array<std::optional<std::uint64_t>, kFactCount<Fact>> values_{};
};

}  // namespace ioplan
