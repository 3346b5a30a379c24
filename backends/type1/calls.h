// VFIO's container and group ioctls as functions: one call each, values in, value or errno out.
//
// `container` is a descriptor of /dev/vfio/vfio, `group` one of /dev/vfio/NUMBER. Nothing is remembered here. Source:
// include/uapi/linux/vfio.h, drivers/vfio/container.c, group.c, vfio_iommu_type1.c of Linux 7.2.13; the structures are in
// backends/vfio/uapi.h. Held by tests/type1_backend_test.cc.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "backends/vfio/system.h"
#include "backends/vfio/uapi.h"
#include "engine/base/range.h"

namespace ioplan::type1 {

using namespace vfio;  // the room next door, which every backend on Linux stands in

// VFIO_IOMMU_GET_INFO with the capabilities that a plan speaks of.
struct ContainerInfo {
  std::uint64_t page_sizes = 0;              // bitmap: every domain's; sizes below the kernel's page show as the page
  std::optional<std::vector<Range>> ranges;  // usable IOVA, ascending; kernels before 5.4 do not tell
  std::optional<std::uint32_t> entries;      // mappings that may still be made; kernels before 5.10 do not tell
};

struct Dma {
  Range iova;
  std::uint64_t address = 0;  // of this process
  std::uint32_t flags = 0;    // VFIO_DMA_MAP_FLAG_*
};

Reply<int> get_api_version(System& system, int container);
Reply<bool> check_extension(System& system, int container, std::uint32_t extension);
Reply<void> set_iommu(System& system, int container, std::uint32_t type);
Reply<ContainerInfo> get_info(System& system, int container);  // EBADMSG: an answer that makes no sense
Reply<void> map_dma(System& system, int container, const Dma& dma);
Reply<std::uint64_t> unmap_dma(System& system, int container, const Range& iova);  // bytes that were unmapped

Reply<std::uint32_t> group_status(System& system, int group);  // VFIO_GROUP_FLAGS_*
Reply<void> set_container(System& system, int group, int container);
Reply<void> unset_container(System& system, int group);
Reply<int> get_device_fd(System& system, int group, const std::string& device);  // the caller's to close

}  // namespace ioplan::type1
