// One page table under many threads: writers on disjoint ranges (every other page of the same leaf tables, every other
// larger page, and far apart), devices that write, scanners of dirty bits, and translations by software and hardware,
// all at once and without a lock. Run it under ThreadSanitizer (preset tsan) as well.
//
// Every address is only ever mapped to one of two physical addresses that follow from it, so a reader can tell a right
// answer from a stale or foreign one at any moment. Each writer knows what it has mapped (its own flat map); when all
// are done the table must hold exactly that, in no more tables than it takes.
//
// IOPLAN_SCALE multiplies the rounds, IOPLAN_SEED chooses other sequences.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <bit>
#include <memory>
#include <mutex>
#include <ostream>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "backends/sim/page_table/page_table.h"
#include "backends/sim/table_arena.h"
#include "backends/sim/walker.h"
#include "engine/base/log2.h"
#include "engine/base/text.h"
#include "tests/support/flat_map.h"
#include "tests/support/seeds.h"

namespace ioplan::sim {
namespace {

std::uint64_t rounds(std::uint64_t by_default) {
  return static_cast<std::uint64_t>(static_cast<double>(by_default) * number_from("IOPLAN_SCALE", 1));
}

std::uint64_t seed() { return static_cast<std::uint64_t>(number_from("IOPLAN_SEED", 1)); }

constexpr unsigned kWriters = 3;
constexpr std::uint8_t kReadWrite = kRead | kWrite;

// Where an address may lead: two places, aligned like the address up to 2^34.
std::uint64_t place(std::uint64_t iova, std::uint64_t version) {
  return (iova & last_of_width(34)) + ((version + 1) << 35);
}

bool is_place_of(std::uint64_t pa, std::uint64_t iova) { return pa == place(iova, 0) || pa == place(iova, 1); }

// A table, and the first thing that somebody found wrong with it.
class World {
 public:
  explicit World(const PageTableShape& shape) : shape_(shape), table_(PageTable::create(shape, arena_)) {}

  PageTable& table() { return *table_; }
  TableArena& arena() { return arena_; }
  const PageTableShape& shape() const { return shape_; }
  bool walks() const { return shape_.format != PageTableFormat::virtio; }

  Translation dma(std::uint64_t iova, DmaAccess access) { return walk(arena_, shape_, table_->root(), iova, access); }

  void complain(std::string what) {
    const std::lock_guard lock(mutex_);
    if (complaint_.empty()) complaint_ = std::move(what);
    failed_.store(true);
  }
  bool failed() const { return failed_.load(std::memory_order_relaxed); }
  std::string complaint() {
    const std::lock_guard lock(mutex_);
    return complaint_;
  }

  // Whatever is going on: nothing there, or one of the two places.
  void glance(std::uint64_t iova) {
    if (const auto pa = table_->iova_to_phys(iova); pa && !is_place_of(*pa, iova)) {
      complain(fmt::format("iova_to_phys({}) gives {}", format_hex(iova), format_hex(*pa)));
    }
    if (!walks()) return;
    const Translation t = dma(iova, DmaAccess::read);
    const bool right = t.fault.empty() ? is_place_of(t.pa, iova) : t.fault == "nothing is mapped" || grows(t);
    if (!right) complain(fmt::format("a walk of {} gives {} {}", format_hex(iova), t.fault, format_hex(t.pa)));
  }

  // A page that nobody touches.
  void expect_at(std::uint64_t iova, std::uint64_t pa, DmaAccess access) {
    if (table_->iova_to_phys(iova) != pa) complain("a stable page is lost: " + format_hex(iova));
    if (!walks()) return;
    if (const Translation t = dma(iova, access); t.pa != pa) {
      complain(fmt::format("a walk of stable {} gives {} {}", format_hex(iova), t.fault, format_hex(t.pa)));
    }
  }

 private:
  // AMD's tables reach only as far as they have grown.
  static bool grows(const Translation& t) { return t.fault == "the address is outside the table"; }

  PageTableShape shape_;
  TableArena arena_;
  std::unique_ptr<PageTable> table_;
  std::atomic<bool> failed_{false};
  std::mutex mutex_;
  std::string complaint_;
};

// Where the threads of a test meet. Stretches are far enough apart for AMD's tables to grow under everyone's hands.
class Layout {
 public:
  explicit Layout(const PageTableShape& shape)
      : small_(static_cast<unsigned>(std::countr_zero(shape.page_sizes))), large_(small_), aperture_(shape.aperture) {
    const std::uint64_t others = shape.page_sizes & (shape.page_sizes - 1);
    if (others != 0) large_ = std::min(small_ + 9, static_cast<unsigned>(std::countr_zero(others)));
  }

  unsigned small() const { return small_; }
  unsigned large() const { return large_; }  // the next page size, where there is one
  std::uint64_t stretch(unsigned number) const {
    const std::uint64_t start = aperture_.start + (aperture_.extent() / 16) * number;
    return (start + last_of_width(large_)) & ~last_of_width(large_);
  }

  std::uint64_t among_small(std::uint64_t n) const { return stretch(0) + (n << small_); }
  std::uint64_t among_large(std::uint64_t n) const { return stretch(1) + (n << large_); }
  std::uint64_t stable(std::uint64_t n) const { return stretch(2) + (n << small_); }
  std::uint64_t own(unsigned writer) const { return stretch(8 + 2 * writer); }

 private:
  unsigned small_;
  unsigned large_;
  Range aperture_;
};

constexpr std::uint64_t kStablePages = 48;
constexpr std::uint64_t kPagesEach = 40;

// Maps and unmaps addresses that are its own, and looks after each.
class Writer {
 public:
  Writer(World& world, unsigned number)
      : world_(world), layout_(world.shape()), mine_(world.shape()), number_(number), random_(seed() * 977 + number) {}

  void run(std::uint64_t operations) {
    for (std::uint64_t i = 0; i < operations && !world_.failed(); ++i) step();
  }

  const FlatMap& mine() const { return mine_; }

 private:
  void step() {
    const auto [start, size_lg2] = pick();
    const std::uint64_t size = pow2(size_lg2);
    if (random_() % 8 < 5) {
      const Extent extent{place(start, random_() % 2), size};
      const int right = mine_.map(start, {&extent, 1}, kReadWrite);
      const int error = world_.table().map(start, {&extent, 1}, kReadWrite);
      if (error != right) world_.complain(fmt::format("map {}: {}, not {}", format_hex(start), error, right));
    } else {
      const std::uint64_t right = mine_.unmap(start, size);
      const std::uint64_t done = world_.table().unmap(start, size);
      if (done != right) world_.complain(fmt::format("unmap {}: {}, not {}", format_hex(start), done, right));
    }
    look(start);
    look(start + size - 1);
  }

  void look(std::uint64_t iova) {
    const auto right = mine_.iova_to_phys(iova);
    if (world_.table().iova_to_phys(iova) != right) world_.complain("a writer lost its page " + format_hex(iova));
    if (!world_.walks()) return;
    const Translation t = world_.dma(iova, random_() % 2 == 0 ? DmaAccess::read : DmaAccess::write);
    if (t.fault.empty() != right.has_value() || (right && t.pa != *right)) {
      world_.complain(fmt::format("a writer's walk of {}: {} {}", format_hex(iova), t.fault, format_hex(t.pa)));
    }
  }

  // Start and log2 of the size: a small page among those of the others, a larger one likewise, or any in its own
  // stretch.
  std::pair<std::uint64_t, unsigned> pick() {
    const std::uint64_t n = number_ + kWriters * (random_() % kPagesEach);
    const std::uint64_t dice = random_() % 4;
    if (dice < 2) return {layout_.among_small(n), layout_.small()};
    if (dice == 2) return {layout_.among_large(n), layout_.large()};
    const unsigned lg2 = random_() % 2 == 0 ? layout_.small() : layout_.large();
    return {layout_.own(number_) + ((random_() % 24) << lg2), lg2};
  }

  World& world_;
  Layout layout_;
  FlatMap mine_;
  unsigned number_;
  std::mt19937_64 random_;
};

// One device that writes to the stable pages, and one scanner that reads and clears their dirty bits. No write may be
// lost: the device counts its writes to a page after each. A write that began after the last scan that reported the
// page has ended must be reported by the next scan that begins after it; one write may straddle a scan.
class DirtyWatch {
 public:
  explicit DirtyWatch(World& world) : world_(world), layout_(world.shape()) {}

  // Until it has written so often and, where there is a scanner, that has seen something.
  void device(std::uint64_t writes) {
    std::mt19937_64 random(seed() + 5);
    const bool watched = world_.shape().dirty_tracking;
    for (std::uint64_t i = 0; (i < writes || (watched && reports_.load() < 1000)) && !world_.failed(); ++i) {
      const std::uint64_t page = random() % kStablePages;
      const std::uint64_t iova = layout_.stable(page) + random() % pow2(layout_.small());
      world_.expect_at(iova, place(iova, 0), DmaAccess::write);
      written_[page].fetch_add(1);
    }
  }

  void scanner(const std::atomic<bool>& done) {
    for (std::uint64_t i = 0; !done.load() && !world_.failed(); ++i) {
      scan(i % 4 == 3 ? DirtyRead::keep : DirtyRead::clear);
    }
    scan(DirtyRead::clear);
  }

  std::uint64_t reports() const { return reports_.load(); }

 private:
  void scan(DirtyRead mode) {
    std::array<std::uint64_t, kStablePages> before{};
    for (std::size_t page = 0; page < kStablePages; ++page) before[page] = written_[page].load();
    std::uint64_t bits = 0;
    const Range range{layout_.stable(0), layout_.stable(kStablePages) - 1};
    world_.table().read_dirty(range, mode, {layout_.stable(0), layout_.small(), {&bits, 1}});
    for (std::size_t page = 0; page < kStablePages; ++page) {
      if (bit(bits, static_cast<unsigned>(page))) {
        reports_.fetch_add(1);
        if (mode == DirtyRead::clear) reported_[page] = written_[page].load();
      } else if (before[page] >= reported_[page] + 2) {
        world_.complain(fmt::format("a write to stable page {} was lost", page));
      }
    }
  }

  World& world_;
  Layout layout_;
  std::array<std::atomic<std::uint64_t>, kStablePages> written_{};
  std::array<std::uint64_t, kStablePages> reported_{};  // writes counted when the last clearing report had ended
  std::atomic<std::uint64_t> reports_{0};
};

struct Configuration {
  std::string name;
  PageTableShape shape;
};

void PrintTo(const Configuration& c, std::ostream* out) { *out << c.name; }

PageTableShape shape(PageTableFormat format, unsigned stage, unsigned levels, unsigned bits, std::uint64_t pages,
                     DirtyRead dirty) {
  PageTableShape s;
  s.format = format;
  s.stage = stage;
  s.levels = levels;
  s.address_bits = bits;
  s.aperture = {0, last_of_width(bits)};
  s.page_sizes = pages;
  s.output_bits = 48;
  s.dirty_tracking = dirty == DirtyRead::clear;
  return s;
}

std::vector<Configuration> configurations() {
  constexpr DirtyRead kTracked = DirtyRead::clear, kUntracked = DirtyRead::keep;
  constexpr std::uint64_t k4K = 1 << 12, k64K = 1 << 16, k2M = 1 << 21, k1G = 1 << 30;
  PageTableShape x86 = shape(PageTableFormat::x86_64, 1, 4, 48, k4K | k2M | k1G, kUntracked);
  x86.aperture.last >>= 1;
  PageTableShape riscv = shape(PageTableFormat::riscv, 1, 4, 48, k4K | k64K | k2M | k1G, kUntracked);
  riscv.aperture.last >>= 1;
  PageTableShape mock = shape(PageTableFormat::mock, 2, 3, 56, last_of_width(37) & ~last_of_width(11), kTracked);
  mock.aperture = {1 << 24, last_of_width(31)};
  return {
      {"vtd_ss", shape(PageTableFormat::vtd_ss, 2, 4, 48, k4K | k2M | k1G, kTracked)},
      {"x86", x86},
      {"amdv1", shape(PageTableFormat::amdv1, 2, 3, 64, last_of_width(48) & ~last_of_width(12) & ~pow2(39), kTracked)},
      {"arm_s1_contiguous", shape(PageTableFormat::arm_lpae, 1, 4, 48, k4K | k64K | k2M | 1 << 25 | k1G, kTracked)},
      {"arm_s2_16K", shape(PageTableFormat::arm_lpae, 2, 3, 48, 1 << 14 | 1 << 25, kUntracked)},
      {"riscv_64K", riscv},
      {"s390", shape(PageTableFormat::s390, 1, 4, 53, k4K, kUntracked)},
      {"mock", mock},
      {"virtio", shape(PageTableFormat::virtio, 1, 0, 64, ~last_of_width(12), kUntracked)},
  };
}

class PageTableThreads : public testing::TestWithParam<Configuration> {};

std::string name_of(const testing::TestParamInfo<Configuration>& test) { return test.param.name; }

INSTANTIATE_TEST_SUITE_P(All, PageTableThreads, testing::ValuesIn(configurations()), name_of);

// The union of what everyone has mapped is what the table holds, in as few tables as that takes.
void expect_exactly(World& world, const std::vector<const FlatMap*>& parts) {
  FlatMap all(world.shape());
  for (const FlatMap* part : parts) {
    for (const auto& [start, leaf] : part->leaves()) {
      const Extent extent{leaf.pa, pow2(leaf.size_lg2)};
      ASSERT_EQ(all.map(start, {&extent, 1}, kReadWrite), 0);
      ASSERT_EQ(world.table().iova_to_phys(start), leaf.pa);
      if (!world.walks()) continue;
      EXPECT_EQ(probe(world.arena(), world.shape(), world.table().root(), start).page_size, pow2(leaf.size_lg2));
    }
    all.grown_to(part->levels());
  }
  EXPECT_EQ(world.table().table_bytes(), all.table_bytes());
  EXPECT_EQ(world.arena().bytes_in_use(), world.table().table_bytes() + world.table().spare_bytes());
}

TEST_P(PageTableThreads, DisjointRangesAtOnce) {
  World world(GetParam().shape);
  const Layout layout(world.shape());
  FlatMap stable(world.shape());
  for (std::uint64_t page = 0; page < kStablePages; ++page) {
    const Extent extent{place(layout.stable(page), 0), pow2(layout.small())};
    ASSERT_EQ(stable.map(layout.stable(page), {&extent, 1}, kReadWrite), 0);
    ASSERT_EQ(world.table().map(layout.stable(page), {&extent, 1}, kReadWrite), 0);
  }

  std::vector<std::unique_ptr<Writer>> writers;
  std::vector<std::thread> threads;
  DirtyWatch watch(world);
  std::atomic<bool> done{false};
  for (unsigned n = 0; n < kWriters; ++n) {
    writers.push_back(std::make_unique<Writer>(world, n));
    threads.emplace_back([&writer = *writers.back()] { writer.run(rounds(30'000)); });
  }
  threads.emplace_back([&] { watch.device(rounds(30'000)); });
  std::thread reader([&] {
    std::mt19937_64 random(seed() + 9);
    while (!done.load() && !world.failed()) {
      const std::uint64_t n = random() % (kWriters * kPagesEach);
      world.glance(layout.among_small(n) + random() % pow2(layout.small()));
      world.glance(layout.among_large(n) + random() % pow2(layout.large()));
      world.glance(layout.own(static_cast<unsigned>(n % kWriters)) + random() % (24 * pow2(layout.large())));
    }
  });
  std::thread scanner([&] {
    if (world.shape().dirty_tracking) watch.scanner(done);
  });
  for (std::thread& thread : threads) thread.join();
  done.store(true);
  reader.join();
  scanner.join();

  EXPECT_EQ(world.complaint(), "");
  std::vector<const FlatMap*> parts = {&stable};
  for (const auto& writer : writers) parts.push_back(&writer->mine());
  expect_exactly(world, parts);
  if (world.shape().dirty_tracking) {
    EXPECT_GE(watch.reports(), 1000U);
  }
}

// Tables that are made and freed all the time, under readers that may be inside, and taken by another table of the
// same memory, whose pages lead elsewhere and are dirty.
TEST_P(PageTableThreads, TablesComeAndGo) {
  World world(GetParam().shape);
  const Layout layout(world.shape());
  const auto other = PageTable::create(world.shape(), world.arena());
  constexpr std::uint64_t kTables = 6;
  const unsigned reach = std::min(40U, TableGeometry(world.shape()).reach_lg2(1));
  const std::uint64_t start = (layout.stretch(1) + last_of_width(reach)) & ~last_of_width(reach);
  const auto address = [&](std::uint64_t table, std::uint64_t page) {
    return start + (table << reach) + (page << layout.small());
  };
  const auto come_and_go = [&](PageTable& table, unsigned number, std::uint64_t version) {
    const auto to = [version](std::uint64_t iova) { return place(iova, version); };
    // Nothing that is mapped in the scanned table is ever dirty; Arm's writeable pages would be from the start.
    std::uint8_t protection = kRead;
    if (&table != &world.table()) protection |= kWrite;
    std::mt19937_64 random(seed() * 31 + number);
    for (std::uint64_t i = 0; i < rounds(20'000) && !world.failed(); ++i) {
      const std::uint64_t iova = address(random() % kTables, number);
      const std::uint64_t size = pow2(layout.small());
      if (table.map(iova, to(iova), size, protection) != 0) world.complain("map is refused");
      if (table.iova_to_phys(iova) != to(iova)) world.complain("a page is lost");
      if (&table != &world.table() && world.walks()) {
        walk(world.arena(), world.shape(), table.root(), iova, DmaAccess::write);
      }
      if (table.unmap(iova, size) != size) world.complain("unmap is refused");
      if (table.iova_to_phys(iova)) world.complain("a page stays");
    }
  };

  std::atomic<bool> done{false};
  std::vector<std::thread> writers, readers;
  for (unsigned n = 0; n < 2; ++n) {
    writers.emplace_back([&, n] { come_and_go(world.table(), n, 0); });
  }
  writers.emplace_back([&] { come_and_go(*other, 2, 5); });
  readers.emplace_back([&] {
    std::mt19937_64 random(seed() + 3);
    while (!done.load() && !world.failed()) world.glance(address(random() % kTables, random() % 3));
  });
  readers.emplace_back([&] {
    while (world.shape().dirty_tracking && !done.load() && !world.failed()) {
      std::uint64_t dirty = 0;
      const Range range{start, start + (kTables << reach) - 1};
      world.table().read_dirty(range, DirtyRead::clear, {start, reach, {&dirty, 1}});
      if (dirty != 0) world.complain("dirty bits of another table");
    }
  });
  for (std::thread& writer : writers) writer.join();
  done.store(true);
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(world.complaint(), "");
  EXPECT_EQ(world.arena().bytes_in_use(), world.table().table_bytes() + world.table().spare_bytes() +
                                              other->table_bytes() + other->spare_bytes());
}

}  // namespace
}  // namespace ioplan::sim
