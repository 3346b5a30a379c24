// The words of the law: named quantities of a HWPT, of a device as its IOMMU and driver make it, and of a VM.
//
// A rule (engine/law/rule.h) relates quantities; it never sees a register. Drivers (constraints/drivers) turn registers
// into device quantities, and allocation copies a stage's quantities into a HWPT. Booleans are 0 or 1; bitmaps of page
// sizes have bit n set for 2^n bytes; widths are in bits; `*_last` is inclusive.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace ioplan {

// What a HWPT is, fixed by its allocating device and flags (KR 1.4, 3).
enum class HwptQ : std::uint8_t {
  driver,
  owner,  // driver, and the s390 variant: HWPTs never cross owners
  unit,   // 1 + unit index where a HWPT belongs to one IOMMU instance; 0 where instances may share
  stage,
  format,
  levels,
  level_bit,  // VT-d SAGAW bit of a second-stage table: 1 << (levels - 2)
  address_bits,
  aperture_start,
  aperture_last,
  page_sizes,
  smallest_page,
  largest_page,
  flags,          // kDirtyTracking | kNestParent | kPasid
  flag_set,       // 1 << flags
  dirty_tracking,
  nest_parent,
  pasid,
  enforce_cache_coherency,
  coherent_walk,    // tables are written without cache flushes: the walker must snoop
  sync_map,         // mapping flushes the write buffer or the IOTLB afterwards
  takes_read_only,  // can hold a mapping without WRITE
  count
};

// What a device is to the law, behind its unit and under its driver, for one VM.
enum class DeviceQ : std::uint8_t {
  driver,
  owner,
  unit,
  capable_op,               // the driver answers device_iommu_capable() at all
  cache_coherency,          // IOMMU_CAP_CACHE_COHERENCY
  enforce_cache_coherency,  // IOMMU_CAP_ENFORCE_CACHE_COHERENCY: the device's IOMMU can block no-snoop
  noncoherent_dma,          // the device's own DMA does not snoop CPU caches
  coherency_assumed,        // some coherency fact about it is merely assumed
  unsafe_interrupts,        // no isolated MSI, and the override is off
  direct_region,            // a DIRECT reserved region
  mixed_msi_windows,        // both a hardware and a software MSI window, or two software windows
  region_over_memory,       // a reserved region lies over what the VM maps
  kernel_page_size,
  flag_sets,       // bit f set: the driver's allocation knows the flag set f
  stage_by_flags,  // two bits for each flag set: the stage that allocation would choose
  dirty_capable,   // IOMMU_CAP_DIRTY_TRACKING
  nested,          // can hold a nesting parent
  pasid_alloc,     // allocation with the PASID flag is supported
  pasid_attach,    // the driver can attach a HWPT to a PASID
  pasid_bits,      // usable PASID width; 0 none
  read_only_nest_parent,  // a nesting parent of this driver may hold read-only mappings
  mgaw,            // VT-d maximum guest address width, bits
  walk_levels,     // levels that the unit can walk, bit (levels - 2): VT-d SAGAW, RISC-V modes
  snoop_control,   // VT-d ECAP.SC
  first_stage_limit,   // VT-d: widest first-stage address, 57 with five levels, else 48
  first_stage_pages,   // VT-d: page sizes that the unit walks, whatever its own tables would use
  second_stage_pages,
  scalable_mode,
  riscv_svpbmt,
  dma_start,       // s390
  stage1,          // 1 when tables of this stage can be used
  stage1_format,
  stage1_levels,
  stage1_bits,
  stage1_aperture_start,
  stage1_aperture_last,
  stage1_page_sizes,
  stage1_coherent_walk,
  stage1_sync_map,
  stage2,
  stage2_format,
  stage2_levels,
  stage2_bits,
  stage2_aperture_start,
  stage2_aperture_last,
  stage2_page_sizes,
  stage2_coherent_walk,
  stage2_sync_map,
  // What the operator and the VM ask of this device.
  required_page,
  required_dirty_tracking,
  required_nest_parent,
  required_pasid,
  required_cache_coherency,
  type1_stage,  // under type1: the stage of the domain that it gets first; 0 under iommufd
  count
};

// What a VM asks, and what the operator's policy makes of it.
enum class VmQ : std::uint8_t {
  memory_first,
  memory_last,
  memory_alignment,  // lowest set bit over starts and sizes of what is mapped
  read_only_memory,
  page_size,  // the kernel's
  needs_dirty_tracking,
  needs_nest_parent,
  needs_pasid,
  guest_cache_maintenance,
  coherency,          // CoherencyPolicy
  all_enforceable,    // no device of the VM (mediated ones included) makes KVM non-coherent
  assumed_coherency,  // 1: allowed
  count
};

template <class Q>
class Quantities {
 public:
  std::uint64_t& operator[](Q q) { return values_[static_cast<std::size_t>(q)]; }
  std::uint64_t operator[](Q q) const { return values_[static_cast<std::size_t>(q)]; }
  friend bool operator==(const Quantities&, const Quantities&) = default;
  friend auto operator<=>(const Quantities&, const Quantities&) = default;
  const std::uint64_t* data() const { return values_.data(); }

 private:
  std::array<std::uint64_t, static_cast<std::size_t>(Q::count)> values_{};
};

using HwptQuantities = Quantities<HwptQ>;
using DeviceQuantities = Quantities<DeviceQ>;
using VmQuantities = Quantities<VmQ>;

std::string_view name_of(HwptQ);
std::string_view name_of(DeviceQ);
std::string_view name_of(VmQ);

}  // namespace ioplan
