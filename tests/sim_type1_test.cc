// The simulated type1 container (backends/sim/type1.h), call by call: each errno of KR 5.1 and of Linux
// drivers/vfio/{container,vfio_iommu_type1}.c in its place, what shares a domain, what every domain holds, and what is left
// behind. Then random sequences beside a slow model that keeps pages in a map and recomputes everything else.
#include "backends/sim/type1.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "backends/sim/iommufd.h"
#include "backends/sim/walker.h"
#include "constraints/kernel_law.h"
#include "engine/document/load.h"
#include "engine/model/plan.h"
#include "tests/support/seeds.h"

namespace ioplan::sim {
namespace {

constexpr std::uint64_t kPage = 4096;
constexpr std::uint64_t k2M = std::uint64_t{2} << 20;
constexpr std::uint64_t k1G = std::uint64_t{1} << 30;

// Legacy VT-d, 48 bits, 2M and 1G pages; the others differ in one thing each.
const std::string kSnoops = "driver: intel, cap: 0xc002f0406, ecap: 0x81";
const std::string kPlain = "driver: intel, cap: 0xc002f0406, ecap: 0x1";
const std::string kSmall = "driver: intel, cap: 0x2f0406, ecap: 0x81";        // 4K pages only
const std::string kNarrow = "driver: intel, cap: 0xc00260206, ecap: 0x81";    // 39 bits, three levels
const std::string kSmmu = "driver: smmuv3, idr: [0x2, 0x0, 0x0, 0x0, 0x0, 0x15], coherent: true";
const std::string kRiscv = "driver: riscv, capabilities: 0x200";

struct DeviceLine {
  unsigned unit;
  unsigned group;
  std::string more = {};
};

Host host_of(const std::vector<std::string>& units, const std::vector<DeviceLine>& devices) {
  std::string text = "apiVersion: ioplan/v1\nkind: Host\nkernel: {isolated_msi: true, la57: false}\niommus:\n";
  for (std::size_t u = 0; u < units.size(); ++u) text += fmt::format("  - {{id: u{}, {}}}\n", u, units[u]);
  text += "devices:\n";
  for (std::size_t d = 0; d < devices.size(); ++d) {
    const bool arm = units[devices[d].unit].find("smmu") != std::string::npos;
    text += fmt::format("  - {{id: d{:02}, iommu: u{}, group: {}{}{}}}\n", d, devices[d].unit, devices[d].group,
                        arm ? ", canwbs: false, dma_coherent: {value: true, source: firmware}" : "", devices[d].more);
  }
  const auto loaded = load_text("host", text);
  if (!loaded) throw std::runtime_error(to_text(loaded.error()));
  return loaded->request.host;
}

std::unique_ptr<Machine> machine_of(const Host& host, const MachineOptions& options = {}) {
  auto machine = Machine::create(host, kernel_law(), options);
  if (!machine) throw std::runtime_error(to_text(machine.error()));
  return std::move(*machine);
}

template <class T>
int errno_of(const Answer<T>& answer) {
  return answer ? 0 : answer.error().errno_value;
}

// A container with these groups and type1 behind it.
std::unique_ptr<Type1Container> container_with(Machine& machine, std::initializer_list<std::uint32_t> groups) {
  auto container = Type1Container::open(machine);
  bool set = false;
  for (std::uint32_t g : groups) {
    EXPECT_EQ(errno_of(container->attach_group(g)), 0) << g;
    if (std::exchange(set, true)) continue;
    EXPECT_EQ(errno_of(container->set_iommu()), 0);
  }
  return container;
}

constexpr std::uint32_t kReadWrite = kVfioMapRead | kVfioMapWrite;

// "0,2 cc; 1": the groups by domain, newest first.
std::string domains(const Type1Container& container) {
  std::string text;
  for (const Type1Domain& d : container.domains()) {
    text += fmt::format("{}{}{}", text.empty() ? "" : "; ", fmt::join(d.groups, ","), d.enforce_cache_coherency ? " cc" : "");
  }
  return text;
}

TEST(Type1, TheBackEndNeedsAGroupFirst) {
  const auto machine = machine_of(host_of({kSnoops}, {{0, 4}}));
  const auto container = Type1Container::open(*machine);
  EXPECT_EQ(errno_of(container->set_iommu()), EINVAL);
  EXPECT_EQ(errno_of(container->map_dma(0, 0, kPage, kReadWrite)), EINVAL);
  EXPECT_EQ(errno_of(container->unmap_dma(0, kPage)), EINVAL);
  EXPECT_EQ(errno_of(container->get_info()), EINVAL);
  EXPECT_TRUE(container->check_extension(VfioExtension::type1v2));
  EXPECT_FALSE(container->check_extension(VfioExtension::dma_cc_iommu));
  EXPECT_EQ(errno_of(container->attach_group(4)), 0);
  EXPECT_EQ(errno_of(container->get_info()), EINVAL);  // still no back end
  EXPECT_EQ(errno_of(container->set_iommu()), 0);
  EXPECT_EQ(errno_of(container->set_iommu()), EINVAL);
  EXPECT_EQ(errno_of(container->get_info()), 0);
  EXPECT_EQ(errno_of(container->detach_group(4)), 0);
  EXPECT_EQ(errno_of(container->get_info()), EINVAL);  // the last group took it
  EXPECT_EQ(errno_of(container->detach_group(4)), EINVAL);
}

TEST(Type1, GroupsThatCannotJoin) {
  const std::string rmrr = ", reserved: [{range: [0x7a000000, 0x7a7fffff], type: direct}]";
  const auto machine = machine_of(host_of({kSnoops, kRiscv}, {{0, 0}, {0, 1, rmrr}, {0, 2, ", isolated_msi: false"}, {1, 3}, {0, 4}}));
  const auto container = container_with(*machine, {0});
  const std::string before = machine->world();
  EXPECT_EQ(errno_of(container->attach_group(0)), EINVAL);  // in it already
  EXPECT_EQ(errno_of(container->attach_group(1)), EINVAL);  // firmware wants a 1:1 mapping
  EXPECT_EQ(errno_of(container->attach_group(2)), EPERM);   // no isolated MSI
  EXPECT_EQ(errno_of(container->attach_group(3)), ENODEV);  // no .capable operation: VFIO takes no device of it
  EXPECT_EQ(errno_of(container->attach_group(99)), ENODEV);
  EXPECT_EQ(machine->world(), before);
}

TEST(Type1, OneOwnerAGroup) {
  const auto machine = machine_of(host_of({kSnoops}, {{0, 0}, {0, 1}, {0, 1}}));
  const auto container = container_with(*machine, {0});
  const auto context = machine->open();
  EXPECT_EQ(errno_of(context->bind("d00")), EPERM);
  ASSERT_EQ(errno_of(context->bind("d01")), 0);
  EXPECT_EQ(errno_of(container->attach_group(1)), EPERM);
  const auto other = Type1Container::open(*machine);
  EXPECT_EQ(errno_of(other->attach_group(0)), EINVAL);  // a group has one container
  EXPECT_EQ(errno_of(container->detach_group(0)), 0);
  EXPECT_EQ(errno_of(other->attach_group(0)), 0);
}

// KR 5.1, step 5: same operations and equal coherency, newest first, and whoever is refused keeps its own.
TEST(Type1, WhoSharesADomain) {
  const Host host = host_of({kSnoops, kPlain, kSmall, kSmmu, kSmmu}, {{0, 0}, {1, 1}, {0, 2}, {2, 3}, {0, 4}, {3, 5}, {4, 6}, {3, 7}});
  const auto machine = machine_of(host);
  EXPECT_EQ(domains(*container_with(*machine, {0, 2})), "0,2 cc");
  EXPECT_EQ(domains(*container_with(*machine, {1, 0})), "0 cc; 1");         // never mixed, though the kernel could
  EXPECT_EQ(domains(*container_with(*machine, {0, 3, 4})), "3,4 cc; 0 cc");  // both would take group 4
  EXPECT_EQ(domains(*container_with(*machine, {5, 6, 7})), "6; 5,7");       // one SMMU each, refused and gone on
}

TEST(Type1, CoherencyExtensionWantsAllDomains) {
  const auto machine = machine_of(host_of({kSnoops, kPlain}, {{0, 0}, {1, 1}}));
  const auto container = container_with(*machine, {0});
  EXPECT_TRUE(container->check_extension(VfioExtension::dma_cc_iommu));
  ASSERT_EQ(errno_of(container->attach_group(1)), 0);
  EXPECT_FALSE(container->check_extension(VfioExtension::dma_cc_iommu));
  ASSERT_EQ(errno_of(container->detach_group(1)), 0);
  EXPECT_TRUE(container->check_extension(VfioExtension::dma_cc_iommu));
}

TEST(Type1, InfoIsWhatAllDomainsAllow) {
  const auto machine = machine_of(host_of({kSnoops, kSmall, kNarrow}, {{0, 0}, {1, 1}, {2, 2}}));
  const auto container = container_with(*machine, {0});
  const Type1Info one = *container->get_info();
  EXPECT_EQ(one.page_sizes, kPage | k2M | k1G);
  EXPECT_EQ(one.entries_left, kType1EntryLimit);
  const std::vector<Range> wide = {{0, 0xfedfffff}, {0xfef00000, (std::uint64_t{1} << 48) - 1}};
  EXPECT_EQ(one.iova_ranges, wide);
  ASSERT_EQ(errno_of(container->attach_group(1)), 0);
  EXPECT_EQ(container->get_info()->page_sizes, kPage);
  ASSERT_EQ(errno_of(container->attach_group(2)), 0);
  const std::vector<Range> narrow = {{0, 0xfedfffff}, {0xfef00000, (std::uint64_t{1} << 39) - 1}};
  EXPECT_EQ(container->get_info()->iova_ranges, narrow);
  ASSERT_EQ(errno_of(container->detach_group(2)), 0);
  EXPECT_EQ(container->get_info()->iova_ranges, wide);
  ASSERT_EQ(errno_of(container->detach_group(1)), 0);
  EXPECT_EQ(container->get_info()->page_sizes, kPage | k2M | k1G);
}

TEST(Type1, MapRefusals) {
  const auto machine = machine_of(host_of({kSnoops}, {{0, 0}}));
  const auto container = container_with(*machine, {0});
  const Memory memory = machine->memory().allocate(16 * kPage, kPage);
  const Memory read_only = machine->memory().allocate(kPage, kPage, false);
  const std::uint64_t va = memory.user_va;
  ASSERT_EQ(errno_of(container->map_dma(0x10000, va, 4 * kPage, kReadWrite)), 0);
  const std::string before = machine->world();
  struct Case {
    const char* what;
    std::uint64_t iova, va, size;
    std::uint32_t flags;
    int expected;
  };
  for (const Case& c : std::vector<Case>{
           {"unknown flag", 0, va, kPage, 8, EINVAL},
           {"nothing", 0, va, 0, kReadWrite, EINVAL},
           {"past the top", ~std::uint64_t{0} - kPage + 1, va, 2 * kPage, kReadWrite, EOVERFLOW},
           {"address past the top", 0, ~std::uint64_t{0} - kPage + 1, 2 * kPage, kReadWrite, EOVERFLOW},
           {"no access at all", 0, va, kPage, 0, EINVAL},
           {"misaligned IOVA", 0x800, va, kPage, kReadWrite, EINVAL},
           {"misaligned address", 0, va + 0x800, kPage, kReadWrite, EINVAL},
           {"misaligned size", 0, va, kPage + 0x800, kReadWrite, EINVAL},
           {"over a mapping", 0xf000, va, 2 * kPage, kReadWrite, EEXIST},
           {"over a mapping, before the window is looked at", 0x13000, va, std::uint64_t{1} << 32, kReadWrite, EEXIST},
           {"over the MSI window", 0xfee00000, va, kPage, kReadWrite, EINVAL},
           {"across its edge", 0xfedff000, va, 2 * kPage, kReadWrite, EINVAL},
           {"out of the aperture", std::uint64_t{1} << 48, va, kPage, kReadWrite, EINVAL},
           {"no memory there", 0, va + 16 * kPage + k1G, kPage, kReadWrite, EFAULT},
           {"memory ends", 0, va + 15 * kPage, 2 * kPage, kReadWrite, EFAULT},
           {"read-only memory for writing", 0, read_only.user_va, kPage, kReadWrite, EFAULT},
       }) {
    EXPECT_EQ(errno_of(container->map_dma(c.iova, c.va, c.size, c.flags)), c.expected) << c.what;
    EXPECT_EQ(machine->world(), before) << c.what;
  }
  EXPECT_EQ(errno_of(container->map_dma(0, read_only.user_va, kPage, kVfioMapRead)), 0);
}

TEST(Type1, UnmapTakesWholeMappings) {
  const auto machine = machine_of(host_of({kSnoops}, {{0, 0}}));
  const auto container = container_with(*machine, {0});
  const Memory memory = machine->memory().allocate(16 * kPage, kPage);
  for (std::uint64_t i = 0; i < 3; ++i) {
    ASSERT_EQ(errno_of(container->map_dma(i * 0x10000, memory.user_va + i * kPage, 4 * kPage, kReadWrite)), 0);
  }
  EXPECT_EQ(container->get_info()->entries_left, kType1EntryLimit - 3);
  EXPECT_EQ(container->pinned_bytes(), 12 * kPage);
  const std::string before = machine->world();
  EXPECT_EQ(errno_of(container->unmap_dma(0x10000, 0)), EINVAL);
  EXPECT_EQ(errno_of(container->unmap_dma(0x10800, kPage)), EINVAL);
  EXPECT_EQ(errno_of(container->unmap_dma(0x10000, kPage + 1)), EINVAL);
  EXPECT_EQ(errno_of(container->unmap_dma(~std::uint64_t{0} - kPage + 1, 2 * kPage)), EOVERFLOW);
  EXPECT_EQ(errno_of(container->unmap_dma(0x11000, 3 * kPage)), EINVAL);    // cuts the front
  EXPECT_EQ(errno_of(container->unmap_dma(0x10000, 3 * kPage)), EINVAL);    // cuts the end
  EXPECT_EQ(errno_of(container->unmap_dma(0, kPage, 64)), EINVAL);          // unknown flag
  EXPECT_EQ(errno_of(container->unmap_dma(0, kPage, kVfioUnmapAll)), EINVAL);  // all means (0, 0)
  EXPECT_EQ(container->unmap_dma(0x40000, 4 * kPage), 0U);                  // nothing there is no error
  EXPECT_EQ(machine->world(), before);
  EXPECT_EQ(container->unmap_dma(0, 0x20000), 8 * kPage);
  EXPECT_EQ(container->unmap_dma(0, 0, kVfioUnmapAll), 4 * kPage);
  EXPECT_EQ(container->pinned_bytes(), 0U);
  EXPECT_EQ(container->get_info()->entries_left, kType1EntryLimit);
}

TEST(Type1, EntriesAreLimited) {
  const auto machine = machine_of(host_of({kSnoops}, {{0, 0}}));
  const auto container = container_with(*machine, {0});
  const Memory memory = machine->memory().allocate(kPage, kPage);
  for (std::uint64_t i = 0; i < kType1EntryLimit; ++i) {
    ASSERT_EQ(errno_of(container->map_dma(2 * i * kPage, memory.user_va, kPage, kReadWrite)), 0);
  }
  EXPECT_EQ(container->get_info()->entries_left, 0U);
  EXPECT_EQ(errno_of(container->map_dma(kPage, memory.user_va, kPage, kReadWrite)), ENOSPC);
  EXPECT_EQ(errno_of(container->map_dma(0, memory.user_va, kPage, kReadWrite)), EEXIST);  // asked first
  EXPECT_EQ(container->unmap_dma(0, kPage), kPage);
  EXPECT_EQ(errno_of(container->map_dma(kPage, memory.user_va, kPage, kReadWrite)), 0);
}

TEST(Type1, LockedMemoryIsCharged) {
  MachineOptions options;
  options.memlock_limit = 8 * kPage;
  const auto machine = machine_of(host_of({kSnoops}, {{0, 0}}), options);
  const auto container = container_with(*machine, {0});
  const Memory memory = machine->memory().allocate(16 * kPage, kPage);
  ASSERT_EQ(errno_of(container->map_dma(0, memory.user_va, 6 * kPage, kReadWrite)), 0);
  const std::string before = machine->world();
  EXPECT_EQ(errno_of(container->map_dma(0x10000, memory.user_va, 3 * kPage, kReadWrite)), ENOMEM);
  EXPECT_EQ(machine->world(), before);
  EXPECT_EQ(errno_of(container->map_dma(0x10000, memory.user_va, 2 * kPage, kReadWrite)), 0);  // twice pinned, twice charged
}

// A domain that joins later holds what was mapped before.
TEST(Type1, EveryDomainHoldsEveryMapping) {
  const auto machine = machine_of(host_of({kSnoops, kPlain}, {{0, 0}, {1, 1}}));
  const auto container = container_with(*machine, {0});
  const Memory memory = machine->memory().allocate(4 * k2M, k2M);
  ASSERT_EQ(errno_of(container->map_dma(k2M, memory.user_va, 2 * k2M, kReadWrite)), 0);
  ASSERT_EQ(errno_of(container->attach_group(1)), 0);
  ASSERT_EQ(errno_of(container->map_dma(8 * k2M, memory.user_va + 2 * k2M, k2M, kVfioMapRead)), 0);
  ASSERT_EQ(container->domains().size(), 2U);
  for (std::uint64_t iova = 0; iova < 10 * k2M; iova += kPage) {
    ASSERT_EQ(container->table(0)->iova_to_phys(iova), container->table(1)->iova_to_phys(iova)) << iova;
  }
  EXPECT_TRUE(container->table(1)->iova_to_phys(k2M));
  const auto leaf = [&](std::uint32_t domain, std::uint64_t iova) {
    const PageTable& table = *container->table(domain);
    return probe(machine->tables(), table.shape(), table.root(), iova);
  };
  EXPECT_EQ(leaf(1, k2M).page_size, k2M);  // replayed with large pages, too
  EXPECT_EQ(leaf(0, k2M).protection & kWrite, kWrite);
  EXPECT_EQ(leaf(1, 8 * k2M).protection & kWrite, 0);
  ASSERT_EQ(container->unmap_dma(0, 0, kVfioUnmapAll), 3 * k2M);
  EXPECT_FALSE(container->table(0)->iova_to_phys(k2M));
  EXPECT_FALSE(container->table(1)->iova_to_phys(8 * k2M));
}

TEST(Type1, MappingsInTheWayOfAGroup) {
  const std::string window = ", reserved: [{range: [0x100000, 0x1fffff], type: reserved}]";
  const std::string relaxable = ", reserved: [{range: [0x100000, 0x1fffff], type: direct-relaxable}]";
  const auto machine = machine_of(host_of({kSnoops, kNarrow}, {{0, 0}, {0, 1, window}, {1, 2}, {0, 3, relaxable}}));
  const auto container = container_with(*machine, {0});
  const Memory memory = machine->memory().allocate(kPage, kPage);
  ASSERT_EQ(errno_of(container->map_dma(0x100000, memory.user_va, kPage, kReadWrite)), 0);
  ASSERT_EQ(errno_of(container->map_dma(std::uint64_t{1} << 40, memory.user_va, kPage, kReadWrite)), 0);
  const std::string before = machine->world();
  EXPECT_EQ(errno_of(container->attach_group(1)), EINVAL);  // its region
  EXPECT_EQ(errno_of(container->attach_group(2)), EINVAL);  // its aperture
  EXPECT_EQ(machine->world(), before);
  EXPECT_EQ(errno_of(container->attach_group(3)), 0);
  EXPECT_EQ(errno_of(container->map_dma(0x101000, memory.user_va, kPage, kReadWrite)), 0);  // a relaxable region is none
  ASSERT_EQ(container->unmap_dma(0, 0, kVfioUnmapAll), 3 * kPage);
  EXPECT_EQ(errno_of(container->attach_group(1)), 0);
  EXPECT_EQ(errno_of(container->attach_group(2)), 0);
  EXPECT_EQ(errno_of(container->map_dma(0x100000, memory.user_va, kPage, kReadWrite)), EINVAL);
}

TEST(Type1, DevicesReachTheirMemory) {
  const auto machine = machine_of(host_of({kSnoops, kPlain}, {{0, 0}, {1, 1}}));
  const Memory memory = machine->memory().allocate(2 * kPage, kPage);
  std::array<std::byte, 16> bytes{};
  EXPECT_EQ(errno_of(machine->dma_read("d00", 0x5000, bytes)), EFAULT);
  {
    const auto container = container_with(*machine, {0, 1});
    ASSERT_EQ(errno_of(container->map_dma(0x5000, memory.user_va, 2 * kPage, kReadWrite)), 0);
    bytes.fill(std::byte{42});
    ASSERT_EQ(errno_of(machine->dma_write("d00", 0x5ff8, bytes)), 0);  // across two scattered pages
    bytes.fill(std::byte{0});
    ASSERT_EQ(errno_of(machine->dma_read("d01", 0x5ff8, bytes)), 0);   // through the other domain
    EXPECT_TRUE(std::ranges::all_of(bytes, [](std::byte b) { return b == std::byte{42}; }));
    EXPECT_EQ(errno_of(machine->dma_read("d01", 0x7000, bytes)), EFAULT);
  }
  EXPECT_EQ(errno_of(machine->dma_read("d00", 0x5ff8, bytes)), EFAULT);  // closed
}

// Behind an SMMU interrupts are writes that are translated: to the window's first page.
TEST(Type1, InterruptsReachTheDoorbell) {
  const auto machine = machine_of(host_of({kSmmu, kSnoops}, {{0, 0}, {0, 1}, {1, 2}}));
  const auto container = container_with(*machine, {0, 1, 2});
  const std::array<std::byte, 4> interrupt{};
  EXPECT_EQ(errno_of(machine->dma_write("d00", 0x8000040, interrupt)), 0);
  EXPECT_EQ(errno_of(machine->dma_write("d01", 0x8000040, interrupt)), 0);
  EXPECT_EQ(errno_of(machine->dma_write("d00", 0x8001000, interrupt)), EFAULT);
  EXPECT_EQ(errno_of(machine->dma_write("d02", 0x8000040, interrupt)), EFAULT);
  const Memory memory = machine->memory().allocate(kPage, kPage);
  EXPECT_EQ(errno_of(container->map_dma(0x8000000, memory.user_va, kPage, kReadWrite)), EINVAL);
}

TEST(Type1, ClosingLeavesNothing) {
  const auto machine = machine_of(host_of({kSnoops, kPlain}, {{0, 0}, {1, 1}}));
  const Memory memory = machine->memory().allocate(4 * kPage, kPage);
  const std::string before = machine->world();
  {
    const auto container = container_with(*machine, {0, 1});
    ASSERT_EQ(errno_of(container->map_dma(0, memory.user_va, 4 * kPage, kReadWrite)), 0);
    EXPECT_NE(machine->world(), before);
  }
  EXPECT_EQ(machine->world(), before);
  EXPECT_EQ(machine->tables().bytes_in_use(), 0U);
  EXPECT_EQ(errno_of(machine->open()->bind("d00")), 0);
}

// fail_nth over a scenario: for every k the failing call leaves the world as it was.
TEST(Type1, FailuresLeaveNoTrace) {
  const auto machine = machine_of(host_of({kSnoops, kPlain}, {{0, 0}, {1, 1}}));
  const Memory memory = machine->memory().allocate(4 * k2M, k2M);
  const auto scenario = [&](Type1Container& c, std::size_t step) -> Answer<void> {
    switch (step) {
      case 0: return c.attach_group(0);
      case 1: return c.set_iommu();
      case 2: return c.map_dma(k1G, memory.user_va, 2 * k2M, kReadWrite);
      case 3: return c.attach_group(1);
      default: return c.map_dma(4 * k1G, memory.user_va + k2M + kPage, 7 * kPage, kReadWrite);
    }
  };
  const std::string empty = machine->world();
  std::size_t struck = 0;
  std::set<std::size_t> failing;
  for (std::uint64_t n = 1;; ++n) {
    {
      const auto container = Type1Container::open(*machine);
      machine->fail_nth(n);
      for (std::size_t step = 0; step < 5; ++step) {
        const std::string before = machine->world();
        const Answer<void> done = scenario(*container, step);
        if (done) continue;
        ++struck;
        failing.insert(step);
        EXPECT_TRUE(machine->injected());
        EXPECT_EQ(done.error().errno_value, ENOMEM) << "call " << step << " at " << n;
        ASSERT_EQ(machine->world(), before) << "call " << step << " at " << n;
        ASSERT_EQ(errno_of(scenario(*container, step)), 0) << "call " << step << " at " << n;  // the second time it works
      }
      machine->fail_nth(0);
    }
    ASSERT_EQ(machine->world(), empty) << n;
    if (struck < n) break;
  }
  EXPECT_GE(struck, 10U);
  EXPECT_TRUE(failing.contains(1) && failing.contains(2) && failing.contains(3) && failing.contains(4));
}

// ------------------------------------------------------------------------------------------------------ random sequences

// What KR 5.1 and the kernel's sources say, with no table and no list that is kept: mappings are pages, the rest is
// worked out again whenever it is asked for.
class SlowContainer {
 public:
  SlowContainer(const Host& host, std::uint64_t memlock) : host_(host), memlock_(memlock) {}

  int attach_group(std::uint32_t group) {
    const std::vector<DeviceIndex> members = members_of(group);
    const auto registered = [&](DeviceIndex d) {
      return describe(d)[DeviceQ::capable_op] != 0 && describe(d)[DeviceQ::cache_coherency] != 0;
    };
    if (std::ranges::none_of(members, registered)) return ENODEV;
    if (holds(group)) return EINVAL;
    if (any_member(group, [&](DeviceIndex d) { return is_direct(d); })) return EINVAL;
    const int error = started ? join(group) : 0;
    if (error == 0) groups.push_back(group);
    return error;
  }

  int set_iommu() {
    if (groups.empty() || started) return EINVAL;
    for (std::size_t i = groups.size(); i-- > 0;) {
      const int error = join(groups[i]);
      if (error == 0) continue;
      stop();
      return error;
    }
    started = true;
    return 0;
  }

  int detach_group(std::uint32_t group) {
    if (!holds(group)) return EINVAL;
    std::erase(groups, group);
    if (groups.empty()) stop();
    if (!started) return 0;
    const auto in = std::ranges::find_if(domains, [&](const Shared& d) { return std::ranges::count(d.groups, group) != 0; });
    Range hull{usable.ranges().front().start, usable.ranges().back().last};
    std::erase(in->groups, group);
    if (in->groups.empty()) {
      domains.erase(in);
      hull = {0, ~std::uint64_t{0}};
      for (const Shared& d : domains) {
        hull = {std::max(hull.start, d.hwpt[HwptQ::aperture_start]), std::min(hull.last, d.hwpt[HwptQ::aperture_last])};
      }
    }
    usable = RangeSet{hull};
    for (std::uint32_t g : groups) subtract_regions(usable, g);
    return 0;
  }

  int map(std::uint64_t iova, std::uint64_t va, std::uint64_t size, std::uint32_t flags) {
    if (!started || flags > 3 || size == 0) return EINVAL;
    const std::uint64_t last = iova + (size - 1);
    if (last < iova || va + (size - 1) < va) return EOVERFLOW;
    if (flags == 0 || (size | iova | va) % kPage != 0) return EINVAL;
    if (mapped_between(iova, last)) return EEXIST;
    if (!usable.contains({iova, last})) return EINVAL;
    for (std::uint64_t at = 0; at < size; at += kPage) {
      const auto backing = memory.find(va + at);
      if (backing == memory.end() || ((flags & 2) != 0 && !backing->second.writeable)) return EFAULT;
      if ((pages.size() + at / kPage + 1) * kPage > memlock_) return ENOMEM;
    }
    for (std::uint64_t at = 0; at < size; at += kPage) pages[iova + at] = {iova, size, memory.at(va + at).pa};
    return 0;
  }

  // Bytes in `unmapped`.
  int unmap(std::uint64_t iova, std::uint64_t size, std::uint32_t flags, std::uint64_t& unmapped) {
    if (!started || (flags & ~2U) != 0) return EINVAL;
    std::uint64_t last = ~std::uint64_t{0};
    if (flags == 2) {
      if (iova != 0 || size != 0) return EINVAL;
    } else {
      if (size == 0 || (size | iova) % kPage != 0) return EINVAL;
      last = iova + (size - 1);
      if (last < iova) return EOVERFLOW;
      for (const auto& [at, page] : pages) {
        if (at < iova || at > last) continue;
        if (page.first < iova || page.first + (page.size - 1) > last) return EINVAL;
      }
    }
    unmapped = kPage * std::erase_if(pages, [&](const auto& p) { return p.first >= iova && p.first <= last; });
    return 0;
  }

  std::uint64_t page_sizes() const {
    std::uint64_t sizes = ~std::uint64_t{0};
    for (const Shared& d : domains) sizes &= d.hwpt[HwptQ::page_sizes];
    const bool sub_page = (sizes & (kPage - 1)) != 0;
    return sub_page ? (sizes & ~(kPage - 1)) | kPage : sizes;
  }

  std::string text() const {
    std::string result;
    for (const Shared& d : domains) {
      result += fmt::format("{}{}{}", result.empty() ? "" : "; ", fmt::join(d.groups, ","),
                            d.hwpt[HwptQ::enforce_cache_coherency] != 0 ? " cc" : "");
    }
    return result;
  }

  std::size_t entries() const {
    return static_cast<std::size_t>(std::ranges::count_if(pages, [](const auto& p) { return p.first == p.second.first; }));
  }

  struct UserPage {
    std::uint64_t pa = 0;
    bool writeable = true;
  };
  struct MappedPage {
    std::uint64_t first = 0, size = 0;  // of its mapping
    std::uint64_t pa = 0;
  };
  struct Shared {
    HwptQuantities hwpt;
    std::vector<std::uint32_t> groups;
  };
  std::map<std::uint64_t, UserPage> memory;  // by user address
  std::map<std::uint64_t, MappedPage> pages;  // by IOVA
  std::vector<Shared> domains;                // newest first
  std::vector<std::uint32_t> groups;
  RangeSet usable{{0, ~std::uint64_t{0}}};
  bool started = false;

 private:
  DeviceQuantities describe(DeviceIndex d) const { return kernel_law().describe(host_, d); }
  bool holds(std::uint32_t group) const { return std::ranges::count(groups, group) != 0; }

  bool is_direct(DeviceIndex d) const {
    const auto& regions = host_.device(d).reserved;
    return regions && std::ranges::any_of(*regions, [](const auto& r) { return r.type == ReservedType::direct; });
  }

  std::vector<DeviceIndex> members_of(std::uint32_t group) const {
    std::vector<DeviceIndex> members;
    for (std::size_t d = 0; d < host_.devices.size(); ++d) {
      if (host_.devices[d].group == group) members.push_back(DeviceIndex(d));
    }
    return members;
  }

  template <class Test>
  bool any_member(std::uint32_t group, Test test) const {
    return std::ranges::any_of(members_of(group), test);
  }

  int refusal(Phase phase, const HwptQuantities& hwpt, DeviceIndex d) const {
    const DeviceQuantities quantities = describe(d);
    for (const Rule* rule : kernel_law().rules()) {
      if (rule->phase == phase && !rule->strict && !ioplan::holds(*rule, {&hwpt, &quantities, nullptr})) return rule->errno_value;
    }
    return 0;
  }

  int refusal(const HwptQuantities& hwpt, std::uint32_t group) const {
    for (DeviceIndex d : members_of(group)) {
      if (const int error = refusal(Phase::attach, hwpt, d); error != 0) return error;
    }
    return 0;
  }

  std::vector<Range> regions_of(std::uint32_t group) const {
    std::vector<Range> ranges;
    for (DeviceIndex d : members_of(group)) {
      for (const ReservedRegion& r : host_.device(d).reserved.value_or(kernel_law().own_regions(host_, d))) {
        if (r.type != ReservedType::direct_relaxable) ranges.push_back(r.range);
      }
    }
    return ranges;
  }

  void subtract_regions(RangeSet& set, std::uint32_t group) const {
    for (const Range& r : regions_of(group)) set.subtract(r);
  }

  bool mapped_between(std::uint64_t first, std::uint64_t last) const {
    return std::ranges::any_of(pages, [&](const auto& p) { return p.first <= last && p.first + (kPage - 1) >= first; });
  }

  int join(std::uint32_t group) {
    const DeviceIndex allocator = members_of(group).front();
    Shared own{kernel_law().allocate(describe(allocator), 0), {group}};
    own.hwpt[HwptQ::enforce_cache_coherency] = 0;
    if (const int error = refusal(Phase::allocation, own.hwpt, allocator); error != 0) return error;
    if (const int error = refusal(own.hwpt, group); error != 0) return error;
    RangeSet left = usable;
    const Range aperture{own.hwpt[HwptQ::aperture_start], own.hwpt[HwptQ::aperture_last]};
    if (aperture.start > 0) left.subtract({0, aperture.start - 1});
    if (aperture.last < ~std::uint64_t{0}) left.subtract({aperture.last + 1, ~std::uint64_t{0}});
    for (const auto& [iova, page] : pages) {
      if (!left.contains({iova, iova})) return EINVAL;
    }
    subtract_regions(left, group);
    for (const auto& [iova, page] : pages) {
      if (!left.contains({iova, iova})) return EINVAL;
    }
    if (left.empty()) return EINVAL;
    if (any_member(group, [&](DeviceIndex d) { return describe(d)[DeviceQ::unsafe_interrupts] != 0; })) return EPERM;
    own.hwpt[HwptQ::enforce_cache_coherency] =
        !any_member(group, [&](DeviceIndex d) { return describe(d)[DeviceQ::enforce_cache_coherency] == 0; });
    usable = left;
    for (Shared& d : domains) {
      const bool alike = d.hwpt[HwptQ::owner] == own.hwpt[HwptQ::owner] && d.hwpt[HwptQ::stage] == own.hwpt[HwptQ::stage] &&
                         d.hwpt[HwptQ::enforce_cache_coherency] == own.hwpt[HwptQ::enforce_cache_coherency];
      if (!alike || refusal(d.hwpt, group) != 0) continue;
      d.groups.push_back(group);
      return 0;
    }
    domains.insert(domains.begin(), own);
    return 0;
  }

  void stop() {
    started = false;
    domains.clear();
    pages.clear();
    usable = RangeSet{{0, ~std::uint64_t{0}}};
  }

  const Host& host_;
  std::uint64_t memlock_;
};

Host random_host(std::mt19937_64& random) {
  const std::vector<std::string> pool = {
      kSnoops, kPlain, kSmall, kNarrow, kSmmu, kRiscv, "driver: amd, efr: 0x246577efa2254afa, efr2: 0x0",
      "driver: intel, cap: 0x100000c002f0406, ecap: 0x1c00000000081",  // scalable mode, first stage
      "driver: virtio, page_mask: 0xfffffffffffff000, input_range: [0x100000, 0xffffffffff]"};
  std::vector<std::string> units;
  for (int u = 0; u < 3; ++u) units.push_back(pool[random() % pool.size()]);
  const std::array<std::string, 8> more = {
      "", "", "", "", "", ", isolated_msi: false", ", reserved: [{range: [0x100000, 0x1fffff], type: reserved}]",
      ", reserved: [{range: [0x200000, 0x3fffff], type: direct}]"};
  std::vector<DeviceLine> lines;
  for (unsigned d = 0; d < 7; ++d) lines.push_back({static_cast<unsigned>(random() % 3), d < 5 ? d : 3, more[random() % more.size()]});
  for (unsigned d = 5; d < 7; ++d) lines[d].unit = lines[3].unit;
  return host_of(units, lines);
}

// One random life of a container, compared call by call. `seen`: how often each (call, errno) was answered.
class RandomLife {
 public:
  RandomLife(std::uint64_t seed, std::map<std::pair<std::string, int>, std::size_t>& seen)
      : random_(seed), seen_(seen), host_(random_host(random_)), slow_(host_, 24 * kPage) {
    MachineOptions options;
    options.memlock_limit = 24 * kPage;
    machine_ = machine_of(host_, options);
    add_memory(machine_->memory().allocate(16 * kPage, kPage));
    add_memory(machine_->memory().allocate(4 * kPage, kPage, false));
  }

  void run(std::size_t calls) {
    const std::string empty = machine_->world();
    container_ = Type1Container::open(*machine_);
    for (std::size_t n = 0; n < calls && !testing::Test::HasFailure(); ++n) {
      call();
      if (n % 8 == 7 || n + 1 == calls) compare();
    }
    container_.reset();
    EXPECT_EQ(machine_->world(), empty);
  }

 private:
  template <class T>
  T pick(std::initializer_list<T> values) {
    return *(values.begin() + random_() % values.size());
  }

  void add_memory(const Memory& memory) {
    std::vector<Extent> extents;
    machine_->memory().extents(memory, 0, memory.size, extents);
    std::uint64_t va = memory.user_va;
    for (const Extent& e : extents) {
      for (std::uint64_t at = 0; at < e.size; at += kPage, va += kPage) slow_.memory[va] = {e.pa + at, memory.writeable};
    }
    starts_.push_back(memory.user_va);
  }

  std::uint64_t any_iova() {
    const std::uint64_t base = pick<std::uint64_t>({0, 0xff000, 0x100000, 0x1ff000, 0x200000, 0x8000000, 0xfedff000, 0xfee00000,
                                                    0xfef00000, std::uint64_t{1} << 39, std::uint64_t{1} << 47,
                                                    std::uint64_t{1} << 48, 0});
    return base + kPage * (random_() % 8) - (random_() % 6 == 0 ? 4 * kPage : 0) + (random_() % 30 == 0 ? 0x200 : 0);
  }

  std::uint64_t any_size() { return random_() % 30 == 0 ? pick<std::uint64_t>({0, 0x800}) : kPage * (1 + random_() % 6); }

  void expect(const std::string& call, int expected, int answered) {
    ++seen_[{call, expected}];
    EXPECT_EQ(answered, expected) << call;
  }

  void call() {
    const auto group = static_cast<std::uint32_t>(random_() % 6);
    switch (random_() % 12) {
      case 0:
      case 1: expect("attach", slow_.attach_group(group), errno_of(container_->attach_group(group))); break;
      case 2: expect("set_iommu", slow_.set_iommu(), errno_of(container_->set_iommu())); break;
      case 3:
        if (random_() % 3 != 0) break;
        expect("detach", slow_.detach_group(group), errno_of(container_->detach_group(group)));
        break;
      case 4:
      case 5: unmap(); break;
      default: map(); break;
    }
  }

  void map() {
    const std::uint64_t iova = any_iova(), size = any_size();
    const std::uint64_t va = starts_[random_() % 8 == 0] + kPage * (random_() % 16) + (random_() % 40 == 0 ? 0x400 : 0);
    const auto flags = random_() % 30 == 0 ? pick<std::uint32_t>({0, 4}) : static_cast<std::uint32_t>(1 + random_() % 3);
    expect("map", slow_.map(iova, va, size, flags), errno_of(container_->map_dma(iova, va, size, flags)));
  }

  void unmap() {
    const auto flags = pick<std::uint32_t>({0, 0, 0, 0, 0, 0, 0, 2, 1});
    const std::uint64_t iova = flags == 2 && random_() % 4 != 0 ? 0 : any_iova();
    const std::uint64_t size = flags == 2 && random_() % 4 != 0 ? 0 : any_size();
    std::uint64_t unmapped = 0;
    const int expected = slow_.unmap(iova, size, flags, unmapped);
    const Answer<std::uint64_t> answer = container_->unmap_dma(iova, size, flags);
    expect("unmap", expected, errno_of(answer));
    EXPECT_EQ(answer.value_or(0), unmapped);
  }

  void compare() {
    ASSERT_EQ(errno_of(container_->get_info()) == 0, slow_.started);
    ASSERT_EQ(domains(*container_), slow_.text());
    ASSERT_EQ(container_->pinned_bytes(), slow_.pages.size() * kPage);
    if (!slow_.started) return;
    const Type1Info info = *container_->get_info();
    EXPECT_EQ(info.page_sizes, slow_.page_sizes());
    EXPECT_TRUE(std::ranges::equal(info.iova_ranges, slow_.usable.ranges()));
    EXPECT_EQ(info.entries_left, kType1EntryLimit - slow_.entries());
    for (const Type1Domain& d : container_->domains()) {
      for (const auto& [iova, page] : slow_.pages) {
        ASSERT_EQ(container_->table(d.number)->iova_to_phys(iova), page.pa) << iova;
        const std::uint64_t behind = page.first + page.size;
        if (slow_.pages.contains(behind)) continue;
        const auto doorbell = behind == 0x8000000;
        ASSERT_TRUE(doorbell || !container_->table(d.number)->iova_to_phys(behind)) << behind;
      }
    }
  }

  std::mt19937_64 random_;
  std::map<std::pair<std::string, int>, std::size_t>& seen_;
  Host host_;
  SlowContainer slow_;
  std::unique_ptr<Machine> machine_;
  std::unique_ptr<Type1Container> container_;
  std::vector<std::uint64_t> starts_;
};

TEST(Type1, RandomLivesBesideASlowModel) {
  const auto lives = static_cast<std::uint64_t>(4000 * number_from("IOPLAN_SCALE", 1));
  std::map<std::pair<std::string, int>, std::size_t> seen;
  for (std::uint64_t seed = 0; seed < lives && !HasFailure(); ++seed) {
    SCOPED_TRACE(fmt::format("seed {}", seed));
    RandomLife(seed, seen).run(60);
  }
  for (const auto& [answer, n] : seen) std::printf("%-10s %3d: %zu\n", answer.first.c_str(), answer.second, n);
  if (lives < 4000 || HasFailure()) return;
  for (const auto& [call, errors] : std::map<std::string, std::vector<int>>{{"attach", {0, EINVAL, EPERM, ENODEV}},
                                                                            {"set_iommu", {0, EINVAL, EPERM}},
                                                                            {"detach", {0, EINVAL}},
                                                                            {"map", {0, EINVAL, EEXIST, EFAULT, ENOMEM}},
                                                                            {"unmap", {0, EINVAL}}}) {
    for (int error : errors) EXPECT_GE((seen[{call, error}]), 100U) << call << " " << error;
  }
}

}  // namespace
}  // namespace ioplan::sim
