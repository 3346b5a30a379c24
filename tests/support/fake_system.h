// An operating system that keeps books: sysfs as a table of paths, /dev/iommu and VFIO cdevs as lists of objects.
//
// It stands behind backends/vfio/system.h. What it knows of iommufd is what KR 1 and 2 say about ids, references,
// reservations and their errno; what an IOMMU accepts it is told. Every call that can fail is counted and can be made
// to fail with any errno, the n-th of all calls or the n-th of one name. Names are "open PATH", "read PATH", "list
// PATH", "read_link PATH", "memfd_create", "ftruncate", "mmap", "identify", and the ioctls' own ("IOMMU_IOAS_ALLOC"). What no good
// program does (a replace where none is planned, a double close, a bad munmap) is noted in `violations`.
#pragma once

#include <cerrno>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "backends/iommufd/calls.h"
#include "backends/vfio/system.h"
#include "engine/law/law.h"
#include "engine/model/host.h"
#include "engine/model/plan.h"

namespace ioplan::fake {

struct Device {
  std::string address;
  unsigned group = 0;
  std::string driver = "vfio-pci";  // empty: none
  unsigned vfio = 0;                // N of vfioN, when its driver is a VFIO one
  std::string unit;                 // automatic HWPTs are shared within one
  std::vector<Range> reserved;
  iommufd::HwInfo registers;
};

// What becomes of HWPT_ALLOC with a device.
struct Traits {
  Range aperture{0, ~std::uint64_t{0}};
  std::uint64_t alignment = 4096;
};

class FakeSystem final : public iommufd::System {
 public:
  FakeSystem();
  ~FakeSystem() override;

  // Building the machine.
  void add(const Device& device);
  void add_mediated(const std::string& uuid, unsigned vfio);
  void add_file(const std::string& path, const std::string& text) { files_[path] = text; }
  void add_link(const std::string& path, const std::string& target) { links_[path] = target; }
  void add_huge_pages(std::uint64_t page, std::uint64_t free);
  void remove(const std::string& path);  // and all below it
  // The plan's machine: devices bound to vfio-pci, huge pages, and IOMMUs that do exactly what was predicted.
  void become(const Host& host, const Plan& plan);
  // The host's machine, on which page tables come out as any of the plans has them.
  void become(const Host& host, const std::vector<const Plan*>& plans, const Law& law);
  // A VM's VFIO device of KVM: a descriptor. Files that it has stay open for the kernel.
  int open_kvm();
  std::vector<std::string> with_kvm(int kvm) const;  // devices whose files it has, ascending

  bool replaces = false;  // a replace is no violation
  std::map<std::pair<std::string, std::uint32_t>, Traits> traits;  // by allocator and IOMMU_HWPT_ALLOC_* flags
  std::map<std::pair<std::string, std::string>, int> refusals;     // (device, allocator of the HWPT) -> errno of attach
  bool knows_map_file = true;
  std::uint64_t unmap_forgets = 0;  // bytes that UNMAP's answer is short of
  std::uint64_t memlock = ~std::uint64_t{0};
  bool cap_ipc_lock = false;
  bool cap_sys_resource = true;
  std::uint64_t page = 4096;

  // A second descriptor of the same file, as dup(2) gives one.
  int duplicate(int fd);
  // A device's DMA: where its HWPT tracks what is dirty and has the address mapped for writing, the page becomes dirty.
  void write(const std::string& device, std::uint64_t iova);

  // Failing.
  void fail_nth(std::uint64_t n, int errno_value);                        // of all calls from now; 0: none
  void fail(const std::string& name, int errno_value, unsigned nth = 1);  // of this name from now
  bool struck() const { return struck_; }

  // Looking.
  std::vector<std::string> calls;  // names
  std::vector<std::string> violations;
  struct Map {
    std::uint64_t iova, length, offset;
    std::uint32_t flags;
    bool by_file;
  };
  std::vector<Map> maps;                                                // every successful MAP and MAP_FILE
  std::vector<std::pair<std::uint64_t, std::uint64_t>> copies;          // IOVA and length of every successful COPY
  std::vector<std::pair<std::string, std::uint32_t>> hwpt_allocations;  // allocator and flags of every HWPT_ALLOC
  std::size_t open_descriptors() const;                                 // that were not closed
  std::size_t views() const { return views_.size(); }
  std::uint64_t rlimit_mode(int iommu) const;
  std::uint64_t pinned() const;  // bytes, of all contexts: pages that several areas share count once
  std::string world() const;  // objects, attachments, descriptors, memory: one fact a line

  iommufd::Reply<int> open(const std::string& path) override;
  void close(int fd) override;
  iommufd::Reply<void> ioctl(int fd, unsigned long request, void* argument) override;
  iommufd::Reply<iommufd::FileIdentity> identify(int fd) override;
  iommufd::Reply<int> ask(int, unsigned long, std::uintptr_t) override { return iommufd::fails_with(ENOTTY); }
  iommufd::Reply<int> memfd_create(const std::string& name, std::uint64_t page_bytes) override;
  iommufd::Reply<void> ftruncate(int fd, std::uint64_t bytes) override;
  iommufd::Reply<std::uint64_t> mmap(int fd, std::uint64_t offset, std::uint64_t bytes) override;
  void munmap(std::uint64_t address, std::uint64_t bytes) override;
  iommufd::Reply<std::string> read_file(const std::string& path) override;
  iommufd::Reply<std::string> read_link(const std::string& path) override;
  iommufd::Reply<std::vector<std::string>> list(const std::string& path) override;
  std::uint64_t page_size() override { return page; }
  std::uint64_t memlock_limit() override { return memlock; }
  bool locks_without_limit() override { return cap_ipc_lock; }

 private:
  struct Context;
  struct DeviceFile;
  struct Memory;
  struct Open;
  struct View {
    int fd;
    std::uint64_t offset, bytes;
  };

  bool strikes(const std::string& name);
  std::string resolve(const std::string& path) const;
  int install(Open open);
  int on_iommu(Context& context, unsigned long request, void* argument);
  int on_device(DeviceFile& file, unsigned long request, void* argument);
  int bind(DeviceFile& file, int iommu, std::uint32_t& id);
  int attach(DeviceFile& file, std::uint32_t& pt);
  int replace(DeviceFile& file, std::uint32_t hwpt);
  void set_traits(const PlannedHwpt& hwpt);
  int on_kvm(std::map<int, std::shared_ptr<Open>>& files, unsigned long request, void* argument);
  int attach_to_ioas(DeviceFile& file, std::uint32_t& pt);
  int attach_to_hwpt(DeviceFile& file, std::uint32_t hwpt);
  int detach(DeviceFile& file);
  struct Allocation {
    std::string device;
    std::uint32_t ioas = 0, flags = 0;
  };
  int hwpt_alloc(Context& context, const Allocation& allocation, std::uint32_t& id);
  int map(Context& context, std::uint32_t ioas, const Map& map);
  int copy(Context& context, const uapi::iommu_ioas_copy& request);
  int read_dirty(Context& context, const uapi::iommu_hwpt_get_dirty_bitmap& request);
  int destroy(Context& context, std::uint32_t id);
  void unbind(DeviceFile& file);

  std::map<std::string, std::string> files_;
  std::map<std::string, std::string> links_;  // absolute targets
  std::map<std::string, Device> devices_;     // by address or UUID
  std::map<std::string, std::string> nodes_;  // path in /dev -> device, or "" for /dev/iommu
  std::map<int, std::shared_ptr<Open>> open_;
  std::map<std::uint64_t, View> views_;  // by address
  std::uint64_t next_inode_ = 1;
  std::uint64_t next_address_ = std::uint64_t{1} << 40;
  std::uint64_t fail_in_ = 0;
  int fail_errno_ = 0;
  std::map<std::string, std::pair<unsigned, int>> fail_named_;
  bool struck_ = false;
  int strike_errno_ = 0;
};

}  // namespace ioplan::fake
