// Arm SMMUv3 and SMMUv2. Registers: Arm IHI 0070 (SMMU_IDR0, IDR1, IDR5); what Linux makes of them:
// arm-smmu-v3.c arm_smmu_device_hw_probe, arm_smmu_domain_finalise; arm-smmu.c arm_smmu_init_domain_context;
// io-pgtable-arm.c arm_lpae_restrict_pgsizes, arm_lpae_alloc_pgtable.

#include <algorithm>
#include <array>
#include <bit>

#include "constraints/drivers/drivers.h"
#include "engine/base/log2.h"

namespace ioplan::drivers {

namespace {

constexpr std::uint64_t k16K = 1ULL << 14;
constexpr std::uint64_t k64K = 1ULL << 16;
constexpr std::uint64_t k32M = 1ULL << 25;
constexpr std::uint64_t k512M = 1ULL << 29;
constexpr std::uint64_t k4T = 1ULL << 42;

// The granule matches the CPU's page if it can; else the largest smaller one, else the smallest bigger one.
std::uint64_t choose_granule(std::uint64_t page_sizes, std::uint64_t kernel_page) {
  if ((page_sizes & kernel_page) != 0) return kernel_page;
  const std::uint64_t smaller = page_sizes & (kernel_page - 1);
  return smaller != 0 ? highest_bit(smaller) : lowest_bit(page_sizes & ~(kernel_page - 1));
}

struct Regime {
  std::uint64_t granule, pages;
  unsigned max_bits;
};

Regime translation_regime(std::uint64_t page_sizes, std::uint64_t kernel_page, unsigned output_bits) {
  const std::uint64_t granule = choose_granule(page_sizes, kernel_page);
  switch (granule) {
    case k4K: return {granule, page_sizes & (k4K | k2M | k1G), 48};
    case k16K: return {granule, page_sizes & (k16K | k32M), 48};
    case k64K: return {granule, page_sizes & (k64K | k512M | (output_bits > 48 ? k4T : 0)), 52};
    default: return {0, 0, 0};
  }
}

// Where the architecture demands it, stage 2 starts one level lower, with up to 16 root tables one after the other
// (arm_lpae_concat_mandatory: DDI 0487 R_DXBSH and R_SRKBC). Elsewhere Linux keeps the small root.
bool concatenates(std::uint64_t granule, unsigned levels, unsigned address_bits) {
  const bool forty = address_bits == 40;
  if (granule == k4K) return levels == 4 && (forty || address_bits == 42);
  return granule == k16K && ((levels == 4 && address_bits == 48) || (levels == 3 && forty));
}

unsigned lpae_levels(unsigned address_bits, std::uint64_t granule, unsigned stage) {
  const auto granule_lg2 = static_cast<unsigned>(std::countr_zero(granule));
  const unsigned bits_per_level = granule_lg2 - 3;
  if (address_bits <= granule_lg2) return 1;
  const unsigned levels = (address_bits - granule_lg2 + bits_per_level - 1) / bits_per_level;
  return stage == 2 && concatenates(granule, levels, address_bits) ? levels - 1 : levels;
}

StageTables lpae_tables(unsigned stage, bool available, std::uint64_t page_sizes, std::uint64_t kernel_page,
                        unsigned input_bits, unsigned output_bits) {
  const Regime regime = translation_regime(page_sizes, kernel_page, output_bits);
  const unsigned width = regime.granule == 0 ? input_bits : std::min(input_bits, regime.max_bits);
  if (regime.granule == 0 || width == 0) {
    return {.available = available, .format = PageTableFormat::arm_lpae, .bits = width};
  }
  return {.available = available,
          .format = PageTableFormat::arm_lpae,
          .levels = lpae_levels(width, regime.granule, stage),
          .bits = width,
          .aperture = {0, last_of_width(width)},
          .page_sizes = regime.pages};
}

// What arm_smmu_device_hw_probe finds, from the registers or from the feature mask of the boot log.
struct Smmuv3 {
  bool stage1, stage2, nesting, dirty, wide_input, coherent;
  unsigned output_bits;
  std::uint64_t page_sizes;
  std::uint64_t substream_bits;
};

unsigned output_bits_of(std::uint64_t idr5) {
  constexpr std::array<unsigned, 8> kOas = {32, 36, 40, 42, 44, 48, 52, 48};
  return kOas[bits(idr5, 2, 0)];
}

std::uint64_t page_sizes_of(std::uint64_t idr5) {
  return (bit(idr5, 4) ? k4K | k2M | k1G : 0) | (bit(idr5, 5) ? k16K | k32M : 0) |
         (bit(idr5, 6) ? k64K | k512M : 0) | (bits(idr5, 2, 0) == 6 ? k4T : 0);
}

std::uint64_t page_sizes_of_granule(std::uint64_t granule) {
  return granule == k16K ? k16K | k32M : granule == k64K ? k64K | k512M : k4K | k2M | k1G;
}

Smmuv3 probe_registers(const Facts<UnitFact>& facts) {
  const std::uint64_t idr0 = facts.at(UnitFact::idr0);
  const std::uint64_t idr5 = facts.at(UnitFact::idr5);
  const std::uint64_t updates = facts[UnitFact::httu].value_or(bits(idr0, 7, 6));
  return {.stage1 = bit(idr0, 1),
          .stage2 = bit(idr0, 0),
          .nesting = bit(idr0, 0) && bit(idr0, 1),
          .dirty = updates >= 2,
          .wide_input = bits(idr5, 11, 10) == 1,
          .coherent = facts.value_or_stock(UnitFact::coherent) != 0,
          .output_bits = output_bits_of(idr5),
          .page_sizes = page_sizes_of(idr5),
          .substream_bits = facts[UnitFact::idr1] ? bits(*facts[UnitFact::idr1], 10, 6) : 0};
}

// A boot log tells no granules: the kernel's own page size is assumed to be among them (listed as an assumption).
Smmuv3 probe_feature_mask(const Facts<UnitFact>& facts, std::uint64_t kernel_page) {
  const std::uint64_t mask = facts.at(UnitFact::features);
  const auto output_bits = static_cast<unsigned>(facts.value_or_stock(UnitFact::oas));
  return {.stage1 = bit(mask, 9),
          .stage2 = bit(mask, 10),
          .nesting = bit(mask, 9) && bit(mask, 10),
          .dirty = facts[UnitFact::httu] ? *facts[UnitFact::httu] >= 2 : bit(mask, 22),
          .wide_input = bit(mask, 14),
          .coherent = facts[UnitFact::coherent].value_or(bit(mask, 8)) != 0,
          .output_bits = output_bits,
          .page_sizes = facts[UnitFact::idr5] ? page_sizes_of(*facts[UnitFact::idr5])
                                              : page_sizes_of_granule(kernel_page),
          .substream_bits = facts[UnitFact::idr1] ? bits(*facts[UnitFact::idr1], 10, 6) : 0};
}

}  // namespace

void describe_smmuv3(const Host& host, const Unit& unit, const Device& device, DeviceQuantities& q) {
  const std::uint64_t kernel_page = q[DeviceQ::kernel_page_size];
  const Smmuv3 smmu = unit.facts[UnitFact::features] && !unit.facts[UnitFact::idr0]
                          ? probe_feature_mask(unit.facts, kernel_page)
                          : probe_registers(unit.facts);
  const auto va_bits = static_cast<unsigned>(host.kernel.facts.value_or_stock(KernelFact::va_bits));
  q[DeviceQ::cache_coherency] = smmu.coherent;
  q[DeviceQ::enforce_cache_coherency] = device.facts.value_or_stock(DeviceFact::canwbs);
  q[DeviceQ::dirty_capable] = smmu.dirty && smmu.coherent;
  q[DeviceQ::nested] = smmu.nesting && unit.facts.value_or_stock(UnitFact::nesting_erratum) == 0;
  q[DeviceQ::pasid_attach] = 1;
  q[DeviceQ::pasid_bits] = std::min(device.facts.value_or_stock(DeviceFact::pasid_bits), smmu.substream_bits);
  set_stage(q, 1, lpae_tables(1, smmu.stage1, smmu.page_sizes, kernel_page,
                              std::min(smmu.wide_input ? 52U : 48U, va_bits), smmu.output_bits));
  set_stage(q, 2, lpae_tables(2, smmu.stage2, smmu.page_sizes, kernel_page, smmu.output_bits, smmu.output_bits));
  FlagSets sets;
  sets.add(0, smmu.stage1 ? 1 : 2);
  sets.add(kNestParent, 2);
  sets.add(kDirtyTracking, 1);
  sets.add(kPasid, 1);
  sets.add(kDirtyTracking | kPasid, 1);
  sets.write_to(q);
}

void describe_smmuv2(const Host&, const Unit& unit, const Device& device, DeviceQuantities& q) {
  const Facts<UnitFact>& facts = unit.facts;
  const std::uint64_t kernel_page = q[DeviceQ::kernel_page_size];
  const std::uint64_t pages = facts.at(UnitFact::page_sizes);
  const bool stage1 = facts.value_or_stock(UnitFact::stage1) != 0;
  const auto input_bits = static_cast<unsigned>(facts.value_or_stock(UnitFact::input_bits));
  const auto ipa_bits = static_cast<unsigned>(facts.value_or_stock(UnitFact::ipa_bits));
  q[DeviceQ::cache_coherency] = facts.value_or_stock(UnitFact::coherent) != 0 ||
                                device.facts.value_or_stock(DeviceFact::dma_coherent) != 0;
  set_stage(q, 1, lpae_tables(1, stage1, pages, kernel_page, input_bits, ipa_bits));
  set_stage(q, 2, lpae_tables(2, facts.value_or_stock(UnitFact::stage2) != 0, pages, kernel_page, ipa_bits, ipa_bits));
  FlagSets sets;
  sets.add(0, stage1 ? 1 : 2);
  sets.write_to(q);
}

}  // namespace ioplan::drivers
