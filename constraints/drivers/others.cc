// virtio-iommu (virtio specification 5.13), RISC-V IOMMU (RISC-V IOMMU specification 6.3), s390 zPCI and the mock driver
// of iommufd's selftest: small drivers with one kind of table each and no HWPT flags but the mock's.

#include <bit>

#include "constraints/drivers/drivers.h"
#include "engine/base/log2.h"

namespace ioplan::drivers {

namespace {

void only_without_flags(DeviceQuantities& q) {
  FlagSets sets;
  sets.add(0, 1);
  sets.write_to(q);
}

}  // namespace

// drivers/iommu/virtio-iommu.c viommu_domain_alloc_paging: everything comes from the device's configuration.
void describe_virtio(const Host&, const Unit& unit, const Device&, DeviceQuantities& q) {
  const Facts<UnitFact>& facts = unit.facts;
  const Range input{facts.value_or_stock(UnitFact::input_start), facts.value_or_stock(UnitFact::input_last)};
  set_stage(q, 1, {.available = true,
                   .format = PageTableFormat::virtio,
                   .levels = 0,
                   .bits = width_of_last(input.last),
                   .aperture = input,
                   .page_sizes = facts.at(UnitFact::page_sizes)});
  only_without_flags(q);
}

// drivers/iommu/riscv/iommu.c riscv_iommu_alloc_paging_domain: the widest of Sv57, Sv48, Sv39 that the unit has.
void describe_riscv(const Host&, const Unit& unit, const Device&, DeviceQuantities& q) {
  const std::uint64_t caps = unit.facts.at(UnitFact::riscv_capabilities);
  const std::uint64_t modes = bits(caps, 11, 9);  // Sv39, Sv48, Sv57
  const unsigned levels = modes == 0 ? 0 : width_of_last(modes) + 2;
  const unsigned width = levels == 0 ? 0 : 12 + 9 * levels;
  const std::uint64_t pages = k4K | (1ULL << 16) | k2M | k1G | (1ULL << 39) | (1ULL << 48);
  q[DeviceQ::capable_op] = 0;
  q[DeviceQ::walk_levels] = modes << 1;
  q[DeviceQ::riscv_svpbmt] = bit(caps, 15);
  set_stage(q, 1, {.available = true,
                   .format = PageTableFormat::riscv,
                   .levels = levels,
                   .bits = width,
                   .aperture = {0, width == 0 ? 0 : last_of_width(width - 1)},  // sign-extended
                   .page_sizes = fitting_page_sizes(pages, width)});
  only_without_flags(q);
}

// drivers/iommu/s390-iommu.c s390_domain_alloc_paging: the smallest table that holds the function's DMA range.
void describe_s390(const Host&, const Unit& unit, const Device&, DeviceQuantities& q) {
  const Facts<UnitFact>& facts = unit.facts;
  const std::uint64_t last = facts.at(UnitFact::dma_last);
  unsigned levels = 3;  // region third
  if (last > last_of_width(42)) {
    if (facts.value_or_stock(UnitFact::table_rs) != 0 && last <= last_of_width(53)) {
      levels = 4;
    } else if (facts.value_or_stock(UnitFact::table_rf) != 0) {
      levels = 5;
    }
  }
  const unsigned width = levels == 5 ? 64 : levels == 4 ? 53 : 42;
  q[DeviceQ::dma_start] = facts.at(UnitFact::dma_start);
  q[DeviceQ::owner] |= facts.value_or_stock(UnitFact::rtr_avail) << 8;  // the two kinds have different domain ops
  set_stage(q, 1, {.available = true,
                   .format = PageTableFormat::s390,
                   .levels = levels,
                   .bits = width,
                   .aperture = {0, last_of_width(width)},
                   .page_sizes = k4K});
  only_without_flags(q);
}

// drivers/iommu/iommufd/selftest.c mock_domain_alloc_pgtable: AMD v1 tables of 2K pages with a forced aperture.
void describe_mock(const Host&, const Unit&, const Device& device, DeviceQuantities& q) {
  q[DeviceQ::dirty_capable] = device.facts.value_or_stock(DeviceFact::no_dirty) == 0;
  q[DeviceQ::nested] = 1;
  q[DeviceQ::pasid_attach] = 1;
  q[DeviceQ::pasid_bits] = device.facts.value_or_stock(DeviceFact::pasid_bits);
  q[DeviceQ::unsafe_interrupts] = 0;
  set_stage(q, 2, {.available = true,
                   .format = PageTableFormat::mock,
                   .levels = 3,
                   .bits = 56,
                   .aperture = {1ULL << 24, (1ULL << 31) - 1},
                   .page_sizes = last_of_width(37) & ~last_of_width(11)});
  FlagSets sets;
  for (std::uint8_t flags = 0; flags < kHwptFlagSets; ++flags) sets.add(flags, 2);
  sets.write_to(q);
}

}  // namespace ioplan::drivers
