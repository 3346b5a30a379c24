// iommufd's and the VFIO cdev's ioctls as functions: one call each, values in, value or errno out.
//
// `iommu` is a descriptor of /dev/iommu, `device` one of a VFIO cdev; objects are named by the ids that the kernel
// gave. Nothing is remembered here. Source: KR 1.2, 1.3; the structures are in uapi.h. Held by
// tests/iommufd_backend_test.cc.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "backends/vfio/system.h"
#include "backends/vfio/uapi.h"
#include "engine/base/range.h"

namespace ioplan::iommufd {

using namespace vfio;  // the room next door, which every backend on Linux stands in

using ObjectId = std::uint32_t;

struct IovaRanges {
  std::vector<Range> ranges;  // ascending
  std::uint64_t alignment = 1;
};

// GET_HW_INFO's answer: registers whose layout depends on the type, zeros beyond what the kernel wrote.
struct HwInfo {
  std::uint32_t type = uapi::IOMMU_HW_INFO_TYPE_NONE;
  std::array<std::byte, sizeof(uapi::iommu_hw_info_arm_smmuv3)> data{};  // the largest

  template <class Layout>
  Layout as() const {
    static_assert(sizeof(Layout) <= sizeof(data));
    Layout layout;
    std::memcpy(&layout, data.data(), sizeof(layout));
    return layout;
  }
};

// One mapping: [iova, iova + length) of an IOAS.
struct Mapping {
  std::uint64_t iova = 0;
  std::uint64_t length = 0;
  std::uint32_t flags = 0;  // IOMMU_IOAS_MAP_*
};

enum class DirtyTracking : std::uint8_t { off, on };

// What to read of a HWPT's dirty bits: range and page size in bytes, IOMMU_HWPT_GET_DIRTY_BITMAP_* flags.
struct DirtyRequest {
  std::uint64_t iova = 0;
  std::uint64_t length = 0;
  std::uint64_t page = 0;
  std::uint32_t flags = 0;
};

Reply<ObjectId> ioas_alloc(System& system, int iommu);
Reply<void> ioas_allow_iovas(System& system, int iommu, ObjectId ioas, const std::vector<Range>& ranges);
Reply<IovaRanges> ioas_iova_ranges(System& system, int iommu, ObjectId ioas);
Reply<void> ioas_map(System& system, int iommu, ObjectId ioas, const Mapping& mapping, std::uint64_t user_address);
Reply<void> ioas_map_file(System& system, int iommu, ObjectId ioas, const Mapping& mapping, int fd,
                          std::uint64_t offset);
// Fills a range with what another IOAS has mapped from `source_iova` on: the same pages, which stay pinned once. The
// source must cover all of it (ENOENT), and have been mapped writeable when the mapping is (EPERM).
Reply<void> ioas_copy(System& system, int iommu, ObjectId ioas, const Mapping& mapping, ObjectId source,
                      std::uint64_t source_iova);
Reply<std::uint64_t> ioas_unmap(System& system, int iommu, ObjectId ioas, std::uint64_t iova, std::uint64_t length);
Reply<ObjectId> hwpt_alloc(System& system, int iommu, ObjectId device, ObjectId ioas, std::uint32_t flags);
Reply<void> set_dirty_tracking(System& system, int iommu, ObjectId hwpt, DirtyTracking tracking);
// Sets the bits of pages that were written to since tracking began or they were last cleared; bit 0 is `iova`. Bits
// that are set stay set. `words` holds a bit for every page of the range.
Reply<void> get_dirty_bitmap(System& system, int iommu, ObjectId hwpt, const DirtyRequest& request,
                             std::uint64_t* words);
Reply<void> destroy(System& system, int iommu, ObjectId object);
Reply<HwInfo> get_hw_info(System& system, int iommu, ObjectId device);
Reply<std::uint64_t> get_rlimit_mode(System& system, int iommu);  // changes nothing and needs no privilege
Reply<void> set_rlimit_mode(System& system, int iommu, std::uint64_t mode);

Reply<void> vfio_get_info(System& system, int device);  // answers for devices that are bound only
Reply<ObjectId> vfio_bind(System& system, int device, int iommu);
// The HWPT that results, or the IOAS of an mdev. An attached device is moved, with all attached devices of its group.
Reply<ObjectId> vfio_attach(System& system, int device, ObjectId pt);
Reply<void> vfio_detach(System& system, int device);

}  // namespace ioplan::iommufd
