// /dev/iommu in process: one context with its objects, as Linux 7.2.13 behaves, to the errno (KR 1 and 2).
//
// Calls mirror the ioctls and the in-kernel entry points that VFIO uses (bind, attach, replace, detach). Object ids are
// u32 from 1, the lowest free one is used. A refused call changes nothing, save for the hazards of replace
// (machine.h Hazards), which are Linux's. Order of checks is the kernel's, so that the errno is.
// Held by tests/sim_iommufd_test.cc (200,000 random sequences against a slow model written from KR alone).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backends/sim/machine.h"
#include "backends/sim/page_table/page_table.h"
#include "backends/sim/refusal.h"
#include "engine/base/range.h"

namespace ioplan::sim {

using ObjectId = std::uint32_t;

// The uAPI's own values (include/uapi/linux/iommufd.h).
inline constexpr std::uint32_t kMapFixedIova = 1, kMapWriteable = 2, kMapReadable = 4;
inline constexpr std::uint32_t kHwptNestParent = 1, kHwptDirtyTracking = 2, kHwptFaultIdValid = 4, kHwptPasid = 8;
inline constexpr std::uint32_t kCapabilityDirtyTracking = 1, kCapabilityPasidExec = 2, kCapabilityPasidPriv = 4, kCapabilityAtsNotSupported = 8;
enum class Option : std::uint8_t { rlimit_mode, huge_pages };

struct IovaRanges {
  std::vector<Range> ranges;
  std::uint64_t alignment = 1;
};

struct HwInfo {
  std::uint32_t type = 0;                // IOMMU_HW_INFO_TYPE_*: 0 none, 1 Intel, 2 SMMUv3, 4 AMD, 0xfeedbeef mock
  std::vector<std::uint64_t> registers;  // Intel cap, ecap; AMD efr, efr2; SMMUv3 idr0..5; mock its test register
  unsigned max_pasid_log2 = 0;
  std::uint64_t capabilities = 0;        // kCapability*; no simulated device has ATS
};

// What Linux does not tell and a test wants to know.
struct HwptView {
  ObjectId id = 0;
  ObjectId ioas = 0;
  std::string allocator;
  PageTableShape shape;
  bool automatic = false;
  bool nest_parent = false;
  bool pasid = false;
  bool dirty_tracking = false;  // allocated with the flag
  bool enforce_cache_coherency = false;
  std::uint64_t table_bytes = 0;
  std::vector<std::string> devices;  // attached, RID and PASID, ascending
  std::vector<std::uint64_t> doorbells;  // IOVAs of software MSI pages, mapped beside the areas
};

class Context {
 public:
  ~Context();

  // VFIO_DEVICE_BIND_IOMMUFD / closing the device. KR 2.1.
  Answer<ObjectId> bind(std::string_view device);
  Answer<void> unbind(ObjectId device);

  Answer<ObjectId> ioas_alloc();
  Answer<void> ioas_allow_iovas(ObjectId ioas, std::span<const Range> ranges);
  Answer<IovaRanges> ioas_iova_ranges(ObjectId ioas) const;
  // IOMMU_TEST_OP_ADD_RESERVED of iommufd's selftest: a reserved region of no device, for the life of the IOAS.
  Answer<void> ioas_add_reserved(ObjectId ioas, std::uint64_t start, std::uint64_t length);
  // `iova`: where, with kMapFixedIova. The IOVA of the mapping.
  Answer<std::uint64_t> ioas_map(ObjectId ioas, std::uint32_t flags, std::uint64_t user_va, std::uint64_t length, std::uint64_t iova);
  Answer<std::uint64_t> ioas_map_file(ObjectId ioas, std::uint32_t flags, int fd, std::uint64_t start, std::uint64_t length, std::uint64_t iova);
  Answer<std::uint64_t> ioas_copy(ObjectId dst, ObjectId src, std::uint32_t flags, std::uint64_t length, std::uint64_t dst_iova, std::uint64_t src_iova);
  // Bytes unmapped; (0, 2^64-1) is everything.
  Answer<std::uint64_t> ioas_unmap(ObjectId ioas, std::uint64_t iova, std::uint64_t length);

  // IOMMU_OPTION. `object`: 0 for rlimit_mode, an IOAS for huge_pages.
  Answer<void> set_option(Option option, ObjectId object, std::uint64_t value);
  Answer<std::uint64_t> get_option(Option option, ObjectId object) const;

  // `pt`: an IOAS (a paging HWPT). Nested HWPTs and vIOMMUs are not simulated: EOPNOTSUPP. KR 1.4.
  Answer<ObjectId> hwpt_alloc(ObjectId device, ObjectId pt, std::uint32_t flags, ObjectId fault = 0);
  // Its fd is not simulated: destroy() needs only that no HWPT uses it.
  Answer<ObjectId> fault_queue_alloc();
  Answer<HwInfo> get_hw_info(ObjectId device) const;
  Answer<void> hwpt_set_dirty_tracking(ObjectId hwpt, bool enable);
  // bit n of `bitmap`: page n of `page_size` bytes from `iova`. keep = IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR.
  Answer<void> hwpt_get_dirty_bitmap(ObjectId hwpt, DirtyRead mode, std::uint64_t iova, std::uint64_t length, std::uint64_t page_size, std::span<std::uint64_t> bitmap);

  // iommufd_device_attach / _replace / _detach. `pt`: a HWPT, or an IOAS for the automatic walk (KR 2.3). The HWPT that results.
  // VFIO turns a second attach into a replace; `vfio_attach` does as VFIO does.
  Answer<ObjectId> attach(ObjectId device, ObjectId pt, std::uint32_t pasid = 0);
  Answer<ObjectId> replace(ObjectId device, ObjectId pt, std::uint32_t pasid = 0);
  Answer<ObjectId> vfio_attach(ObjectId device, ObjectId pt, std::uint32_t pasid = 0);
  Answer<void> detach(ObjectId device, std::uint32_t pasid = 0);

  // A software user of an IOAS (mediated devices), iommufd_access_create with _attach. `pins`: it asks for page alignment;
  // pages are pinned only when it reads them, which is not simulated. destroy() of one is EBUSY: its driver holds it.
  Answer<ObjectId> access_create(ObjectId ioas, bool pins);
  // iommufd_access_destroy: its driver lets go. ENOENT: no access.
  Answer<void> access_destroy(ObjectId access);

  Answer<void> destroy(ObjectId object);

  // Inspection.
  std::vector<ObjectId> objects() const;
  std::optional<HwptView> hwpt(ObjectId hwpt) const;
  std::optional<ObjectId> attached(ObjectId device, std::uint32_t pasid = 0) const;  // its HWPT
  std::vector<Range> mapped(ObjectId ioas) const;                                     // its areas, merged
  PageTable* table(ObjectId hwpt) const;                                              // null when it is none
  std::uint64_t pinned_bytes() const;      // by all IOASes; memory shared by copy counts once
  std::uint64_t locked_bytes() const;      // charged against memlock, by the RLIMIT_MODE in force

 private:
  friend class Machine;
  struct State;
  explicit Context(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace ioplan::sim
