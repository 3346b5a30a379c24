#include "engine/law/quantity.h"

namespace ioplan {

namespace {

constexpr std::array<std::string_view, static_cast<std::size_t>(HwptQ::count)> kHwptNames = {
    "driver", "owner", "unit", "stage", "format", "levels", "level_bit", "address_bits", "aperture_start",
    "aperture_last", "page_sizes", "smallest_page", "largest_page", "flags", "flag_set", "dirty_tracking",
    "nest_parent", "pasid", "enforce_cache_coherency", "coherent_walk", "sync_map", "takes_read_only"};

constexpr std::array<std::string_view, static_cast<std::size_t>(DeviceQ::count)> kDeviceNames = {
    "driver", "owner", "unit", "capable_op", "cache_coherency", "enforce_cache_coherency", "noncoherent_dma",
    "coherency_assumed", "unsafe_interrupts", "direct_region", "mixed_msi_windows", "region_over_memory",
    "kernel_page_size", "flag_sets", "stage_by_flags", "dirty_capable", "nested", "pasid_alloc", "pasid_attach",
    "pasid_bits", "read_only_nest_parent", "mgaw", "walk_levels", "snoop_control", "first_stage_limit",
    "first_stage_pages", "second_stage_pages", "scalable_mode", "riscv_svpbmt", "dma_start", "stage1",
    "stage1_format", "stage1_levels", "stage1_bits", "stage1_aperture_start", "stage1_aperture_last",
    "stage1_page_sizes", "stage1_coherent_walk", "stage1_sync_map", "stage2", "stage2_format", "stage2_levels",
    "stage2_bits", "stage2_aperture_start", "stage2_aperture_last", "stage2_page_sizes", "stage2_coherent_walk",
    "stage2_sync_map", "required_page", "required_dirty_tracking", "required_nest_parent", "required_pasid",
    "required_cache_coherency", "type1_stage"};

constexpr std::array<std::string_view, static_cast<std::size_t>(VmQ::count)> kVmNames = {
    "memory_first", "memory_last", "memory_alignment", "read_only_memory", "page_size", "needs_dirty_tracking",
    "needs_nest_parent", "needs_pasid", "guest_cache_maintenance", "coherency", "all_enforceable",
    "assumed_coherency"};

}  // namespace

std::string_view name_of(HwptQ q) { return kHwptNames[static_cast<std::size_t>(q)]; }
std::string_view name_of(DeviceQ q) { return kDeviceNames[static_cast<std::size_t>(q)]; }
std::string_view name_of(VmQ q) { return kVmNames[static_cast<std::size_t>(q)]; }

}  // namespace ioplan
