// The mirror of the kernel's words (backends/vfio/uapi.h) against a table: the size of every structure, offset and
// size of every field, every ioctl number and flag. The figures were printed by a C program compiled with
// include/uapi/linux/ {iommufd,vfio}.h of Linux 7.2.13. The static_asserts of uapi.h cover what a slip would most
// likely move; this covers all.
#include <gtest/gtest.h>

#include "backends/vfio/uapi.h"

namespace ioplan::uapi {
namespace {

#define EXPECT_SIZE(type, size) EXPECT_EQ(sizeof(type), size##U) << #type
#define EXPECT_FIELD(type, field, offset, size)                      \
  do {                                                               \
    EXPECT_EQ(offsetof(type, field), offset##U) << #type "." #field; \
    EXPECT_EQ(sizeof(type::field), size##U) << #type "." #field;     \
  } while (false)

TEST(Uapi, IommufdStructures) {
  EXPECT_SIZE(iommu_destroy, 8);
  EXPECT_FIELD(iommu_destroy, size, 0, 4);
  EXPECT_FIELD(iommu_destroy, id, 4, 4);
  EXPECT_SIZE(iommu_ioas_alloc, 12);
  EXPECT_FIELD(iommu_ioas_alloc, size, 0, 4);
  EXPECT_FIELD(iommu_ioas_alloc, flags, 4, 4);
  EXPECT_FIELD(iommu_ioas_alloc, out_ioas_id, 8, 4);
  EXPECT_SIZE(iommu_iova_range, 16);
  EXPECT_FIELD(iommu_iova_range, start, 0, 8);
  EXPECT_FIELD(iommu_iova_range, last, 8, 8);
  EXPECT_SIZE(iommu_ioas_iova_ranges, 32);
  EXPECT_FIELD(iommu_ioas_iova_ranges, size, 0, 4);
  EXPECT_FIELD(iommu_ioas_iova_ranges, ioas_id, 4, 4);
  EXPECT_FIELD(iommu_ioas_iova_ranges, num_iovas, 8, 4);
  EXPECT_FIELD(iommu_ioas_iova_ranges, reserved, 12, 4);
  EXPECT_FIELD(iommu_ioas_iova_ranges, allowed_iovas, 16, 8);
  EXPECT_FIELD(iommu_ioas_iova_ranges, out_iova_alignment, 24, 8);
  EXPECT_SIZE(iommu_ioas_allow_iovas, 24);
  EXPECT_FIELD(iommu_ioas_allow_iovas, size, 0, 4);
  EXPECT_FIELD(iommu_ioas_allow_iovas, ioas_id, 4, 4);
  EXPECT_FIELD(iommu_ioas_allow_iovas, num_iovas, 8, 4);
  EXPECT_FIELD(iommu_ioas_allow_iovas, reserved, 12, 4);
  EXPECT_FIELD(iommu_ioas_allow_iovas, allowed_iovas, 16, 8);
  EXPECT_SIZE(iommu_ioas_map, 40);
  EXPECT_FIELD(iommu_ioas_map, size, 0, 4);
  EXPECT_FIELD(iommu_ioas_map, flags, 4, 4);
  EXPECT_FIELD(iommu_ioas_map, ioas_id, 8, 4);
  EXPECT_FIELD(iommu_ioas_map, reserved, 12, 4);
  EXPECT_FIELD(iommu_ioas_map, user_va, 16, 8);
  EXPECT_FIELD(iommu_ioas_map, length, 24, 8);
  EXPECT_FIELD(iommu_ioas_map, iova, 32, 8);
  EXPECT_SIZE(iommu_ioas_map_file, 40);
  EXPECT_FIELD(iommu_ioas_map_file, size, 0, 4);
  EXPECT_FIELD(iommu_ioas_map_file, flags, 4, 4);
  EXPECT_FIELD(iommu_ioas_map_file, ioas_id, 8, 4);
  EXPECT_FIELD(iommu_ioas_map_file, fd, 12, 4);
  EXPECT_FIELD(iommu_ioas_map_file, start, 16, 8);
  EXPECT_FIELD(iommu_ioas_map_file, length, 24, 8);
  EXPECT_FIELD(iommu_ioas_map_file, iova, 32, 8);
  EXPECT_SIZE(iommu_ioas_copy, 40);
  EXPECT_FIELD(iommu_ioas_copy, size, 0, 4);
  EXPECT_FIELD(iommu_ioas_copy, flags, 4, 4);
  EXPECT_FIELD(iommu_ioas_copy, dst_ioas_id, 8, 4);
  EXPECT_FIELD(iommu_ioas_copy, src_ioas_id, 12, 4);
  EXPECT_FIELD(iommu_ioas_copy, length, 16, 8);
  EXPECT_FIELD(iommu_ioas_copy, dst_iova, 24, 8);
  EXPECT_FIELD(iommu_ioas_copy, src_iova, 32, 8);
  EXPECT_SIZE(iommu_ioas_unmap, 24);
  EXPECT_FIELD(iommu_ioas_unmap, size, 0, 4);
  EXPECT_FIELD(iommu_ioas_unmap, ioas_id, 4, 4);
  EXPECT_FIELD(iommu_ioas_unmap, iova, 8, 8);
  EXPECT_FIELD(iommu_ioas_unmap, length, 16, 8);
  EXPECT_SIZE(iommu_option, 24);
  EXPECT_FIELD(iommu_option, size, 0, 4);
  EXPECT_FIELD(iommu_option, option_id, 4, 4);
  EXPECT_FIELD(iommu_option, op, 8, 2);
  EXPECT_FIELD(iommu_option, reserved, 10, 2);
  EXPECT_FIELD(iommu_option, object_id, 12, 4);
  EXPECT_FIELD(iommu_option, val64, 16, 8);
  EXPECT_SIZE(iommu_hwpt_alloc, 48);
  EXPECT_FIELD(iommu_hwpt_alloc, size, 0, 4);
  EXPECT_FIELD(iommu_hwpt_alloc, flags, 4, 4);
  EXPECT_FIELD(iommu_hwpt_alloc, dev_id, 8, 4);
  EXPECT_FIELD(iommu_hwpt_alloc, pt_id, 12, 4);
  EXPECT_FIELD(iommu_hwpt_alloc, out_hwpt_id, 16, 4);
  EXPECT_FIELD(iommu_hwpt_alloc, reserved, 20, 4);
  EXPECT_FIELD(iommu_hwpt_alloc, data_type, 24, 4);
  EXPECT_FIELD(iommu_hwpt_alloc, data_len, 28, 4);
  EXPECT_FIELD(iommu_hwpt_alloc, data_uptr, 32, 8);
  EXPECT_FIELD(iommu_hwpt_alloc, fault_id, 40, 4);
  EXPECT_FIELD(iommu_hwpt_alloc, reserved2, 44, 4);
  EXPECT_SIZE(iommu_hw_info, 40);
  EXPECT_FIELD(iommu_hw_info, size, 0, 4);
  EXPECT_FIELD(iommu_hw_info, flags, 4, 4);
  EXPECT_FIELD(iommu_hw_info, dev_id, 8, 4);
  EXPECT_FIELD(iommu_hw_info, data_len, 12, 4);
  EXPECT_FIELD(iommu_hw_info, data_uptr, 16, 8);
  EXPECT_FIELD(iommu_hw_info, out_data_type, 24, 4);
  EXPECT_FIELD(iommu_hw_info, out_max_pasid_log2, 28, 1);
  EXPECT_FIELD(iommu_hw_info, reserved, 29, 3);
  EXPECT_FIELD(iommu_hw_info, out_capabilities, 32, 8);
  EXPECT_SIZE(iommu_hwpt_set_dirty_tracking, 16);
  EXPECT_FIELD(iommu_hwpt_set_dirty_tracking, size, 0, 4);
  EXPECT_FIELD(iommu_hwpt_set_dirty_tracking, flags, 4, 4);
  EXPECT_FIELD(iommu_hwpt_set_dirty_tracking, hwpt_id, 8, 4);
  EXPECT_FIELD(iommu_hwpt_set_dirty_tracking, reserved, 12, 4);
  EXPECT_SIZE(iommu_hwpt_get_dirty_bitmap, 48);
  EXPECT_FIELD(iommu_hwpt_get_dirty_bitmap, size, 0, 4);
  EXPECT_FIELD(iommu_hwpt_get_dirty_bitmap, hwpt_id, 4, 4);
  EXPECT_FIELD(iommu_hwpt_get_dirty_bitmap, flags, 8, 4);
  EXPECT_FIELD(iommu_hwpt_get_dirty_bitmap, reserved, 12, 4);
  EXPECT_FIELD(iommu_hwpt_get_dirty_bitmap, iova, 16, 8);
  EXPECT_FIELD(iommu_hwpt_get_dirty_bitmap, length, 24, 8);
  EXPECT_FIELD(iommu_hwpt_get_dirty_bitmap, page_size, 32, 8);
  EXPECT_FIELD(iommu_hwpt_get_dirty_bitmap, data, 40, 8);
  EXPECT_SIZE(iommu_fault_alloc, 16);
  EXPECT_FIELD(iommu_fault_alloc, size, 0, 4);
  EXPECT_FIELD(iommu_fault_alloc, flags, 4, 4);
  EXPECT_FIELD(iommu_fault_alloc, out_fault_id, 8, 4);
  EXPECT_FIELD(iommu_fault_alloc, out_fault_fd, 12, 4);
  EXPECT_SIZE(iommu_hw_info_vtd, 24);
  EXPECT_FIELD(iommu_hw_info_vtd, flags, 0, 4);
  EXPECT_FIELD(iommu_hw_info_vtd, reserved, 4, 4);
  EXPECT_FIELD(iommu_hw_info_vtd, cap_reg, 8, 8);
  EXPECT_FIELD(iommu_hw_info_vtd, ecap_reg, 16, 8);
  EXPECT_SIZE(iommu_hw_info_arm_smmuv3, 40);
  EXPECT_FIELD(iommu_hw_info_arm_smmuv3, flags, 0, 4);
  EXPECT_FIELD(iommu_hw_info_arm_smmuv3, reserved, 4, 4);
  EXPECT_FIELD(iommu_hw_info_arm_smmuv3, idr, 8, 24);
  EXPECT_FIELD(iommu_hw_info_arm_smmuv3, iidr, 32, 4);
  EXPECT_FIELD(iommu_hw_info_arm_smmuv3, aidr, 36, 4);
  EXPECT_SIZE(iommu_hw_info_amd, 16);
  EXPECT_FIELD(iommu_hw_info_amd, efr, 0, 8);
  EXPECT_FIELD(iommu_hw_info_amd, efr2, 8, 8);
}

TEST(Uapi, VfioStructures) {
  EXPECT_SIZE(vfio_device_info, 24);
  EXPECT_FIELD(vfio_device_info, argsz, 0, 4);
  EXPECT_FIELD(vfio_device_info, flags, 4, 4);
  EXPECT_FIELD(vfio_device_info, num_regions, 8, 4);
  EXPECT_FIELD(vfio_device_info, num_irqs, 12, 4);
  EXPECT_FIELD(vfio_device_info, cap_offset, 16, 4);
  EXPECT_FIELD(vfio_device_info, pad, 20, 4);
  EXPECT_SIZE(vfio_device_bind_iommufd, 24);
  EXPECT_FIELD(vfio_device_bind_iommufd, argsz, 0, 4);
  EXPECT_FIELD(vfio_device_bind_iommufd, flags, 4, 4);
  EXPECT_FIELD(vfio_device_bind_iommufd, iommufd, 8, 4);
  EXPECT_FIELD(vfio_device_bind_iommufd, out_devid, 12, 4);
  EXPECT_FIELD(vfio_device_bind_iommufd, token_uuid_ptr, 16, 8);
  EXPECT_SIZE(vfio_device_attach_iommufd_pt, 16);
  EXPECT_FIELD(vfio_device_attach_iommufd_pt, argsz, 0, 4);
  EXPECT_FIELD(vfio_device_attach_iommufd_pt, flags, 4, 4);
  EXPECT_FIELD(vfio_device_attach_iommufd_pt, pt_id, 8, 4);
  EXPECT_FIELD(vfio_device_attach_iommufd_pt, pasid, 12, 4);
  EXPECT_SIZE(vfio_device_detach_iommufd_pt, 12);
  EXPECT_FIELD(vfio_device_detach_iommufd_pt, argsz, 0, 4);
  EXPECT_FIELD(vfio_device_detach_iommufd_pt, flags, 4, 4);
  EXPECT_FIELD(vfio_device_detach_iommufd_pt, pasid, 8, 4);
  EXPECT_SIZE(vfio_group_status, 8);
  EXPECT_FIELD(vfio_group_status, argsz, 0, 4);
  EXPECT_FIELD(vfio_group_status, flags, 4, 4);
  EXPECT_SIZE(vfio_iommu_type1_dma_map, 32);
  EXPECT_FIELD(vfio_iommu_type1_dma_map, argsz, 0, 4);
  EXPECT_FIELD(vfio_iommu_type1_dma_map, flags, 4, 4);
  EXPECT_FIELD(vfio_iommu_type1_dma_map, vaddr, 8, 8);
  EXPECT_FIELD(vfio_iommu_type1_dma_map, iova, 16, 8);
  EXPECT_FIELD(vfio_iommu_type1_dma_map, size, 24, 8);
  EXPECT_SIZE(vfio_iommu_type1_dma_unmap, 24);
  EXPECT_FIELD(vfio_iommu_type1_dma_unmap, argsz, 0, 4);
  EXPECT_FIELD(vfio_iommu_type1_dma_unmap, flags, 4, 4);
  EXPECT_FIELD(vfio_iommu_type1_dma_unmap, iova, 8, 8);
  EXPECT_FIELD(vfio_iommu_type1_dma_unmap, size, 16, 8);
  EXPECT_SIZE(vfio_iommu_type1_info, 24);
  EXPECT_FIELD(vfio_iommu_type1_info, argsz, 0, 4);
  EXPECT_FIELD(vfio_iommu_type1_info, flags, 4, 4);
  EXPECT_FIELD(vfio_iommu_type1_info, iova_pgsizes, 8, 8);
  EXPECT_FIELD(vfio_iommu_type1_info, cap_offset, 16, 4);
  EXPECT_FIELD(vfio_iommu_type1_info, pad, 20, 4);
  EXPECT_SIZE(vfio_region_info, 32);
  EXPECT_FIELD(vfio_region_info, argsz, 0, 4);
  EXPECT_FIELD(vfio_region_info, flags, 4, 4);
  EXPECT_FIELD(vfio_region_info, index, 8, 4);
  EXPECT_FIELD(vfio_region_info, cap_offset, 12, 4);
  EXPECT_FIELD(vfio_region_info, size, 16, 8);
  EXPECT_FIELD(vfio_region_info, offset, 24, 8);
}

TEST(Uapi, Numbers) {
  EXPECT_EQ(IOMMU_DESTROY, 0x3b80U);
  EXPECT_EQ(IOMMU_IOAS_ALLOC, 0x3b81U);
  EXPECT_EQ(IOMMU_IOAS_ALLOW_IOVAS, 0x3b82U);
  EXPECT_EQ(IOMMU_IOAS_COPY, 0x3b83U);
  EXPECT_EQ(IOMMU_IOAS_IOVA_RANGES, 0x3b84U);
  EXPECT_EQ(IOMMU_IOAS_MAP, 0x3b85U);
  EXPECT_EQ(IOMMU_IOAS_UNMAP, 0x3b86U);
  EXPECT_EQ(IOMMU_OPTION, 0x3b87U);
  EXPECT_EQ(IOMMU_HWPT_ALLOC, 0x3b89U);
  EXPECT_EQ(IOMMU_GET_HW_INFO, 0x3b8aU);
  EXPECT_EQ(IOMMU_HWPT_SET_DIRTY_TRACKING, 0x3b8bU);
  EXPECT_EQ(IOMMU_HWPT_GET_DIRTY_BITMAP, 0x3b8cU);
  EXPECT_EQ(IOMMU_FAULT_QUEUE_ALLOC, 0x3b8eU);
  EXPECT_EQ(IOMMU_IOAS_MAP_FILE, 0x3b8fU);
  EXPECT_EQ(IOMMU_IOAS_MAP_FIXED_IOVA, 0x1U);
  EXPECT_EQ(IOMMU_IOAS_MAP_WRITEABLE, 0x2U);
  EXPECT_EQ(IOMMU_IOAS_MAP_READABLE, 0x4U);
  EXPECT_EQ(IOMMU_HWPT_ALLOC_NEST_PARENT, 0x1U);
  EXPECT_EQ(IOMMU_HWPT_ALLOC_DIRTY_TRACKING, 0x2U);
  EXPECT_EQ(IOMMU_HWPT_FAULT_ID_VALID, 0x4U);
  EXPECT_EQ(IOMMU_HWPT_ALLOC_PASID, 0x8U);
  EXPECT_EQ(IOMMU_OPTION_RLIMIT_MODE, 0x0U);
  EXPECT_EQ(IOMMU_OPTION_HUGE_PAGES, 0x1U);
  EXPECT_EQ(IOMMU_OPTION_OP_SET, 0x0U);
  EXPECT_EQ(IOMMU_OPTION_OP_GET, 0x1U);
  EXPECT_EQ(IOMMU_HW_INFO_TYPE_NONE, 0x0U);
  EXPECT_EQ(IOMMU_HW_INFO_TYPE_INTEL_VTD, 0x1U);
  EXPECT_EQ(IOMMU_HW_INFO_TYPE_ARM_SMMUV3, 0x2U);
  EXPECT_EQ(IOMMU_HW_INFO_TYPE_AMD, 0x4U);
  EXPECT_EQ(VFIO_GET_API_VERSION, 0x3b64U);
  EXPECT_EQ(VFIO_CHECK_EXTENSION, 0x3b65U);
  EXPECT_EQ(VFIO_SET_IOMMU, 0x3b66U);
  EXPECT_EQ(VFIO_GROUP_GET_STATUS, 0x3b67U);
  EXPECT_EQ(VFIO_GROUP_SET_CONTAINER, 0x3b68U);
  EXPECT_EQ(VFIO_GROUP_UNSET_CONTAINER, 0x3b69U);
  EXPECT_EQ(VFIO_GROUP_GET_DEVICE_FD, 0x3b6aU);
  EXPECT_EQ(VFIO_DEVICE_GET_INFO, 0x3b6bU);
  EXPECT_EQ(VFIO_DEVICE_GET_REGION_INFO, 0x3b6cU);
  EXPECT_EQ(VFIO_IOMMU_GET_INFO, 0x3b70U);
  EXPECT_EQ(VFIO_IOMMU_MAP_DMA, 0x3b71U);
  EXPECT_EQ(VFIO_IOMMU_UNMAP_DMA, 0x3b72U);
  EXPECT_EQ(VFIO_DEVICE_BIND_IOMMUFD, 0x3b76U);
  EXPECT_EQ(VFIO_DEVICE_ATTACH_IOMMUFD_PT, 0x3b77U);
  EXPECT_EQ(VFIO_DEVICE_DETACH_IOMMUFD_PT, 0x3b78U);
  EXPECT_EQ(VFIO_TYPE1v2_IOMMU, 0x3U);
  EXPECT_EQ(VFIO_DMA_CC_IOMMU, 0x4U);
  EXPECT_EQ(VFIO_GROUP_FLAGS_VIABLE, 0x1U);
  EXPECT_EQ(VFIO_GROUP_FLAGS_CONTAINER_SET, 0x2U);
  EXPECT_EQ(VFIO_DMA_MAP_FLAG_READ, 0x1U);
  EXPECT_EQ(VFIO_DMA_MAP_FLAG_WRITE, 0x2U);
  EXPECT_EQ(VFIO_DEVICE_ATTACH_PASID, 0x1U);
  EXPECT_EQ(VFIO_DEVICE_DETACH_PASID, 0x1U);
  EXPECT_EQ(IOMMU_HWPT_DIRTY_TRACKING_ENABLE, 0x1U);
  EXPECT_EQ(IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR, 0x1U);
  EXPECT_EQ(IOMMU_HW_CAP_DIRTY_TRACKING, 0x1U);
  EXPECT_EQ(IOMMU_HW_CAP_PCI_PASID_EXEC, 0x2U);
  EXPECT_EQ(IOMMU_HW_CAP_PCI_PASID_PRIV, 0x4U);
  EXPECT_EQ(IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED, 0x8U);
}

}  // namespace
}  // namespace ioplan::uapi
