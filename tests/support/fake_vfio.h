// An operating system that keeps books of VFIO's older interface: containers, groups, devices, and a type1 back end.
//
// It stands behind backends/vfio/system.h. What it knows is what drivers/vfio/{group,container,vfio_iommu_type1}.c say
// about files, joining, mappings and their errno; which domain a group ends in, and what that domain is, it is told by a
// plan (`become`). Every call that can fail is counted and can be made to fail with any errno, the n-th of all calls or
// the n-th of one name. Names are "open PATH", "read PATH", "list PATH", "read_link PATH", "memfd_create", "ftruncate",
// "mmap", and the ioctls' own. What no good program does (closing a group under its open devices, a bad munmap) is noted
// in `violations`.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "backends/type1/calls.h"
#include "backends/vfio/system.h"
#include "engine/model/host.h"
#include "engine/model/plan.h"

namespace ioplan::fake {

class FakeVfio final : public vfio::System {
 public:
  FakeVfio();

  // Building the machine.
  void add_device(const std::string& address, unsigned group, const std::string& driver = "vfio-pci");
  void add_file(const std::string& path, const std::string& text) { files_[path] = text; }
  void add_huge_pages(std::uint64_t page, std::uint64_t free);
  void remove(const std::string& path);  // and all below it
  // The plan's machine: devices bound to vfio-pci, huge pages, and a type1 that does exactly what was predicted.
  void become(const Host& host, const Plan& plan);

  // What a group's domain is, by the group's number.
  struct Domain {
    std::string name;
    std::uint64_t page_sizes = 0x40201000;
    bool enforce = true;
    std::vector<Range> ranges = {{0, ~std::uint64_t{0}}};  // that the container offers with it
  };
  std::map<unsigned, Domain> domains;
  // Told of each group that joins or leaves a container, by its descriptor; may change `domains`.
  std::function<void(unsigned group, int container)> on_join, on_leave;
  std::set<std::uint32_t> extensions = {1, 3, 4, 9};
  int version = 0;
  std::uint32_t entries = 65535;
  bool old_info = false;              // GET_INFO without capabilities, as before Linux 5.4
  std::uint64_t info_padding = 0;     // bytes of a capability nobody knows, in front of the others
  std::uint64_t unmap_forgets = 0;    // bytes that UNMAP_DMA's answer is short of
  std::uint64_t locked_before = 0;    // of the process, bytes
  std::uint64_t memlock = ~std::uint64_t{0};
  bool cap_ipc_lock = false;
  std::uint64_t page = 4096;

  // A VM's VFIO device of KVM: a descriptor. Groups that it knows, ascending.
  int open_kvm();
  std::vector<unsigned> with_kvm(int kvm) const;

  // Failing.
  void fail_nth(std::uint64_t n, int errno_value);                        // of all calls from now; 0: none
  void fail(const std::string& name, int errno_value, unsigned nth = 1);  // of this name from now
  bool struck() const { return struck_; }

  // Looking.
  std::vector<std::string> calls;       // names
  std::vector<std::string> violations;
  std::vector<unsigned> joined;         // groups, in the order in which they joined
  struct Map {
    Range iova;
    std::uint64_t offset = 0;  // in its file
    std::uint32_t flags = 0;
  };
  std::vector<Map> maps;                // every successful MAP_DMA
  std::size_t open_descriptors() const { return open_.size(); }
  std::size_t views() const { return views_.size(); }
  std::string world() const;  // files, groups, mappings, views: one fact a line

  vfio::Reply<int> open(const std::string& path) override;
  void close(int fd) override;
  vfio::Reply<void> ioctl(int fd, unsigned long request, void* argument) override;
  vfio::Reply<int> ask(int fd, unsigned long request, std::uintptr_t argument) override;
  vfio::Reply<vfio::FileIdentity> identify(int fd) override;
  vfio::Reply<int> memfd_create(const std::string& name, std::uint64_t page_bytes) override;
  vfio::Reply<void> ftruncate(int fd, std::uint64_t bytes) override;
  vfio::Reply<std::uint64_t> mmap(int fd, std::uint64_t offset, std::uint64_t bytes) override;
  void munmap(std::uint64_t address, std::uint64_t bytes) override;
  vfio::Reply<std::string> read_file(const std::string& path) override;
  vfio::Reply<std::string> read_link(const std::string& path) override;
  vfio::Reply<std::vector<std::string>> list(const std::string& path) override;
  std::uint64_t page_size() override { return page; }
  std::uint64_t memlock_limit() override { return memlock; }
  bool locks_without_limit() override { return cap_ipc_lock; }

 private:
  enum class Kind { container, group, device, memory, kvm };
  struct Open {
    Kind kind = Kind::container;
    unsigned group = 0;                // of a group or a device
    std::string device;
    std::uint64_t bytes = 0, page = 0;  // of memory
    bool started = false;              // of a container
    std::set<unsigned> with_kvm;       // groups, of KVM's device
    std::map<std::uint64_t, std::uint64_t> mapped;  // of a container: IOVA -> last
  };
  struct Group {
    bool open = false;
    int container = -1;  // descriptor
    unsigned devices = 0;  // open
  };
  struct View {
    int fd;
    std::uint64_t offset, bytes;
  };

  bool strikes(const std::string& name);
  int install(Open open);
  bool viable(unsigned group) const;
  std::vector<unsigned> groups_in(int container) const;
  std::uint64_t pages_of(int container) const;
  std::vector<Range> ranges_of(int container) const;
  std::uint64_t locked() const;
  void leave(unsigned group);
  int map(int container, const uapi::vfio_iommu_type1_dma_map& request);
  int unmap(int container, uapi::vfio_iommu_type1_dma_unmap& request);
  int info(int container, void* argument);
  int on_kvm(std::set<unsigned>& groups, const uapi::kvm_device_attr& attribute) const;
  int set_container(unsigned group, int container);
  int open_device(unsigned group, const std::string& address);

  std::map<std::string, std::string> files_, links_;
  std::map<std::string, std::set<std::string>> folders_;
  std::map<std::string, std::pair<unsigned, std::string>> devices_;  // address -> group, driver
  std::set<unsigned> nodes_;                                          // of /dev/vfio
  std::map<unsigned, Group> groups_;
  std::map<int, Open> open_;
  std::map<std::uint64_t, View> views_;  // by address
  std::uint64_t next_address_ = std::uint64_t{1} << 40;
  std::uint64_t fail_in_ = 0;
  int fail_errno_ = 0;
  std::map<std::string, std::pair<unsigned, int>> fail_named_;
  bool struck_ = false;
  int strike_errno_ = 0;
};

}  // namespace ioplan::fake
