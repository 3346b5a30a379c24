// Registers to quantities, one driver a file. Each function fills what the law asks about a device behind a unit of
// that driver (engine/law/quantity.h); what is common to all drivers is filled by kernel_law.cc before and after.
//
// Sources: Linux 7.2.13 drivers/iommu, and the specifications named at the head of each file.
// Held by tests/drivers_test.cc (worked register values) and tests/corpus_test.cc (real machines).
#pragma once

#include "engine/law/quantity.h"
#include "engine/model/host.h"
#include "engine/model/plan.h"

namespace ioplan::drivers {

void describe_intel(const Host& host, const Unit& unit, const Device& device, DeviceQuantities& q);
void describe_amd(const Host& host, const Unit& unit, const Device& device, DeviceQuantities& q);
void describe_smmuv3(const Host& host, const Unit& unit, const Device& device, DeviceQuantities& q);
void describe_smmuv2(const Host& host, const Unit& unit, const Device& device, DeviceQuantities& q);
void describe_virtio(const Host& host, const Unit& unit, const Device& device, DeviceQuantities& q);
void describe_riscv(const Host& host, const Unit& unit, const Device& device, DeviceQuantities& q);
void describe_s390(const Host& host, const Unit& unit, const Device& device, DeviceQuantities& q);
void describe_mock(const Host& host, const Unit& unit, const Device& device, DeviceQuantities& q);

// EFR2.HT_RANGE_IGNORE of all AMD units together.
bool amd_ignores_hypertransport_range(const Host& host);

// A stage's tables, written into the stage1_* or stage2_* quantities in one go.
struct StageTables {
  bool available = false;
  PageTableFormat format = PageTableFormat::x86_64;
  unsigned levels = 0;
  unsigned bits = 0;
  Range aperture{0, 0};
  std::uint64_t page_sizes = 0;
  bool coherent_walk = true;
  bool sync_map = false;
};
void set_stage(DeviceQuantities& q, unsigned stage, const StageTables& tables);

// Which stage allocation chooses for each flag set, and which flag sets it knows.
class FlagSets {
 public:
  void add(std::uint8_t flags, unsigned stage) {
    known_ |= 1U << flags;
    stages_ |= static_cast<std::uint64_t>(stage) << (2 * flags);
  }
  void write_to(DeviceQuantities& q) const {
    q[DeviceQ::flag_sets] = known_;
    q[DeviceQ::stage_by_flags] = stages_;
  }

 private:
  std::uint64_t known_ = 0;
  std::uint64_t stages_ = 0;
};

// Page sizes that generic_pt offers: none of half the address space or more (iommu_pt.h get_info).
std::uint64_t fitting_page_sizes(std::uint64_t page_sizes, unsigned address_bits);

inline constexpr std::uint64_t k4K = 1ULL << 12;
inline constexpr std::uint64_t k2M = 1ULL << 21;
inline constexpr std::uint64_t k1G = 1ULL << 30;

inline constexpr Range kX86MsiWindow{0xfee00000, 0xfeefffff};
inline constexpr Range kAmdHyperTransport{0xfd00000000, 0xffffffffff};
inline constexpr Range kSoftwareMsiWindow{0x08000000, 0x080fffff};

}  // namespace ioplan::drivers
