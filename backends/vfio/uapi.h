// The kernel's words: iommufd's and VFIO's ioctls, mirrored with our own definitions (KR 1.2, 1.3).
//
// Build machines have older headers than the kernels we talk to, and a layout that is asserted here cannot drift. Every
// iommufd request starts with its own size; the kernel zero-fills what a caller does not know and refuses what it does
// not know itself. Names are the kernel's, but for the leading underscores of reserved fields.
// Source: include/uapi/linux/{iommufd,vfio}.h of Linux 7.2.13.
// Held by tests/iommufd_uapi_test.cc (layout against a table of sizes, offsets and numbers).
#pragma once

#include <cstddef>
#include <cstdint>

namespace ioplan::uapi {

using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;
using s32 = std::int32_t;

// Type ';', no direction and no size encoded: only the number is left.
constexpr unsigned long request(unsigned number) { return (static_cast<unsigned long>(';') << 8) | number; }

enum IommufdRequest : unsigned long {
  IOMMU_DESTROY = request(0x80),
  IOMMU_IOAS_ALLOC = request(0x81),
  IOMMU_IOAS_ALLOW_IOVAS = request(0x82),
  IOMMU_IOAS_COPY = request(0x83),
  IOMMU_IOAS_IOVA_RANGES = request(0x84),
  IOMMU_IOAS_MAP = request(0x85),
  IOMMU_IOAS_UNMAP = request(0x86),
  IOMMU_OPTION = request(0x87),
  IOMMU_HWPT_ALLOC = request(0x89),
  IOMMU_GET_HW_INFO = request(0x8a),
  IOMMU_HWPT_SET_DIRTY_TRACKING = request(0x8b),
  IOMMU_HWPT_GET_DIRTY_BITMAP = request(0x8c),
  IOMMU_FAULT_QUEUE_ALLOC = request(0x8e),
  IOMMU_IOAS_MAP_FILE = request(0x8f),
};

struct iommu_destroy {
  u32 size, id;
};
struct iommu_ioas_alloc {
  u32 size, flags, out_ioas_id;
};
struct iommu_iova_range {
  u64 start, last;
};
struct iommu_ioas_iova_ranges {
  u32 size, ioas_id, num_iovas, reserved;
  u64 allowed_iovas, out_iova_alignment;
};
struct iommu_ioas_allow_iovas {
  u32 size, ioas_id, num_iovas, reserved;
  u64 allowed_iovas;
};
struct iommu_ioas_map {
  u32 size, flags, ioas_id, reserved;
  u64 user_va, length, iova;
};
struct iommu_ioas_map_file {
  u32 size, flags, ioas_id;
  s32 fd;
  u64 start, length, iova;
};
struct iommu_ioas_copy {
  u32 size, flags, dst_ioas_id, src_ioas_id;
  u64 length, dst_iova, src_iova;
};
struct iommu_ioas_unmap {
  u32 size, ioas_id;
  u64 iova, length;
};
struct iommu_option {
  u32 size, option_id;
  u16 op, reserved;
  u32 object_id;
  u64 val64;
};
struct iommu_hwpt_alloc {
  u32 size, flags, dev_id, pt_id, out_hwpt_id, reserved, data_type, data_len;
  u64 data_uptr;
  u32 fault_id, reserved2;
};
struct iommu_hw_info {
  u32 size, flags, dev_id, data_len;
  u64 data_uptr;
  u32 out_data_type;
  std::uint8_t out_max_pasid_log2, reserved[3];
  u64 out_capabilities;
};
struct iommu_hwpt_set_dirty_tracking {
  u32 size, flags, hwpt_id, reserved;
};
struct iommu_hwpt_get_dirty_bitmap {
  u32 size, hwpt_id, flags, reserved;
  u64 iova, length, page_size, data;
};
struct iommu_fault_alloc {
  u32 size, flags, out_fault_id, out_fault_fd;
};

inline constexpr u32 IOMMU_IOAS_MAP_FIXED_IOVA = 1, IOMMU_IOAS_MAP_WRITEABLE = 2, IOMMU_IOAS_MAP_READABLE = 4;
inline constexpr u32 IOMMU_HWPT_ALLOC_NEST_PARENT = 1, IOMMU_HWPT_ALLOC_DIRTY_TRACKING = 2,
                     IOMMU_HWPT_FAULT_ID_VALID = 4, IOMMU_HWPT_ALLOC_PASID = 8;
inline constexpr u32 IOMMU_HWPT_DIRTY_TRACKING_ENABLE = 1, IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR = 1;
inline constexpr u32 IOMMU_OPTION_RLIMIT_MODE = 0, IOMMU_OPTION_HUGE_PAGES = 1;
inline constexpr u16 IOMMU_OPTION_OP_SET = 0, IOMMU_OPTION_OP_GET = 1;
inline constexpr u32 IOMMU_HW_INFO_TYPE_NONE = 0, IOMMU_HW_INFO_TYPE_INTEL_VTD = 1, IOMMU_HW_INFO_TYPE_ARM_SMMUV3 = 2,
                     IOMMU_HW_INFO_TYPE_AMD = 4;

inline constexpr u64 IOMMU_HW_CAP_DIRTY_TRACKING = 1, IOMMU_HW_CAP_PCI_PASID_EXEC = 2, IOMMU_HW_CAP_PCI_PASID_PRIV = 4,
                     IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED = 8;

// What GET_HW_INFO writes for the types above.
struct iommu_hw_info_vtd {
  u32 flags, reserved;
  u64 cap_reg, ecap_reg;
};
struct iommu_hw_info_arm_smmuv3 {
  u32 flags, reserved, idr[6], iidr, aidr;
};
struct iommu_hw_info_amd {
  u64 efr, efr2;
};

static_assert(sizeof(iommu_destroy) == 8 && sizeof(iommu_ioas_alloc) == 12 && sizeof(iommu_iova_range) == 16);
static_assert(sizeof(iommu_ioas_iova_ranges) == 32 && offsetof(iommu_ioas_iova_ranges, out_iova_alignment) == 24);
static_assert(sizeof(iommu_ioas_allow_iovas) == 24 && offsetof(iommu_ioas_allow_iovas, allowed_iovas) == 16);
static_assert(sizeof(iommu_ioas_map) == 40 && offsetof(iommu_ioas_map, iova) == 32);
static_assert(sizeof(iommu_ioas_map_file) == 40 && offsetof(iommu_ioas_map_file, start) == 16);
static_assert(sizeof(iommu_ioas_copy) == 40 && offsetof(iommu_ioas_copy, dst_iova) == 24);
static_assert(sizeof(iommu_ioas_unmap) == 24 && sizeof(iommu_option) == 24 && offsetof(iommu_option, object_id) == 12);
static_assert(sizeof(iommu_hwpt_alloc) == 48 && offsetof(iommu_hwpt_alloc, data_uptr) == 32);
static_assert(sizeof(iommu_hw_info) == 40 && offsetof(iommu_hw_info, out_capabilities) == 32);
static_assert(offsetof(iommu_hw_info, out_max_pasid_log2) == 28);
static_assert(sizeof(iommu_hwpt_set_dirty_tracking) == 16 && sizeof(iommu_hwpt_get_dirty_bitmap) == 48);
static_assert(sizeof(iommu_fault_alloc) == 16 && sizeof(iommu_hw_info_vtd) == 24);
static_assert(sizeof(iommu_hw_info_arm_smmuv3) == 40 && sizeof(iommu_hw_info_amd) == 16);

// KVM's VFIO device (Documentation/virt/kvm/devices/vfio.rst): files of the group KVM_DEV_VFIO_FILE.
struct kvm_device_attr {
  u32 flags, group;
  u64 attr, addr;
};
inline constexpr unsigned long KVM_SET_DEVICE_ATTR = 0x4018aee1;  // _IOW(0xAE, 0xe1, struct kvm_device_attr)
inline constexpr u32 KVM_DEV_VFIO_FILE = 1;
inline constexpr u64 KVM_DEV_VFIO_FILE_ADD = 1, KVM_DEV_VFIO_FILE_DEL = 2;
static_assert(sizeof(kvm_device_attr) == 24 && offsetof(kvm_device_attr, attr) == 8);

// VFIO: the same scheme, numbers from 100; structures begin with their own size as `argsz`.
enum VfioRequest : unsigned long {
  VFIO_GET_API_VERSION = request(100),
  VFIO_CHECK_EXTENSION = request(101),
  VFIO_SET_IOMMU = request(102),
  VFIO_GROUP_GET_STATUS = request(103),
  VFIO_GROUP_SET_CONTAINER = request(104),
  VFIO_GROUP_UNSET_CONTAINER = request(105),
  VFIO_GROUP_GET_DEVICE_FD = request(106),
  VFIO_DEVICE_GET_INFO = request(107),
  VFIO_DEVICE_GET_REGION_INFO = request(108),
  VFIO_IOMMU_GET_INFO = request(112),
  VFIO_IOMMU_MAP_DMA = request(113),
  VFIO_IOMMU_UNMAP_DMA = request(114),
  VFIO_DEVICE_BIND_IOMMUFD = request(118),
  VFIO_DEVICE_ATTACH_IOMMUFD_PT = request(119),
  VFIO_DEVICE_DETACH_IOMMUFD_PT = request(120),
};

struct vfio_device_info {
  u32 argsz, flags, num_regions, num_irqs, cap_offset, pad;
};
struct vfio_device_bind_iommufd {
  u32 argsz, flags;
  s32 iommufd;
  u32 out_devid;
  u64 token_uuid_ptr;
};
struct vfio_device_attach_iommufd_pt {
  u32 argsz, flags, pt_id, pasid;
};
struct vfio_device_detach_iommufd_pt {
  u32 argsz, flags, pasid;
};
struct vfio_group_status {
  u32 argsz, flags;
};
struct vfio_iommu_type1_dma_map {
  u32 argsz, flags;
  u64 vaddr, iova, size;
};
struct vfio_iommu_type1_dma_unmap {
  u32 argsz, flags;
  u64 iova, size;
};
struct vfio_iommu_type1_info {
  u32 argsz, flags;
  u64 iova_pgsizes;
  u32 cap_offset, pad;
};
struct vfio_info_cap_header {
  u16 id, version;
  u32 next;  // offset in the whole answer; 0: the last
};
struct vfio_iova_range {
  u64 start, end;  // inclusive
};
struct vfio_iommu_type1_info_cap_iova_range {
  vfio_info_cap_header header;
  u32 nr_iovas, reserved;  // followed by as many vfio_iova_range
};
struct vfio_iommu_type1_info_dma_avail {
  vfio_info_cap_header header;
  u32 avail;
};
struct vfio_region_info {
  u32 argsz, flags, index, cap_offset;
  u64 size, offset;
};

inline constexpr u32 VFIO_TYPE1v2_IOMMU = 3, VFIO_DMA_CC_IOMMU = 4;
inline constexpr u32 VFIO_GROUP_FLAGS_VIABLE = 1, VFIO_GROUP_FLAGS_CONTAINER_SET = 2;
inline constexpr u32 VFIO_DMA_MAP_FLAG_READ = 1, VFIO_DMA_MAP_FLAG_WRITE = 2;
inline constexpr int VFIO_API_VERSION = 0;
inline constexpr u32 VFIO_IOMMU_INFO_PGSIZES = 1, VFIO_IOMMU_INFO_CAPS = 2;
inline constexpr u16 VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE = 1, VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL = 3;
inline constexpr u32 VFIO_DEVICE_ATTACH_PASID = 1, VFIO_DEVICE_DETACH_PASID = 1;

static_assert(sizeof(vfio_device_info) == 24);
static_assert(sizeof(vfio_device_bind_iommufd) == 24 && offsetof(vfio_device_bind_iommufd, token_uuid_ptr) == 16);
static_assert(sizeof(vfio_device_attach_iommufd_pt) == 16 && sizeof(vfio_device_detach_iommufd_pt) == 12);
static_assert(sizeof(vfio_iommu_type1_dma_map) == 32 && sizeof(vfio_iommu_type1_dma_unmap) == 24);
static_assert(sizeof(vfio_info_cap_header) == 8 && sizeof(vfio_iommu_type1_info_cap_iova_range) == 16);
static_assert(sizeof(vfio_iova_range) == 16 && sizeof(vfio_iommu_type1_info_dma_avail) == 12);
static_assert(sizeof(vfio_iommu_type1_info) == 24 && sizeof(vfio_region_info) == 32);

}  // namespace ioplan::uapi
