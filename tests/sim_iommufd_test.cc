// The simulated iommufd against the slow model (tests/support/iommufd_model.h): random hosts, random calls, every
// answer compared as it comes, and everything that can be observed compared every few calls.
//
// IOPLAN_SCALE multiplies the number of sequences (10 is the soak run: 300,000), IOPLAN_SEED runs one sequence,
// IOPLAN_FIRST starts at another. A difference is shrunk to the shortest trace that still shows it, which can be kept:
// the traces of bugs found so are replayed at the end of this file, beside the scenarios of the kernel's own selftest
// (KR 8.4), with the errnos that KR states.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>

#include "constraints/kernel_law.h"
#include "tests/support/iommufd_calls.h"
#include "tests/support/iommufd_duel.h"
#include "tests/support/iommufd_world.h"
#include "tests/support/seeds.h"

namespace ioplan {
namespace {

using traces::Call;
using traces::CallGenerator;
using traces::Depth;
using traces::Duel;
using traces::Tally;
using traces::Trace;
using traces::Verb;

std::string_view name_of(Verb v) { return traces::kVerbNames[static_cast<std::size_t>(v)]; }

// ------------------------------------------------------------------------------------------------ random sequences

// One host, a few dozen calls. The trace up to the first difference is left in `trace`.
std::string run_sequence(std::uint64_t seed, Tally& tally, Trace& trace) {
  CallGenerator generator(seed);
  trace.sketch = generator.sketch();
  Duel duel(trace.sketch, &tally);
  const std::size_t calls = 20 + generator.below(41);
  const Depth last = generator.chance(10) ? Depth::every_page : Depth::samples;
  for (std::size_t i = 0; i < calls; ++i) {
    trace.calls.push_back(generator.call(duel));
    const std::uint64_t starve = generator.chance(3) ? 1 + generator.below(6) : 0;
    if (std::string text = duel.perform(trace.calls.back(), starve); !text.empty()) return text;
    const bool look = generator.chance(8) || duel.errno_of_last() == ENOTRECOVERABLE;
    if (!look) continue;
    if (std::string text = duel.compare(Depth::samples); !text.empty()) return text;
  }
  if (std::string text = duel.compare(last); !text.empty()) return text;
  return duel.finish();
}

void report(std::uint64_t seed, const std::string& text, const Trace& trace) {
  const auto again = replay(trace);
  if (!again) {
    ADD_FAILURE() << "seed " << seed << ": " << text << "\n(does not show in a replay)\n" << to_text(trace);
    return;
  }
  const Trace shortest = shrink(trace);
  ADD_FAILURE() << "seed " << seed << ": " << text << "\nshortest trace:\n"
                << to_text(shortest) << replay(shortest)->text;
}

// What KR 1, 2 and the sources it names say can happen, by call; each must have been seen often enough to mean
// something.
struct Expected {
  Verb verb;
  std::vector<int> errnos;
};
const std::vector<Expected>& expected_answers() {
  static const std::vector<Expected> all = {
      {Verb::bind, {0, EINVAL, EPERM, ENODEV}},
      {Verb::unbind, {0, ENOENT}},
      {Verb::ioas_alloc, {0}},
      {Verb::ioas_allow_iovas, {0, ENOENT, EINVAL, EADDRINUSE}},
      {Verb::ioas_iova_ranges, {0, ENOENT}},
      {Verb::ioas_map, {0, EOPNOTSUPP, EOVERFLOW, EINVAL, ENOENT, EEXIST, ENOSPC, EFAULT, ENOMEM}},
      {Verb::ioas_map_file, {0, EOPNOTSUPP, EOVERFLOW, EINVAL, ENOENT, EEXIST, ENOSPC, EBADF, ENOMEM}},
      {Verb::ioas_copy, {0, EOPNOTSUPP, EOVERFLOW, EINVAL, ENOENT, EEXIST, ENOSPC, EPERM, ENOMEM}},
      {Verb::ioas_unmap, {0, ENOENT, EINVAL, EOVERFLOW}},
      {Verb::set_option, {0, EOPNOTSUPP, EPERM, EBUSY, EINVAL, ENOENT, EADDRINUSE}},
      {Verb::get_option, {0, EOPNOTSUPP, ENOENT}},
      {Verb::hwpt_alloc, {0, ENOENT, EINVAL, EOPNOTSUPP, EADDRINUSE, ENOSPC, EBUSY, ENODEV, EFAULT, ENOMEM}},
      {Verb::fault_queue_alloc, {0}},
      {Verb::get_hw_info, {0, ENOENT}},
      {Verb::set_dirty, {0, ENOENT, EOPNOTSUPP}},
      {Verb::get_dirty, {0, ENOENT, EOVERFLOW, EINVAL, EOPNOTSUPP}},
      {Verb::attach, {0, ENOENT, EINVAL, EBUSY, EADDRINUSE, EOPNOTSUPP, ENOSPC, ENODEV, ENOMEM}},
      {Verb::replace, {0, ENOENT, EINVAL, EADDRINUSE, ENOSPC, ENODEV, ENOTRECOVERABLE}},
      {Verb::vfio_attach, {0, ENOENT, EINVAL, EADDRINUSE, ENODEV, ENOTRECOVERABLE}},
      {Verb::detach, {0, ENOENT}},
      {Verb::access_create, {0, ENOENT, EADDRINUSE}},
      {Verb::access_destroy, {0, ENOENT}},
      {Verb::destroy, {0, ENOENT, EBUSY}},
      {Verb::dma_read, {0, EFAULT}},
      {Verb::dma_write, {0, EFAULT}},
      {Verb::close, {0}},
  };
  return all;
}

void print(const Tally& tally) {
  std::printf("%lu calls; resources missing on purpose %lu, dirty pages %lu, translations %lu\n", tally.calls,
              tally.injected, tally.dirty_pages, tally.translations);
  for (unsigned v = 0; v < static_cast<unsigned>(Verb::count); ++v) {
    std::string line = fmt::format("  {:18}", name_of(static_cast<Verb>(v)));
    for (const auto& [key, count] : tally.answers) {
      if (key.first != static_cast<Verb>(v)) continue;
      line += fmt::format(" {} {}", key.second == 0 ? "ok" : strerrorname_np(key.second), count);
    }
    std::printf("%s\n", line.c_str());
  }
  std::printf("refusals, in the simulator's words:\n");
  for (const auto& [key, count] : tally.reasons) {
    std::printf("  %8lu %-14s %s\n", count, strerrorname_np(key.first), key.second.c_str());
  }
}

TEST(SimIommufd, RandomSequencesAgreeWithTheSlowModel) {
  const double scale = number_from("IOPLAN_SCALE", 1);
  const double only = number_from("IOPLAN_SEED", -1);
  const auto first = static_cast<std::uint64_t>(only >= 0 ? only : number_from("IOPLAN_FIRST", 0));
  const auto sequences = only >= 0 ? 1 : static_cast<std::uint64_t>(30000 * scale);
  const auto start = std::chrono::steady_clock::now();
  Tally tally;
  for (std::uint64_t seed = first; seed < first + sequences && !HasFailure(); ++seed) {
    Trace trace;
    if (const std::string text = run_sequence(seed, tally, trace); !text.empty()) report(seed, text, trace);
  }
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  std::printf("%lu sequences in %.1f s\n", sequences, took.count());
  print(tally);
  if (sequences < 30000 || HasFailure()) return;
  for (const Expected& expected : expected_answers()) {
    for (int error : expected.errnos) {
      const auto seen = tally.answers.find({expected.verb, error});
      EXPECT_GE(seen == tally.answers.end() ? 0 : seen->second, 100)
          << name_of(expected.verb) << " " << (error == 0 ? "ok" : strerrorname_np(error));
    }
  }
  for (const auto& [key, count] : tally.reasons)
    EXPECT_GE(count, 100) << strerrorname_np(key.first) << " " << key.second;
  EXPECT_GE(tally.injected, 100);
  EXPECT_GE(tally.dirty_pages, 100);
}

// --------------------------------------------------------------------------- what the kernel's selftest does (KR 8.4)

using sim::ObjectId;
using traces::errno_of;
using traces::World;

constexpr std::string_view kOneMock = "unit mock\ndevice 0 group 0\n";
constexpr std::string_view kTwoMocks =
    "unit mock\ndevice 0 group 0 pasid-bits=20\ndevice 0 group 1 no-dirty pasid-bits=20\n";
constexpr std::uint64_t kApertureStart = 0x1000000;
constexpr std::uint64_t kApertureLast = 0x7fffffff;
constexpr std::uint64_t kPage = 4096;
constexpr std::uint64_t kMockPage = 2048;
constexpr std::uint64_t kEverything = ~std::uint64_t{0};
constexpr std::uint32_t kReadWrite = sim::kMapReadable | sim::kMapWriteable;

TEST(Selftest, IoasDestroy) {
  World world(kOneMock);
  const ObjectId ioas = world.ioas();
  const ObjectId device = world.bind(0);
  const ObjectId hwpt = world->attach(device, ioas).value();
  EXPECT_EQ(errno_of(world->destroy(ioas)), EBUSY) << "the HWPT holds it";
  EXPECT_EQ(errno_of(world->destroy(hwpt)), EBUSY) << "the device holds it";
  EXPECT_EQ(errno_of(world->destroy(device)), EBUSY) << "its driver holds it";
  EXPECT_EQ(errno_of(world->unbind(device)), 0);
  EXPECT_EQ(errno_of(world->destroy(hwpt)), ENOENT) << "an automatic HWPT goes with its last device";
  EXPECT_EQ(errno_of(world->destroy(ioas)), 0);
  EXPECT_EQ(errno_of(world->destroy(ioas)), ENOENT);
  EXPECT_EQ(errno_of(world->destroy(0)), ENOENT);
}

TEST(Selftest, IoasAreaDestroy) {
  World world(kOneMock);
  const ObjectId ioas = world.ioas();
  EXPECT_EQ(world.map(ioas, kApertureStart, 2 * kPage), 0);
  EXPECT_EQ(errno_of(world->destroy(ioas)), 0) << "mappings hold nothing";
}

TEST(Selftest, HwptAllocAndAttach) {
  World world(kOneMock);
  const ObjectId ioas = world.ioas();
  const ObjectId device = world.bind(0);
  EXPECT_EQ(errno_of(world->hwpt_alloc(99, ioas, 0)), ENOENT);
  EXPECT_EQ(errno_of(world->hwpt_alloc(device, 99, 0)), EINVAL);
  EXPECT_EQ(errno_of(world->hwpt_alloc(device, device, 0)), EINVAL);
  EXPECT_EQ(errno_of(world->hwpt_alloc(device, ioas, 1U << 20)), EOPNOTSUPP);
  EXPECT_EQ(errno_of(world->hwpt_alloc(device, ioas, sim::kHwptFaultIdValid, 99)), ENOENT);
  EXPECT_EQ(errno_of(world->hwpt_alloc(device, ioas, sim::kHwptFaultIdValid | sim::kHwptNestParent, 99)), EOPNOTSUPP);
  const ObjectId hwpt = world->hwpt_alloc(device, ioas, 0).value();
  EXPECT_EQ(errno_of(world->hwpt_alloc(device, hwpt, 0)), EOPNOTSUPP) << "a nested HWPT needs user data";
  EXPECT_EQ(errno_of(world->attach(device, 99)), ENOENT);
  EXPECT_EQ(errno_of(world->attach(device, device)), EINVAL);
  EXPECT_EQ(world->attach(device, hwpt).value(), hwpt);
  EXPECT_EQ(errno_of(world->attach(device, hwpt)), EBUSY);
  EXPECT_EQ(errno_of(world->attach(device, ioas)), EBUSY)
      << "manual HWPTs are no candidates; the new one meets the old";
  EXPECT_EQ(errno_of(world->destroy(hwpt)), EBUSY);
  EXPECT_EQ(errno_of(world->detach(device)), 0);
  EXPECT_EQ(errno_of(world->destroy(hwpt)), 0) << "a manual HWPT stays until it is destroyed";
}

TEST(Selftest, FaultQueueIsHeldByItsHwpts) {
  World world(kOneMock);
  const ObjectId ioas = world.ioas();
  const ObjectId device = world.bind(0);
  const ObjectId queue = world->fault_queue_alloc().value();
  const ObjectId hwpt = world->hwpt_alloc(device, ioas, sim::kHwptFaultIdValid, queue).value();
  EXPECT_EQ(errno_of(world->destroy(queue)), EBUSY);
  EXPECT_EQ(errno_of(world->destroy(hwpt)), 0);
  EXPECT_EQ(errno_of(world->destroy(queue)), 0);
}

TEST(Selftest, Area) {
  World world(kOneMock);
  const ObjectId ioas = world.ioas();
  world->attach(world.bind(0), ioas).value();
  for (std::uint64_t i = 0; i < 10; ++i) EXPECT_EQ(world.map(ioas, kApertureStart + i * kPage), 0);
  EXPECT_EQ(world.map(ioas, kApertureStart + 5 * kPage), EEXIST);
  EXPECT_EQ(world.map(ioas, kApertureStart - kPage), EINVAL) << "below the aperture";
  EXPECT_EQ(world.map(ioas, kApertureLast - kPage + 1, 2 * kPage), EINVAL) << "beyond it";
  EXPECT_EQ(world.map(ioas, kApertureStart + kMockPage / 2), EINVAL);
  EXPECT_EQ(world.map(ioas, kApertureStart + 64 * kPage, 0), EINVAL);
  EXPECT_EQ(world.map(ioas, kEverything), EOVERFLOW);
  EXPECT_EQ(world.map(ioas, kApertureStart, kEverything), EOVERFLOW);
  EXPECT_EQ(world.map(ioas, kApertureStart + 64 * kPage, kPage, 0), EINVAL) << "neither readable nor writeable";
  EXPECT_EQ(world.map(ioas, kApertureStart + 64 * kPage, kPage, 8 | kReadWrite), EOPNOTSUPP);
  EXPECT_EQ(errno_of(world->ioas_map(ioas, 1 | kReadWrite, 0, kPage, kApertureStart + 64 * kPage)), EFAULT);
  for (std::uint64_t i = 0; i < 10; ++i)
    EXPECT_EQ(world->ioas_unmap(ioas, kApertureStart + i * kPage, kPage).value(), kPage);
  EXPECT_EQ(errno_of(world->ioas_unmap(ioas, kApertureStart, kPage)), ENOENT);
  EXPECT_EQ(errno_of(world->ioas_unmap(ioas, kApertureStart, 0)), EINVAL);
  EXPECT_EQ(errno_of(world->ioas_unmap(ioas, kApertureStart, kEverything)), EOVERFLOW);
  EXPECT_EQ(world->ioas_unmap(ioas, 0, kEverything).value(), 0) << "everything, of which there is nothing";
}

TEST(Selftest, MemoryThatIsNotThereIsFoundOutWhenItIsPinned) {
  World world(kOneMock);
  const ObjectId ioas = world.ioas();
  EXPECT_EQ(errno_of(world->ioas_map(ioas, 1 | kReadWrite, 0, kPage, kApertureStart)), 0);
  EXPECT_EQ(errno_of(world->attach(world.bind(0), ioas)), EFAULT);
  EXPECT_EQ(world->pinned_bytes(), 0);
}

TEST(Selftest, UnmapFullyContainedAreas) {
  World world(kOneMock);
  const ObjectId ioas = world.ioas();
  world->attach(world.bind(0), ioas).value();
  const std::uint64_t base = kApertureStart + 4 * kPage;
  for (std::uint64_t i = 0; i < 4; ++i) EXPECT_EQ(world.map(ioas, base + i * 16 * kPage, 8 * kPage), 0);
  EXPECT_EQ(errno_of(world->ioas_unmap(ioas, base - 4 * kPage, 8 * kPage)), ENOENT);
  EXPECT_EQ(errno_of(world->ioas_unmap(ioas, base + 3 * 16 * kPage + 4 * kPage, 8 * kPage)), ENOENT);
  EXPECT_EQ(world->ioas_unmap(ioas, base - 4 * kPage, 60 * kPage).value(), 32 * kPage);
}

TEST(Selftest, AreasInFrontOfOneThatWouldBeCutAreGone) {
  World world(kOneMock);
  const ObjectId ioas = world.ioas();
  EXPECT_EQ(world.map(ioas, kPage, kPage), 0);
  EXPECT_EQ(world.map(ioas, 2 * kPage, 2 * kPage), 0);
  EXPECT_EQ(errno_of(world->ioas_unmap(ioas, kPage, 2 * kPage)), ENOENT);
  EXPECT_EQ(world.map(ioas, kPage, kPage), 0) << "the first area was unmapped all the same";
  EXPECT_EQ(world.map(ioas, 2 * kPage, kPage), EEXIST);
}

TEST(Selftest, AreaAutomaticIova) {
  World world(kOneMock);
  const ObjectId ioas = world.ioas();
  const auto map = [&](std::uint64_t offset, std::uint64_t length) {
    return world->ioas_map(ioas, kReadWrite, world.buffer() + offset, length, 0);
  };
  EXPECT_EQ(map(0, kPage).value(), kPage) << "never IOVA 0";
  EXPECT_EQ(map(0, 4 * kPage).value(), 4 * kPage) << "aligned to the length, rounded up to a power of two";
  EXPECT_EQ(map(kPage, 4 * kPage).value(), 8 * kPage) << "no more than the address is aligned";
  EXPECT_EQ(map(0, 4 << 20).value(), 2 << 20) << "no more than a large page is";
  EXPECT_EQ(map(0x10, 1).value() % kPage, 0x10) << "the offset in the page stays";
  EXPECT_EQ(errno_of(map(0, kEverything - 4 * kPage)), EOVERFLOW);
  const std::array<Range, 2> allowed = {Range{0x40000, 0x40fff}, Range{0x50000, 0x52fff}};
  EXPECT_EQ(errno_of(world->ioas_allow_iovas(ioas, allowed)), 0);
  EXPECT_EQ(map(0, kPage).value(), 0x40000);
  EXPECT_EQ(map(0, 2 * kPage).value(), 0x50000);
  EXPECT_EQ(map(0, kPage).value(), 0x52000);
  EXPECT_EQ(errno_of(map(0, kPage)), ENOSPC);
}

TEST(Selftest, AreaAllowed) {
  World world(kOneMock);
  const ObjectId ioas = world.ioas();
  world->attach(world.bind(0), ioas).value();
  const auto allow = [&](std::initializer_list<Range> ranges) {
    return errno_of(world->ioas_allow_iovas(ioas, std::vector<Range>(ranges)));
  };
  EXPECT_EQ(errno_of(world->ioas_allow_iovas(99, {})), ENOENT);
  EXPECT_EQ(allow({{kApertureStart, kApertureStart}}), EINVAL);
  EXPECT_EQ(allow({{kApertureStart + 1, kApertureStart}}), EINVAL);
  EXPECT_EQ(allow({{kApertureStart, kApertureStart + 5}, {kApertureStart + 5, kApertureStart + 9}}), EINVAL);
  EXPECT_EQ(allow({{0, 5}}), EADDRINUSE);
  EXPECT_EQ(allow({{kApertureStart, kApertureStart + 10 * kPage - 1}}), 0);
  EXPECT_EQ(allow({}), 0);
}

TEST(Selftest, AllowedRangesKeepDevicesOut) {
  World world("unit intel-legacy\ndevice 0 group 0\n");
  const ObjectId ioas = world.ioas();
  const std::array<Range, 1> allowed = {Range{0xfee00000, 0xfee00fff}};
  EXPECT_EQ(errno_of(world->ioas_allow_iovas(ioas, allowed)), 0);
  EXPECT_EQ(errno_of(world->attach(world.bind(0), ioas)), EADDRINUSE);
}

TEST(Selftest, ReservedOverflow) {
  Host host = host_of(traces::parse_trace("unit virtio\ndevice 0 group 0\n").sketch);
  host.units[0].facts[UnitFact::input_last] = kEverything;
  host.devices[0].reserved = {{{6, 0xffffffffffff8006}, ReservedType::reserved}};
  World world(host, {});
  const ObjectId ioas = world.ioas();
  world->attach(world.bind(0), ioas).value();
  EXPECT_EQ(errno_of(world->ioas_map(ioas, kReadWrite, world.buffer(), 0x5000, 0)), ENOSPC);
}

TEST(Selftest, IovaRanges) {
  World world(kOneMock);
  const ObjectId ioas = world.ioas();
  EXPECT_EQ(errno_of(world->ioas_iova_ranges(99)), ENOENT);
  auto ranges = world->ioas_iova_ranges(ioas).value();
  EXPECT_EQ(ranges.ranges, (std::vector<Range>{{0, kEverything}}));
  EXPECT_EQ(ranges.alignment, 1);
  const ObjectId device = world.bind(0);
  world->attach(device, ioas).value();
  ranges = world->ioas_iova_ranges(ioas).value();
  EXPECT_EQ(ranges.ranges, (std::vector<Range>{{kApertureStart, kApertureLast}}));
  EXPECT_EQ(ranges.alignment, kMockPage);
  EXPECT_EQ(errno_of(world->detach(device)), 0);
  EXPECT_EQ(world->ioas_iova_ranges(ioas).value().ranges, (std::vector<Range>{{0, kEverything}}));
}

TEST(Selftest, AddReserved) {
  World world(kOneMock);
  const ObjectId ioas = world.ioas();
  EXPECT_EQ(errno_of(world->ioas_add_reserved(99, kApertureStart, kMockPage)), ENOENT);
  EXPECT_EQ(errno_of(world->ioas_add_reserved(ioas, kApertureStart, 0)), EINVAL);
  EXPECT_EQ(errno_of(world->ioas_add_reserved(ioas, kEverything, 2)), EOVERFLOW);
  EXPECT_EQ(world.map(ioas, kApertureStart), 0);
  EXPECT_EQ(errno_of(world->ioas_add_reserved(ioas, kApertureStart, 1)), EADDRINUSE) << "memory is there";
  EXPECT_EQ(errno_of(world->ioas_add_reserved(ioas, 0, kApertureStart)), 0);
  EXPECT_EQ(errno_of(world->ioas_add_reserved(ioas, 0, 2)), 0) << "reservations may overlap";
  EXPECT_EQ(world->ioas_iova_ranges(ioas).value().ranges, (std::vector<Range>{{kApertureStart, kEverything}}));
  EXPECT_EQ(world.map(ioas, 0), EINVAL);
}

TEST(Selftest, OptionHugePages) {
  World world(kOneMock);
  const ObjectId ioas = world.ioas();
  using sim::Option;
  EXPECT_EQ(world->get_option(Option::huge_pages, ioas).value(), 1);
  EXPECT_EQ(errno_of(world->set_option(Option::huge_pages, ioas, 2)), EINVAL);
  EXPECT_EQ(errno_of(world->set_option(Option::huge_pages, 99, 0)), ENOENT);
  EXPECT_EQ(world.map(ioas, kApertureStart + 1, 1), 0);
  EXPECT_EQ(errno_of(world->set_option(Option::huge_pages, ioas, 0)), EADDRINUSE) << "an area off the page";
  EXPECT_EQ(world->ioas_unmap(ioas, 0, kEverything).value(), 1);
  EXPECT_EQ(errno_of(world->set_option(Option::huge_pages, ioas, 0)), 0);
  EXPECT_EQ(world->ioas_iova_ranges(ioas).value().alignment, kPage);
  EXPECT_EQ(errno_of(world->set_option(Option::huge_pages, ioas, 1)), 0);
  world->attach(world.bind(0), ioas).value();
  EXPECT_EQ(world.map(ioas, kApertureStart), 0);
  EXPECT_EQ(errno_of(world->set_option(Option::huge_pages, ioas, 0)), EINVAL) << "mapped in a HWPT already";
}

TEST(Selftest, GlobalOptions) {
  using sim::Option;
  World world(kOneMock);
  EXPECT_EQ(world->get_option(Option::rlimit_mode, 0).value(), 0);
  EXPECT_EQ(errno_of(world->get_option(Option::rlimit_mode, 1)), EOPNOTSUPP);
  EXPECT_EQ(errno_of(world->set_option(Option::rlimit_mode, 0, 2)), EINVAL);
  EXPECT_EQ(errno_of(world->set_option(Option::rlimit_mode, 0, 1)), 0);
  EXPECT_EQ(world->get_option(Option::rlimit_mode, 0).value(), 1);
  world.ioas();
  EXPECT_EQ(errno_of(world->set_option(Option::rlimit_mode, 0, 0)), EBUSY);
  World unprivileged("unit mock\ndevice 0 group 0\nunprivileged\n");
  EXPECT_EQ(errno_of(unprivileged->set_option(Option::rlimit_mode, 0, 1)), EPERM);
}

TEST(Selftest, IovaAllocationOfEveryLength) {
  World world(kOneMock);
  const ObjectId ioas = world.ioas();
  world->attach(world.bind(0), ioas).value();
  for (std::uint64_t length = 1; length < 2 * kPage; ++length) {
    const auto iova = world->ioas_map(ioas, kReadWrite, world.buffer(), length, 0);
    if (length % kMockPage != 0) {
      ASSERT_EQ(errno_of(iova), EINVAL) << length;
    } else {
      ASSERT_EQ(world->ioas_unmap(ioas, iova.value(), length).value(), length);
    }
  }
}

TEST(Selftest, AlignmentChange) {
  World world(kOneMock);
  const ObjectId ioas = world.ioas();
  const ObjectId device = world.bind(0);
  EXPECT_EQ(world.map(ioas, kApertureStart + kMockPage, kMockPage), 0);
  EXPECT_EQ(errno_of(world->access_create(ioas, true)), EADDRINUSE) << "an area off the page";
  EXPECT_EQ(errno_of(world->access_create(ioas, false)), 0);
  EXPECT_EQ(errno_of(world->attach(device, ioas)), 0);
  EXPECT_EQ(errno_of(world->detach(device)), 0);
  EXPECT_EQ(world->ioas_unmap(ioas, 0, kEverything).value(), kMockPage);
  EXPECT_EQ(world.map(ioas, kApertureStart + 1, 512), 0);
  EXPECT_EQ(errno_of(world->attach(device, ioas)), EADDRINUSE) << "an area off the granule";
  EXPECT_EQ(world->ioas_unmap(ioas, 0, kEverything).value(), 512);
  const ObjectId access = world->access_create(ioas, true).value();
  EXPECT_EQ(world->ioas_iova_ranges(ioas).value().alignment, kPage);
  EXPECT_EQ(errno_of(world->destroy(access)), EBUSY);
  EXPECT_EQ(errno_of(world->destroy(ioas)), EBUSY);
}

TEST(Selftest, CopySweep) {
  for (const bool attached : {false, true}) {
    World world(kOneMock);
    const ObjectId src = world.ioas();
    const ObjectId dst = world.ioas();
    if (attached) world->attach(world.bind(0), src).value();
    const std::uint64_t last = kApertureStart + 4 * kPage - (attached ? 1 : 2);
    ASSERT_EQ(world.map(src, kApertureStart, last - kApertureStart + 1), 0);
    for (std::uint64_t iova = kApertureStart - kPage; iova <= last; iova += 511) {
      const auto copy =
          world->ioas_copy(dst, src, sim::kMapFixedIova | sim::kMapWriteable, kMockPage, kApertureStart, iova);
      if (iova < kApertureStart || iova + kMockPage - 1 > last) {
        ASSERT_EQ(errno_of(copy), ENOENT) << iova;
      } else {
        ASSERT_EQ(errno_of(copy), 0) << iova;
        ASSERT_EQ(world->ioas_unmap(dst, kApertureStart, kMockPage).value(), kMockPage);
      }
    }
  }
}

TEST(Selftest, CopiesShareTheirPins) {
  World world(kTwoMocks);
  const ObjectId src = world.ioas();
  const ObjectId dst = world.ioas();
  world->attach(world.bind(0), src).value();
  ASSERT_EQ(world.map(src, kApertureStart, 4 * kPage, sim::kMapReadable), 0);
  EXPECT_EQ(world->pinned_bytes(), 4 * kPage);
  const auto copy = [&](std::uint32_t access) {
    return errno_of(
        world->ioas_copy(dst, src, sim::kMapFixedIova | access, 2 * kPage, kApertureStart, kApertureStart + kPage));
  };
  EXPECT_EQ(copy(kReadWrite), EPERM) << "the pages were mapped read-only";
  EXPECT_EQ(copy(sim::kMapReadable), 0);
  world->attach(world.bind(1), dst).value();
  EXPECT_EQ(world->pinned_bytes(), 4 * kPage);
  EXPECT_EQ(world->ioas_unmap(src, 0, kEverything).value(), 4 * kPage);
  EXPECT_EQ(world->pinned_bytes(), 2 * kPage);
}

TEST(Selftest, MemlockLimit) {
  World world("unit mock\ndevice 0 group 0\nmemlock 2\n");
  const ObjectId ioas = world.ioas();
  EXPECT_EQ(world.map(ioas, kApertureStart, 3 * kPage), 0) << "nothing is pinned yet";
  const ObjectId device = world.bind(0);
  EXPECT_EQ(errno_of(world->attach(device, ioas)), ENOMEM);
  EXPECT_EQ(world->locked_bytes(), 0);
  EXPECT_EQ(world->ioas_unmap(ioas, 0, kEverything).value(), 3 * kPage);
  EXPECT_EQ(errno_of(world->attach(device, ioas)), 0);
  EXPECT_EQ(world.map(ioas, kApertureStart, 2 * kPage), 0);
  EXPECT_EQ(world.map(ioas, kApertureStart + 2 * kPage), ENOMEM);
  EXPECT_EQ(world->locked_bytes(), 2 * kPage);
}

TEST(Selftest, MapOfAFile) {
  World world(kOneMock);
  const ObjectId ioas = world.ioas();
  const auto map = [&](int fd, std::uint64_t start, std::uint64_t length) {
    return errno_of(world->ioas_map_file(ioas, kReadWrite, fd, start, length, 0));
  };
  EXPECT_EQ(map(world.fd(), 0, 0), EINVAL);
  EXPECT_EQ(map(1000, 0, kPage), EBADF);
  EXPECT_EQ(map(world.fd(), kEverything, kPage), EOVERFLOW);
  world->attach(world.bind(0), ioas).value();
  EXPECT_EQ(map(world.fd(), 0, 2 * kPage), 0);
  EXPECT_EQ(map(world.fd(), 4 << 20, kPage), EINVAL) << "beyond its end";
}

TEST(Selftest, MockReplace) {
  World world(kTwoMocks);
  const ObjectId ioas = world.ioas();
  const ObjectId other = world.ioas();
  const ObjectId device = world.bind(0);
  EXPECT_EQ(errno_of(world->replace(device, ioas)), EINVAL) << "attached to nothing";
  const ObjectId first = world->attach(device, ioas).value();
  EXPECT_EQ(world->replace(device, ioas).value(), first) << "nothing to do";
  const ObjectId second = world->hwpt_alloc(device, ioas, 0).value();
  EXPECT_EQ(world->replace(device, second).value(), second);
  EXPECT_EQ(errno_of(world->destroy(first)), ENOENT);
  EXPECT_EQ(errno_of(world->replace(device, other)), 0);
  EXPECT_EQ(world.map(other, kApertureStart), 0);
  EXPECT_EQ(world.dma_write(0, kApertureStart), 0);
  EXPECT_EQ(errno_of(world->destroy(second)), 0);
  EXPECT_EQ(errno_of(world->destroy(ioas)), 0);
}

TEST(Selftest, EnforceDirty) {
  World world(kTwoMocks);
  const ObjectId ioas = world.ioas();
  const ObjectId tracked = world.bind(0);
  const ObjectId untracked = world.bind(1);
  const ObjectId dirty = world->hwpt_alloc(tracked, ioas, sim::kHwptDirtyTracking).value();
  EXPECT_EQ(errno_of(world->hwpt_alloc(untracked, ioas, sim::kHwptDirtyTracking)), EOPNOTSUPP);
  EXPECT_EQ(errno_of(world->attach(untracked, dirty)), EINVAL);
  EXPECT_EQ(errno_of(world->attach(tracked, dirty)), 0);
  const ObjectId plain = world->hwpt_alloc(tracked, ioas, 0).value();
  EXPECT_EQ(errno_of(world->hwpt_set_dirty_tracking(plain, true)), EOPNOTSUPP);
  EXPECT_EQ(errno_of(world->hwpt_set_dirty_tracking(99, true)), ENOENT);
}

TEST(Selftest, DirtyBitmap) {
  World world(kTwoMocks);
  const ObjectId ioas = world.ioas();
  const ObjectId device = world.bind(0);
  const ObjectId hwpt = world->hwpt_alloc(device, ioas, sim::kHwptDirtyTracking).value();
  world->attach(device, hwpt).value();
  for (std::uint64_t i = 0; i < 64; ++i) ASSERT_EQ(world.map(ioas, kApertureStart + i * kPage), 0);
  std::array<std::uint64_t, 2> bitmap{};
  const auto read = [&](sim::DirtyRead mode, std::uint64_t iova, std::uint64_t length, std::uint64_t page) {
    bitmap = {};
    return errno_of(world->hwpt_get_dirty_bitmap(hwpt, mode, iova, length, page, bitmap));
  };
  using enum sim::DirtyRead;
  EXPECT_EQ(world.dma_write(0, kApertureStart), 0);
  EXPECT_EQ(read(clear, kApertureStart, 64 * kPage, kPage), 0);
  EXPECT_EQ(bitmap[0], 0) << "tracking was off";
  EXPECT_EQ(errno_of(world->hwpt_set_dirty_tracking(hwpt, true)), 0);
  EXPECT_EQ(world.dma_write(0, kApertureStart + 3 * kPage), 0);
  EXPECT_EQ(world.dma_write(0, kApertureStart + 63 * kPage), 0);
  EXPECT_EQ(read(keep, kApertureStart, 64 * kPage, kPage), 0);
  EXPECT_EQ(bitmap[0], 1ULL << 63 | 1ULL << 3);
  EXPECT_EQ(read(clear, kApertureStart, 64 * kPage, 2 * kPage), 0);
  EXPECT_EQ(bitmap[0], 1ULL << 31 | 1ULL << 1);
  EXPECT_EQ(read(clear, kApertureStart, 64 * kPage, kPage), 0);
  EXPECT_EQ(bitmap[0], 0);
  EXPECT_EQ(read(clear, kApertureStart + 1, kPage, kPage), EINVAL);
  EXPECT_EQ(read(clear, kApertureStart, kPage, 0), EINVAL);
  EXPECT_EQ(read(clear, kApertureStart, kPage, 2 * kPage), EINVAL);
  EXPECT_EQ(read(clear, kApertureStart, 0, kPage), EOVERFLOW);
  EXPECT_EQ(world.dma_write(0, kApertureStart + kPage), 0);
  EXPECT_EQ(errno_of(world->hwpt_set_dirty_tracking(hwpt, true)), 0);
  EXPECT_EQ(read(keep, kApertureStart, 64 * kPage, kPage), 0);
  EXPECT_EQ(bitmap[0], 0) << "switching on starts clean";
}

TEST(Selftest, DirtyScanEndsAtTheFirstHole) {
  World world(kTwoMocks);
  const ObjectId ioas = world.ioas();
  const ObjectId device = world.bind(0);
  const ObjectId hwpt = world->hwpt_alloc(device, ioas, sim::kHwptDirtyTracking).value();
  world->attach(device, hwpt).value();
  ASSERT_EQ(world.map(ioas, kApertureStart), 0);
  ASSERT_EQ(world.map(ioas, kApertureStart + 2 * kPage), 0);
  ASSERT_EQ(errno_of(world->hwpt_set_dirty_tracking(hwpt, true)), 0);
  EXPECT_EQ(world.dma_write(0, kApertureStart), 0);
  EXPECT_EQ(world.dma_write(0, kApertureStart + 2 * kPage), 0);
  std::array<std::uint64_t, 1> bitmap{};
  EXPECT_EQ(
      errno_of(world->hwpt_get_dirty_bitmap(hwpt, sim::DirtyRead::keep, kApertureStart, 4 * kPage, kPage, bitmap)), 0);
  EXPECT_EQ(bitmap[0], 1) << "and says nothing about what lies behind";
}

TEST(Selftest, PasidAttach) {
  World world(kTwoMocks);
  const ObjectId ioas = world.ioas();
  const ObjectId device = world.bind(0);
  const ObjectId plain = world->hwpt_alloc(device, ioas, 0).value();
  const ObjectId first = world->hwpt_alloc(device, ioas, sim::kHwptPasid).value();
  const ObjectId second = world->hwpt_alloc(device, ioas, sim::kHwptPasid).value();
  EXPECT_EQ(errno_of(world->attach(device, plain, 100)), EINVAL) << "a HWPT without the flag";
  EXPECT_EQ(errno_of(world->attach(device, ioas, 100)), EINVAL) << "automatic HWPTs never have it";
  EXPECT_EQ(errno_of(world->attach(device, first, 1U << 20)), EINVAL) << "too wide";
  EXPECT_EQ(errno_of(world->replace(device, first, 100)), EINVAL) << "attached to nothing";
  EXPECT_EQ(errno_of(world->attach(device, first, 100)), 0);
  EXPECT_EQ(errno_of(world->attach(device, first, 100)), EBUSY);
  EXPECT_EQ(errno_of(world->attach(device, plain)), EINVAL) << "the RID has to follow";
  EXPECT_EQ(errno_of(world->attach(device, second)), 0);
  EXPECT_EQ(errno_of(world->replace(device, plain)), EINVAL);
  EXPECT_EQ(errno_of(world->replace(device, second, 100)), 0);
  EXPECT_EQ(world.map(ioas, kApertureStart), 0);
  EXPECT_EQ(world.dma_write(0, kApertureStart, 100), 0);
  EXPECT_EQ(errno_of(world->detach(device, 100)), 0);
  EXPECT_EQ(world.dma_write(0, kApertureStart, 100), EFAULT);
  EXPECT_EQ(errno_of(world->replace(device, plain)), 0);
}

// ------------------------------------------------------------------------------------- what only real drivers show

TEST(Iommufd, TheNumberOfHwptsDependsOnTheOrder) {
  constexpr std::string_view kSketch = "unit intel-legacy\nunit intel-no-snoop\ndevice 0 group 0\ndevice 1 group 1\n";
  for (const bool weakest_first : {true, false}) {
    World world(kSketch);
    const ObjectId ioas = world.ioas();
    const ObjectId strong = world.bind(0);
    const ObjectId weak = world.bind(1);
    const ObjectId first = world->attach(weakest_first ? weak : strong, ioas).value();
    const ObjectId second = world->attach(weakest_first ? strong : weak, ioas).value();
    EXPECT_EQ(first == second, weakest_first);
    EXPECT_EQ(world->hwpt(first)->enforce_cache_coherency, !weakest_first);
  }
}

TEST(Iommufd, AGroupMovesAsOne) {
  World world("unit mock\ndevice 0 group 0\ndevice 0 group 0\n");
  const ObjectId ioas = world.ioas();
  const ObjectId a = world.bind(0);
  const ObjectId b = world.bind(1);
  const ObjectId hwpt = world->attach(a, ioas).value();
  const ObjectId manual = world->hwpt_alloc(a, ioas, 0).value();
  EXPECT_EQ(errno_of(world->attach(b, manual)), EINVAL) << "the group is elsewhere";
  EXPECT_EQ(errno_of(world->replace(b, manual)), EINVAL) << "this device is not attached";
  EXPECT_EQ(world->attach(b, ioas).value(), hwpt);
  EXPECT_EQ(errno_of(world->replace(a, manual)), 0);
  EXPECT_EQ(world->attached(b), manual);
  EXPECT_EQ(errno_of(world->destroy(hwpt)), ENOENT);
}

TEST(Iommufd, AGroupHasOneOwner) {
  World world("unit mock\ndevice 0 group 0\ndevice 0 group 0\n");
  const auto other = world.machine().open();
  world.bind(0);
  EXPECT_EQ(errno_of(other->bind(traces::device_name(1))), EPERM);
  EXPECT_EQ(errno_of(other->bind(traces::device_name(0))), EINVAL) << "VFIO opens a device once";
}

TEST(Iommufd, DevicesThatCannotBeBound) {
  World world(
      "unit intel-legacy\nunit riscv\nunit smmuv2-incoherent\n"
      "device 0 group 0 direct\ndevice 0 group 1 unsafe-interrupts\ndevice 0 group 2 relaxable\n"
      "device 1 group 3\ndevice 2 group 4\n");
  EXPECT_EQ(errno_of(world->bind(traces::device_name(0))), EINVAL) << "a region that must stay mapped 1:1";
  EXPECT_EQ(errno_of(world->bind(traces::device_name(1))), EPERM) << "no isolated MSI";
  EXPECT_EQ(errno_of(world->bind(traces::device_name(2))), 0);
  EXPECT_EQ(errno_of(world->bind(traces::device_name(3))), EINVAL) << "a driver without .capable";
  EXPECT_EQ(errno_of(world->bind(traces::device_name(4))), EINVAL) << "walks and DMA that do not snoop";
}

TEST(Iommufd, Smmuv2HasNoApertureUntilADeviceAttaches) {
  World world("unit smmuv2\ndevice 0 group 0\n");
  const ObjectId device = world.bind(0);
  const ObjectId ioas = world.ioas();
  world->hwpt_alloc(device, ioas, 0).value();
  EXPECT_EQ(world->ioas_iova_ranges(ioas).value().ranges, (std::vector<Range>{{0, 0}}));
  const ObjectId other = world.ioas();
  EXPECT_EQ(world.map(other, kPage), 0);
  EXPECT_EQ(errno_of(world->hwpt_alloc(device, other, 0)), EADDRINUSE);
  EXPECT_EQ(errno_of(world->attach(device, other)), 0) << "attaching to the IOAS works";
}

TEST(Iommufd, ReadOnlyMemoryExcludesIntelNestParents) {
  World world("unit intel-scalable\ndevice 0 group 0\n");
  const ObjectId device = world.bind(0);
  const ObjectId ioas = world.ioas();
  EXPECT_EQ(world.map(ioas, kPage, kPage, sim::kMapReadable), 0);
  EXPECT_EQ(errno_of(world->hwpt_alloc(device, ioas, sim::kHwptNestParent)), EINVAL);
  EXPECT_EQ(world->ioas_unmap(ioas, 0, kEverything).value(), kPage);
  EXPECT_EQ(errno_of(world->hwpt_alloc(device, ioas, sim::kHwptNestParent)), 0);
  EXPECT_EQ(world.map(ioas, kPage, kPage, sim::kMapReadable), EINVAL);
}

TEST(Iommufd, DomainIdsRunOutWhereTheDriverTakesThem) {
  World intel("unit intel-legacy few-ids\ndevice 0 group 0\ndevice 0 group 1\n");
  ObjectId ioas = intel.ioas();
  ObjectId a = intel.bind(0);
  const ObjectId b = intel.bind(1);
  ObjectId first = intel->hwpt_alloc(a, ioas, 0).value();
  const ObjectId second = intel->hwpt_alloc(a, ioas, 0).value();
  EXPECT_EQ(errno_of(intel->attach(a, first)), 0);
  EXPECT_EQ(errno_of(intel->attach(b, second)), ENOSPC) << "at attach";
  EXPECT_EQ(errno_of(intel->attach(b, first)), 0) << "one id for both";
  EXPECT_EQ(errno_of(intel->detach(b)), 0);
  EXPECT_EQ(errno_of(intel->replace(a, second)), 0) << "the old id is given back first";
  World smmu("unit smmuv3 few-ids\ndevice 0 group 0\n");
  ioas = smmu.ioas();
  a = smmu.bind(0);
  EXPECT_EQ(errno_of(smmu->hwpt_alloc(a, ioas, 0)), 0);
  EXPECT_EQ(errno_of(smmu->hwpt_alloc(a, ioas, 0)), EBUSY) << "at allocation; xa_alloc's errno";
}

// --------------------------------------------------------------------------------------------------------- kept traces

struct Kept {
  std::string_view found;  // what was wrong
  std::string_view trace;
};
// Sequences that once told simulator and model apart, at their shortest.
constexpr Kept kKept[] = {
    {"an automatic replace gives the new HWPT its id while the old one still has its own",
     "unit mock\ndevice 0 group 0\n"
     "call ioas_alloc\ncall ioas_alloc\ncall bind\ncall attach object=r2 other=r0\n"
     "call vfio_attach object=r2 other=r1\n"},
    {"virtio devices wrote to read-only mappings",
     "unit virtio\ndevice 0 group 0\n"
     "call ioas_alloc\ncall bind\ncall attach object=r1 other=r0\n"
     "call ioas_map object=r0 flags=0x5 va=m1+0x0 length=0x1000 iova=0x100000\n"
     "call dma_write iova=0x100352\ncall dma_read iova=0x100352\n"},
    {"a foreign HWPT is refused before the old translation is torn down",
     "unit mock\nunit intel-no-snoop\ndevice 1 group 0\ndevice 0 group 1\nwithout h3\n"
     "call ioas_alloc\ncall bind device=0x1\ncall vfio_attach object=r1 other=r0\ncall bind\n"
     "call ioas_map object=r0 flags=0x7 va=m1+0x0 length=0x2000 iova=0x1035000\n"
     "call attach object=r3 other=r0\ncall replace object=r3 other=r2\ncall dma_write iova=0x1035000\n"},
    {"a mock device without dirty tracking takes a dirty-tracking HWPT on a PASID",
     "unit mock\ndevice 0 group 0 pasid-bits=5\ndevice 0 group 0 no-dirty pasid-bits=5\n"
     "call ioas_alloc\ncall bind\ncall hwpt_alloc object=r1 other=r0 flags=0xa\n"
     "call attach object=r1 other=r2 pasid=0x1\n"},
    {"an SMMUv2 HWPT keeps its context bank when its last device leaves",
     "unit smmuv2 few-ids\ndevice 0 group 0\n"
     "call ioas_alloc\ncall bind\ncall hwpt_alloc object=r1 other=r0\ncall vfio_attach object=r1 other=r2\n"
     "call detach object=r1\ncall attach object=r1 other=r0\n"},
    {"a dirty bitmap that starts at IOVA 0",
     "unit smmuv3\ndevice 0 group 0\n"
     "call ioas_alloc\ncall bind\ncall hwpt_alloc object=r1 other=r0 flags=0x2\ncall attach object=r1 other=r2\n"
     "call ioas_map object=r0 flags=0x7 va=m0+0x4000 length=0x1000\ncall set_dirty object=r2 flags=0x1\n"
     "call dma_write iova=0xbf1\ncall get_dirty object=r2 length=0x2000 source=0x1000\n"},
    {"an area that ends with the space",
     "unit amd\ndevice 0 group 0\n"
     "call ioas_alloc\ncall bind\ncall hwpt_alloc object=r1 other=r0 flags=0x2\ncall attach object=r1 other=r2\n"
     "call ioas_map object=r0 flags=0x7 va=m0+0x4000 length=0x1000 iova=0xfffffffffffff000\n"
     "call set_dirty object=r2 flags=0x1\ncall dma_write iova=0xfffffffffffff123\n"
     "call get_dirty object=r2 iova=0xfffffffffffff000 length=0x1000 source=0x1000\n"},
    {"an unmap that cuts an area takes those in front of it all the same",
     "unit mock\ndevice 0 group 0\n"
     "call ioas_alloc\n"
     "call ioas_map object=r0 flags=7 va=m0+0x0 length=0x1000 iova=0x1000\n"
     "call ioas_map object=r0 flags=7 va=m0+0x0 length=0x2000 iova=0x2000\n"
     "call ioas_unmap object=r0 iova=0x1000 length=0x2000\n"},
};

TEST(SimIommufd, KeptTraces) {
  for (const Kept& kept : kKept) {
    const auto difference = replay(traces::parse_trace(kept.trace));
    EXPECT_FALSE(difference) << kept.found << "\n" << kept.trace << (difference ? difference->text : "");
  }
}

// The text of a trace is the trace.
TEST(SimIommufd, TracesSurviveTheirText) {
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    Tally tally;
    Trace trace;
    run_sequence(seed, tally, trace);
    const std::string text = to_text(trace);
    EXPECT_EQ(to_text(traces::parse_trace(text)), text);
  }
}

}  // namespace
}  // namespace ioplan
