// The iommufd backend's dirty tracking, and its copies, on Linux: no IOMMU of QEMU's tracks what is dirty, iommufd's
// mock driver does. A stand-in for VFIO makes mock devices of the cdevs that the backend opens, binds and attaches; all
// else is the kernel's. Dirty bits are set by the mock driver (IOMMU_TEST_OP_DIRTY) and read by the backend.
//
// Two VMs' address spaces are lent the same memory: it must be pinned once (VmPin).
#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <map>
#include <optional>

#include "backends/iommufd/iommufd_backend.h"
#include "engine/apply/apply.h"
#include "tests/kernel/guest/boot.h"
#include "tests/kernel/guest/case.h"

namespace ioplan::kernel_test {

namespace {

using namespace iommufd;

constexpr std::uint64_t kPage = 4096, kBytes = std::uint64_t{4} << 20;
constexpr Range kMemory{std::uint64_t{1} << 24,
                        (std::uint64_t{1} << 24) + kBytes - 1};  // where the mock's aperture begins

// drivers/iommu/iommufd/iommufd_test.h
struct MockCommand {
  std::uint32_t size = 72, op = 0, id = 0, reserved = 0;
  std::array<std::uint64_t, 7> words{};
};
static_assert(sizeof(MockCommand) == 72);
constexpr unsigned long kMockRequest = uapi::request(0xa0);
enum : std::uint32_t { kMakeDevice = 12, kSetDirty = 13, kReplace = 10 };

// A system whose /dev/vfio/devices/vfioN are mock devices. The descriptors that it gives for them are of /dev/null.
class MockSystem final : public System {
 public:
  Reply<int> open(const std::string& path) override {
    const bool device = path.starts_with("/dev/vfio/devices/");
    const auto fd = linux_->open(device ? "/dev/null" : path);
    if (fd && device) mocks_[*fd] = {};
    if (fd && path == "/dev/iommu") iommu_ = *fd;
    return fd;
  }
  void close(int fd) override {
    if (const auto mock = mocks_.find(fd); mock != mocks_.end()) {
      if (mock->second.device != 0) {
        (void)destroy(*linux_, iommu_, mock->second.device);
        (void)destroy(*linux_, iommu_, mock->second.own);
      }
      mocks_.erase(mock);
    }
    linux_->close(fd);
  }
  Reply<void> ioctl(int fd, unsigned long request, void* argument) override {
    const auto mock = mocks_.find(fd);
    if (mock == mocks_.end()) return linux_->ioctl(fd, request, argument);
    if (request == uapi::VFIO_DEVICE_BIND_IOMMUFD)
      return bind(mock->second, *static_cast<uapi::vfio_device_bind_iommufd*>(argument));
    if (request == uapi::VFIO_DEVICE_ATTACH_IOMMUFD_PT)
      return replace(mock->second, static_cast<uapi::vfio_device_attach_iommufd_pt*>(argument)->pt_id);
    if (request == uapi::VFIO_DEVICE_DETACH_IOMMUFD_PT) return replace(mock->second, mock->second.own);
    return fails_with(ENOTTY);
  }

  Reply<FileIdentity> identify(int fd) override { return linux_->identify(fd); }
  Reply<int> ask(int fd, unsigned long request, std::uintptr_t argument) override { return linux_->ask(fd, request, argument); }
  Reply<int> memfd_create(const std::string& name, std::uint64_t page) override {
    return linux_->memfd_create(name, page);
  }
  Reply<void> ftruncate(int fd, std::uint64_t bytes) override { return linux_->ftruncate(fd, bytes); }
  Reply<std::uint64_t> mmap(int fd, std::uint64_t offset, std::uint64_t bytes) override {
    return linux_->mmap(fd, offset, bytes);
  }
  void munmap(std::uint64_t address, std::uint64_t bytes) override { linux_->munmap(address, bytes); }
  Reply<std::string> read_file(const std::string& path) override { return linux_->read_file(path); }
  Reply<std::string> read_link(const std::string& path) override { return linux_->read_link(path); }
  Reply<std::vector<std::string>> list(const std::string& path) override { return linux_->list(path); }
  std::uint64_t page_size() override { return linux_->page_size(); }
  std::uint64_t memlock_limit() override { return linux_->memlock_limit(); }
  bool locks_without_limit() override { return linux_->locks_without_limit(); }

  // What a device behind the HWPT would have written to: bit 0 is `iova`.
  Reply<void> set_dirty(ObjectId hwpt, std::uint64_t iova, std::uint64_t bits) {
    MockCommand c;
    c.op = kSetDirty;
    c.id = hwpt;
    c.words = {0, iova, 64 * kPage, kPage, reinterpret_cast<std::uint64_t>(&bits), 0, 0};  // NOLINT
    return linux_->ioctl(iommu_, kMockRequest, &c);
  }

 private:
  struct Mock {
    ObjectId device = 0, own = 0;  // born attached: to an IOAS of its own
  };

  Reply<void> bind(Mock& mock, uapi::vfio_device_bind_iommufd& request) {
    const auto own = ioas_alloc(*linux_, iommu_);
    if (!own) return tl::make_unexpected(own.error());
    MockCommand c;
    c.op = kMakeDevice;
    c.id = *own;
    if (const auto made = linux_->ioctl(iommu_, kMockRequest, &c); !made) return made;
    mock = {static_cast<std::uint32_t>(c.words[0]), *own};       // out_stdev_id, out_hwpt_id
    request.out_devid = static_cast<std::uint32_t>(c.words[1]);  // out_idev_id
    return {};
  }
  Reply<void> replace(const Mock& mock, ObjectId pt) {
    MockCommand c;
    c.op = kReplace;
    c.id = mock.device;
    c.words[0] = pt;
    return linux_->ioctl(iommu_, kMockRequest, &c);
  }

  std::unique_ptr<System> linux_ = linux_system();
  int iommu_ = -1;
  std::map<int, Mock> mocks_;
};

Step step(StepKind kind, const std::string& device, const std::string& ioas, const std::string& hwpt) {
  Step s;
  s.kind = kind;
  s.device = device;
  s.ioas = ioas;
  s.hwpt = hwpt;
  s.flags = kind == StepKind::hwpt_alloc ? kDirtyTracking : 0;
  s.iova = kMemory;
  return s;
}

// By hand, because the guest's host document has no mock devices that VFIO knows: a VM with two HWPTs in one address
// space, and a second VM with a third one in another.
Plan plan_of(const std::array<std::string, 3>& devices) {
  Plan plan;
  plan.verdict = Verdict::feasible;
  for (const char* name : {"0", "1"}) {
    PlannedIoas ioas;
    ioas.id = std::string("ioas") + name;
    ioas.vm = std::string("vm") + name;
    ioas.memory = {{kMemory, Access::read_write}};
    plan.ioas.push_back(ioas);
    plan.steps.push_back(step(StepKind::ioas_alloc, "", ioas.id, ""));
  }
  for (std::size_t i = 0; i < devices.size(); ++i) {
    const std::string ioas = i < 2 ? "ioas0" : "ioas1", hwpt = "hwpt" + std::to_string(i);
    plan.steps.push_back(step(StepKind::bind, devices[i], "", ""));
    plan.steps.push_back(step(StepKind::hwpt_alloc, devices[i], ioas, hwpt));
    plan.steps.push_back(step(StepKind::attach, devices[i], "", hwpt));
  }
  for (const char* ioas : {"ioas0", "ioas1"}) plan.steps.push_back(step(StepKind::map, "", ioas, ""));
  return plan;
}

// Nothing, or the first thing that is not as it must be.
class Trial {
 public:
  explicit Trial(const Guest& guest) {
    for (std::size_t i = 0; i < devices_.size(); ++i) devices_[i] = guest.host.devices[guest.pci.at(i)].id;
  }

  std::string run() {
    const int memory = system_.memfd_create("lent", kPage).value();
    if (!system_.ftruncate(memory, kBytes)) return "ftruncate";
    IommufdOptions options;
    options.memory = [memory](const PlannedIoas&, const MemoryRange&) -> Result<LentMemory> {
      return LentMemory{memory, 0};
    };
    const Plan plan = plan_of(devices_);
    IommufdBackend backend(system_, Host{}, options);
    for (const Step& s : plan.steps) {
      auto action = backend.prepare(plan, s);
      if (!action) return to_text(action.error());
      if (const auto done = (*action)->perform([](std::uint64_t) {}); !done) return to_text(done.error());
    }
    backend_ = &backend;
    std::string wrong = pinned_once();
    if (wrong.empty()) wrong = one_hwpt();
    if (wrong.empty()) wrong = whole_vm();
    system_.close(memory);
    return wrong;
  }

 private:
  static std::string pinned_once() {
    const std::string status = read_file("/proc/self/status");
    const std::string wanted =
        "VmPin:\t" + std::string(8 - std::to_string(kBytes >> 10).size(), ' ') + std::to_string(kBytes >> 10) + " kB";
    return status.find(wanted) == std::string::npos ? "not pinned once: " + status.substr(status.find("VmPin:"), 24)
                                                    : "";
  }

  bool write(const char* hwpt, std::uint64_t offset, std::uint64_t bits) {
    return system_.set_dirty(*backend_->object(hwpt), kMemory.start + offset, bits).has_value();
  }

  std::optional<std::uint64_t> read(const char* hwpt, DirtyRead how) {
    auto bitmap = DirtyBitmap::create(kMemory, kPage);
    if (!bitmap || !backend_->read_dirty(hwpt, how, *bitmap)) return std::nullopt;
    return bitmap->words()[0];
  }

  std::string one_hwpt() {
    if (!backend_->track_dirty("hwpt0", DirtyTracking::on)) return "tracking of one HWPT";
    if (!write("hwpt0", 0, 0b1011)) return "the mock driver's dirty bits";
    if (read("hwpt0", DirtyRead::keep) != 0b1011U) return "reading without clearing";
    if (read("hwpt0", DirtyRead::clear) != 0b1011U) return "reading what was not cleared";
    if (read("hwpt0", DirtyRead::clear) != 0U) return "clearing";
    if (!backend_->track_dirty("hwpt0", DirtyTracking::off)) return "ending it";
    return {};
  }

  std::string whole_vm() {
    if (!backend_->track_dirty_of_vm("vm0", DirtyTracking::on)) return "tracking of a VM";
    if (!write("hwpt0", 0, 0b0011) || !write("hwpt1", 0, 0b0110)) return "the mock driver's dirty bits";
    auto bitmaps = backend_->dirty_bitmaps("vm0", kPage);
    if (!bitmaps || bitmaps->size() != 1) return "bitmaps of a VM";
    if (!backend_->read_dirty_of_vm("vm0", DirtyRead::clear, *bitmaps)) return "reading a VM";
    if ((*bitmaps)[0].words()[0] != 0b0111 || (*bitmaps)[0].dirty_pages() != 3) return "the pages of both HWPTs";
    if (!write("hwpt1", 2 * 64 * kPage, 1)) return "the mock driver's dirty bits";
    if (!backend_->read_dirty_of_vm("vm0", DirtyRead::clear, *bitmaps)) return "reading a VM again";
    if ((*bitmaps)[0].words()[2] != 1 || (*bitmaps)[0].dirty_pages() != 4) return "gathering over rounds";
    return {};
  }

  MockSystem system_;
  std::array<std::string, 3> devices_;
  IommufdBackend* backend_ = nullptr;
};

}  // namespace

Outcome dirty(const Guest& guest) {
  if (guest.pci.size() < 3) return {false, "three devices are needed"};
  Trial trial(guest);
  const std::string wrong = trial.run();
  return {wrong.empty(),
          wrong.empty() ? "dirty pages read by HWPT and by VM, and memory of two VMs pinned once" : wrong};
}

}  // namespace ioplan::kernel_test
