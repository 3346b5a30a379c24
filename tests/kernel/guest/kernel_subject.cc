#include "tests/kernel/guest/kernel_subject.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>

#include "backends/vfio/uapi.h"
#include "tests/kernel/guest/boot.h"
#include "tests/kernel/guest/edu.h"
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
    struct {
      u32 fd, flags;
    } access;
    struct {
      u64 start, length;
    } reserve;
    struct {
      u64 iova, length, address;
    } check;
    struct {
      u64 flags, iova, length, page_size, bits, out;
    } dirty;
  } u{.dirty = {}};
  u32 last = 0, pad = 0;
};
static_assert(sizeof(TestCommand) == 72);
constexpr unsigned long kTestRequest = request(0xa0);
enum : u32 {
  kAddReserved = 1,
  kCheckMap = 3,
  kCreateAccess = 5,
  kMockReplace = 10,
  kMockDomainFlags = 12,
  kDirty = 13,
  kPasidAttach = 18,
  kPasidReplace = 19,
  kPasidDetach = 20
};
constexpr u32 kMockNoDirty = 1, kMockPasid = 4, kMockHwInfo = 0xfeedbeef;
constexpr u64 kPage = 4096;

// The buffer's places in this process. It is a file of huge pages, because the simulator's memory is contiguous within
// 2 MiB too: how large leaves are decides what a dirty bitmap says.
struct Buffer {
  int file = -1;
  u64 memory = 0, read_only = 0, nowhere = 0;
};

u64 place(void* p) { return p == MAP_FAILED ? 0 : reinterpret_cast<u64>(p); }  // NOLINT

Buffer make_buffer() {
  constexpr u64 kHugePage = u64{2} << 20;
  write_file("/proc/sys/vm/nr_hugepages", std::to_string(2 * kBufferBytes / kHugePage));
  Buffer b;
  b.file = memfd_create("buffer", MFD_HUGETLB | MFD_CLOEXEC);
  if (b.file < 0 || ftruncate(b.file, static_cast<off_t>(kBufferBytes)) != 0) return b;
  b.memory = place(mmap(nullptr, kBufferBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, b.file, 0));
  b.read_only =
      place(mmap(nullptr, kBufferBytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_POPULATE, -1, 0));
  const u64 hole =
      place(mmap(nullptr, 2 * kBufferBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  b.nowhere = (hole + kHugePage - 1) & ~(kHugePage - 1);
  return b;
}

struct BoundDevice {
  int fd = -1;              // of the cdev; -1 for a mock device
  u32 id = 0;               // the iommufd object
  u32 mock = 0;             // the selftest object
  u32 own_ioas = 0;         // of a mock device
  std::vector<u32> pasids;  // attached
};

class KernelSubject final : public Subject {
 public:
  explicit KernelSubject(const Host& host) : host_(host), devices_(host.devices.size()), handles_(host.devices.size()) {
    iommufd_ = open("/dev/iommu", O_RDWR);
    static const Buffer shared = make_buffer();
    buffer_ = shared;
    if (iommufd_ < 0 || buffer_.memory == 0 || buffer_.read_only == 0) {
      std::perror("/dev/iommu");
      std::abort();
    }
  }

  // Everything in the context goes with its last file; the order spares a warning of the mock driver.
  ~KernelSubject() override {
    for (BoundDevice& d : devices_) {
      if (d.fd >= 0) close(d.fd);
      if (d.mock != 0) destroy_mock(d);
    }
    for (const int access : accesses_) {
      if (access >= 0) close(access);
    }
    close(iommufd_);
  }

  Reply bind(unsigned device) override { return is_mock(device) ? bind_mock(device) : bind_vfio(device); }

  Reply unbind(unsigned device) override {
    BoundDevice& d = devices_[device];
    if (d.id == 0) return {ENOENT};
    if (is_mock(device)) {
      if (const int e = destroy_mock(d)) return {e};
    } else {
      close(d.fd);
    }
    handles_.detach(device);
    handles_.bound(device, kNoSuchId);
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
    iommu_ioas_allow_iovas c{.size = sizeof c,
                             .ioas_id = handles_.ioas(ioas),
                             .num_iovas = static_cast<u32>(list.size()),
                             .reserved = 0,
                             .allowed_iovas = address(list.data())};
    return {ask(IOMMU_IOAS_ALLOW_IOVAS, c)};
  }

  Reply iova_ranges(unsigned ioas) override {
    std::vector<iommu_iova_range> list(64);
    iommu_ioas_iova_ranges c{.size = sizeof c,
                             .ioas_id = handles_.ioas(ioas),
                             .num_iovas = 64,
                             .reserved = 0,
                             .allowed_iovas = address(list.data()),
                             .out_iova_alignment = 0};
    Reply reply{ask(IOMMU_IOAS_IOVA_RANGES, c)};
    if (reply.errno_value != 0) return reply;
    reply.value = c.out_iova_alignment;
    for (u32 i = 0; i < c.num_iovas; ++i) reply.words.insert(reply.words.end(), {list[i].start, list[i].last});
    return reply;
  }

  Reply map(unsigned ioas, std::uint32_t flags, Source source, std::uint64_t offset, std::uint64_t length,
            std::uint64_t iova) override {
    if (source == Source::file) {
      iommu_ioas_map_file c{.size = sizeof c,
                            .flags = flags,
                            .ioas_id = handles_.ioas(ioas),
                            .fd = buffer_.file,
                            .start = offset,
                            .length = length,
                            .iova = iova};
      const int e = ask(IOMMU_IOAS_MAP_FILE, c);
      return valued(e, c.iova);
    }
    const u64 base = source == Source::memory      ? buffer_.memory
                     : source == Source::read_only ? buffer_.read_only
                                                   : buffer_.nowhere;
    iommu_ioas_map c{.size = sizeof c,
                     .flags = flags,
                     .ioas_id = handles_.ioas(ioas),
                     .reserved = 0,
                     .user_va = base + offset,
                     .length = length,
                     .iova = iova};
    const int e = ask(IOMMU_IOAS_MAP, c);
    return valued(e, c.iova);
  }

  Reply copy(unsigned dst, unsigned src, std::uint32_t flags, std::uint64_t length, std::uint64_t dst_iova,
             std::uint64_t src_iova) override {
    iommu_ioas_copy c{.size = sizeof c,
                      .flags = flags,
                      .dst_ioas_id = handles_.ioas(dst),
                      .src_ioas_id = handles_.ioas(src),
                      .length = length,
                      .dst_iova = dst_iova,
                      .src_iova = src_iova};
    const int e = ask(IOMMU_IOAS_COPY, c);
    return valued(e, c.dst_iova);
  }

  Reply unmap(unsigned ioas, std::uint64_t iova, std::uint64_t length) override {
    iommu_ioas_unmap c{.size = sizeof c, .ioas_id = handles_.ioas(ioas), .iova = iova, .length = length};
    const int e = ask(IOMMU_IOAS_UNMAP, c);
    return valued(e, c.length);
  }

  Reply set_huge_pages(unsigned ioas, std::uint64_t value) override {
    return option(IOMMU_OPTION_HUGE_PAGES, IOMMU_OPTION_OP_SET, handles_.ioas(ioas), value);
  }
  Reply get_huge_pages(unsigned ioas) override {
    return option(IOMMU_OPTION_HUGE_PAGES, IOMMU_OPTION_OP_GET, handles_.ioas(ioas), 0);
  }
  Reply set_rlimit_mode(std::uint64_t value) override {
    return option(IOMMU_OPTION_RLIMIT_MODE, IOMMU_OPTION_OP_SET, 0, value);
  }

  Reply hw_info(unsigned device) override {
    std::array<u64, 3> data{};
    iommu_hw_info c{};
    c.size = sizeof c;
    c.dev_id = handles_.device(device);
    c.data_len = sizeof data;
    c.data_uptr = address(data.data());
    if (const int e = ask(IOMMU_GET_HW_INFO, c)) return {e};
    Reply reply{0, c.out_max_pasid_log2, {c.out_capabilities}};
    if (c.out_data_type == IOMMU_HW_INFO_TYPE_INTEL_VTD)
      reply.words.insert(reply.words.end(), {c.out_data_type, data[1], data[2]});
    if (c.out_data_type == kMockHwInfo) reply.words.insert(reply.words.end(), {c.out_data_type, data[0] >> 32});
    return reply;
  }

  // Nobody reads faults here; an open descriptor would keep the queue from being destroyed.
  Reply fault_queue_alloc() override {
    iommu_fault_alloc c{.size = sizeof c, .flags = 0, .out_fault_id = 0, .out_fault_fd = 0};
    const int e = ask(IOMMU_FAULT_QUEUE_ALLOC, c);
    if (e == 0) close(static_cast<int>(c.out_fault_fd));
    return made(e, TargetKind::fault_queue, c.out_fault_id);
  }

  Reply hwpt_alloc(unsigned device, Target pt, std::uint32_t flags, unsigned fault_queue) override {
    iommu_hwpt_alloc c{};
    c.size = sizeof c;
    c.flags = flags;
    c.dev_id = handles_.device(device);
    c.pt_id = handles_.id(pt);
    c.fault_id = handles_.id({TargetKind::fault_queue, fault_queue});
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
    if (is_mock(device)) return {detach_mock_pasid(d, pasid)};
    vfio_device_detach_iommufd_pt c{
        .argsz = sizeof c, .flags = pasid != 0 ? VFIO_DEVICE_DETACH_PASID : 0, .pasid = pasid};
    return {ask_fd(d.fd, VFIO_DEVICE_DETACH_IOMMUFD_PT, c)};
  }

  Reply set_dirty_tracking(unsigned hwpt, std::uint32_t enable) override {
    iommu_hwpt_set_dirty_tracking c{.size = sizeof c, .flags = enable, .hwpt_id = handles_.hwpt(hwpt), .reserved = 0};
    return {ask(IOMMU_HWPT_SET_DIRTY_TRACKING, c)};
  }

  Reply get_dirty_bitmap(unsigned hwpt, std::uint32_t flags, std::uint64_t iova, std::uint64_t length,
                         std::uint64_t page_size) override {
    constexpr std::size_t kSlack = 64;  // Linux writes behind the range (README.md)
    const std::size_t words = page_size == 0 ? 1 : length / page_size / 64 + 1;
    Reply reply;
    reply.words.resize(words + kSlack);
    iommu_hwpt_get_dirty_bitmap c{.size = sizeof c,
                                  .hwpt_id = handles_.hwpt(hwpt),
                                  .flags = flags,
                                  .reserved = 0,
                                  .iova = iova,
                                  .length = length,
                                  .page_size = page_size,
                                  .data = address(reply.words.data())};
    reply.errno_value = ask(IOMMU_HWPT_GET_DIRTY_BITMAP, c);
    reply.words.resize(reply.errno_value == 0 ? words : 0);
    return reply;
  }

  Reply destroy(Target target) override {
    const int e = destroy_object(handles_.id(target));
    if (e == 0) handles_.forget(target);
    return {e};
  }

  Reply reserve(unsigned ioas, std::uint64_t start, std::uint64_t length) override {
    TestCommand c;
    c.op = kAddReserved;
    c.id = handles_.ioas(ioas);
    c.u.reserve = {start, length};
    return {ask(kTestRequest, c)};
  }

  // The selftest tells a descriptor and no id.
  Reply access_create(unsigned ioas, std::uint32_t pins) override {
    TestCommand c;
    c.op = kCreateAccess;
    c.id = handles_.ioas(ioas);
    c.u.access.flags = pins;
    if (const int e = ask(kTestRequest, c)) return {e};
    accesses_.push_back(static_cast<int>(c.u.access.fd));
    return {0, accesses_.size() - 1};
  }

  Reply access_destroy(unsigned access) override {
    if (access >= accesses_.size() || accesses_[access] < 0) return {ENOENT};
    close(std::exchange(accesses_[access], -1));
    return {};
  }

  Reply check_map(unsigned hwpt, std::uint64_t offset, std::uint64_t length, std::uint64_t iova) override {
    TestCommand c;
    c.op = kCheckMap;
    c.id = handles_.hwpt(hwpt);
    c.u.check = {iova, length, buffer_.memory + offset};
    return {ask(kTestRequest, c)};
  }

  Reply write_pages(unsigned hwpt, std::uint64_t iova, std::uint64_t pages) override {
    TestCommand c;
    c.op = kDirty;
    c.id = handles_.hwpt(hwpt);
    c.u.dirty = {0, iova, 64 * kPage, kPage, address(&pages), 0};
    const int e = ask(kTestRequest, c);
    return valued(e, pages);
  }

  // What the engine's buffer holds is not known, but it is not this mark all over.
  Reply dma_write(unsigned device, std::uint64_t offset, std::uint64_t iova) override {
    constexpr u64 kBytes = 64;
    constexpr unsigned char kMark = 0xa5;
    auto edu = Edu::open(devices_[device].fd);
    if (!edu) return {ENODEV};
    auto* at = reinterpret_cast<unsigned char*>(buffer_.memory + offset);  // NOLINT
    std::memset(at, kMark, kBytes);
    if (!edu->write_memory(iova, kBytes)) return {ETIME};
    const bool arrived = std::any_of(at, at + kBytes, [](unsigned char byte) { return byte != kMark; });
    return {arrived ? 0 : EFAULT};
  }

 private:
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

  Reply option(u32 id, u16 operation, u32 object, u64 value) const {
    iommu_option c{
        .size = sizeof c, .option_id = id, .op = operation, .reserved = 0, .object_id = object, .val64 = value};
    const int e = ask(IOMMU_OPTION, c);
    return valued(e, c.val64);
  }

  static Reply valued(int e, u64 value) { return e != 0 ? Reply{e} : Reply{0, value}; }
  Reply made(int e, TargetKind kind, u32 id) { return e != 0 ? Reply{e} : Reply{0, handles_.add(kind, id)}; }

  bool is_mock(unsigned device) const { return host_.unit(*host_.devices[device].unit).driver == Driver::mock; }

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
    handles_.bound(device, d.id);
    return {};
  }

  int detach_mock_pasid(const BoundDevice& d, u32 pasid) const {
    TestCommand c;
    c.op = kPasidDetach;
    c.id = d.mock;
    c.u.pasid.pasid = pasid;
    return ask(kTestRequest, c);
  }

  // The mock driver forgets PASIDs that are still attached.
  int destroy_mock(const BoundDevice& d) const {
    for (const u32 pasid : d.pasids) detach_mock_pasid(d, pasid);
    if (const int e = destroy_object(d.mock)) return e;
    destroy_object(d.own_ioas);
    return 0;
  }

  Reply bind_vfio(unsigned device) {
    BoundDevice& d = devices_[device];
    if (d.fd >= 0) return {EBUSY};
    const std::string path = vfio_cdev(host_.devices[device].id);
    d.fd = open(path.c_str(), O_RDWR | O_CLOEXEC);
    if (d.fd < 0) return {errno};
    vfio_device_bind_iommufd c{.argsz = sizeof c, .flags = 0, .iommufd = iommufd_, .out_devid = 0, .token_uuid_ptr = 0};
    if (const int e = ask_fd(d.fd, VFIO_DEVICE_BIND_IOMMUFD, c)) {
      close(d.fd);
      d = {};
      return {e};
    }
    d.id = c.out_devid;
    handles_.bound(device, d.id);
    return {};
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
    vfio_device_attach_iommufd_pt c{
        .argsz = sizeof c, .flags = pasid != 0 ? VFIO_DEVICE_ATTACH_PASID : 0, .pt_id = pt, .pasid = pasid};
    const int e = ask_fd(d.fd, VFIO_DEVICE_ATTACH_IOMMUFD_PT, c);
    pt = c.pt_id;
    return e;
  }

  const Host& host_;
  std::vector<BoundDevice> devices_;
  int iommufd_ = -1;
  Buffer buffer_;
  Handles handles_;
  std::vector<int> accesses_;  // descriptors by handle; -1: destroyed
};

}  // namespace

std::unique_ptr<Subject> make_kernel_subject(const Host& host) { return std::make_unique<KernelSubject>(host); }

}  // namespace ioplan::kernel_test
