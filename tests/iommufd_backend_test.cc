// The iommufd backend on an operating system that keeps books (support/fake_system.h): plans are carried out to the
// letter, every call is made to fail with every errno that matters, and afterwards nothing may be left: no object, no
// descriptor, no view of memory. The kernel itself judges in tests/kernel.
//
// IOPLAN_SCALE multiplies the number of random plans.
#include "backends/iommufd/iommufd_backend.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "backends/iommufd/lent_descriptor.h"
#include "backends/iommufd/registers.h"
#include "backends/vfio/admission.h"
#include "backends/vfio/device.h"
#include "backends/vfio/refusal.h"
#include "constraints/kernel_law.h"
#include "engine/apply/apply.h"
#include "engine/base/text.h"
#include "engine/document/load.h"
#include "engine/planner/planner.h"
#include "tests/support/fake_system.h"
#include "tests/support/generator.h"
#include "tests/support/paths.h"
#include "tests/support/seeds.h"

namespace ioplan::iommufd {
namespace {

using fake::FakeSystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;
constexpr const char* kFirst = "0000:01:00.0";
constexpr const char* kSecond = "0000:02:00.0";
constexpr const char* kMdev = "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001";

// A host and a plan for it.
struct Case {
  Host host;
  Plan plan;
};

Case planned(const std::string& documents) {
  const auto loaded = load_text("case.yaml", documents);
  if (!loaded) throw std::runtime_error(to_text(loaded.error()));
  Case c{loaded->request.host, make_plan(loaded->request, kernel_law())};
  c.plan.fingerprint = fingerprint(c.host);
  return c;
}

// Two units with other registers: the HWPT that both accept is allocated with the second device.
std::string two_units(const std::string& memory) {
  return fmt::format(R"(apiVersion: ioplan/v1
kind: Host
name: two-units
kernel: {{arch: x86_64, release: 7.2.13, page_size: 4KiB, intel_iommu_sm: true, isolated_msi: true}}
iommus:
  - {{id: dmar0, driver: intel, cap: 0x19ed008c40780c66, ecap: 0x3ef9ea6f050df}}
  - {{id: dmar1, driver: intel, cap: 0x19ed008c40780c66, ecap: 0x36f9ea6f050df}}
devices:
  - {{id: "0000:01:00.0", iommu: dmar0, group: 7}}
  - {{id: "0000:01:00.1", iommu: dmar0, group: 7}}
  - {{id: "0000:02:00.0", iommu: dmar1, group: 8}}
---
apiVersion: ioplan/v1
kind: VirtualMachine
name: vm
memory: {}
devices: [{{host: "0000:01:00.0"}}, {{host: "0000:02:00.0"}}]
)",
                     memory);
}

const Case& small_case() {
  static const Case kCase = planned(
      two_units("{backing: 2MiB, ranges: [{gpa: [0x0, 0x3fffffff]}, {gpa: [0x40000000, 0x4000ffff], access: ro}]}"));
  return kCase;
}

// smmuv2: the kernel makes the HWPTs. And a mediated device, which has none.
const Case& automatic_case() {
  static const Case kCase = planned(fmt::format(R"(apiVersion: ioplan/v1
kind: Host
name: automatic
kernel: {{arch: aarch64, release: 7.2.13, page_size: 4KiB, va_bits: 48, isolated_msi: true}}
iommus:
  - {{id: smmu0, driver: smmuv2, page_mask: 0x40201000, stage1: true, stage2: true, input_bits: 48, ipa_bits: 48,
     context_banks: 16, coherent: true}}
devices:
  - {{id: "0000:01:00.0", iommu: smmu0, group: 1, dma_coherent: {{value: true, source: firmware}}}}
  - {{id: "0000:02:00.0", iommu: smmu0, group: 2, dma_coherent: {{value: true, source: firmware}}}}
---
apiVersion: ioplan/v1
kind: VirtualMachine
name: vm
memory: {{ranges: [{{gpa: [0x40000000, 0x7fffffff]}}]}}
devices: [{{host: "0000:01:00.0"}}, {{host: "0000:02:00.0"}}, {{mdev: {}}}]
)",
                                                kMdev));
  return kCase;
}

std::vector<Case> example_cases() {
  std::vector<Case> cases;
  const std::filesystem::path root = source_folder() / "examples";
  std::set<std::filesystem::path> folders;
  for (const auto& entry : std::filesystem::directory_iterator(root)) {
    if (exists(entry.path() / "host.yaml") && exists(entry.path() / "vm.yaml")) folders.insert(entry.path());
  }
  for (const auto& folder : folders) {
    const std::vector<std::string> files = {(folder / "host.yaml").string(), (folder / "vm.yaml").string()};
    const auto loaded = load(files);
    EXPECT_TRUE(loaded) << folder;
    Case c{loaded->request.host, make_plan(loaded->request, kernel_law())};
    if (c.plan.verdict != Verdict::feasible) continue;
    c.plan.fingerprint = fingerprint(c.host);
    cases.push_back(std::move(c));
  }
  return cases;
}

bool all_pci(const Host& host) {
  return std::ranges::all_of(host.devices, [](const Device& d) { return d.id.find(':') != std::string::npos; });
}

std::vector<Case> random_cases(std::uint64_t count) {
  std::vector<Case> cases;
  for (std::uint64_t seed = 1; cases.size() < count; ++seed) {
    const Request request = generator::random_request(seed);
    if (!all_pci(request.host)) continue;
    Case c{request.host, make_plan(request, kernel_law())};
    if (c.plan.verdict != Verdict::feasible) continue;
    c.plan.fingerprint = fingerprint(c.host);
    cases.push_back(std::move(c));
  }
  return cases;
}

std::uint32_t uapi_flags(std::uint8_t planned) {
  std::uint32_t flags = 0;
  if ((planned & kNestParent) != 0) flags |= 1;
  if ((planned & kDirtyTracking) != 0) flags |= 2;
  if ((planned & kPasid) != 0) flags |= 8;
  return flags;
}

std::vector<std::pair<std::string, std::uint32_t>> planned_allocations(const Plan& plan) {
  std::vector<std::pair<std::string, std::uint32_t>> all;
  for (const PlannedHwpt& h : plan.hwpts) {
    if (!h.automatic) all.emplace_back(h.allocator, uapi_flags(h.flags));
  }
  return all;
}

std::size_t count_calls(const FakeSystem& system, const std::string& name) {
  return static_cast<std::size_t>(std::ranges::count(system.calls, name));
}

std::string text_of(const ApplyReport& report) {
  std::string text = report.error ? to_text(*report.error) : "";
  for (const std::string& r : report.remains) text += "\nremains: " + r;
  return text;
}

// The small case on a machine made for it.
class IommufdBackendTest : public testing::Test {
 protected:
  IommufdBackendTest() { system.become(c.host, c.plan); }

  ApplyReport apply(IommufdOptions options = {}) {
    backend = std::make_unique<IommufdBackend>(system, c.host, std::move(options));
    return apply_plan(c.plan, c.host, *backend);
  }
  Error refusal(IommufdOptions options = {}) {
    const ApplyReport report = apply(std::move(options));
    EXPECT_EQ(report.outcome, ApplyOutcome::refused) << text_of(report);
    return report.error.value_or(Error{});
  }

  Case c = small_case();
  FakeSystem system;
  std::unique_ptr<IommufdBackend> backend;
};

// ------------------------------------------------------------------------------------------------- plans carried out

TEST_F(IommufdBackendTest, CarriesOutAPlanAndClosesEverything) {
  const ApplyReport report = apply();
  ASSERT_EQ(report.outcome, ApplyOutcome::done) << text_of(report);
  ASSERT_EQ(report.observed.hwpts.size(), 1U);
  EXPECT_THAT(*report.observed.hwpts[0].devices, ElementsAre(kFirst, kSecond));
  EXPECT_EQ(report.observed.ioas.at(0).ranges, c.plan.ioas[0].ranges);
  EXPECT_TRUE(backend->object("ioas0") && backend->object("hwpt0") && backend->device_descriptor(kFirst));
  ASSERT_EQ(system.maps.size(), 2U);
  EXPECT_EQ(system.maps[0].flags,
            uapi::IOMMU_IOAS_MAP_FIXED_IOVA | uapi::IOMMU_IOAS_MAP_READABLE | uapi::IOMMU_IOAS_MAP_WRITEABLE);
  EXPECT_EQ(system.maps[1].flags, uapi::IOMMU_IOAS_MAP_FIXED_IOVA | uapi::IOMMU_IOAS_MAP_READABLE);
  backend.reset();
  EXPECT_EQ(system.world(), "");
  EXPECT_THAT(system.violations, IsEmpty());
}

// Allowed ranges before anything is mapped, and HWPTs before attaches; each read back.
TEST_F(IommufdBackendTest, OrdersItsCallsAsTheKernelWantsThem) {
  ASSERT_EQ(apply().outcome, ApplyOutcome::done);
  std::vector<std::string> order;
  for (const std::string& name : system.calls) {
    const bool changes = name.starts_with("IOMMU_") || name.starts_with("VFIO_");
    if (changes && (order.empty() || order.back() != name)) order.push_back(name);
  }
  // The repetitions of IOVA_RANGES: after every attach, and for every observation.
  EXPECT_THAT(order,
              ElementsAre("IOMMU_IOAS_ALLOC", "VFIO_DEVICE_BIND_IOMMUFD", "IOMMU_GET_HW_INFO",
                          "VFIO_DEVICE_BIND_IOMMUFD", "IOMMU_GET_HW_INFO", "IOMMU_IOAS_ALLOW_IOVAS", "IOMMU_HWPT_ALLOC",
                          "IOMMU_IOAS_IOVA_RANGES", "VFIO_DEVICE_ATTACH_IOMMUFD_PT", "IOMMU_IOAS_IOVA_RANGES",
                          "VFIO_DEVICE_ATTACH_IOMMUFD_PT", "IOMMU_IOAS_IOVA_RANGES", "IOMMU_IOAS_MAP_FILE",
                          "IOMMU_IOAS_IOVA_RANGES"));
}

TEST(IommufdBackend, CarriesOutEveryExample) {
  std::size_t applied = 0;
  for (const Case& c : example_cases()) {
    FakeSystem system;
    system.become(c.host, c.plan);
    {
      IommufdBackend backend(system, c.host);
      const ApplyReport report = apply_plan(c.plan, c.host, backend);
      EXPECT_EQ(report.outcome, ApplyOutcome::done) << c.host.name << ": " << text_of(report);
    }
    EXPECT_EQ(system.world(), "") << c.host.name;
    EXPECT_THAT(system.violations, IsEmpty()) << c.host.name;
    ++applied;
  }
  EXPECT_GE(applied, 8U);
}

TEST(IommufdBackend, CarriesOutRandomPlansWithoutADifference) {
  std::size_t automatic = 0, several = 0, mediated = 0, flagged = 0;
  for (const Case& c : random_cases(scaled(2000))) {
    FakeSystem system;
    system.become(c.host, c.plan);
    IommufdBackend backend(system, c.host);
    const ApplyReport report = apply_plan(c.plan, c.host, backend);
    ASSERT_EQ(report.outcome, ApplyOutcome::done) << c.host.name << ": " << text_of(report);
    ASSERT_THAT(system.violations, IsEmpty()) << c.host.name;
    ASSERT_EQ(system.hwpt_allocations, planned_allocations(c.plan));
    flagged += std::ranges::any_of(c.plan.hwpts, [](const PlannedHwpt& h) { return h.flags != 0; }) ? 1 : 0;
    several += c.plan.hwpts.size() > 1 ? 1 : 0;
    automatic += std::ranges::any_of(c.plan.hwpts, &PlannedHwpt::automatic) ? 1 : 0;
    mediated += std::ranges::any_of(c.plan.steps, [](const Step& s) { return is_uuid(s.device); }) ? 1 : 0;
  }
  fmt::print("random plans: {} with several HWPTs, {} with flags, {} with automatic ones, {} with mediated devices\n",
             several, flagged, automatic, mediated);
  EXPECT_GE(flagged, scaled(100));
  EXPECT_GE(several, scaled(100));
  EXPECT_GE(automatic, scaled(10));
  EXPECT_GE(mediated, scaled(10));
}

TEST(IommufdBackend, TakesTheKernelsOwnPageTableWhereThereIsNoOther) {
  const Case& c = automatic_case();
  ASSERT_EQ(c.plan.verdict, Verdict::feasible);
  ASSERT_TRUE(c.plan.hwpts.at(0).automatic);
  FakeSystem system;
  system.become(c.host, c.plan);
  IommufdBackend backend(system, c.host);
  const ApplyReport report = apply_plan(c.plan, c.host, backend);
  ASSERT_EQ(report.outcome, ApplyOutcome::done) << text_of(report);
  EXPECT_EQ(count_calls(system, "IOMMU_HWPT_ALLOC"), 0U);
  EXPECT_EQ(count_calls(system, "IOMMU_GET_HW_INFO"), 2U);  // a mediated device is behind no IOMMU
}

TEST(IommufdBackend, RefusesAnAutomaticPageTableThatIsNotThePlans) {
  const Case& c = automatic_case();
  FakeSystem system;
  Case elsewhere = c;
  system.become(c.host, c.plan);
  fake::Device moved;
  moved.address = kSecond;
  moved.group = 2;
  moved.vfio = 1;
  moved.unit = "smmu1";
  for (const ReservedRegion& r : c.plan.ioas[0].reserved) moved.reserved.push_back(r.range);
  system.add(moved);
  IommufdBackend backend(system, c.host);
  const ApplyReport report = apply_plan(c.plan, c.host, backend);
  EXPECT_EQ(report.outcome, ApplyOutcome::rolled_back) << text_of(report);
  EXPECT_THAT(report.error->message, HasSubstr("0000:02:00.0 got object"));
}

// ------------------------------------------------------------------------------------------------- everything fails
// once

// Reading around in sysfs for a better message or a counter may fail without harm.
bool harmless(const std::string& call) {
  return call.starts_with("read_link ") || call.starts_with("read /sys/kernel/mm/");
}

TEST(IommufdBackend, EveryFailingCallLeavesTheWorldAsItWas) {
  std::vector<Case> cases = example_cases();
  cases.push_back(small_case());
  cases.push_back(automatic_case());
  for (Case& c : random_cases(scaled(150))) cases.push_back(std::move(c));
  ApplyOptions options;
  options.piece = std::uint64_t{1} << 50;  // some of the generator's VMs are vast
  std::size_t failures = 0, rolled_back = 0;
  for (const Case& c : cases) {
    for (std::uint64_t k = 1;; ++k) {
      FakeSystem system;
      system.become(c.host, c.plan);
      system.fail_nth(k, EIO);
      {
        IommufdBackend backend(system, c.host);
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
        ASSERT_LE(system.open_descriptors(), 1U) << failed << "\n" << system.world();  // /dev/iommu, with nothing in it
        ASSERT_EQ(system.world(), "") << c.host.name << ", call " << k << " " << failed;
      }
      ASSERT_EQ(system.open_descriptors(), 0U);
      ASSERT_THAT(system.violations, IsEmpty());
    }
  }
  fmt::print("failing calls: {}, {} of them rolled back, over {} plans\n", failures, rolled_back, cases.size());
  EXPECT_GE(rolled_back, scaled(2000));
}

// A second failure, while the first is being taken back: what remains is said, and closing everything clears it.
TEST_F(IommufdBackendTest, AFailureWhileTakingBackIsSaid) {
  std::size_t incomplete = 0;
  for (const char* undo :
       {"IOMMU_DESTROY", "IOMMU_IOAS_UNMAP", "VFIO_DEVICE_DETACH_IOMMUFD_PT", "IOMMU_IOAS_ALLOW_IOVAS"}) {
    for (unsigned nth = 1; nth <= 2; ++nth) {
      FakeSystem machine;
      machine.become(c.host, c.plan);
      machine.fail("IOMMU_IOAS_MAP_FILE", ENOMEM, 2);
      machine.fail(undo, EBUSY, nth + (std::string_view(undo) == "IOMMU_IOAS_ALLOW_IOVAS" ? 1 : 0));
      {
        IommufdBackend b(machine, c.host);
        const ApplyReport report = apply_plan(c.plan, c.host, b);
        const bool all_undone = machine.struck() && report.outcome == ApplyOutcome::rolled_back;
        if (std::ranges::count(machine.calls, undo) < nth || all_undone) continue;
        ++incomplete;
        EXPECT_EQ(report.outcome, ApplyOutcome::incomplete) << undo << nth;
        EXPECT_THAT(report.remains, testing::Not(IsEmpty())) << undo << nth;
        EXPECT_THAT(report.error->message, HasSubstr("Cannot allocate memory (ENOMEM)"));
      }
      EXPECT_EQ(machine.world(), "") << undo << nth;
    }
  }
  EXPECT_GE(incomplete, 6U);
}

TEST_F(IommufdBackendTest, UndoesInReverse) {
  system.fail("IOMMU_IOAS_MAP_FILE", ENOMEM, 2);
  ASSERT_EQ(apply().outcome, ApplyOutcome::rolled_back);
  const auto failed = std::find(system.calls.rbegin(), system.calls.rend(), "IOMMU_IOAS_MAP_FILE").base();
  EXPECT_EQ(
      std::vector<std::string>(failed, system.calls.end()),
      (std::vector<std::string>{"IOMMU_IOAS_UNMAP", "VFIO_DEVICE_DETACH_IOMMUFD_PT", "VFIO_DEVICE_DETACH_IOMMUFD_PT",
                                "IOMMU_DESTROY", "IOMMU_IOAS_ALLOW_IOVAS", "IOMMU_DESTROY"}));
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
  FakeSystem system;
  system.become(c.host, c.plan);
  system.fail(f.call, f.errno_value);
  IommufdOptions options;
  options.accounting = Accounting::per_process;
  IommufdBackend backend(system, c.host, options);
  const ApplyReport report = apply_plan(c.plan, c.host, backend);
  ASSERT_TRUE(report.error);
  EXPECT_NE(report.outcome, ApplyOutcome::incomplete);
  EXPECT_EQ(report.error->errno_value, f.errno_value);
  EXPECT_THAT(report.error->message, HasSubstr(f.message));
  EXPECT_THAT(report.error->help, HasSubstr(f.help));
  EXPECT_EQ(system.world(), "");
}

INSTANTIATE_TEST_SUITE_P(
    All, EveryErrno,
    testing::Values(
        Failing{"open /dev/iommu", ENOENT, "opening /dev/iommu: No such file or directory (ENOENT)", "CONFIG_IOMMUFD"},
        Failing{"open /dev/iommu", EACCES, "opening /dev/iommu: Permission denied (EACCES)", "run as root"},
        Failing{"open /dev/iommu", EPERM, "opening /dev/iommu: Operation not permitted (EPERM)", "device policy"},
        Failing{"open /dev/iommu", ENODEV, "opening /dev/iommu: No such device (ENODEV)", "modprobe iommufd"},
        Failing{"open /dev/iommu", EMFILE, "opening /dev/iommu: Too many open files (EMFILE)", "ulimit -n"},
        Failing{"open /dev/vfio/devices/vfio0", EACCES,
                "opening /dev/vfio/devices/vfio0 of 0000:01:00.0: Permission denied", "run as root"},
        Failing{"open /dev/vfio/devices/vfio0", EPERM, "Operation not permitted (EPERM)", "device policy"},
        Failing{"open /dev/vfio/devices/vfio0", ENOENT, "No such file or directory (ENOENT)", "pass /dev/vfio into it"},
        Failing{"open /dev/vfio/devices/vfio0", ENODEV, "No such device (ENODEV)", "being unbound"},
        Failing{"open /dev/vfio/devices/vfio0", EBUSY, "Device or resource busy (EBUSY)", "open already"},
        Failing{"list /sys/bus/pci/devices/0000:01:00.0", EACCES,
                "reading /sys/bus/pci/devices/0000:01:00.0: Permission denied", ""},
        Failing{"list /sys/bus/pci/devices/0000:01:00.0/iommu_group/devices", EIO,
                "iommu_group: Input/output error (EIO)", ""},
        Failing{"VFIO_DEVICE_BIND_IOMMUFD", EINVAL, "bind of 0000:01:00.0 to iommufd: Invalid argument (EINVAL)",
                "RMRR"},
        Failing{"VFIO_DEVICE_BIND_IOMMUFD", EPERM, "Operation not permitted (EPERM)", "allow_unsafe_interrupts"},
        Failing{"VFIO_DEVICE_BIND_IOMMUFD", EBUSY, "Device or resource busy (EBUSY)", "driven by the kernel"},
        Failing{"VFIO_DEVICE_BIND_IOMMUFD", ENODEV, "No such device (ENODEV)", "no IOMMU group"},
        Failing{"VFIO_DEVICE_BIND_IOMMUFD", EBADFD, "File descriptor in bad state (EBADFD)", "not one of /dev/iommu"},
        Failing{"VFIO_DEVICE_BIND_IOMMUFD", ENOTTY, "Inappropriate ioctl for device (ENOTTY)",
                "not one of a VFIO device"},
        Failing{"IOMMU_GET_HW_INFO", ENOENT,
                "registers of the IOMMU of 0000:01:00.0: No such file or directory (ENOENT)", ""},
        Failing{"IOMMU_OPTION", EPERM, "counting locked memory by process: Operation not permitted (EPERM)",
                "CAP_SYS_RESOURCE"},
        Failing{"IOMMU_OPTION", EBUSY, "Device or resource busy (EBUSY)", "is in use"},
        Failing{"IOMMU_IOAS_ALLOC", ENOMEM, "allocation of ioas0: Cannot allocate memory (ENOMEM)", ""},
        Failing{"IOMMU_IOAS_ALLOC", ENOTTY, "allocation of ioas0: Inappropriate ioctl for device (ENOTTY)",
                "Linux 6.6"},
        Failing{"IOMMU_IOAS_ALLOW_IOVAS", EADDRINUSE,
                "allowing 0x0-0x3fffffff 0x40000000-0x4000ffff in ioas0: Address already in use", "reserved region"},
        Failing{"IOMMU_IOAS_ALLOW_IOVAS", EINVAL, "Invalid argument (EINVAL)", "overlap"},
        Failing{"IOMMU_HWPT_ALLOC", EOPNOTSUPP,
                "allocation of hwpt0 in ioas0 with 0000:02:00.0: Operation not supported", "capture it again"},
        Failing{"IOMMU_HWPT_ALLOC", EADDRINUSE, "Address already in use (EADDRINUSE)", "aperture"},
        Failing{"IOMMU_HWPT_ALLOC", EINVAL, "Invalid argument (EINVAL)", "smallest page"},
        Failing{"IOMMU_HWPT_ALLOC", ENODEV, "No such device (ENODEV)", "no page table"},
        Failing{"IOMMU_HWPT_ALLOC", ENOMEM, "Cannot allocate memory (ENOMEM)", ""},
        Failing{"VFIO_DEVICE_ATTACH_IOMMUFD_PT", EINVAL, "attach of 0000:01:00.0 to hwpt0: Invalid argument (EINVAL)",
                "does not accept"},
        Failing{"VFIO_DEVICE_ATTACH_IOMMUFD_PT", EADDRINUSE, "Address already in use (EADDRINUSE)", "reserved region"},
        Failing{"VFIO_DEVICE_ATTACH_IOMMUFD_PT", EBUSY, "Device or resource busy (EBUSY)", "attached elsewhere"},
        Failing{"VFIO_DEVICE_ATTACH_IOMMUFD_PT", ENOSPC, "No space left on device (ENOSPC)", "domain id"},
        Failing{"VFIO_DEVICE_ATTACH_IOMMUFD_PT", ENODEV, "No such device (ENODEV)", "bound to nothing"},
        Failing{"VFIO_DEVICE_ATTACH_IOMMUFD_PT", ENOMEM, "Cannot allocate memory (ENOMEM)", ""},
        Failing{"IOMMU_IOAS_IOVA_RANGES", ENOENT, "ranges of ioas0: No such file or directory (ENOENT)", ""},
        Failing{"memfd_create", ENODEV, "memory for 0x0-0x3fffffff in pages of 2MiB: No such device (ENODEV)",
                "no huge pages of that size"},
        Failing{"memfd_create", EINVAL, "Invalid argument (EINVAL)", "no huge pages of that size"},
        Failing{"memfd_create", EMFILE, "Too many open files (EMFILE)", "ulimit -n"},
        Failing{"ftruncate", ENOMEM, "memory for 0x0-0x3fffffff in pages of 2MiB: Cannot allocate memory (ENOMEM)",
                "huge pages are short"},
        Failing{"identify", EIO, "memory for 0x0-0x3fffffff in ioas0: Input/output error (EIO)", ""},
        Failing{"IOMMU_IOAS_MAP_FILE", ENOMEM, "map of 0x0-0x3fffffff in ioas0: Cannot allocate memory (ENOMEM)",
                "RLIMIT_MEMLOCK"},
        Failing{"IOMMU_IOAS_MAP_FILE", EINVAL, "Invalid argument (EINVAL)", "not aligned"},
        Failing{"IOMMU_IOAS_MAP_FILE", EEXIST, "File exists (EEXIST)", "something is mapped"},
        Failing{"IOMMU_IOAS_MAP_FILE", EFAULT, "Bad address (EFAULT)", "cannot be pinned"},
        Failing{"IOMMU_IOAS_MAP_FILE", EPERM, "Operation not permitted (EPERM)", "for writing"}));

TEST(IommufdRefusal, KnowsWhatAnUndoMeets) {
  EXPECT_EQ(likely_reason(Call::destroy, EBUSY), "something still uses it");
  EXPECT_THAT(std::string(likely_reason(Call::unmap, ENOENT)), HasSubstr("unmapped"));
  EXPECT_EQ(likely_reason(Call::detach, EIO), "");
  EXPECT_EQ(errno_text(EINVAL), "Invalid argument (EINVAL)");
  EXPECT_EQ(errno_text(100000), "errno 100000");
}

// ------------------------------------------------------------------------------------------------- devices

class IommufdDevice : public IommufdBackendTest {
 protected:
  static constexpr const char* kFolder = "/sys/bus/pci/devices/0000:01:00.0";

  void drive_first_with(const std::string& driver) {
    system.remove(std::string(kFolder) + "/vfio-dev");
    system.remove(std::string(kFolder) + "/driver");
    fake::Device d;
    d.address = kFirst;
    d.group = 7;
    d.driver = driver;
    system.add(d);
  }
};

TEST_F(IommufdDevice, BoundToAnotherDriver) {
  drive_first_with("nvme");
  const Error e = refusal();
  EXPECT_EQ(e.message, "0000:01:00.0 is not bound to vfio-pci: `nvme` drives it");
  EXPECT_EQ(e.help,
            "as root: echo vfio-pci > /sys/bus/pci/devices/0000:01:00.0/driver_override && "
            "echo 0000:01:00.0 > /sys/bus/pci/devices/0000:01:00.0/driver/unbind && "
            "echo 0000:01:00.0 > /sys/bus/pci/drivers/vfio-pci/bind");
}

TEST_F(IommufdDevice, BoundToNothingAndVfioPciNotLoaded) {
  drive_first_with("");
  system.remove("/sys/bus/pci/drivers/vfio-pci");
  const Error e = refusal();
  EXPECT_EQ(e.message, "0000:01:00.0 is not bound to vfio-pci: it has no driver");
  EXPECT_EQ(e.help,
            "as root: modprobe vfio-pci && echo vfio-pci > /sys/bus/pci/devices/0000:01:00.0/driver_override && "
            "echo 0000:01:00.0 > /sys/bus/pci/drivers/vfio-pci/bind");
}

TEST_F(IommufdDevice, NotThere) {
  system.remove(kFolder);
  const Error e = refusal();
  EXPECT_EQ(e.message, "this machine has no device 0000:01:00.0");
  EXPECT_THAT(e.help, HasSubstr("lspci -D"));
}

TEST_F(IommufdDevice, NoCdev) {
  system.remove(std::string(kFolder) + "/vfio-dev/vfio0/dev");
  system.add_file(std::string(kFolder) + "/vfio-dev/vfio0/uevent", "");
  const Error e = refusal();
  EXPECT_EQ(e.message, "0000:01:00.0 has no VFIO cdev on this kernel");
  EXPECT_THAT(e.help, HasSubstr("CONFIG_VFIO_DEVICE_CDEV"));
  system.remove(std::string(kFolder) + "/vfio-dev");
  EXPECT_EQ(refusal().message, e.message);
}

TEST_F(IommufdDevice, GroupNotViable) {
  system.remove("/sys/bus/pci/devices/0000:01:00.1");
  fake::Device audio;
  audio.address = "0000:01:00.1";
  audio.group = 7;
  audio.driver = "snd_hda_intel";
  system.add(audio);
  const Error e = refusal();
  EXPECT_EQ(e.message, "group 7 of 0000:01:00.0 is not viable: the kernel drives 0000:01:00.1 (`snd_hda_intel`)");
  EXPECT_THAT(e.help, HasSubstr("echo 0000:01:00.1 > /sys/bus/pci/devices/0000:01:00.1/driver/unbind"));
}

TEST_F(IommufdDevice, GroupWithHarmlessMembers) {
  for (const char* driver : {"pcieport", "pci-stub", ""}) {
    system.remove("/sys/bus/pci/devices/0000:01:00.1");
    fake::Device other;
    other.address = "0000:01:00.1";
    other.group = 7;
    other.driver = driver;
    system.add(other);
    EXPECT_EQ(apply().outcome, ApplyOutcome::done) << driver;
  }
}

TEST_F(IommufdDevice, BehindNoIommu) {
  system.remove(std::string(kFolder) + "/iommu_group");
  const Error e = refusal();
  EXPECT_EQ(e.message, "0000:01:00.0 is behind no IOMMU");
  EXPECT_THAT(e.help, HasSubstr("intel_iommu=on"));
}

TEST_F(IommufdDevice, NamesThatAreNoAddress) {
  EXPECT_EQ(find_cdev(system, "gpu0").error().message, "`gpu0` is no PCI address and no mediated device's UUID");
  EXPECT_EQ(find_cdev(system, "01:00.0").value(), "/dev/vfio/devices/vfio0");
  EXPECT_EQ(find_cdev(system, kMdev).error().message, fmt::format("this machine has no device {}", kMdev));
  system.add_file(fmt::format("/sys/bus/mdev/devices/{}/uevent", kMdev), "");
  EXPECT_EQ(find_cdev(system, kMdev).error().message,
            fmt::format("the mediated device {} is no VFIO device: it has no driver", kMdev));
  system.add_mediated(kMdev, 9);
  EXPECT_EQ(find_cdev(system, kMdev).value(), "/dev/vfio/devices/vfio9");
}

TEST_F(IommufdDevice, NestedPageTablesAreNotThisBackends) {
  c.plan.hwpts[0].kind = HwptKind::nested;
  EXPECT_EQ(refusal().message, "`hwpt0` is nested: its tables are the guest's to give");
  EXPECT_EQ(count_calls(system, "open /dev/iommu"), 0U);
}

// ------------------------------------------------------------------------------------------------- to spare

TEST_F(IommufdBackendTest, SaysHowMuchMustBeLockable) {
  system.memlock = 8 << 20;
  const Error e = refusal();
  EXPECT_EQ(e.message, "the plan pins 1048640KiB, and this process may lock 8MiB of memory (RLIMIT_MEMLOCK)");
  EXPECT_EQ(e.help, "`ulimit -l 1048640`, `LimitMEMLOCK=1073807360` in a systemd unit, or CAP_IPC_LOCK");
  EXPECT_EQ(system.world(), "");
  system.memlock = kGiB + 65536;
  EXPECT_EQ(apply().outcome, ApplyOutcome::done);
  system.memlock = 0;
  system.cap_ipc_lock = true;
  EXPECT_EQ(apply().outcome, ApplyOutcome::done);
}

TEST_F(IommufdBackendTest, SaysHowManyHugePagesMustBeFree) {
  const std::string folder = "/sys/kernel/mm/hugepages/hugepages-2048kB/";
  system.add_huge_pages(2 << 20, 100);
  system.add_file(folder + "resv_hugepages", "30");
  Error e = refusal();
  EXPECT_EQ(e.message, "the plan needs 513 free huge pages of 2MiB, and 70 are free");
  EXPECT_EQ(e.help, "as root: echo 543 > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages");
  system.add_file(folder + "nr_overcommit_hugepages", "443");
  EXPECT_EQ(apply().outcome, ApplyOutcome::done);
  system.add_file(folder + "surplus_hugepages", "1");
  EXPECT_THAT(refusal().message, HasSubstr("and 512 are free"));
  system.remove("/sys/kernel/mm/hugepages");
  EXPECT_EQ(refusal().message, "this kernel has no huge pages of 2MiB");
}

TEST_F(IommufdBackendTest, ChoosesWhoseMemoryIsCounted) {
  IommufdOptions options;
  options.accounting = Accounting::per_process;
  options.iommu = system.open("/dev/iommu").value();
  ASSERT_EQ(apply(options).outcome, ApplyOutcome::done);
  EXPECT_EQ(system.rlimit_mode(*options.iommu), 1U);
  EXPECT_EQ(count_calls(system, "IOMMU_OPTION"), 2U);  // what was passed is asked first, and then told
}

// ------------------------------------------------------------------------------------------------- surprises

TEST_F(IommufdBackendTest, OtherRegistersThanDocumented) {
  for (Unit& u : c.host.units) u.facts[UnitFact::ecap] = *u.facts[UnitFact::ecap] ^ 0x80;
  c.plan.fingerprint = fingerprint(c.host);
  const ApplyReport report = apply();
  EXPECT_EQ(report.outcome, ApplyOutcome::rolled_back);
  EXPECT_THAT(report.error->message,
              HasSubstr("the IOMMU of 0000:01:00.0 has ecap 0x3ef9ea6f050df, and the host document says "
                        "0x3ef9ea6f0505f of `dmar0`"));
  EXPECT_EQ(system.world(), "");
}

TEST_F(IommufdBackendTest, AKernelThatTellsNoRegistersIsBelieved) {
  for (int why : {ENOTTY, EOPNOTSUPP}) {
    system.fail("IOMMU_GET_HW_INFO", why);
    EXPECT_EQ(apply().outcome, ApplyOutcome::done);
    EXPECT_TRUE(system.struck());
  }
}

TEST_F(IommufdBackendTest, LessRoomThanPredicted) {
  fake::Device d;
  d.address = kSecond;
  d.group = 8;
  d.vfio = 2;
  d.reserved = {{0xfee00000, 0xfeefffff}, {0x80000000, 0x8fffffff}};
  system.add(d);
  const ApplyReport report = apply();
  EXPECT_EQ(report.outcome, ApplyOutcome::rolled_back);
  EXPECT_THAT(report.error->message, HasSubstr("attach of 0000:02:00.0 leaves 0x0-0x7fffffff 0x90000000-0xfedfffff"));
  EXPECT_THAT(report.error->message, HasSubstr("in ioas0, and 0x0-0xfedfffff"));
  EXPECT_EQ(system.world(), "");
}

TEST_F(IommufdBackendTest, MoreRoomThanPredictedIsADifferenceInTheEnd) {
  fake::Device d;
  d.address = kFirst;
  d.group = 7;
  system.add(d);
  d.address = kSecond;
  d.group = 8;
  d.vfio = 2;
  system.add(d);
  const ApplyReport report = apply();
  EXPECT_EQ(report.outcome, ApplyOutcome::rolled_back);
  ASSERT_EQ(report.differences.size(), 1U);
  EXPECT_EQ(report.differences[0].attribute, "ranges");
  EXPECT_EQ(system.world(), "");
}

TEST_F(IommufdBackendTest, ARefusedAttachNamesBoth) {
  system.refusals[{kFirst, kSecond}] = EINVAL;
  const ApplyReport report = apply();
  EXPECT_EQ(report.outcome, ApplyOutcome::rolled_back);
  EXPECT_THAT(report.error->message, HasSubstr("attach of 0000:01:00.0 to hwpt0: Invalid argument (EINVAL)"));
  EXPECT_EQ(system.world(), "");
}

// The surprise and then no way back: what is left is said, and no "as before" is claimed.
TEST_F(IommufdBackendTest, ASurpriseThatCannotBeTakenBackIsSaid) {
  fake::Device d;
  d.address = kFirst;
  d.group = 7;
  d.reserved = {{0x80000000, 0x8fffffff}};
  system.add(d);
  system.fail("VFIO_DEVICE_DETACH_IOMMUFD_PT", EIO);
  const ApplyReport report = apply();
  EXPECT_EQ(report.outcome, ApplyOutcome::incomplete);
  EXPECT_THAT(report.error->message, HasSubstr("attach of 0000:01:00.0 leaves"));
  EXPECT_THAT(report.remains, testing::Not(IsEmpty()));
  backend.reset();
  EXPECT_EQ(system.world(), "");
}

// A device of ours that cannot be detached is detached by closing it, and with it goes what the kernel made for it.
TEST(IommufdBackend, ClosingADeviceDetachesIt) {
  const Case& c = automatic_case();
  FakeSystem system;
  system.become(c.host, c.plan);
  fake::Device d;
  d.address = kFirst;
  d.group = 1;
  d.reserved = {{0x100000000, 0x1ffffffff}};
  system.add(d);
  system.fail("VFIO_DEVICE_DETACH_IOMMUFD_PT", EIO);
  IommufdBackend backend(system, c.host);
  const ApplyReport report = apply_plan(c.plan, c.host, backend);
  EXPECT_EQ(report.outcome, ApplyOutcome::rolled_back) << text_of(report);
  EXPECT_THAT(report.error->message, HasSubstr("attach of 0000:01:00.0 leaves"));
  EXPECT_TRUE(system.struck());
  EXPECT_EQ(system.world(), "");
}

TEST_F(IommufdBackendTest, UnmappingLessThanWasMappedIsSaid) {
  system.fail("IOMMU_IOAS_MAP_FILE", ENOMEM, 2);
  system.unmap_forgets = 4096;
  const ApplyReport report = apply();
  EXPECT_EQ(report.outcome, ApplyOutcome::incomplete);
  ASSERT_EQ(report.remains.size(), 1U);
  EXPECT_THAT(report.remains[0], HasSubstr("1048572KiB instead of 1GiB were unmapped"));
}

TEST_F(IommufdBackendTest, RangesOfAnyNumberAreRead) {
  std::vector<Range> holes;
  for (std::uint64_t i = 0; i < 100; ++i) holes.push_back({0x80000000 + i * 0x2000, 0x80000fff + i * 0x2000});
  fake::Device d;
  d.address = kFirst;
  d.group = 7;
  d.reserved = holes;
  system.add(d);
  RangeSet left;
  for (const Range& r : c.plan.ioas[0].ranges) left.add(r);
  for (const Range& r : holes) left.subtract(r);
  c.plan.ioas[0].ranges.assign(left.ranges().begin(), left.ranges().end());
  EXPECT_EQ(apply().outcome, ApplyOutcome::done);
}

HwInfo smmuv3_info(std::uint32_t idr0, std::uint32_t idr5) {
  HwInfo info;
  info.type = uapi::IOMMU_HW_INFO_TYPE_ARM_SMMUV3;
  uapi::iommu_hw_info_arm_smmuv3 smmu{};
  smmu.idr[0] = idr0;
  smmu.idr[5] = idr5;
  std::memcpy(info.data.data(), &smmu, sizeof(smmu));
  return info;
}

HwInfo amd_info(std::uint64_t efr) {
  HwInfo info;
  info.type = uapi::IOMMU_HW_INFO_TYPE_AMD;
  const uapi::iommu_hw_info_amd amd{efr, 0};
  std::memcpy(info.data.data(), &amd, sizeof(amd));
  return info;
}

Host host_with(Driver driver, std::vector<std::pair<UnitFact, std::uint64_t>> facts) {
  Host host;
  Unit unit;
  unit.id = "unit0";
  unit.driver = driver;
  for (const auto& [fact, value] : facts) unit.facts[fact] = value;
  host.units.push_back(unit);
  Device device;
  device.id = kFirst;
  device.unit = UnitIndex(0);
  host.devices.push_back(device);
  return host;
}

// COHACC (IDR0 bit 4) and OAS (IDR5 2:0) are not for user space to rely on; TTF and GRAN64K are.
TEST(IommufdRegisters, ComparesWhatMayBeReliedOn) {
  const Host arm = host_with(Driver::smmuv3, {{UnitFact::idr0, 0x8}, {UnitFact::idr5, 0x50}});
  EXPECT_TRUE(compare_registers(smmuv3_info(0x8 | 0x10, 0x50 | 0x5), arm, kFirst));
  const auto other = compare_registers(smmuv3_info(0x4, 0x50), arm, kFirst);
  ASSERT_FALSE(other);
  EXPECT_EQ(other.error().message, "the IOMMU of 0000:01:00.0 has idr0 0x4, and the host document says 0x8 of `unit0`");
  EXPECT_FALSE(compare_registers(smmuv3_info(0x8, 0x10), arm, kFirst));
}

TEST(IommufdRegisters, AmdTellsWhatItsUnitsHaveInCommon) {
  constexpr std::uint64_t kGt = 1 << 4, kPpr = 1 << 1, kHe = 1 << 8;
  Host amd = host_with(Driver::amd, {{UnitFact::efr, kGt | kPpr}});
  Unit second = amd.units[0];
  second.id = "unit1";
  second.facts[UnitFact::efr] = kGt;
  amd.units.push_back(second);
  EXPECT_TRUE(compare_registers(amd_info(kGt), amd, kFirst));
  EXPECT_TRUE(compare_registers(amd_info(kGt | kHe), amd, kFirst));
  EXPECT_FALSE(compare_registers(amd_info(kGt | kPpr), amd, kFirst));
  amd.units[1].facts[UnitFact::efr] = std::nullopt;
  EXPECT_TRUE(compare_registers(amd_info(kGt | kPpr), amd, kFirst));
}

TEST(IommufdRegisters, AnotherKindOfIommu) {
  const auto other = compare_registers(amd_info(0), host_with(Driver::intel, {}), kFirst);
  ASSERT_FALSE(other);
  EXPECT_EQ(other.error().message,
            "the IOMMU of 0000:01:00.0 is of driver amd, and `unit0` of the host document is of driver intel");
  EXPECT_TRUE(compare_registers(HwInfo{}, host_with(Driver::virtio, {}), kFirst));
  EXPECT_TRUE(compare_registers(amd_info(0), host_with(Driver::intel, {}), "0000:99:00.0"));
}

// ------------------------------------------------------------------------------------------------- lent

TEST_F(IommufdBackendTest, LeavesLentDescriptorsOpen) {
  IommufdOptions options;
  options.iommu = system.open("/dev/iommu").value();
  options.devices = {{kFirst, system.open("/dev/vfio/devices/vfio0").value()},
                     {kSecond, system.open("/dev/vfio/devices/vfio2").value()}};
  system.remove("/sys/bus");  // a container that sees nothing
  system.remove("/dev");
  ASSERT_EQ(apply(options).outcome, ApplyOutcome::done);
  backend.reset();
  EXPECT_EQ(system.open_descriptors(), 3U);
  EXPECT_THAT(system.world(), HasSubstr("hwpt"));
  EXPECT_THAT(system.violations, IsEmpty());
}

TEST_F(IommufdBackendTest, ALentDeviceStaysBoundAndThatIsSaid) {
  IommufdOptions options;
  options.devices = {{kFirst, system.open("/dev/vfio/devices/vfio0").value()}};
  system.fail("IOMMU_HWPT_ALLOC", EOPNOTSUPP);
  const ApplyReport report = apply(options);
  EXPECT_EQ(report.outcome, ApplyOutcome::incomplete);
  ASSERT_EQ(report.remains.size(), 1U);
  EXPECT_EQ(report.remains[0], "0000:01:00.0, bound (object 2): it was lent: closing its descriptor unbinds it");
}

TEST_F(IommufdBackendTest, ALentDeviceOfAnotherMachineStaysBoundToo) {
  IommufdOptions options;
  options.devices = {{kFirst, system.open("/dev/vfio/devices/vfio2").value()}};  // the other unit's
  system.remove("/sys/dev/char");  // else it is seen before
  const ApplyReport report = apply(options);
  EXPECT_EQ(report.outcome, ApplyOutcome::incomplete);
  EXPECT_THAT(report.error->message, HasSubstr("the host document says"));
  ASSERT_EQ(report.remains.size(), 1U);
  EXPECT_THAT(report.remains[0], HasSubstr("which was lent, stays bound"));
}

TEST_F(IommufdBackendTest, PassedDescriptorsAreLookedAtFirst) {
  const int iommu = system.open("/dev/iommu").value(), memory = system.memfd_create("memory", 4096).value();
  const int first = system.open("/dev/vfio/devices/vfio0").value(), second = system.open("/dev/vfio/devices/vfio2").value();
  const std::string before = system.world();
  const auto no = [&](std::optional<int> context, std::optional<int> device) {
    IommufdOptions options;
    options.iommu = context;
    if (device) options.devices = {{kFirst, *device}};
    return refusal(options).message;
  };
  EXPECT_EQ(no(99, std::nullopt), "descriptor 99, passed as /dev/iommu, is not open");
  EXPECT_EQ(no(memory, std::nullopt), fmt::format("descriptor {} is not /dev/iommu", memory));
  EXPECT_EQ(no(first, std::nullopt), fmt::format("descriptor {} is not /dev/iommu", first));
  EXPECT_EQ(no(iommu, 99), "descriptor 99, passed as the VFIO device 0000:01:00.0, is not open");
  EXPECT_EQ(no(iommu, memory), fmt::format("descriptor {} is not the VFIO device 0000:01:00.0", memory));
  EXPECT_EQ(no(iommu, iommu), fmt::format("descriptor {} is not the VFIO device 0000:01:00.0", iommu));
  EXPECT_EQ(no(iommu, second), fmt::format("descriptor {} is of 0000:02:00.0, not of 0000:01:00.0", second));
  ASSERT_TRUE(vfio_bind(system, first, system.duplicate(iommu)));
  EXPECT_EQ(no(iommu, first), fmt::format("descriptor {} of 0000:01:00.0 is bound already", first));
  EXPECT_THAT(before, testing::Not(HasSubstr("ioas")));
  EXPECT_EQ(count_calls(system, "IOMMU_IOAS_ALLOC"), 0U);
}

// ------------------------------------------------------------------------------------------------- pinned once

// Two VMs on the two units, whose memory an embedder lends: the same file, or not.
const Case& two_vms() {
  static const Case kCase = [] {
    std::string documents = two_units("{backing: 4KiB, ranges: [{gpa: [0x0, 0x3fffffff]}]}");
    const std::string both = R"(devices: [{host: "0000:01:00.0"}, {host: "0000:02:00.0"}])";
    documents.replace(documents.find(both), both.size(), R"(devices: [{host: "0000:01:00.0"}])");
    return planned(documents + R"(---
apiVersion: ioplan/v1
kind: VirtualMachine
name: second
memory: {ranges: [{gpa: [0x0, 0x3fffffff]}]}
devices: [{host: "0000:02:00.0"}]
)");
  }();
  return kCase;
}

class IommufdPinnedOnce : public testing::Test {
 protected:
  IommufdPinnedOnce() {
    system.become(c.host, c.plan);
    file = system.memfd_create("theirs", 4096).value();
    EXPECT_TRUE(system.ftruncate(file, 4 * kGiB));
    dup = system.duplicate(file);
  }

  // Memory lent to the first and to the second VM.
  ApplyReport apply(LentMemory first, LentMemory second) {
    IommufdOptions options;
    options.memory = [=](const PlannedIoas& ioas, const MemoryRange&) -> Result<LentMemory> {
      return ioas.id == "ioas0" ? first : second;
    };
    backend = std::make_unique<IommufdBackend>(system, c.host, options);
    ApplyOptions small;
    small.piece = 256 << 20;
    return apply_plan(c.plan, c.host, *backend, small);
  }
  void make_read_only(const std::string& ioas) {
    for (PlannedIoas& i : c.plan.ioas) {
      if (i.id == ioas) i.memory[0].access = Access::read_only;
    }
    for (Step& s : c.plan.steps) {
      if (s.ioas == ioas) s.writeable = false;
    }
  }

  Case c = two_vms();
  FakeSystem system;
  int file = -1, dup = -1;
  std::unique_ptr<IommufdBackend> backend;
};

TEST_F(IommufdPinnedOnce, TheSameMemoryOfTwoAddressSpaces) {
  ASSERT_EQ(c.plan.ioas.size(), 2U);
  const ApplyReport report = apply({file, 0}, {dup, 0});
  ASSERT_EQ(report.outcome, ApplyOutcome::done) << text_of(report);
  EXPECT_EQ(system.pinned(), kGiB);
  EXPECT_EQ(system.maps.size(), 4U);  // pieces
  EXPECT_EQ(system.copies.size(), 4U);
  EXPECT_THAT(backend->pinned_again(), IsEmpty());
  backend.reset();
  EXPECT_EQ(system.open_descriptors(), 2U);
}

TEST_F(IommufdPinnedOnce, OtherMemoryIsPinnedToo) {
  ASSERT_EQ(apply({file, 0}, {dup, kGiB}).outcome, ApplyOutcome::done);
  EXPECT_EQ(system.pinned(), 2 * kGiB);
  EXPECT_THAT(system.copies, IsEmpty());
  EXPECT_THAT(backend->pinned_again(), IsEmpty());
}

TEST_F(IommufdPinnedOnce, CountsForMemlockOnce) {
  system.memlock = kGiB;
  ASSERT_EQ(apply({file, 0}, {dup, 0}).outcome, ApplyOutcome::done);
  backend.reset();
  const ApplyReport report = apply({file, 0}, {dup, kGiB});
  EXPECT_EQ(report.outcome, ApplyOutcome::refused);
  EXPECT_THAT(report.error->message, HasSubstr("the plan pins 2GiB, and this process may lock 1GiB"));
}

TEST_F(IommufdPinnedOnce, AReadOnlyCopyOfWriteableMemory) {
  make_read_only("ioas1");
  ASSERT_EQ(apply({file, 0}, {dup, 0}).outcome, ApplyOutcome::done);
  EXPECT_EQ(system.pinned(), kGiB);
}

TEST_F(IommufdPinnedOnce, MemoryPinnedForReadingIsPinnedAgainAndThatIsSaid) {
  make_read_only("ioas0");
  system.memlock = 2 * kGiB - 1;
  EXPECT_EQ(apply({file, 0}, {dup, 0}).outcome, ApplyOutcome::refused);
  system.memlock = 2 * kGiB;
  ASSERT_EQ(apply({file, 0}, {dup, 0}).outcome, ApplyOutcome::done);
  EXPECT_EQ(system.pinned(), 2 * kGiB);
  ASSERT_EQ(backend->pinned_again().size(), 4U);
  EXPECT_EQ(backend->pinned_again()[0], "0x0-0xfffffff in ioas1: ioas0 has it pinned for reading only");
}

TEST_F(IommufdPinnedOnce, PartsThatOverlapArePinnedAgainAndThatIsSaid) {
  ASSERT_EQ(apply({file, 0}, {dup, 4096}).outcome, ApplyOutcome::done);
  EXPECT_EQ(system.pinned(), kGiB + (256 << 20));  // the pieces but for the last lie within the first VM's
  ASSERT_EQ(backend->pinned_again().size(), 1U);
  EXPECT_EQ(backend->pinned_again()[0], "0x30000000-0x3fffffff in ioas1: ioas0 has only a part of it");
}

// Somebody else has unmapped the source, in a context that was lent; or the kernel has it read-only.
TEST_F(IommufdPinnedOnce, WhereTheKernelHasNoSourceItIsPinnedAgain) {
  for (const int why : {ENOENT, EPERM}) {
    system.fail("IOMMU_IOAS_COPY", why, 2);
    ASSERT_EQ(apply({file, 0}, {dup, 0}).outcome, ApplyOutcome::done);
    EXPECT_TRUE(system.struck());
    EXPECT_EQ(system.pinned(), kGiB + (256 << 20));
    ASSERT_EQ(backend->pinned_again().size(), 1U);
    EXPECT_THAT(backend->pinned_again()[0], HasSubstr("0x10000000-0x1fffffff in ioas1: ioas0 gives no copy, "));
    backend.reset();
  }
}

TEST_F(IommufdPinnedOnce, EveryOtherErrnoOfACopyIsTold) {
  const std::string before = system.world();
  for (const auto& [why, help] :
       std::map<int, std::string>{{EINVAL, "reserved"}, {EEXIST, "mapped there"}, {ENOMEM, "page tables"}, {EIO, ""}}) {
    system.fail("IOMMU_IOAS_COPY", why, 2);
    const ApplyReport report = apply({file, 0}, {dup, 0});
    EXPECT_EQ(report.outcome, ApplyOutcome::rolled_back) << text_of(report);
    EXPECT_THAT(report.error->message, HasSubstr("copy of 0x10000000-0x1fffffff in ioas1 from ioas0: "));
    EXPECT_THAT(report.error->help, HasSubstr(help));
    EXPECT_EQ(report.error->errno_value, why);
    EXPECT_EQ(system.pinned(), 0U);
    backend.reset();
    EXPECT_EQ(system.world(), before);
  }
}

TEST_F(IommufdPinnedOnce, ALentDescriptorThatIsNotOpenIsRefused) {
  const ApplyReport report = apply({file, 0}, {99, 0});
  EXPECT_EQ(report.outcome, ApplyOutcome::refused);
  EXPECT_THAT(report.error->message,
              HasSubstr("the memory lent for 0x0-0x3fffffff in ioas1: Bad file descriptor (EBADF)"));
}

// Two address spaces of one VM: one file of ours, also where one of them maps less.
TEST(IommufdBackend, AVmHasItsMemoryOnce) {
  Case c = two_vms();
  c.plan.ioas[1].vm = c.plan.ioas[0].vm;
  c.plan.ioas[1].memory[0].gpa = {0x10000000, 0x2fffffff};
  for (Step& s : c.plan.steps) {
    if (s.ioas != "ioas1") continue;
    s.iova = {0x10000000, 0x2fffffff};
    s.ranges = {s.iova};
  }
  FakeSystem system;
  system.become(c.host, c.plan);
  system.memlock = kGiB;
  IommufdBackend backend(system, c.host);
  const ApplyReport report = apply_plan(c.plan, c.host, backend);
  ASSERT_EQ(report.outcome, ApplyOutcome::done) << text_of(report);
  EXPECT_EQ(count_calls(system, "memfd_create"), 1U);
  EXPECT_EQ(count_calls(system, "IOMMU_IOAS_COPY"), 1U);
  EXPECT_EQ(system.pinned(), kGiB);
}

// Hand-made: huge pages of shared memory are counted once.
TEST(IommufdBackend, HugePagesOfAVmAreCountedOnce) {
  Case c = small_case();
  c.plan.ioas.push_back(c.plan.ioas[0]);
  c.plan.ioas[1].id = "ioas1";
  FakeSystem system;
  system.add_huge_pages(2 << 20, 513);
  EXPECT_TRUE(require_huge_pages(system, c.plan));
  c.plan.ioas[1].vm = "another";
  EXPECT_EQ(require_huge_pages(system, c.plan).error().message,
            "the plan needs 1026 free huge pages of 2MiB, and 513 are free");
}

// ------------------------------------------------------------------------------------------------- dirty tracking

// Two HWPTs, because the policy keeps the devices apart.
const Case& dirty_case() {
  static const Case kCase = planned(two_units("{backing: 4KiB, ranges: [{gpa: [0x0, 0x3fffff]}, {gpa: [0x100000000, "
                                              "0x1000fffff]}]}\nneeds: {dirty_tracking: required}") +
                                    R"(---
apiVersion: ioplan/v1
kind: Policy
name: apart
rules: [{name: apart, separate: {a: {host: "0000:01:00.0"}, b: {host: "0000:02:00.0"}}}]
)");
  return kCase;
}

class IommufdDirty : public testing::Test {
 protected:
  IommufdDirty() {
    system.become(c.host, c.plan);
    backend = std::make_unique<IommufdBackend>(system, c.host);
    const ApplyReport report = apply_plan(c.plan, c.host, *backend);
    EXPECT_EQ(report.outcome, ApplyOutcome::done) << text_of(report);
  }
  DirtyBitmap low() { return DirtyBitmap::create({0, 0x3fffff}, 4096).value(); }

  Case c = dirty_case();
  FakeSystem system;
  std::unique_ptr<IommufdBackend> backend;
};

TEST_F(IommufdDirty, OfOnePageTable) {
  ASSERT_EQ(c.plan.hwpts.size(), 2U);
  system.write(kFirst, 0x1000);  // before it is tracked
  ASSERT_TRUE(backend->track_dirty("hwpt0", DirtyTracking::on));
  system.write(kFirst, 0x5000);
  system.write(kFirst, 0x41000);
  system.write(kSecond, 0x6000);  // of the other one
  for (const DirtyRead read : {DirtyRead::keep, DirtyRead::clear}) {
    DirtyBitmap bitmap = low();
    ASSERT_TRUE(backend->read_dirty("hwpt0", read, bitmap));
    EXPECT_TRUE(bitmap.is_dirty(0x5000) && bitmap.is_dirty(0x41fff));
    EXPECT_EQ(bitmap.dirty_pages(), 2U);
  }
  DirtyBitmap bitmap = low();
  ASSERT_TRUE(backend->read_dirty("hwpt0", DirtyRead::clear, bitmap));
  EXPECT_EQ(bitmap.dirty_pages(), 0U);
  ASSERT_TRUE(backend->track_dirty("hwpt0", DirtyTracking::off));
  system.write(kFirst, 0x5000);
  ASSERT_TRUE(backend->read_dirty("hwpt0", DirtyRead::clear, bitmap));
  EXPECT_EQ(bitmap.dirty_pages(), 0U);
}

TEST_F(IommufdDirty, OfAVmIsWhatAnyPageTableSays) {
  ASSERT_TRUE(backend->track_dirty_of_vm("vm", DirtyTracking::on));
  system.write(kFirst, 0x5000);
  system.write(kSecond, 0x5000);
  system.write(kSecond, 0x6000);
  system.write(kSecond, 0x100000000);
  auto bitmaps = backend->dirty_bitmaps("vm", 4096).value();
  ASSERT_EQ(bitmaps.size(), 2U);
  ASSERT_TRUE(backend->read_dirty_of_vm("vm", DirtyRead::clear, bitmaps));
  EXPECT_EQ(bitmaps[0].dirty_pages(), 2U);
  EXPECT_EQ(bitmaps[1].dirty_pages(), 1U);
  // A round later the owner's bits are still there, and nothing has been added.
  system.write(kFirst, 0x7000);
  ASSERT_TRUE(backend->read_dirty_of_vm("vm", DirtyRead::clear, bitmaps));
  EXPECT_EQ(bitmaps[0].dirty_pages(), 3U);
  bitmaps[0].clear();
  ASSERT_TRUE(backend->read_dirty_of_vm("vm", DirtyRead::clear, bitmaps));
  EXPECT_EQ(bitmaps[0].dirty_pages(), 0U);
}

// A bitmap may reach beyond what is mapped: of that, nothing can be dirty.
TEST_F(IommufdDirty, OfAVmInPartsWhereNotAllIsMapped) {
  ASSERT_TRUE(backend->track_dirty_of_vm("vm", DirtyTracking::on));
  system.write(kFirst, 0x3ff000);
  system.write(kSecond, 0x100000000);
  std::vector<DirtyBitmap> bitmaps = {DirtyBitmap::create({0, 0x1001fffff}, 4096).value()};
  ASSERT_TRUE(backend->read_dirty_of_vm("vm", DirtyRead::clear, bitmaps));
  EXPECT_EQ(bitmaps[0].dirty_pages(), 2U);
  EXPECT_TRUE(bitmaps[0].is_dirty(0x3ff000) && bitmaps[0].is_dirty(0x100000000));
}

TEST_F(IommufdDirty, BitsReadBeforeAFailureAreNotLost) {
  ASSERT_TRUE(backend->track_dirty_of_vm("vm", DirtyTracking::on));
  system.write(kFirst, 0x5000);
  auto bitmaps = backend->dirty_bitmaps("vm", 4096).value();
  system.fail("IOMMU_HWPT_GET_DIRTY_BITMAP", ENOMEM, 2);
  const auto failed = backend->read_dirty_of_vm("vm", DirtyRead::clear, bitmaps);
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().message, "dirty pages of 0x0-0x3fffff in hwpt1: Cannot allocate memory (ENOMEM)");
  EXPECT_EQ(bitmaps[0].dirty_pages(), 1U);
}

TEST_F(IommufdDirty, BeginsInAllPageTablesOrInNone) {
  system.fail("IOMMU_HWPT_SET_DIRTY_TRACKING", ENOMEM, 2);
  const auto failed = backend->track_dirty_of_vm("vm", DirtyTracking::on);
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().message, "starting dirty tracking of hwpt1: Cannot allocate memory (ENOMEM)");
  system.write(kFirst, 0x5000);
  DirtyBitmap bitmap = low();
  ASSERT_TRUE(backend->read_dirty("hwpt0", DirtyRead::keep, bitmap));
  EXPECT_EQ(bitmap.dirty_pages(), 0U);
  // Ending goes on after a failure.
  ASSERT_TRUE(backend->track_dirty_of_vm("vm", DirtyTracking::on));
  system.fail("IOMMU_HWPT_SET_DIRTY_TRACKING", EIO, 1);
  EXPECT_EQ(backend->track_dirty_of_vm("vm", DirtyTracking::off).error().message,
            "ending dirty tracking of hwpt0: Input/output error (EIO)");
  system.write(kSecond, 0x5000);
  ASSERT_TRUE(backend->read_dirty("hwpt1", DirtyRead::keep, bitmap));
  EXPECT_EQ(bitmap.dirty_pages(), 0U);
}

TEST_F(IommufdDirty, EveryErrnoIsToldWithItsReason) {
  for (const auto& [why, help] : std::map<int, std::string>{
           {EOPNOTSUPP, "without dirty tracking"}, {EINVAL, "aligned"}, {ENOENT, "destroyed"}, {ENOMEM, "memory left"}}) {
    DirtyBitmap bitmap = low();
    system.fail("IOMMU_HWPT_GET_DIRTY_BITMAP", why);
    const auto read = backend->read_dirty("hwpt0", DirtyRead::clear, bitmap);
    system.fail("IOMMU_HWPT_SET_DIRTY_TRACKING", why);
    const auto set = backend->track_dirty("hwpt0", DirtyTracking::on);
    ASSERT_FALSE(read);
    ASSERT_FALSE(set);
    for (const Error& e : {read.error(), set.error()}) {
      EXPECT_EQ(e.errno_value, why);
      EXPECT_THAT(e.help, HasSubstr(help));
    }
  }
}

TEST_F(IommufdDirty, RefusalsWithoutACall) {
  const std::size_t calls = system.calls.size();
  EXPECT_EQ(backend->track_dirty("hwpt9", DirtyTracking::on).error().message, "`hwpt9` is not allocated");
  EXPECT_EQ(backend->track_dirty_of_vm("nobody", DirtyTracking::on).error().message, "`nobody` has no HWPT");
  std::vector<DirtyBitmap> bitmaps = {DirtyBitmap::create({0x3ff000, 0x400fff}, 4096).value()};
  EXPECT_EQ(backend->read_dirty_of_vm("nobody", DirtyRead::keep, bitmaps).error().message, "`nobody` has no HWPT");
  EXPECT_EQ(backend->read_dirty("hwpt0", DirtyRead::keep, bitmaps[0]).error().message,
            "dirty pages of 0x3ff000-0x400fff in hwpt0: that is no whole mapped range");
  DirtyBitmap inside = DirtyBitmap::create({0x1000, 0x1fff}, 4096).value();  // where Linux may write behind the bitmap
  EXPECT_EQ(backend->read_dirty("hwpt0", DirtyRead::keep, inside).error().help, "these are: 0x0-0x3fffff 0x100000000-0x1000fffff");
  std::vector<DirtyBitmap> cut = {DirtyBitmap::create({0x1000, 0x100ffffff}, 4096).value()};
  EXPECT_FALSE(backend->read_dirty_of_vm("vm", DirtyRead::keep, cut));
  EXPECT_EQ(backend->dirty_bitmaps("vm", 4 << 20).error().message,
            "0x100000000-0x1000fffff does not consist of pages of 4MiB");
  EXPECT_EQ(DirtyBitmap::create({0, 0xfff}, 0).error().message, "0 is no page size");
  EXPECT_EQ(system.calls.size(), calls);
}

TEST_F(IommufdBackendTest, DirtyTrackingNeedsAPlanForIt) {
  ASSERT_EQ(apply().outcome, ApplyOutcome::done);
  const auto no = backend->track_dirty("hwpt0", DirtyTracking::on);
  EXPECT_EQ(no.error().message, "`hwpt0` was planned and allocated without dirty-tracking");
  EXPECT_EQ(no.error().help, "plan with `needs: {dirty_tracking: required}`");
  EXPECT_EQ(count_calls(system, "IOMMU_HWPT_SET_DIRTY_TRACKING"), 0U);
}

TEST(IommufdBackend, DirtyTrackingIsNotForAutomaticPageTables) {
  const Case& c = automatic_case();
  FakeSystem system;
  system.become(c.host, c.plan);
  IommufdBackend backend(system, c.host);
  ASSERT_EQ(apply_plan(c.plan, c.host, backend).outcome, ApplyOutcome::done);
  EXPECT_EQ(backend.track_dirty("hwpt0", DirtyTracking::on).error().message,
            "`hwpt0` has no dirty tracking: the kernel made it, by attaching to ioas0");
}

// ------------------------------------------------------------------------------------------------- memory

TEST_F(IommufdBackendTest, MapsByAddressWhereFilesAreNotKnown) {
  system.knows_map_file = false;
  ASSERT_EQ(apply().outcome, ApplyOutcome::done);
  EXPECT_EQ(count_calls(system, "IOMMU_IOAS_MAP_FILE"), 1U);  // asked once
  EXPECT_EQ(count_calls(system, "IOMMU_IOAS_MAP"), 2U);
  EXPECT_EQ(system.views(), 2U);
  backend.reset();
  EXPECT_EQ(system.world(), "");
  EXPECT_THAT(system.violations, IsEmpty());

  system.fail("mmap", ENOMEM, 2);
  EXPECT_EQ(apply().outcome, ApplyOutcome::rolled_back);
  EXPECT_EQ(system.world(), "");
}

// Pieces of one range come from one file, and IOVA and file offset agree modulo the backing page.
TEST(IommufdBackend, PiecesShareAFileAlignedLikeTheGuest) {
  const Case c = planned(two_units("{backing: 2MiB, ranges: [{gpa: [0x100000, 0x100fffff]}]}"));
  for (const bool by_file : {true, false}) {
    FakeSystem system;
    system.knows_map_file = by_file;
    system.become(c.host, c.plan);
    IommufdBackend backend(system, c.host);
    ApplyOptions options;
    options.piece = 64 << 20;
    ASSERT_EQ(apply_plan(c.plan, c.host, backend, options).outcome, ApplyOutcome::done);
    EXPECT_EQ(count_calls(system, "memfd_create"), 1U);
    ASSERT_EQ(system.maps.size(), 5U);
    for (const FakeSystem::Map& m : system.maps) {
      EXPECT_EQ(m.by_file, by_file);
      EXPECT_EQ(m.iova - m.offset, 0U);  // the range starts in the first 2 MiB
    }
    EXPECT_EQ(system.views(), by_file ? 0U : 1U);
  }
}

TEST(IommufdBackend, MemoryInTheKernelsPagesIsNoHugetlb) {
  const Case c = planned(two_units("{ranges: [{gpa: [0x0, 0xfffffff]}]}"));
  FakeSystem system;
  system.become(c.host, c.plan);
  IommufdBackend backend(system, c.host);
  EXPECT_EQ(apply_plan(c.plan, c.host, backend).outcome, ApplyOutcome::done);
  EXPECT_EQ(std::ranges::count_if(system.calls, [](const std::string& s) { return s.find("hugepages") != s.npos; }), 0);
}

TEST_F(IommufdBackendTest, TakesMemoryThatIsLent) {
  const int file = system.memfd_create("theirs", 2 << 20).value();
  ASSERT_TRUE(system.ftruncate(file, 2 * kGiB));
  std::vector<Range> asked;
  IommufdOptions options;
  options.memory = [&](const PlannedIoas& ioas, const MemoryRange& range) -> Result<LentMemory> {
    EXPECT_EQ(ioas.vm, "vm");
    asked.push_back(range.gpa);
    return LentMemory{file, range.gpa.start + (2 << 20)};
  };
  system.remove("/sys/kernel/mm");  // theirs to care for
  ASSERT_EQ(apply(options).outcome, ApplyOutcome::done);
  EXPECT_THAT(asked, ElementsAre(Range{0, 0x3fffffff}, Range{0x40000000, 0x4000ffff}));
  EXPECT_EQ(system.maps.at(1).offset, 0x40000000U + (2 << 20));
  backend.reset();
  EXPECT_EQ(system.open_descriptors(), 1U);

  options.memory = [](const PlannedIoas&, const MemoryRange&) -> Result<LentMemory> {
    return failure("no more memory of theirs");
  };
  EXPECT_EQ(refusal(options).message, "no more memory of theirs");
}

TEST(IommufdBackend, MemoryLargerThanAnyFile) {
  EXPECT_EQ(file_bytes({0, 0xfff}, 4096), 4096U);
  EXPECT_EQ(file_bytes({0xfff, 0x1000}, 4096), 8192U);
  EXPECT_EQ(file_bytes({0, ~std::uint64_t{0}}, 4096), std::nullopt);
  FakeSystem system;
  EXPECT_THAT(GuestMemory::allocate(system, {0, ~std::uint64_t{0}}, 4096).error().message,
              HasSubstr("no file is that large"));
}

// ------------------------------------------------------------------------------------------------- wrong plans

Step step_of(StepKind kind, const std::string& device, const std::string& ioas, const std::string& hwpt) {
  Step s;
  s.kind = kind;
  s.device = device;
  s.ioas = ioas;
  s.hwpt = hwpt;
  return s;
}

TEST_F(IommufdBackendTest, StepsOutOfOrderAreRefusedWithoutACall) {
  const auto why = [&](const Step& s) { return backend->prepare(c.plan, s).error().message; };
  backend = std::make_unique<IommufdBackend>(system, c.host);
  EXPECT_EQ(why(step_of(StepKind::map, "", "ioas0", "")), "`ioas0` is not allocated");
  EXPECT_EQ(why(step_of(StepKind::attach, kFirst, "", "hwpt0")), "`0000:01:00.0` is not bound");
  ASSERT_EQ(apply().outcome, ApplyOutcome::done);
  const std::size_t calls = system.calls.size();
  EXPECT_EQ(why(step_of(StepKind::bind, kFirst, "", "")), "`0000:01:00.0` is bound already");
  EXPECT_EQ(why(step_of(StepKind::ioas_alloc, "", "ioas0", "")), "`ioas0` is there already");
  EXPECT_EQ(why(step_of(StepKind::hwpt_alloc, kFirst, "ioas0", "hwpt0")), "`hwpt0` is there already");
  EXPECT_EQ(why(step_of(StepKind::hwpt_alloc, "0000:99:00.0", "ioas0", "hwpt1")), "`0000:99:00.0` is not bound");
  EXPECT_EQ(why(step_of(StepKind::attach, kFirst, "", "hwpt0")), "`0000:01:00.0` is attached already");
  EXPECT_EQ(system.calls.size(), calls);
}

TEST_F(IommufdBackendTest, WrongPlansFailAndAreTakenBack) {
  for (std::size_t dropped = 0; dropped < c.plan.steps.size(); ++dropped) {
    Case wrong = c;
    if (wrong.plan.steps[dropped].kind == StepKind::map || wrong.plan.steps[dropped].kind == StepKind::allow_iovas)
      continue;
    wrong.plan.steps.erase(wrong.plan.steps.begin() + static_cast<std::ptrdiff_t>(dropped));
    FakeSystem machine;
    machine.become(c.host, c.plan);
    IommufdBackend b(machine, c.host);
    EXPECT_EQ(apply_plan(wrong.plan, c.host, b).outcome, ApplyOutcome::rolled_back) << "without step " << dropped;
    EXPECT_EQ(machine.world(), "");
  }
}

// ------------------------------------------------------------------------------------------------- Linux itself

TEST(LinuxSystem, DoesWhatItsNamesSay) {
  const auto linux_calls = linux_system();
  const int fd = linux_calls->memfd_create("ioplan-test", linux_calls->page_size()).value();
  const Descriptor closing = Descriptor::owned(*linux_calls, fd);
  ASSERT_TRUE(linux_calls->ftruncate(fd, 2 * linux_calls->page_size()));
  const auto address = linux_calls->mmap(fd, linux_calls->page_size(), linux_calls->page_size());
  ASSERT_TRUE(address);
  auto* byte = reinterpret_cast<volatile char*>(static_cast<std::uintptr_t>(*address));
  *byte = 'x';
  EXPECT_EQ(*byte, 'x');
  linux_calls->munmap(*address, linux_calls->page_size());
  EXPECT_EQ(linux_calls->ioctl(fd, uapi::IOMMU_IOAS_ALLOC, nullptr).error().value, ENOTTY);
  EXPECT_EQ(linux_calls->ioctl(-1, uapi::IOMMU_IOAS_ALLOC, nullptr).error().value, EBADF);
  EXPECT_EQ(linux_calls->mmap(-1, 0, 4096).error().value, EBADF);
  EXPECT_EQ(linux_calls->identify(-1).error().value, EBADF);
  const Descriptor again = Descriptor::owned(*linux_calls, linux_calls->open(fmt::format("/proc/self/fd/{}", fd)).value());
  EXPECT_EQ(linux_calls->identify(fd).value(), linux_calls->identify(again.get()).value());
  EXPECT_EQ(linux_calls->identify(fd)->node, 0U);
  const Descriptor null = Descriptor::owned(*linux_calls, linux_calls->open("/dev/null").value());
  EXPECT_NE(linux_calls->identify(null.get())->node, 0U);
  EXPECT_EQ(require_iommu(*linux_calls, null.get()).error().message, fmt::format("descriptor {} is not /dev/iommu", null.get()));
  EXPECT_EQ(linux_calls->ftruncate(-1, 0).error().value, EBADF);
  EXPECT_EQ(linux_calls->read_link(fmt::format("/proc/self/fd/{}", fd)).value(), "/memfd:ioplan-test (deleted)");
}

TEST(LinuxSystem, ReadsAroundAndAnswersErrno) {
  const auto linux_calls = linux_system();
  const auto root = std::filesystem::temp_directory_path() / fmt::format("ioplan-{}", std::rand());
  std::filesystem::create_directories(root / "b");
  std::filesystem::create_directories(root / "a");
  EXPECT_THAT(linux_calls->list(root.string()).value(), ElementsAre("a", "b"));
  std::filesystem::remove_all(root);
  EXPECT_EQ(linux_calls->list(root.string()).error().value, ENOENT);
  EXPECT_EQ(linux_calls->open(root.string()).error().value, ENOENT);
  EXPECT_EQ(linux_calls->read_file(root.string()).error().value, ENOENT);
  EXPECT_EQ(linux_calls->read_link(root.string()).error().value, ENOENT);
  EXPECT_FALSE(linux_calls->read_file("/proc/self/comm").value().ends_with('\n'));
  EXPECT_GT(linux_calls->memlock_limit(), 0U);
  linux_calls->locks_without_limit();  // either answer is right
}

// A huge page of a size that no CPU has.
TEST(LinuxSystem, HugePagesAreAskedForBySize) {
  const auto linux_calls = linux_system();
  const auto fd = linux_calls->memfd_create("ioplan-test", std::uint64_t{1} << 50);
  ASSERT_FALSE(fd);
  EXPECT_TRUE(fd.error().value == ENODEV || fd.error().value == EINVAL || fd.error().value == ENOENT)
      << errno_text(fd.error().value);
}

}  // namespace
}  // namespace ioplan::iommufd
