// iommufd as it is described, not as it is built: the slow reference that the simulator (backends/sim) is compared
// with.
//
// Written from the kernel rules alone. There are no interval trees, no page tables and no counters: an IOAS is a plain
// list of areas and a plain list of reservations, and everything else (alignment, IOVA ranges, who uses an object,
// pinned pages, domain ids in use, what an address translates to) is computed again whenever somebody asks. What it
// borrows is the law's description of devices (engine/law): whether a driver accepts a HWPT is tested elsewhere.
// The order in which a call looks for faults is the kernel's: where two things are wrong, it decides the errno.
//
// Sources: KR 1 and 2; drivers/iommu/iommufd/{device,hw_pagetable,io_pagetable,ioas,main,pages}.c and
// drivers/iommu/iommu.c of Linux 7.2.13. Compared in tests/sim_iommufd_test.cc.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "backends/sim/iommufd.h"
#include "engine/base/range.h"
#include "engine/law/law.h"
#include "engine/model/host.h"

namespace ioplan::slow {

using sim::ObjectId;

inline constexpr std::uint64_t kPage = 4096;
inline constexpr std::uint64_t kTop = ~std::uint64_t{0};

// Memory of the one process there is: where its pages lie.
struct Ram {
  std::uint64_t user_va = 0;
  int fd = -1;
  bool writeable = true;
  std::vector<std::uint64_t> page_pa;

  std::uint64_t size() const { return page_pa.size() * kPage; }
};

struct Outcome {
  int error = 0;
  std::uint64_t value = 0;
};

// What one map pins: user memory or a slice of a file, from a page boundary on. Copies share it.
struct Pages {
  bool file = false;
  int fd = -1;
  std::uint64_t base = 0;  // user address or offset in the file
  bool writeable = false;
};

struct Area {
  std::uint64_t iova = 0;
  std::uint64_t length = 0;
  std::shared_ptr<const Pages> pages;
  std::uint64_t start_byte = 0;  // into `pages`
  std::uint32_t access = 0;      // kMapReadable, kMapWriteable

  Range range() const { return {iova, iova + length - 1}; }
};

// Devices by host index; HWPTs by a serial number that, unlike an id, never comes back.
struct Owner {
  enum class Kind : std::uint8_t { device, hwpt } kind = Kind::device;
  std::uint64_t number = 0;
  friend bool operator==(const Owner&, const Owner&) = default;
};

struct Reservation {
  Range range;
  Owner owner;
};

struct Ioas {
  std::vector<Area> areas;  // ascending
  std::vector<Reservation> reserved;
  std::vector<Range> allowed;
  std::vector<ObjectId> hwpts;  // oldest first
  bool huge_pages = true;
};

struct Hwpt {
  std::uint64_t serial = 0;
  ObjectId ioas = 0;
  std::size_t allocator = 0;
  HwptQuantities is;
  std::uint32_t flags = 0;
  ObjectId fault = 0;
  bool automatic = false;
  bool logging = false;
  bool finished = false;          // smmuv2: a device has attached once, and with that the driver knew what to make
  std::vector<Range> dirty;       // leaves that the hardware has marked
  std::set<std::uint64_t> small;  // areas, by IOVA, that were mapped while huge pages were off
};

struct Access {
  ObjectId ioas = 0;
  std::uint64_t alignment = 1;
};

struct Attachment {
  ObjectId hwpt = 0;
  std::vector<ObjectId> devices;
};

using GroupPasid = std::pair<std::uint32_t, std::uint32_t>;

struct Context {
  bool open = true;
  bool per_mm = false;  // IOMMU_OPTION_RLIMIT_MODE
  std::map<ObjectId, std::size_t> devices;
  std::map<ObjectId, Ioas> ioases;
  std::map<ObjectId, Hwpt> hwpts;
  std::map<ObjectId, Access> accesses;
  std::set<ObjectId> faults;
  std::map<GroupPasid, Attachment> attachments;

  bool holds(ObjectId id) const;
  bool empty() const;
  ObjectId lowest_free_id() const;
};

class Model {
 public:
  // `law` and `host` outlive the model.
  Model(const Host& host, const Law& law, const sim::MachineOptions& options, std::vector<Ram> ram);

  unsigned open();
  void close(unsigned context);

  // Each of these is the call of the same name in backends/sim/iommufd.h.
  Outcome bind(unsigned context, std::string_view device);
  Outcome unbind(unsigned context, ObjectId device);
  Outcome ioas_alloc(unsigned context);
  Outcome ioas_allow_iovas(unsigned context, ObjectId ioas, std::span<const Range> ranges);
  Outcome ioas_map(unsigned context, ObjectId ioas, std::uint32_t flags, std::uint64_t user_va, std::uint64_t length,
                   std::uint64_t iova);
  Outcome ioas_map_file(unsigned context, ObjectId ioas, std::uint32_t flags, int fd, std::uint64_t start,
                        std::uint64_t length, std::uint64_t iova);
  Outcome ioas_copy(unsigned context, ObjectId dst, ObjectId src, std::uint32_t flags, std::uint64_t length,
                    std::uint64_t dst_iova, std::uint64_t src_iova);
  Outcome ioas_unmap(unsigned context, ObjectId ioas, std::uint64_t iova, std::uint64_t length);
  Outcome set_option(unsigned context, sim::Option option, ObjectId object, std::uint64_t value);
  Outcome get_option(unsigned context, sim::Option option, ObjectId object) const;
  Outcome hwpt_alloc(unsigned context, ObjectId device, ObjectId pt, std::uint32_t flags, ObjectId fault);
  Outcome fault_queue_alloc(unsigned context);
  Outcome get_hw_info(unsigned context, ObjectId device) const;  // value: max_pasid_log2, bit 32: dirty tracking
  Outcome hwpt_set_dirty_tracking(unsigned context, ObjectId hwpt, bool enable);
  Outcome hwpt_get_dirty_bitmap(unsigned context, ObjectId hwpt, sim::DirtyRead mode, std::uint64_t iova,
                                std::uint64_t length, std::uint64_t page_size, std::span<std::uint64_t> bitmap);
  Outcome attach(unsigned context, ObjectId device, ObjectId pt, std::uint32_t pasid);
  Outcome replace(unsigned context, ObjectId device, ObjectId pt, std::uint32_t pasid);
  Outcome vfio_attach(unsigned context, ObjectId device, ObjectId pt, std::uint32_t pasid);
  Outcome detach(unsigned context, ObjectId device, std::uint32_t pasid);
  Outcome access_create(unsigned context, ObjectId ioas, bool pins);
  Outcome access_destroy(unsigned context, ObjectId access);
  Outcome destroy(unsigned context, ObjectId object);
  // One byte, which `value` gives the address of; a write marks its leaf dirty.
  Outcome dma(std::size_t device, std::uint32_t pasid, std::uint64_t iova, std::uint32_t access);

  // What can be observed.
  const Context& context(unsigned context) const { return contexts_[context]; }
  std::size_t contexts() const { return contexts_.size(); }
  std::vector<ObjectId> objects(unsigned context) const;
  std::vector<Range> iova_ranges(const Ioas& ioas) const;
  std::uint64_t alignment(const Context& context, ObjectId ioas) const;
  std::optional<ObjectId> attached(unsigned context, ObjectId device, std::uint32_t pasid) const;
  std::uint64_t pinned_pages(unsigned context) const;
  std::optional<std::uint64_t> physical(const Area& area, std::uint64_t iova) const;
  const Area* area_at(const Ioas& ioas, std::uint64_t iova) const;
  bool uses_software_msi(std::size_t device) const;

  const Host& host() const { return host_; }
  const DeviceQuantities& device(std::size_t d) const { return devices_[d]; }

 private:
  struct Piece {
    std::shared_ptr<const Pages> pages;
    std::uint64_t start_byte = 0;
    std::uint64_t length = 0;
  };
  // Which HWPT the hardware walks for a device and PASID.
  struct Walked {
    unsigned context = 0;
    ObjectId hwpt = 0;
    friend auto operator<=>(const Walked&, const Walked&) = default;
  };
  enum class Manner : std::uint8_t { attach, replace };

  // Mapping.
  Outcome map_pieces(Context& c, ObjectId ioas, const std::vector<Piece>& pieces, std::uint64_t length,
                     std::uint64_t iova, std::uint32_t flags);
  int choose_iova(const Ioas& ioas, std::uint64_t alignment, std::uint64_t address, std::uint64_t length,
                  std::uint64_t& iova) const;
  int check_iova(const Ioas& ioas, std::uint64_t alignment, std::uint64_t iova, std::uint64_t length) const;
  int pin(const Area& area) const;
  static int accepts_area(const Hwpt& hwpt, const Area& area);
  bool over_limit(const Context& c, const std::vector<Area>& also) const;
  std::uint64_t pinned_pages(const Context& c, const std::vector<Area>& also) const;
  std::optional<std::uint64_t> page_pa(const Pages& pages, std::uint64_t byte) const;

  // HWPTs.
  int allocate(std::size_t device, std::uint32_t flags, Hwpt& hwpt) const;
  int reserve(Ioas& ioas, const Range& range, Owner owner) const;
  static void unreserve(Ioas& ioas, Owner owner);
  int join(Context& c, const Hwpt& hwpt, const Range& aperture);
  void leave(Context& c, ObjectId hwpt);
  bool in_use(const Context& c, ObjectId hwpt) const;
  void put(Context& c, ObjectId hwpt);
  Range aperture(const Hwpt& hwpt) const;

  // Attaching.
  Outcome change_pt(unsigned context, ObjectId device, ObjectId pt, std::uint32_t pasid, Manner manner);
  Outcome automatic(unsigned context, ObjectId device, ObjectId ioas, std::uint32_t pasid, Manner manner);
  int attach_to(unsigned context, ObjectId device, ObjectId hwpt, std::uint32_t pasid);
  int replace_to(unsigned context, ObjectId device, ObjectId hwpt, std::uint32_t pasid);
  void detach_from(unsigned context, ObjectId device, std::uint32_t pasid);
  int reserve_regions(Ioas& ioas, std::size_t device, Manner manner) const;
  int pasid_compatible(const Context& c, std::uint32_t group, const Hwpt& hwpt, std::uint32_t pasid) const;
  int hardware(unsigned context, std::uint32_t group, ObjectId hwpt, std::uint32_t pasid, Manner manner);
  int hardware_rid(const Walked& target, const Hwpt& hwpt, std::uint32_t group, Manner manner);
  int hardware_pasid(const Walked& target, const Hwpt& hwpt, std::uint32_t group, std::uint32_t pasid, Manner manner);
  int driver_accepts(const Hwpt& hwpt, std::size_t device) const;
  int take_domain_id(const Walked& target, const Hwpt& hwpt, std::size_t device) const;
  std::size_t ids_at_allocation(const DomainPool& pool) const;

  std::vector<std::size_t> members(std::uint32_t group) const;
  std::uint32_t group_of(const Context& c, ObjectId device) const;
  Driver driver_of(std::size_t device) const;
  std::optional<DomainPool> pool_of(const Hwpt& hwpt, std::size_t device) const;
  const std::vector<ReservedRegion>& regions(std::size_t device) const { return regions_[device]; }
  const Hwpt& hwpt(const Walked& walked) const { return contexts_[walked.context].hwpts.at(walked.hwpt); }

  // Dirty tracking.
  Range leaf(const Hwpt& hwpt, const Area& area, std::uint64_t iova) const;
  void mapped(Hwpt& hwpt, const Ioas& ioas, const Area& area);
  static void unmapped(Hwpt& hwpt, const Area& area);

  const Host& host_;
  const Law& law_;
  sim::MachineOptions options_;
  std::vector<Ram> ram_;
  std::vector<DeviceQuantities> devices_;
  std::vector<std::vector<ReservedRegion>> regions_;
  std::vector<Context> contexts_;
  std::map<std::pair<std::size_t, std::uint32_t>, Walked> walked_;
  std::uint64_t serial_ = 0;
};

}  // namespace ioplan::slow
