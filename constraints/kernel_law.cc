#include "constraints/kernel_law.h"

#include <algorithm>

#include "constraints/catalog.h"
#include "constraints/drivers/drivers.h"
#include "engine/base/log2.h"

namespace ioplan {

namespace {

using Describe = void (*)(const Host&, const Unit&, const Device&, DeviceQuantities&);
constexpr std::array<Describe, 8> kDescribe = {
    drivers::describe_intel,  drivers::describe_amd,   drivers::describe_smmuv3, drivers::describe_smmuv2,
    drivers::describe_virtio, drivers::describe_riscv, drivers::describe_s390,   drivers::describe_mock};

bool instance_scoped(Driver driver) {
  return driver == Driver::smmuv3 || driver == Driver::smmuv2 || driver == Driver::virtio;
}

bool has_isolated_msi(const Host& host, const Device& device) {
  if (device.facts[DeviceFact::isolated_msi]) return *device.facts[DeviceFact::isolated_msi] != 0;
  return host.kernel.facts.value_or_stock(KernelFact::isolated_msi) != 0;
}

class KernelLaw : public Law {
 public:
  std::span<const Rule* const> rules() const override { return catalog(); }

  DeviceQuantities describe(const Host& host, DeviceIndex index) const override {
    const Device& device = host.device(index);
    const Unit& unit = host.unit(device.unit.value());
    const auto driver = static_cast<std::uint64_t>(unit.driver);
    DeviceQuantities q;
    q[DeviceQ::driver] = driver;
    q[DeviceQ::owner] = driver;
    q[DeviceQ::unit] = instance_scoped(unit.driver) ? device.unit->value + 1 : 0;
    q[DeviceQ::capable_op] = 1;
    q[DeviceQ::cache_coherency] = 1;
    q[DeviceQ::pasid_alloc] = 1;
    q[DeviceQ::read_only_nest_parent] = 1;
    q[DeviceQ::noncoherent_dma] = device.facts[DeviceFact::dma_coherent].value_or(1) == 0;
    q[DeviceQ::coherency_assumed] = device.dma_coherent_source == CoherencySource::assumed;
    q[DeviceQ::unsafe_interrupts] =
        !has_isolated_msi(host, device) && host.kernel.facts.value_or_stock(KernelFact::allow_unsafe_interrupts) == 0;
    q[DeviceQ::kernel_page_size] = host.kernel.facts[KernelFact::page_size].value_or(stock_page_size(arch_of(host)));
    kDescribe[driver](host, unit, device, q);
    return q;
  }

  HwptQuantities allocate(const DeviceQuantities& a, std::uint8_t flags) const override {
    const unsigned stage = static_cast<unsigned>(a[DeviceQ::stage_by_flags] >> (2 * flags) & 3);
    const bool second = stage == 2;
    const std::uint64_t pages = a[second ? DeviceQ::stage2_page_sizes : DeviceQ::stage1_page_sizes];
    HwptQuantities h;
    h[HwptQ::driver] = a[DeviceQ::driver];
    h[HwptQ::owner] = a[DeviceQ::owner];
    h[HwptQ::unit] = a[DeviceQ::unit];
    h[HwptQ::stage] = stage;
    h[HwptQ::format] = a[second ? DeviceQ::stage2_format : DeviceQ::stage1_format];
    h[HwptQ::levels] = a[second ? DeviceQ::stage2_levels : DeviceQ::stage1_levels];
    h[HwptQ::level_bit] = h[HwptQ::levels] >= 2 ? pow2(static_cast<unsigned>(h[HwptQ::levels]) - 2) : 0;
    h[HwptQ::address_bits] = a[second ? DeviceQ::stage2_bits : DeviceQ::stage1_bits];
    h[HwptQ::aperture_start] = a[second ? DeviceQ::stage2_aperture_start : DeviceQ::stage1_aperture_start];
    h[HwptQ::aperture_last] = a[second ? DeviceQ::stage2_aperture_last : DeviceQ::stage1_aperture_last];
    h[HwptQ::page_sizes] = pages;
    h[HwptQ::smallest_page] = lowest_bit(pages);
    h[HwptQ::largest_page] = highest_bit(pages);
    h[HwptQ::flags] = flags;
    h[HwptQ::flag_set] = pow2(flags);
    h[HwptQ::dirty_tracking] = (flags & kDirtyTracking) != 0;
    h[HwptQ::nest_parent] = (flags & kNestParent) != 0;
    h[HwptQ::pasid] = (flags & kPasid) != 0;
    h[HwptQ::enforce_cache_coherency] = a[DeviceQ::enforce_cache_coherency];
    h[HwptQ::coherent_walk] = a[second ? DeviceQ::stage2_coherent_walk : DeviceQ::stage1_coherent_walk];
    h[HwptQ::sync_map] = a[second ? DeviceQ::stage2_sync_map : DeviceQ::stage1_sync_map];
    h[HwptQ::takes_read_only] = (flags & kNestParent) == 0 || a[DeviceQ::read_only_nest_parent] != 0;
    return h;
  }

  std::vector<ReservedRegion> own_regions(const Host& host, DeviceIndex index) const override {
    const Unit& unit = host.unit(host.device(index).unit.value());
    const ReservedRegion msi{drivers::kX86MsiWindow, ReservedType::msi};
    const ReservedRegion software_msi{drivers::kSoftwareMsiWindow, ReservedType::sw_msi};
    switch (unit.driver) {
      case Driver::intel: return {msi};
      case Driver::amd: {
        if (drivers::amd_ignores_hypertransport_range(host)) return {msi};
        return {msi, {drivers::kAmdHyperTransport, ReservedType::reserved}};
      }
      case Driver::smmuv3:
      case Driver::smmuv2:
      case Driver::virtio: return {software_msi};
      case Driver::s390: return outside_dma_range(unit);
      case Driver::riscv:
      case Driver::mock: return {};
    }
    return {};
  }

  std::optional<DomainPool> domain_pool(const Host& host, UnitIndex index, unsigned stage) const override {
    const Unit& unit = host.unit(index);
    const std::uint64_t used = unit.facts.value_or_stock(UnitFact::domains_used);
    const auto pool = [&](std::uint64_t key, std::uint64_t ids) {
      return DomainPool{key, ids > used ? ids - used : 0};
    };
    const std::uint64_t own = std::uint64_t{2} + index.value;
    switch (unit.driver) {
      case Driver::intel: return pool(own, pow2(4 + 2 * static_cast<unsigned>(bits(unit.facts.at(UnitFact::cap), 2, 0))) - 2);
      case Driver::amd: return pool(0, 65535);
      case Driver::smmuv3: {
        const std::uint64_t idr0 = unit.facts[UnitFact::idr0].value_or(bit(0, 0));
        const bool wide = bit(idr0, stage == 1 ? 12 : 18);  // ASID16, VMID16
        return pool(stage == 1 ? 1 : own, last_of_width(wide ? 16 : 8));
      }
      case Driver::smmuv2: return pool(own, unit.facts.value_or_stock(UnitFact::context_banks));
      case Driver::virtio: {
        const std::uint64_t first = unit.facts.value_or_stock(UnitFact::domain_first);
        return pool(own, unit.facts.value_or_stock(UnitFact::domain_last) - first + 1);
      }
      case Driver::riscv: return pool(own, last_of_width(20));
      case Driver::s390:
      case Driver::mock: return std::nullopt;
    }
    return std::nullopt;
  }

  // intel_iommu's domain_attach_iommu; the others: amd pdom_id_alloc, arm_smmu_domain_finalise, virtio and riscv domain_alloc.
  bool id_at_allocation(Driver driver) const override { return driver != Driver::intel; }

  bool automatic_only(Driver driver) const override { return driver == Driver::smmuv2; }

 private:
  static std::vector<ReservedRegion> outside_dma_range(const Unit& unit) {
    std::vector<ReservedRegion> regions;
    const std::uint64_t start = unit.facts.at(UnitFact::dma_start);
    const std::uint64_t last = unit.facts.at(UnitFact::dma_last);
    if (start > 0) regions.push_back({{0, start - 1}, ReservedType::reserved});
    if (last < ~std::uint64_t{0}) regions.push_back({{last + 1, ~std::uint64_t{0}}, ReservedType::reserved});
    return regions;
  }
};

// The same devices and drivers behind a VFIO container. Rules of type1 speak where a device has a `type1_stage`.
class Type1Law final : public KernelLaw {
 public:
  KernelInterface interface() const override { return KernelInterface::type1; }

  DeviceQuantities describe(const Host& host, DeviceIndex index) const override {
    DeviceQuantities q = KernelLaw::describe(host, index);
    q[DeviceQ::type1_stage] = allocate(q, 0)[HwptQ::stage];
    return q;
  }

  // A group holds an id for its own domain while it looks for one to share, so one id stays in reserve.
  std::optional<DomainPool> domain_pool(const Host& host, UnitIndex index, unsigned stage) const override {
    auto pool = KernelLaw::domain_pool(host, index, stage);
    if (pool && pool->capacity > 0) --pool->capacity;
    return pool;
  }
};

}  // namespace

const Law& kernel_law() {
  static const KernelLaw law;
  return law;
}

const Law& type1_law() {
  static const Type1Law law;
  return law;
}

const Law& law_of(KernelInterface interface) {
  return interface == KernelInterface::type1 ? type1_law() : kernel_law();
}

std::uint64_t stock_page_size(Arch) { return 4096; }

}  // namespace ioplan
