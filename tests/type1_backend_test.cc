// The type1 backend on an operating system that keeps books of VFIO (support/fake_vfio.h): plans are carried out to the
// letter, every call is made to fail with every errno that matters, and afterwards nothing may be left: no group in a
// container, no descriptor, no view of memory. The kernel itself judges in tests/kernel.
//
// IOPLAN_SCALE multiplies the number of random plans.
#include "backends/type1/type1_backend.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <vector>

#include "backends/iommufd/iommufd_backend.h"
#include "backends/vfio/device.h"
#include "constraints/kernel_law.h"
#include "engine/apply/apply.h"
#include "engine/document/load.h"
#include "engine/planner/planner.h"
#include "tests/support/fake_vfio.h"
#include "tests/support/generator.h"
#include "tests/support/seeds.h"

namespace ioplan::type1 {
namespace {

using fake::FakeVfio;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;
constexpr const char* kFirst = "0000:01:00.0";
constexpr const char* kSecond = "0000:02:00.0";
constexpr const char* kThird = "0000:03:00.0";

struct Case {
  Host host;
  Plan plan;
};

Case planned(const std::string& documents) {
  const auto loaded = load_text("case.yaml", documents);
  if (!loaded) throw std::runtime_error(to_text(loaded.error()));
  return {loaded->request.host, make_plan(loaded->request, type1_law())};
}

// dmar0 can block no-snoop; dmar1 and dmar2 cannot, and dmar2 has no 1 GiB pages. Group 3 has two devices, one of them
// the VM's. Two domains: group 3 joins before group 2, which shares its domain.
std::string three_units(const std::string& memory) {
  return fmt::format(R"(apiVersion: ioplan/v1
kind: Host
name: three-units
kernel: {{arch: x86_64, release: 7.2.13, page_size: 4KiB, intel_iommu_sm: true, isolated_msi: true}}
iommus:
  - {{id: dmar0, driver: intel, cap: 0xd2008c40660462, ecap: 0xf050da}}
  - {{id: dmar1, driver: intel, cap: 0xd2008c40660462, ecap: 0xf0505a}}
  - {{id: dmar2, driver: intel, cap: 0xd2008440660462, ecap: 0xf0505a}}
devices:
  - {{id: "0000:01:00.0", iommu: dmar0, group: 1}}
  - {{id: "0000:02:00.0", iommu: dmar1, group: 2}}
  - {{id: "0000:03:00.0", iommu: dmar2, group: 3}}
  - {{id: "0000:03:00.1", iommu: dmar2, group: 3}}
---
apiVersion: ioplan/v1
kind: VirtualMachine
name: vm
memory: {}
devices: [{{host: "0000:01:00.0"}}, {{host: "0000:02:00.0"}}, {{host: "0000:03:00.0"}}, {{host: "0000:03:00.1"}}]
)",
                     memory);
}

const Case& small_case() {
  static const Case kCase = planned(
      three_units("{backing: 2MiB, ranges: [{gpa: [0x0, 0x3fffffff]}, {gpa: [0x40000000, 0x4000ffff], access: ro}]}"));
  return kCase;
}

bool all_pci(const Host& host) {
  return std::ranges::all_of(host.devices, [](const ioplan::Device& d) { return d.id.find(':') != std::string::npos; });
}

std::vector<Case> random_cases(std::uint64_t count) {
  std::vector<Case> cases;
  for (std::uint64_t seed = 1; cases.size() < count; ++seed) {
    Request request = generator::random_request(seed);
    if (!all_pci(request.host)) continue;
    for (VirtualMachine& vm : request.vms) {
      std::erase_if(vm.devices, [](const AssignedDevice& a) { return !a.host; });
      vm.needs.p2p.clear();
    }
    Case c{request.host, make_plan(request, type1_law())};
    if (c.plan.verdict == Verdict::feasible && !c.plan.hwpts.empty()) cases.push_back(std::move(c));
  }
  return cases;
}

std::string text_of(const ApplyReport& report) {
  std::string text = report.error ? to_text(*report.error) : "";
  for (const std::string& r : report.remains) text += "\nremains: " + r;
  return text;
}

std::size_t count_calls(const FakeVfio& system, const std::string& name) {
  return static_cast<std::size_t>(std::ranges::count(system.calls, name));
}

bool changes(const std::string& call) {
  return call == "VFIO_SET_IOMMU" || call == "VFIO_GROUP_SET_CONTAINER" || call == "VFIO_GROUP_UNSET_CONTAINER" ||
         call == "VFIO_GROUP_GET_DEVICE_FD" || call == "VFIO_IOMMU_MAP_DMA" || call == "VFIO_IOMMU_UNMAP_DMA";
}

class Type1BackendTest : public testing::Test {
 protected:
  Type1BackendTest() { system.become(c.host, c.plan); }

  ApplyReport apply(Type1Options options = {}) {
    backend = std::make_unique<Type1Backend>(system, std::move(options));
    return apply_plan(c.plan, c.host, *backend);
  }
  Error refusal() {
    const ApplyReport report = apply();
    EXPECT_EQ(report.outcome, ApplyOutcome::refused) << text_of(report);
    EXPECT_TRUE(std::ranges::none_of(system.calls, changes)) << "something was touched";
    EXPECT_EQ(system.world().find("fd "), std::string::npos);
    return report.error.value_or(Error{});
  }
  Error rolled_back() {
    const ApplyReport report = apply();
    EXPECT_EQ(report.outcome, ApplyOutcome::rolled_back) << text_of(report);
    EXPECT_EQ(system.open_descriptors(), 0U) << system.world();
    return report.error.value_or(Error{});
  }

  Case c = small_case();
  FakeVfio system;
  std::unique_ptr<Type1Backend> backend;
};

// ------------------------------------------------------------------------------------------------- plans carried out

TEST_F(Type1BackendTest, CarriesOutAPlanAndClosesEverything) {
  ASSERT_EQ(c.plan.hwpts.size(), 2U);
  system.locked_before = 8 * kMiB;
  const ApplyReport report = apply();
  ASSERT_EQ(report.outcome, ApplyOutcome::done) << text_of(report);
  ASSERT_EQ(report.observed.hwpts.size(), 2U);
  EXPECT_THAT(*report.observed.hwpts[1].devices, ElementsAre(kSecond, kThird, "0000:03:00.1"));
  EXPECT_EQ(report.observed.ioas.at(0).ranges, c.plan.ioas[0].ranges);
  EXPECT_EQ(report.observed.ioas.at(0).alignment, 4096U);
  EXPECT_EQ(report.observed.pinned_bytes, c.plan.resources.pinned_bytes);
  EXPECT_LT(std::ranges::find(system.joined, 3U), std::ranges::find(system.joined, 2U));
  EXPECT_EQ(count_calls(system, "VFIO_SET_IOMMU"), 1U);
  EXPECT_EQ(count_calls(system, "VFIO_GROUP_SET_CONTAINER"), 3U);  // a group once, though it has two devices
  EXPECT_TRUE(backend->device_descriptor(kFirst));
  ASSERT_EQ(system.maps.size(), 2U);
  EXPECT_EQ(system.maps[0].flags, uapi::VFIO_DMA_MAP_FLAG_READ | uapi::VFIO_DMA_MAP_FLAG_WRITE);
  EXPECT_EQ(system.maps[1].flags, uapi::VFIO_DMA_MAP_FLAG_READ);
  backend.reset();
  EXPECT_EQ(system.open_descriptors(), 0U);
  EXPECT_EQ(system.views(), 0U);
  EXPECT_THAT(system.violations, IsEmpty());
}

TEST(Type1Backend, CarriesOutRandomPlansWithoutADifference) {
  std::size_t several = 0, containers = 0, shared = 0;
  for (const Case& c : random_cases(scaled(1000))) {
    FakeVfio system;
    system.become(c.host, c.plan);
    Type1Backend backend(system);
    ApplyOptions options;
    options.piece = std::uint64_t{1} << 50;  // some of the generator's VMs are vast
    const ApplyReport report = apply_plan(c.plan, c.host, backend, options);
    ASSERT_EQ(report.outcome, ApplyOutcome::done) << c.host.name << ": " << text_of(report);
    ASSERT_THAT(system.violations, IsEmpty()) << c.host.name;
    several += c.plan.hwpts.size() > c.plan.ioas.size() ? 1 : 0;
    containers += c.plan.ioas.size() > 1 ? 1 : 0;
    shared += std::ranges::any_of(c.plan.hwpts, [](const PlannedHwpt& h) { return h.devices.size() > 1; }) ? 1 : 0;
  }
  fmt::print("random plans: {} with several domains, {} with several containers, {} that share\n", several, containers, shared);
  EXPECT_GE(several, scaled(100));
  EXPECT_GE(containers, scaled(20));
  EXPECT_GE(shared, scaled(100));
}

TEST_F(Type1BackendTest, MapsInPiecesOfOneFile) {
  backend = std::make_unique<Type1Backend>(system);
  ApplyOptions options;
  options.piece = 256 * kMiB;
  ASSERT_EQ(apply_plan(c.plan, c.host, *backend, options).outcome, ApplyOutcome::done);
  ASSERT_EQ(system.maps.size(), 5U);
  EXPECT_EQ(system.maps[3].offset, 768 * kMiB);
  EXPECT_EQ(count_calls(system, "memfd_create"), 2U);
}

TEST_F(Type1BackendTest, MapsMemoryThatIsLent) {
  const int fd = *system.memfd_create("lent", 2 * kMiB);
  Type1Options options;
  options.memory = [fd](const PlannedIoas&, const MemoryRange& m) -> Result<LentMemory> { return LentMemory{fd, m.gpa.start}; };
  ASSERT_EQ(apply(options).outcome, ApplyOutcome::done);
  EXPECT_EQ(system.maps.at(1).offset, 0x40000000U);
  backend.reset();
  EXPECT_EQ(system.open_descriptors(), 1U);  // theirs
}

TEST_F(Type1BackendTest, UnderstandsLongAndOldAnswersAboutAContainer) {
  system.info_padding = 4096;  // the first answer does not fit
  EXPECT_EQ(apply().outcome, ApplyOutcome::done);
  backend.reset();
  system.info_padding = 0;
  system.old_info = true;  // Linux before 5.4: no ranges
  const ApplyReport report = apply();
  EXPECT_EQ(report.outcome, ApplyOutcome::done) << text_of(report);
  EXPECT_FALSE(report.observed.ioas.at(0).ranges);
}

// ------------------------------------------------------------------------------------------------- everything fails
// once

bool harmless(const std::string& call) {
  return call.starts_with("read_link ") || call.starts_with("read /sys/") || call == "read /proc/self/status";
}

TEST(Type1Backend, EveryFailingCallLeavesTheWorldAsItWas) {
  std::vector<Case> cases = random_cases(scaled(100));
  cases.push_back(small_case());
  ApplyOptions options;
  options.piece = std::uint64_t{1} << 50;
  std::size_t failures = 0, rolled_back = 0;
  for (const Case& c : cases) {
    for (std::uint64_t k = 1;; ++k) {
      FakeVfio system;
      system.become(c.host, c.plan);
      const std::string before = system.world();
      system.fail_nth(k, EIO);
      {
        Type1Backend backend(system);
        const ApplyReport report = apply_plan(c.plan, c.host, backend, options);
        if (!system.struck()) {
          ASSERT_EQ(report.outcome, ApplyOutcome::done);
          break;
        }
        const std::string& failed = system.calls.at(k - 1);
        if (harmless(failed) && report.outcome == ApplyOutcome::done) continue;
        ++failures;
        const bool told = report.outcome == ApplyOutcome::refused || report.outcome == ApplyOutcome::rolled_back;
        ASSERT_TRUE(told) << c.host.name << ", call " << k << " " << failed << ": " << text_of(report);
        rolled_back += report.outcome == ApplyOutcome::rolled_back ? 1 : 0;
        ASSERT_EQ(system.world(), before) << c.host.name << ", call " << k << " " << failed;
      }
      ASSERT_THAT(system.violations, IsEmpty());
    }
  }
  fmt::print("failing calls: {}, {} of them rolled back, over {} plans\n", failures, rolled_back, cases.size());
  EXPECT_GE(rolled_back, scaled(800));
}

// A second failure, while the first is being taken back: what remains is said, and closing everything clears it.
TEST_F(Type1BackendTest, AFailureWhileTakingBackIsSaid) {
  for (const char* undo : {"VFIO_GROUP_UNSET_CONTAINER", "VFIO_IOMMU_UNMAP_DMA"}) {
    FakeVfio machine;
    machine.become(c.host, c.plan);
    const std::string before = machine.world();
    machine.fail("VFIO_IOMMU_MAP_DMA", ENOMEM, 2);
    machine.fail(undo, EBUSY);
    {
      Type1Backend b(machine);
      const ApplyReport report = apply_plan(c.plan, c.host, b);
      EXPECT_EQ(report.outcome, ApplyOutcome::incomplete) << undo;
      EXPECT_THAT(report.remains, testing::Not(IsEmpty())) << undo;
      EXPECT_THAT(report.error->message, HasSubstr("Cannot allocate memory (ENOMEM)"));
    }
    EXPECT_EQ(machine.world(), before) << undo;
  }
}

TEST_F(Type1BackendTest, UndoesInReverse) {
  system.fail("VFIO_IOMMU_MAP_DMA", ENOMEM, 2);
  ASSERT_EQ(apply().outcome, ApplyOutcome::rolled_back);
  std::vector<std::string> undone;
  const auto failed = std::find(system.calls.rbegin(), system.calls.rend(), "VFIO_IOMMU_MAP_DMA").base();
  std::copy_if(failed, system.calls.end(), std::back_inserter(undone), changes);
  EXPECT_THAT(undone, ElementsAre("VFIO_IOMMU_UNMAP_DMA", "VFIO_GROUP_UNSET_CONTAINER", "VFIO_GROUP_UNSET_CONTAINER",
                                  "VFIO_GROUP_UNSET_CONTAINER"));
}

TEST_F(Type1BackendTest, AShortUnmapIsSaid) {
  system.fail("VFIO_IOMMU_MAP_DMA", ENOMEM, 2);
  system.unmap_forgets = 4096;
  const ApplyReport report = apply();
  EXPECT_EQ(report.outcome, ApplyOutcome::incomplete);
  EXPECT_THAT(report.remains.at(0), HasSubstr("instead of 1GiB were unmapped"));
}

// ------------------------------------------------------------------------------------------------- every errno

struct Failing {
  const char* call;
  int errno_value;
  const char* message;
  const char* help;
};

void PrintTo(const Failing& f, std::ostream* out) { *out << f.call << " " << f.errno_value; }

class EveryErrno : public testing::TestWithParam<Failing> {};

TEST_P(EveryErrno, IsToldWithItsReason) {
  const Failing& f = GetParam();
  const Case& c = small_case();
  FakeVfio system;
  system.become(c.host, c.plan);
  const std::string before = system.world();
  system.fail(f.call, f.errno_value);
  Type1Backend backend(system);
  const ApplyReport report = apply_plan(c.plan, c.host, backend);
  ASSERT_TRUE(report.error);
  EXPECT_NE(report.outcome, ApplyOutcome::incomplete);
  EXPECT_EQ(report.error->errno_value, f.errno_value);
  EXPECT_THAT(report.error->message, HasSubstr(f.message));
  EXPECT_THAT(report.error->help, HasSubstr(f.help));
  EXPECT_EQ(system.world(), before);
}

INSTANTIATE_TEST_SUITE_P(
    All, EveryErrno,
    testing::Values(
        Failing{"open /dev/vfio/vfio", ENOENT, "opening /dev/vfio/vfio: No such file or directory (ENOENT)", "modprobe vfio_iommu_type1"},
        Failing{"open /dev/vfio/vfio", EACCES, "Permission denied (EACCES)", "run as root"},
        Failing{"open /dev/vfio/vfio", EPERM, "(EPERM)", "device policy"},
        Failing{"open /dev/vfio/vfio", ENODEV, "(ENODEV)", "modprobe"},
        Failing{"open /dev/vfio/vfio", EMFILE, "(EMFILE)", "ulimit -n"},
        Failing{"VFIO_GET_API_VERSION", EINVAL, "VFIO's version: Invalid argument (EINVAL)", ""},
        Failing{"VFIO_CHECK_EXTENSION", EINVAL, "VFIO's extensions: Invalid argument (EINVAL)", ""},
        Failing{"open /dev/vfio/1", EACCES, "opening /dev/vfio/1 of 0000:01:00.0", "every device of the group"},
        Failing{"open /dev/vfio/1", EPERM, "(EPERM)", "device policy"},
        Failing{"open /dev/vfio/1", ENOENT, "(ENOENT)", "CONFIG_VFIO_GROUP"},
        Failing{"open /dev/vfio/1", ENODEV, "(ENODEV)", "being unbound"},
        Failing{"open /dev/vfio/1", EBUSY, "(EBUSY)", "another program"},
        Failing{"VFIO_GROUP_GET_STATUS", ENODEV, "status of /dev/vfio/", ""},
        Failing{"VFIO_GROUP_SET_CONTAINER", EINVAL, "joining ioas0", "RMRR"},
        Failing{"VFIO_GROUP_SET_CONTAINER", EPERM, "(EPERM)", "allow_unsafe_interrupts"},
        Failing{"VFIO_GROUP_SET_CONTAINER", EBUSY, "(EBUSY)", "driven by the kernel"},
        Failing{"VFIO_GROUP_SET_CONTAINER", ENOSPC, "(ENOSPC)", "domain id"},
        Failing{"VFIO_GROUP_SET_CONTAINER", ENODEV, "(ENODEV)", "makes no domain"},
        Failing{"VFIO_SET_IOMMU", EINVAL, "as the first group of ioas0", "leave no IOVA"},
        Failing{"VFIO_SET_IOMMU", EPERM, "(EPERM)", "allow_unsafe_interrupts"},
        Failing{"VFIO_SET_IOMMU", ENODEV, "(ENODEV)", "modprobe vfio_iommu_type1"},
        Failing{"VFIO_SET_IOMMU", ENOSPC, "(ENOSPC)", "domain id"},
        Failing{"VFIO_GROUP_GET_DEVICE_FD", ENODEV, "by its group /dev/vfio/", "bind it again"},
        Failing{"VFIO_GROUP_GET_DEVICE_FD", EBUSY, "(EBUSY)", "open already"},
        Failing{"VFIO_GROUP_GET_DEVICE_FD", EINVAL, "(EINVAL)", "left its container"},
        Failing{"VFIO_IOMMU_GET_INFO", ENOMEM, "what is left of ioas0", ""},
        Failing{"memfd_create", ENOMEM, "memory for 0x0-0x3fffffff in pages of 2MiB", "huge pages are short"},
        Failing{"memfd_create", ENODEV, "(ENODEV)", "no huge pages of that size"},
        Failing{"ftruncate", EINVAL, "(EINVAL)", "no huge pages of that size"},
        Failing{"mmap", ENOMEM, "map of 0x0-0x3fffffff in ioas0", "huge pages are short"},
        Failing{"VFIO_IOMMU_MAP_DMA", ENOMEM, "map of 0x0-0x3fffffff in ioas0", "RLIMIT_MEMLOCK"},
        Failing{"VFIO_IOMMU_MAP_DMA", EINVAL, "(EINVAL)", "smallest page"},
        Failing{"VFIO_IOMMU_MAP_DMA", EEXIST, "(EEXIST)", "mapped there"},
        Failing{"VFIO_IOMMU_MAP_DMA", ENOSPC, "(ENOSPC)", "dma_entry_limit"},
        Failing{"VFIO_IOMMU_MAP_DMA", EFAULT, "(EFAULT)", "pinned"},
        Failing{"VFIO_IOMMU_MAP_DMA", EPERM, "(EPERM)", "pinned for writing"},
        Failing{"list /sys/bus/pci/devices/0000:01:00.0", EACCES, "reading /sys/bus/pci/devices/0000:01:00.0", ""}));

// ------------------------------------------------------------------------------------------------- refused before
// anything is touched

TEST_F(Type1BackendTest, MissingBackEndsAreRefusedWithTheCommand) {
  system.extensions.erase(3);
  EXPECT_THAT(to_text(refusal()), HasSubstr("no TYPE1v2 back end loaded\nhelp: as root: modprobe vfio_iommu_type1"));
  system.extensions.insert(3);
  system.version = 1;
  EXPECT_THAT(refusal().message, HasSubstr("speaks version 1"));
}

TEST_F(Type1BackendTest, IommufdsOwnContainersAreRefused) {
  system.remove("/sys/module/vfio_iommu_type1");
  EXPECT_THAT(to_text(refusal()), HasSubstr("iommufd in disguise"));
}

TEST_F(Type1BackendTest, UnboundDevicesAreRefusedWithTheCommands) {
  FakeVfio other;
  other.add_device(kFirst, 1, "nvme");
  Type1Backend b(other);
  const ApplyReport report = apply_plan(c.plan, c.host, b);
  ASSERT_EQ(report.outcome, ApplyOutcome::refused);
  EXPECT_THAT(to_text(*report.error), HasSubstr("0000:0"));
  system.remove(std::string("/sys/bus/pci/devices/") + kFirst + "/driver");
  system.remove(std::string("/sys/bus/pci/devices/") + kFirst + "/vfio-dev");
  EXPECT_THAT(to_text(refusal()),
              HasSubstr("0000:01:00.0 is not bound to vfio-pci: it has no driver\nhelp: as root: echo vfio-pci > "));
}

TEST_F(Type1BackendTest, DevicesThatAreNotThereAreRefused) {
  system.remove(std::string("/sys/bus/pci/devices/") + kFirst);
  EXPECT_THAT(refusal().message, HasSubstr("this machine has no device 0000:01:00.0"));
}

TEST_F(Type1BackendTest, DevicesWithoutAnIommuAreRefused) {
  system.remove(std::string("/sys/bus/pci/devices/") + kFirst + "/iommu_group");
  EXPECT_THAT(refusal().message, HasSubstr("0000:01:00.0 is behind no IOMMU"));
}

TEST_F(Type1BackendTest, KernelsWithoutCdevsWillDo) {  // before Linux 6.1
  for (const char* id : {kFirst, kSecond, kThird, "0000:03:00.1"}) {
    system.remove(fmt::format("/sys/bus/pci/devices/{}/vfio-dev", id));
  }
  const ApplyReport report = apply();
  EXPECT_EQ(report.outcome, ApplyOutcome::done) << text_of(report);
}

TEST_F(Type1BackendTest, GroupsThatAreNotViableAreRefusedWithTheirMembers) {
  system.add_device("0000:03:00.2", 3, "xhci_hcd");
  const Error error = refusal();
  EXPECT_THAT(error.message, HasSubstr("is not viable: the kernel drives 0000:03:00.2 (`xhci_hcd`)"));
  EXPECT_THAT(error.help, HasSubstr("echo 0000:03:00.2 > "));
}

// Between the look and the step, a driver takes a member.
TEST_F(Type1BackendTest, GroupsThatLoseTheirViabilityAreRefusedByTheKernel) {
  backend = std::make_unique<Type1Backend>(system);
  ASSERT_TRUE(backend->admit(c.plan));
  system.add_device("0000:03:00.2", 3, "xhci_hcd");
  Step container, attach;
  container.kind = StepKind::ioas_alloc;
  container.ioas = "ioas0";
  attach.kind = StepKind::attach_ioas;
  attach.device = kThird;
  attach.ioas = "ioas0";
  attach.hwpt = "hwpt1";
  ASSERT_TRUE((*backend->prepare(c.plan, container))->perform({}));
  const auto failed = (*backend->prepare(c.plan, attach))->perform({});
  ASSERT_FALSE(failed);
  EXPECT_THAT(failed.error().message, HasSubstr("/dev/vfio/3 is not viable"));
}

TEST_F(Type1BackendTest, TooManyMappingsAreRefusedWithTheNumber) {
  system.add_file("/sys/module/vfio_iommu_type1/parameters/dma_entry_limit", "1");
  EXPECT_THAT(to_text(refusal()),
              HasSubstr("ioas0 takes 2 mappings, and a container holds 1 (dma_entry_limit)\nhelp: as root: echo 2 > "
                        "/sys/module/vfio_iommu_type1/parameters/dma_entry_limit"));
}

TEST_F(Type1BackendTest, ShortMemlockIsRefusedWithTheNumberAndWhatIsLocked) {
  system.memlock = 512 * kMiB;
  EXPECT_THAT(to_text(refusal()), HasSubstr("this process may lock 512MiB of memory (RLIMIT_MEMLOCK)\nhelp: `ulimit -l 1048640`"));
  system.memlock = c.plan.resources.pinned_bytes;
  EXPECT_EQ(apply().outcome, ApplyOutcome::done);
  backend.reset();
  system.locked_before = 4096;  // by mlock, or by another container
  system.calls.clear();
  EXPECT_THAT(refusal().message, HasSubstr("this process, which has locked 4KiB, may lock"));
  system.cap_ipc_lock = true;
  EXPECT_EQ(apply().outcome, ApplyOutcome::done);
}

TEST_F(Type1BackendTest, MissingHugePagesAreRefused) {
  system.add_huge_pages(2 * kMiB, 3);
  EXPECT_THAT(refusal().message, HasSubstr("needs 513 free huge pages of 2MiB, and 3 are free"));
}

// ------------------------------------------------------------------------------------------------- another machine

TEST_F(Type1BackendTest, OtherPageSizesAreADifference) {
  system.domains[3].page_sizes = 0x1000;
  EXPECT_THAT(rolled_back().message, HasSubstr("has pages of 4KiB, and 4KiB 2MiB were predicted"));
}

TEST_F(Type1BackendTest, OtherCoherencyIsADifference) {
  system.domains[1].enforce = false;
  const Error error = rolled_back();
  EXPECT_THAT(error.message, HasSubstr("do not block no-snoop"));
  EXPECT_THAT(error.help, HasSubstr("plan again"));
}

TEST_F(Type1BackendTest, LessIovaIsADifference) {
  for (auto& [group, domain] : system.domains) domain.ranges = {{0, 0x7fffffff}};
  EXPECT_THAT(rolled_back().message, HasSubstr("offers 0x0-0x7fffffff"));
}

// What a container offers depends on its history; a plan says what it surely does.
TEST_F(Type1BackendTest, MoreIovaDoesNoHarm) {
  for (auto& [group, domain] : system.domains) domain.ranges = {{0, ~std::uint64_t{0}}};
  EXPECT_EQ(apply().outcome, ApplyOutcome::done);
}

TEST_F(Type1BackendTest, OtherPinnedBytesAreADifference) {
  c.plan.resources.pinned_bytes -= 4096;
  EXPECT_THAT(rolled_back().message, HasSubstr("resources.pinned_bytes: predicted 1048636KiB, observed 1048640KiB"));
}

TEST_F(Type1BackendTest, StepsThatContainersDoNotHaveAreRefused) {
  Step bind;
  bind.kind = StepKind::bind;
  bind.device = kFirst;
  backend = std::make_unique<Type1Backend>(system);
  const auto prepared = backend->prepare(c.plan, bind);
  ASSERT_FALSE(prepared);
  EXPECT_THAT(prepared.error().message, HasSubstr("a container cannot `bind`"));
}

TEST_F(Type1BackendTest, MangledAnswersAboutAContainerAreNoAnswers) {
  system.fail("VFIO_IOMMU_GET_INFO", EBADMSG);
  EXPECT_EQ(rolled_back().errno_value, EBADMSG);
}

TEST(Type1Device, GroupsAreFound) {
  FakeVfio system;
  system.add_device(kFirst, 12);
  EXPECT_EQ(find_group(system, kFirst).value(), "/dev/vfio/12");
  EXPECT_EQ(find_group(system, "01:00.0").value(), "/dev/vfio/12");
  system.fail("read_link /sys/bus/pci/devices/0000:01:00.0/iommu_group", EIO);
  EXPECT_EQ(find_group(system, kFirst).error().errno_value, EIO);
}

}  // namespace
}  // namespace ioplan::type1
