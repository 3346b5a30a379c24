#include "tests/kernel/guest/kernel_subject.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>

#include "backends/vfio/uapi.h"
#include "tests/kernel/guest/handles.h"

namespace ioplan::kernel_test {

namespace {

using namespace uapi;

// drivers/iommu/iommufd/iommufd_test.h: the mock driver's door, 72 bytes.
struct TestCommand {
  u32 size = sizeof(TestCommand), op = 0, id = 0, reserved = 0;
  union {
    struct {
      u32 stdev, hwpt, idev, flags;
    } mock;
    struct {
      u32 pt;
    } replace;
    struct {
      u32 pasid, pt;
    } pasid;
    u64 words[6];
  } u{.words = {}};
  u32 last = 0, pad = 0;
};
static_assert(sizeof(TestCommand) == 72);
constexpr unsigned long kTestRequest = request(0xa0);
enum : u32 { kMockReplace = 10, kMockDomainFlags = 12, kPasidAttach = 18, kPasidReplace = 19, kPasidDetach = 20 };
constexpr u32 kMockNoDirty = 1, kMockPasid = 4;

struct BoundDevice {
  int fd = -1;          // of the cdev; -1 for a mock device
  u32 id = 0;           // the iommufd object
  u32 mock = 0;         // the selftest object
  u32 own_ioas = 0;     // of a mock device
  std::vector<u32> pasids;
};

class KernelSubject final : public Subject {
 public:
  explicit KernelSubject(const Host& host) : host_(host), devices_(host.devices.size()), handles_(host.devices.size()) {
    iommufd_ = open("/dev/iommu", O_RDWR);
    static const u64 shared_buffer = reserve_buffer();
    buffer_ = shared_buffer;
    if (iommufd_ < 0 || buffer_ == 0) {
      std::perror("/dev/iommu");
      std::abort();
    }
  }

  // Everything in the context goes with its last file; the order spares a warning of the mock driver.
  ~KernelSubject() override {
    for (BoundDevice& d : devices_) {
      if (d.fd >= 0) close(d.fd);
      if (d.mock != 0) destroy_object(d.mock);
    }
    close(iommufd_);
  }

  Reply bind(unsigned device) override {
    return is_mock(device) ? bind_mock(device) : bind_vfio(device);
  }

  Reply unbind(unsigned device) override {
    BoundDevice& d = devices_[device];
    if (d.id == 0) return {ENOENT};
    if (is_mock(device)) {
      if (const int e = destroy_object(d.mock)) return {e};
      destroy_object(d.own_ioas);
    } else {
      close(d.fd);
    }
    handles_.detach(device);
    d = {};
    return {};
  }

  Reply ioas_alloc() override {
    iommu_ioas_alloc c{.size = sizeof c, .flags = 0, .out_ioas_id = 0};
    const int e = ask(IOMMU_IOAS_ALLOC, c);
    return made(e, TargetKind::ioas, c.out_ioas_id);
  }

  Reply allow_iovas(unsigned ioas, std::span<const Range> ranges) override {
    std::vector<iommu_iova_range> list;
    for (const Range& r : ranges) list.push_back({r.start, r.last});
    iommu_ioas_allow_iovas c{.size = sizeof c, .ioas_id = handles_.ioas(ioas), .num_iovas = static_cast<u32>(list.size()),
                             .reserved = 0, .allowed_iovas = address(list.data())};
    return {ask(IOMMU_IOAS_ALLOW_IOVAS, c)};
  }

  Reply iova_ranges(unsigned ioas) override {
    std::vector<iommu_iova_range> list(64);
    iommu_ioas_iova_ranges c{.size = sizeof c, .ioas_id = handles_.ioas(ioas), .num_iovas = 64, .reserved = 0,
                             .allowed_iovas = address(list.data()), .out_iova_alignment = 0};
    Reply reply{ask(IOMMU_IOAS_IOVA_RANGES, c)};
    if (reply.errno_value != 0) return reply;
    reply.value = c.out_iova_alignment;
    for (u32 i = 0; i < c.num_iovas; ++i) reply.words.insert(reply.words.end(), {list[i].start, list[i].last});
    return reply;
  }

  Reply map(unsigned ioas, std::uint32_t flags, std::uint64_t offset, std::uint64_t length, std::uint64_t iova) override {
    iommu_ioas_map c{.size = sizeof c, .flags = flags, .ioas_id = handles_.ioas(ioas), .reserved = 0,
                     .user_va = buffer_ + offset, .length = length, .iova = iova};
    const int e = ask(IOMMU_IOAS_MAP, c);
    return valued(e, c.iova);
  }

  Reply copy(unsigned dst, unsigned src, std::uint32_t flags, std::uint64_t length, std::uint64_t dst_iova, std::uint64_t src_iova) override {
    iommu_ioas_copy c{.size = sizeof c, .flags = flags, .dst_ioas_id = handles_.ioas(dst), .src_ioas_id = handles_.ioas(src),
                      .length = length, .dst_iova = dst_iova, .src_iova = src_iova};
    const int e = ask(IOMMU_IOAS_COPY, c);
    return valued(e, c.dst_iova);
  }

  Reply unmap(unsigned ioas, std::uint64_t iova, std::uint64_t length) override {
    iommu_ioas_unmap c{.size = sizeof c, .ioas_id = handles_.ioas(ioas), .iova = iova, .length = length};
    const int e = ask(IOMMU_IOAS_UNMAP, c);
    return valued(e, c.length);
  }

  Reply huge_pages(unsigned ioas, std::uint64_t value) override {
    iommu_option c{.size = sizeof c, .option_id = IOMMU_OPTION_HUGE_PAGES, .op = IOMMU_OPTION_OP_SET, .reserved = 0,
                   .object_id = handles_.ioas(ioas), .val64 = value};
    return {ask(IOMMU_OPTION, c)};
  }

  Reply hwpt_alloc(unsigned device, unsigned ioas, std::uint32_t flags) override {
    iommu_hwpt_alloc c{};
    c.size = sizeof c;
    c.flags = flags;
    c.dev_id = devices_[device].id;
    c.pt_id = handles_.ioas(ioas);
    const int e = ask(IOMMU_HWPT_ALLOC, c);
    return made(e, TargetKind::hwpt, c.out_hwpt_id);
  }

  Reply attach(unsigned device, Target target, std::uint32_t pasid) override {
    BoundDevice& d = devices_[device];
    if (d.id == 0) return {ENOENT};
    u32 pt = handles_.id(target);
    const int e = is_mock(device) ? attach_mock(d, pt, pasid) : attach_vfio(d, pt, pasid);
    if (e != 0) return {e};
    if (pasid == 0) return {0, handles_.attach(device, pt)};
    if (std::ranges::find(d.pasids, pasid) == d.pasids.end()) d.pasids.push_back(pasid);
    return {};
  }

  Reply detach(unsigned device, std::uint32_t pasid) override {
    BoundDevice& d = devices_[device];
    if (d.id == 0) return {ENOENT};
    if (is_mock(device) && pasid == 0) return {EOPNOTSUPP};
    std::erase(d.pasids, pasid);
    if (pasid == 0) handles_.detach(device);
    if (is_mock(device)) {
      TestCommand c;
      c.op = kPasidDetach;
      c.id = d.mock;
      c.u.pasid.pasid = pasid;
      return {ask(kTestRequest, c)};
    }
    vfio_device_detach_iommufd_pt c{.argsz = sizeof c, .flags = pasid != 0 ? VFIO_DEVICE_DETACH_PASID : 0, .pasid = pasid};
    return {ask_fd(d.fd, VFIO_DEVICE_DETACH_IOMMUFD_PT, c)};
  }

  Reply set_dirty_tracking(unsigned hwpt, std::uint32_t enable) override {
    iommu_hwpt_set_dirty_tracking c{.size = sizeof c, .flags = enable, .hwpt_id = handles_.hwpt(hwpt), .reserved = 0};
    return {ask(IOMMU_HWPT_SET_DIRTY_TRACKING, c)};
  }

  Reply get_dirty_bitmap(unsigned hwpt, std::uint64_t iova, std::uint64_t length, std::uint64_t page_size) override {
    Reply reply;
    reply.words.resize(page_size == 0 ? 1 : length / page_size / 64 + 1);
    iommu_hwpt_get_dirty_bitmap c{.size = sizeof c, .hwpt_id = handles_.hwpt(hwpt), .flags = 0, .reserved = 0, .iova = iova,
                                  .length = length, .page_size = page_size, .data = address(reply.words.data())};
    reply.errno_value = ask(IOMMU_HWPT_GET_DIRTY_BITMAP, c);
    if (reply.errno_value != 0) reply.words.clear();
    return reply;
  }

  Reply destroy(Target target) override {
    const int e = destroy_object(handles_.id(target));
    if (e == 0) handles_.forget(target);
    return {e};
  }

 private:
  // 2 MiB aligned, touched, and small enough for the guest.
  static u64 reserve_buffer() {
    constexpr u64 kAlign = u64{2} << 20;
    void* p = mmap(nullptr, kBufferBytes + kAlign, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    return p == MAP_FAILED ? 0 : (reinterpret_cast<u64>(p) + kAlign - 1) & ~(kAlign - 1);  // NOLINT
  }

  static u64 address(const void* p) { return reinterpret_cast<u64>(p); }  // NOLINT

  template <class Command>
  static int ask_fd(int fd, unsigned long request, Command& command) {
    return ioctl(fd, request, &command) < 0 ? errno : 0;
  }
  template <class Command>
  int ask(unsigned long request, Command& command) const {
    return ask_fd(iommufd_, request, command);
  }

  int destroy_object(u32 id) const {
    iommu_destroy c{.size = sizeof c, .id = id};
    return ask(IOMMU_DESTROY, c);
  }

  static Reply valued(int e, u64 value) { return e != 0 ? Reply{e} : Reply{0, value}; }
  Reply made(int e, TargetKind kind, u32 id) { return e != 0 ? Reply{e} : Reply{0, handles_.add(kind, id)}; }

  bool is_mock(unsigned device) const {
    return host_.unit(*host_.devices[device].unit).driver == Driver::mock;
  }

  Reply bind_mock(unsigned device) {
    BoundDevice& d = devices_[device];
    if (d.id != 0) return {EBUSY};
    iommu_ioas_alloc own{.size = sizeof own, .flags = 0, .out_ioas_id = 0};
    if (const int e = ask(IOMMU_IOAS_ALLOC, own)) return {e};
    const Device& facts = host_.devices[device];
    TestCommand c;
    c.op = kMockDomainFlags;
    c.id = own.out_ioas_id;
    c.u.mock.flags = (facts.facts[DeviceFact::no_dirty].value_or(0) != 0 ? kMockNoDirty : 0) |
                     (facts.facts[DeviceFact::pasid_bits].value_or(0) != 0 ? kMockPasid : 0);
    if (const int e = ask(kTestRequest, c)) {
      destroy_object(own.out_ioas_id);
      return {e};
    }
    d.mock = c.u.mock.stdev;
    d.id = c.u.mock.idev;
    d.own_ioas = own.out_ioas_id;
    return {};
  }

  Reply bind_vfio(unsigned device) {
    BoundDevice& d = devices_[device];
    if (d.fd >= 0) return {EBUSY};
    const std::string path = cdev_of(host_.devices[device].id);
    d.fd = open(path.c_str(), O_RDWR);
    if (d.fd < 0) return {errno};
    vfio_device_bind_iommufd c{.argsz = sizeof c, .flags = 0, .iommufd = iommufd_, .out_devid = 0, .token_uuid_ptr = 0};
    if (const int e = ask_fd(d.fd, VFIO_DEVICE_BIND_IOMMUFD, c)) {
      close(d.fd);
      d = {};
      return {e};
    }
    d.id = c.out_devid;
    return {};
  }

  static std::string cdev_of(const std::string& bdf) {
    const std::string folder = "/sys/bus/pci/devices/" + bdf + "/vfio-dev";
    std::string name;
    if (DIR* d = opendir(folder.c_str())) {
      while (const dirent* e = readdir(d)) {
        if (e->d_name[0] != '.') name = e->d_name;
      }
      closedir(d);
    }
    return "/dev/vfio/devices/" + name;
  }

  int attach_mock(const BoundDevice& d, u32& pt, u32 pasid) const {
    TestCommand c;
    c.id = d.mock;
    if (pasid == 0) {
      c.op = kMockReplace;
      c.u.replace.pt = pt;
      const int e = ask(kTestRequest, c);
      pt = c.u.replace.pt;
      return e;
    }
    c.op = std::ranges::find(d.pasids, pasid) == d.pasids.end() ? kPasidAttach : kPasidReplace;
    c.u.pasid.pasid = pasid;
    c.u.pasid.pt = pt;
    return ask(kTestRequest, c);
  }

  static int attach_vfio(const BoundDevice& d, u32& pt, u32 pasid) {
    vfio_device_attach_iommufd_pt c{.argsz = sizeof c, .flags = pasid != 0 ? VFIO_DEVICE_ATTACH_PASID : 0, .pt_id = pt, .pasid = pasid};
    const int e = ask_fd(d.fd, VFIO_DEVICE_ATTACH_IOMMUFD_PT, c);
    pt = c.pt_id;
    return e;
  }

  const Host& host_;
  std::vector<BoundDevice> devices_;
  int iommufd_ = -1;
  u64 buffer_ = 0;
  Handles handles_;
};

}  // namespace

std::unique_ptr<Subject> make_kernel_subject(const Host& host) { return std::make_unique<KernelSubject>(host); }

}  // namespace ioplan::kernel_test
