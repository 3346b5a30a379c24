#include "engine/model/facts.h"

namespace ioplan {

namespace {

constexpr std::uint64_t kNo = 0;
constexpr std::uint64_t kYes = 1;
constexpr std::array<std::uint64_t, 2> kNoYes = {0, 1};
constexpr std::array<std::uint64_t, 2> kYesNo = {1, 0};

constexpr DriverSet kIntel = driver_set(Driver::intel);
constexpr DriverSet kAmd = driver_set(Driver::amd);
constexpr DriverSet kSmmuv3 = driver_set(Driver::smmuv3);
constexpr DriverSet kSmmuv2 = driver_set(Driver::smmuv2);
constexpr DriverSet kVirtio = driver_set(Driver::virtio);
constexpr DriverSet kRiscv = driver_set(Driver::riscv);
constexpr DriverSet kS390 = driver_set(Driver::s390);
constexpr DriverSet kMock = driver_set(Driver::mock);
constexpr DriverSet kArm = kSmmuv3 | kSmmuv2;

// Values to try where a fact is absent. The most capable comes first: what is refused even then is refused for good.
// Then come values that lack something. They are those of real machines where possible (Sapphire Rapids, Skylake client,
// Genoa, Milan, MMU-600).
constexpr std::array<std::uint64_t, 6> kCaps = {0x19ed008c40780c66, 0x8d2078c106f0466, 0xd2008c40660462,
                                                0x1c0000c40660462, 0x8d2078c106f0066, 0};
constexpr std::array<std::uint64_t, 6> kEcaps = {0x3ef9ea6f050df, 0xf020df, 0xf050da, 0x29a00f0505e, 0x9a00f0505e, 0};
constexpr std::array<std::uint64_t, 4> kEfrs = {0x25bf732fa2295afe, 0x246577efa2254afa, 0x58f77ef22294a5a,
                                                0xc00};
constexpr std::array<std::uint64_t, 3> kEfr2s = {0x1d, 0, 0x800};
constexpr std::array<std::uint64_t, 4> kIdr0s = {0x0d8ff1ff, 0x0d8ff13e, 0x0d8ff13f, 0};
constexpr std::array<std::uint64_t, 2> kIdr1s = {0x0e739d10, 0x0e739810};
constexpr std::array<std::uint64_t, 2> kIdr3s = {0, 0x1900};
constexpr std::array<std::uint64_t, 4> kIdr5s = {0x476, 0x75, 0x40, 0x10};
constexpr std::array<std::uint64_t, 3> kFeatures = {0x781fef, 0x181fef, 0};
constexpr std::array<std::uint64_t, 3> kWidths = {48, 39, 32};
constexpr std::array<std::uint64_t, 3> kPageSizes = {0xfffffffffffff000, 0x40201000, 0xffffffffffff0000};
constexpr std::array<std::uint64_t, 3> kHttu = {2, 1, 0};
constexpr std::array<std::uint64_t, 3> kRiscvCaps = {0x7f0f10, 0x200, 0};
constexpr std::array<std::uint64_t, 2> kDmaStarts = {0, 0x100000000};
constexpr std::array<std::uint64_t, 2> kDmaLasts = {0xffffffffffffffff, 0x3ffffffffff};
constexpr std::array<std::uint64_t, 2> kPasidBits = {20, 0};
constexpr std::array<std::uint64_t, 4> kClasses = {0x020000, 0x030000, 0x010802, 0x0c0330};
constexpr std::array<std::uint64_t, 2> kIds = {0x8086, 0x10de};
constexpr std::array<std::uint64_t, 2> kNodes = {0, 1};

constexpr std::array<FactRow, kFactCount<KernelFact>> kKernelRows = {{
    {"page_size", FactKind::size, 64, kEveryDriver, std::nullopt, {}},  // stock: the architecture's (see host.cc)
    {"intel_iommu_sm", FactKind::boolean, 1, kIntel, kYes, kNoYes},
    {"intel_iommu_sp_off", FactKind::boolean, 1, kIntel, kNo, kNoYes},
    {"amd_iommu_pgtbl_v2", FactKind::boolean, 1, kAmd, kNo, kNoYes},
    {"amd_iommu_nohugepages", FactKind::boolean, 1, kAmd, kNo, kNoYes},
    {"amd_iommu_v2_pgsizes_only", FactKind::boolean, 1, kAmd, kNo, kNoYes},
    {"amd_snp", FactKind::boolean, 1, kAmd, kNo, kNoYes},
    {"la57", FactKind::boolean, 1, kAmd, std::nullopt, kNoYes},
    {"va_bits", FactKind::integer, 6, kSmmuv3, 52, kWidths},
    {"isolated_msi", FactKind::boolean, 1, kEveryDriver, kYes, kNoYes},
    {"allow_unsafe_interrupts", FactKind::boolean, 1, kEveryDriver, kNo, kNoYes},
    {"phys_bits", FactKind::integer, 7, kNoDriver, std::nullopt, {}},
    {"memory_kib", FactKind::integer, 54, kNoDriver, std::nullopt, {}},
}};

constexpr std::array<FactRow, kFactCount<UnitFact>> kUnitRows = {{
    {"cap", FactKind::hex, 64, kIntel, std::nullopt, kCaps},
    {"ecap", FactKind::hex, 64, kIntel, std::nullopt, kEcaps},
    {"rwbf_quirk", FactKind::boolean, 1, kIntel, kNo, kNoYes},
    {"efr", FactKind::hex, 64, kAmd, std::nullopt, kEfrs},
    {"efr2", FactKind::hex, 64, kAmd, std::nullopt, kEfr2s},
    {"va_size", FactKind::integer, 7, kAmd, 64, kWidths},
    {"idr0", FactKind::hex, 32, kSmmuv3, std::nullopt, kIdr0s},
    {"idr1", FactKind::hex, 32, kSmmuv3, std::nullopt, kIdr1s},
    {"idr3", FactKind::hex, 32, kSmmuv3, std::nullopt, kIdr3s},
    {"idr5", FactKind::hex, 32, kSmmuv3, std::nullopt, kIdr5s},
    {"features", FactKind::hex, 32, kSmmuv3, std::nullopt, kFeatures},
    {"oas", FactKind::integer, 6, kSmmuv3, std::nullopt, kWidths},
    {"coherent", FactKind::boolean, 1, kArm, std::nullopt, kYesNo},
    {"httu", FactKind::integer, 2, kSmmuv3, std::nullopt, kHttu},
    {"nesting_erratum", FactKind::boolean, 1, kSmmuv3, kNo, kNoYes},
    {"page_mask", FactKind::hex, 64, kVirtio | kSmmuv2, std::nullopt, kPageSizes},
    {"stage1", FactKind::boolean, 1, kSmmuv2, std::nullopt, kYesNo},
    {"stage2", FactKind::boolean, 1, kSmmuv2, std::nullopt, kYesNo},
    {"input_bits", FactKind::integer, 7, kSmmuv2, std::nullopt, kWidths},
    {"ipa_bits", FactKind::integer, 7, kSmmuv2, std::nullopt, kWidths},
    {"context_banks", FactKind::integer, 8, kSmmuv2, 128, {}},
    {"input_start", FactKind::hex, 64, kVirtio, kNo, {}},
    {"input_last", FactKind::hex, 64, kVirtio, ~std::uint64_t{0}, {}},
    {"domain_first", FactKind::hex, 32, kVirtio, kNo, {}},
    {"domain_last", FactKind::hex, 32, kVirtio, 0xffffffff, {}},
    {"capabilities", FactKind::hex, 64, kRiscv, std::nullopt, kRiscvCaps},
    {"dma_start", FactKind::hex, 64, kS390, std::nullopt, kDmaStarts},
    {"dma_last", FactKind::hex, 64, kS390, std::nullopt, kDmaLasts},
    {"table_rs", FactKind::boolean, 1, kS390, kNo, kNoYes},
    {"table_rf", FactKind::boolean, 1, kS390, kNo, kNoYes},
    {"rtr_avail", FactKind::boolean, 1, kS390, kNo, kNoYes},
    {"domains_used", FactKind::integer, 32, kEveryDriver, kNo, {}},
}};

constexpr std::array<FactRow, kFactCount<DeviceFact>> kDeviceRows = {{
    {"class", FactKind::hex, 24, kEveryDriver, std::nullopt, kClasses},
    {"vendor", FactKind::hex, 16, kEveryDriver, std::nullopt, kIds},
    {"device", FactKind::hex, 16, kEveryDriver, std::nullopt, kIds},
    {"numa", FactKind::integer, 32, kEveryDriver, std::nullopt, kNodes},
    {"dma_coherent", FactKind::boolean, 1, kEveryDriver, std::nullopt, kYesNo},
    {"canwbs", FactKind::boolean, 1, kSmmuv3, std::nullopt, kYesNo},
    {"pasid_bits", FactKind::integer, 5, kEveryDriver, std::nullopt, kPasidBits},
    {"isolated_msi", FactKind::boolean, 1, kEveryDriver, std::nullopt, {}},  // stock: the kernel's
    {"no_dirty", FactKind::boolean, 1, kMock, kNo, kNoYes},
    {"ats", FactKind::boolean, 1, kNoDriver, std::nullopt, {}},
    {"pri", FactKind::boolean, 1, kNoDriver, std::nullopt, {}},
    {"acs", FactKind::hex, 16, kNoDriver, std::nullopt, {}},
    {"acs_enabled", FactKind::hex, 16, kNoDriver, std::nullopt, {}},
    {"no_snoop", FactKind::boolean, 1, kNoDriver, std::nullopt, {}},
    {"sriov_total_vfs", FactKind::integer, 16, kNoDriver, std::nullopt, {}},
}};

}  // namespace

const FactRow& row_of(KernelFact f) { return kKernelRows[static_cast<std::size_t>(f)]; }
const FactRow& row_of(UnitFact f) { return kUnitRows[static_cast<std::size_t>(f)]; }
const FactRow& row_of(DeviceFact f) { return kDeviceRows[static_cast<std::size_t>(f)]; }

}  // namespace ioplan
