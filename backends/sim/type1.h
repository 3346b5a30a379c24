// VFIO's container with its type1 back end (one open of /dev/vfio/vfio, VFIO_TYPE1v2_IOMMU), as Linux 7.2.13 behaves (KR 5.1).
//
// Whole IOMMU groups join. Each allocates a domain of its own first, and then tries the container's domains, newest
// first, among those of the same driver operations that enforce cache coherency equally; a refusal, whatever the errno,
// means the next. All domains hold every mapping; memory is pinned and charged when it is mapped. Domains go with their last
// group; nothing is ever merged. Order of checks is the kernel's (drivers/vfio/vfio_iommu_type1.c, container.c), so that
// the errno is. A refused call changes nothing.
//
// Shares groups, domains and memory with the contexts of the same machine (machine.h). Not simulated: mediated groups,
// VFIO_DMA_MAP_FLAG_VADDR, dirty bitmaps (type1 keeps them in software).
// Threads: as machine.h says of calls on contexts. Held by tests/sim_type1_test.cc.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "backends/sim/machine.h"
#include "backends/sim/page_table/page_table.h"
#include "backends/sim/refusal.h"
#include "engine/base/range.h"
#include "engine/base/strong_id.h"

namespace ioplan::sim {

// The uAPI's own values (include/uapi/linux/vfio.h).
inline constexpr std::uint32_t kVfioMapRead = 1, kVfioMapWrite = 2;
inline constexpr std::uint32_t kVfioUnmapAll = 2;
enum class VfioExtension : std::uint32_t { type1 = 1, type1v2 = 3, dma_cc_iommu = 4, unmap_all = 9 };

inline constexpr std::uint32_t kType1EntryLimit = 65535;  // module parameter dma_entry_limit

// VFIO_IOMMU_GET_INFO with its capabilities.
struct Type1Info {
  std::uint64_t page_sizes = 0;  // bitmap: every domain's; sizes below the kernel's page show as the page
  std::vector<Range> iova_ranges;
  std::uint32_t entries_left = kType1EntryLimit;
};

// What Linux does not tell and a test wants to know.
struct Type1Domain {
  std::uint32_t number = 0;  // from 0, in the order of joining the container
  DeviceIndex allocator;
  PageTableShape shape;
  bool enforce_cache_coherency = false;
  std::vector<std::uint32_t> groups;  // in the order of joining
};

class Type1Container {
 public:
  // The container must not outlive the machine; closing it (destroying it) frees everything in it.
  static std::unique_ptr<Type1Container> open(Machine& machine);
  ~Type1Container();
  Type1Container(const Type1Container&) = delete;
  Type1Container& operator=(const Type1Container&) = delete;

  // VFIO_GROUP_SET_CONTAINER and _UNSET_CONTAINER. The last group to go takes the back end and all mappings with it.
  //   ENODEV  no such group, or VFIO takes no device of it        EINVAL  in a container already; type1 refuses; not in this one
  //   EPERM   somebody else owns its DMA; no isolated MSI         ENOSPC  domain ids        ENOMEM
  Answer<void> attach_group(std::uint32_t group);
  Answer<void> detach_group(std::uint32_t group);

  // VFIO_SET_IOMMU with VFIO_TYPE1v2_IOMMU. EINVAL without a group or a second time; else what the groups' joining says.
  Answer<void> set_iommu();

  // VFIO_CHECK_EXTENSION. dma_cc_iommu: every domain enforces cache coherency.
  bool check_extension(VfioExtension extension) const;

  // VFIO_IOMMU_MAP_DMA, _UNMAP_DMA (bytes unmapped), _GET_INFO. EINVAL before set_iommu.
  Answer<void> map_dma(std::uint64_t iova, std::uint64_t user_va, std::uint64_t size, std::uint32_t flags);
  Answer<std::uint64_t> unmap_dma(std::uint64_t iova, std::uint64_t size, std::uint32_t flags = 0);
  Answer<Type1Info> get_info() const;

  // Inspection. `domains`: newest first, as the kernel tries them.
  std::vector<Type1Domain> domains() const;
  std::optional<std::uint32_t> domain_of(std::uint32_t group) const;  // its number
  PageTable* table(std::uint32_t domain) const;
  std::uint64_t pinned_bytes() const;

 private:
  struct State;
  explicit Type1Container(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace ioplan::sim
