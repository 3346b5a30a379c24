// Bytes of page tables: worked by hand, and counted leaf by leaf.
//
// engine/README.md, decision 5, says what is counted: all tables from the root down that hold an entry when the memory
// is mapped with the largest leaves that page sizes, backing and alignment allow. The brute force below places the
// leaves one after the other, as the kernel's map loop does, and collects the distinct tables above each; it knows
// nothing of intervals. It is fast enough for memories of a few GiB.
#include "engine/solve/page_table_bytes.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "engine/base/text.h"

namespace ioplan {
namespace {

constexpr std::uint64_t kKiB = 1024, kMiB = kKiB * 1024, kGiB = kMiB * 1024, kTiB = kGiB * 1024;
constexpr std::uint64_t k4K2M1G = 4 * kKiB | 2 * kMiB | kGiB;

MemoryRange at(std::uint64_t start, std::uint64_t size) { return {{start, start + (size - 1)}, Access::read_write}; }

std::uint64_t bytes(const TableShape& shape, std::vector<MemoryRange> memory, std::uint64_t backing) {
  return page_table_bytes(shape, memory, backing);
}

TableShape shape(PageTableFormat format, unsigned stage, unsigned levels, unsigned bits, std::uint64_t pages) {
  return {.format = format, .stage = stage, .levels = levels, .address_bits = bits, .page_sizes = pages};
}

const TableShape kFour = shape(PageTableFormat::vtd_ss, 2, 4, 48, k4K2M1G);

// --------------------------------------------------------------------------------------------------------- by hand

TEST(PageTables, OneGiBOfFourLevels) {
  // 4 KiB leaves: 512 tables of leaves, one of 2 MiB entries, one of 1 GiB entries, the root.
  EXPECT_EQ(bytes(kFour, {at(0, kGiB)}, 4 * kKiB), (512 + 1 + 1 + 1) * 4 * kKiB);
  EXPECT_EQ(bytes(kFour, {at(0, kGiB)}, 2 * kMiB), 3 * 4 * kKiB);
  EXPECT_EQ(bytes(kFour, {at(0, kGiB)}, kGiB), 2 * 4 * kKiB);
  // The backing is large, the HWPT's pages are not.
  EXPECT_EQ(bytes(shape(PageTableFormat::vtd_ss, 2, 4, 48, 4 * kKiB | 2 * kMiB), {at(0, kGiB)}, kGiB), 3 * 4 * kKiB);
  EXPECT_EQ(bytes(shape(PageTableFormat::vtd_ss, 2, 4, 48, 4 * kKiB), {at(0, kGiB)}, kGiB), 515 * 4 * kKiB);
  // Three and five levels: one table less, one more.
  EXPECT_EQ(bytes(shape(PageTableFormat::vtd_ss, 2, 3, 39, k4K2M1G), {at(0, kGiB)}, kGiB), 4 * kKiB);
  EXPECT_EQ(bytes(shape(PageTableFormat::x86_64, 1, 5, 57, k4K2M1G), {at(0, kGiB)}, kGiB), 3 * 4 * kKiB);
}

TEST(PageTables, AlignmentDecidesTheLeaves) {
  // One page: a table at every level.
  EXPECT_EQ(bytes(kFour, {at(0, 4 * kKiB)}, kGiB), 4 * 4 * kKiB);
  // 1 GiB from 512 MiB on: two tables of 2 MiB leaves; no 1 GiB leaf fits.
  EXPECT_EQ(bytes(kFour, {at(512 * kMiB, kGiB)}, kGiB), (2 + 1 + 1) * 4 * kKiB);
  // 2 GiB from 512 MiB on: 2 MiB leaves at both ends, a 1 GiB leaf between them.
  EXPECT_EQ(bytes(kFour, {at(512 * kMiB, 2 * kGiB)}, kGiB), (2 + 1 + 1) * 4 * kKiB);
  // One page short of 1 GiB: 511 leaves of 2 MiB, and one table of 511 small ones.
  EXPECT_EQ(bytes(kFour, {at(0, kGiB - 4 * kKiB)}, kGiB), (1 + 1 + 1 + 1) * 4 * kKiB);
  // One page more than 1 GiB: a 1 GiB leaf, and for the page a table of each level.
  EXPECT_EQ(bytes(kFour, {at(0, kGiB + 4 * kKiB)}, kGiB), (1 + 1 + 1 + 1) * 4 * kKiB);
  // Two ranges that touch inside a 2 MiB page are mapped on their own, but share the table.
  EXPECT_EQ(bytes(kFour, {at(0, kMiB), at(kMiB, kMiB)}, kGiB), 4 * 4 * kKiB);
  // Two ranges in one 1 GiB: they share what is above.
  EXPECT_EQ(bytes(kFour, {at(0, 4 * kKiB), at(4 * kMiB, 4 * kKiB)}, kGiB), (2 + 1 + 1 + 1) * 4 * kKiB);
  // Far apart: nothing but the root is shared.
  EXPECT_EQ(bytes(kFour, {at(0, 4 * kKiB), at(kTiB, 4 * kKiB)}, kGiB), (2 + 2 + 2 + 1) * 4 * kKiB);
}

TEST(PageTables, NothingToMap) {
  EXPECT_EQ(bytes(kFour, {}, kGiB), 0U);
  EXPECT_EQ(bytes(shape(PageTableFormat::virtio, 1, 0, 64, ~0xfffULL), {at(0, kGiB)}, kGiB), 0U);
}

TEST(PageTables, ArmGranules) {
  const std::uint64_t k16 = 16 * kKiB, k64 = 64 * kKiB;
  // 16 KiB: 2048 entries; a table of leaves spans 32 MiB, then 64 GiB, then 128 TiB; 48 bits take two entries of a
  // root.
  const TableShape sixteen = shape(PageTableFormat::arm_lpae, 1, 4, 48, k16 | 32 * kMiB);
  EXPECT_EQ(bytes(sixteen, {at(0, kGiB)}, k16), (32 + 1 + 1 + 1) * k16);
  EXPECT_EQ(bytes(sixteen, {at(0, kGiB)}, 32 * kMiB), 3 * k16);
  // 64 KiB: 8192 entries; 512 MiB, then 4 TiB, then 2^55.
  const TableShape sixty_four = shape(PageTableFormat::arm_lpae, 1, 3, 48, k64 | 512 * kMiB);
  EXPECT_EQ(bytes(sixty_four, {at(0, kGiB)}, k64), (2 + 1 + 1) * k64);
  EXPECT_EQ(bytes(sixty_four, {at(0, kGiB)}, 512 * kMiB), 2 * k64);
  const TableShape wide = shape(PageTableFormat::arm_lpae, 1, 3, 52, k64 | 512 * kMiB | 4 * kTiB);
  EXPECT_EQ(bytes(wide, {at(0, 4 * kTiB)}, 4 * kTiB), 1 * k64);
  EXPECT_EQ(bytes(wide, {at(0, 4 * kTiB)}, 512 * kMiB), 2 * k64);
}

TEST(PageTables, ArmStageTwoHasSeveralRoots) {
  // 4 KiB and 40 bits: three levels span 39 bits, so two roots; 42 bits: eight.
  EXPECT_EQ(bytes(shape(PageTableFormat::arm_lpae, 2, 3, 40, k4K2M1G), {at(0, kGiB)}, kGiB), 2 * 4 * kKiB);
  EXPECT_EQ(bytes(shape(PageTableFormat::arm_lpae, 2, 3, 42, k4K2M1G), {at(0, kGiB)}, 2 * kMiB), (1 + 8) * 4 * kKiB);
  // 16 KiB and 40 bits: two levels span 36 bits, sixteen roots; 48 bits: three levels span 47, two roots.
  const std::uint64_t k16 = 16 * kKiB;
  EXPECT_EQ(bytes(shape(PageTableFormat::arm_lpae, 2, 2, 40, k16 | 32 * kMiB), {at(0, kGiB)}, 32 * kMiB), 16 * k16);
  EXPECT_EQ(bytes(shape(PageTableFormat::arm_lpae, 2, 3, 48, k16 | 32 * kMiB), {at(0, kGiB)}, 32 * kMiB),
            (1 + 2) * k16);
  // A small root is one table: 32 bits take four entries of it.
  EXPECT_EQ(bytes(shape(PageTableFormat::arm_lpae, 2, 3, 32, k4K2M1G), {at(0, kGiB)}, kGiB), 4 * kKiB);
  EXPECT_EQ(bytes(shape(PageTableFormat::arm_lpae, 1, 4, 40, k4K2M1G), {at(0, kGiB)}, kGiB), 2 * 4 * kKiB);
}

TEST(PageTables, S390) {
  // Page tables of 2 KiB span 1 MiB, segment tables of 16 KiB span 2 GiB, region tables of 16 KiB 4 TiB.
  const TableShape third = shape(PageTableFormat::s390, 1, 3, 42, 4 * kKiB);
  EXPECT_EQ(bytes(third, {at(0, 4 * kKiB)}, 4 * kKiB), 2 * kKiB + 16 * kKiB + 16 * kKiB);
  EXPECT_EQ(bytes(third, {at(0, kGiB)}, kGiB), 1024 * 2 * kKiB + 16 * kKiB + 16 * kKiB);
  EXPECT_EQ(bytes(third, {at(0, 4 * kGiB)}, kGiB), 4096 * 2 * kKiB + 2 * 16 * kKiB + 16 * kKiB);
  EXPECT_EQ(bytes(shape(PageTableFormat::s390, 1, 5, 64, 4 * kKiB), {at(0, kGiB)}, kGiB),
            1024 * 2 * kKiB + 16 * kKiB + 3 * 16 * kKiB);
}

TEST(PageTables, AmdGrowsWithTheLastAddress) {
  const std::uint64_t every = ((1ULL << 52) - 1) & ~0xfffULL & ~(1ULL << 39);
  const TableShape v1 = shape(PageTableFormat::amdv1, 2, 3, 64, every);
  // Three levels reach 512 GiB.
  EXPECT_EQ(bytes(v1, {at(0, kGiB)}, kGiB), 4 * kKiB);  // one leaf in the root
  EXPECT_EQ(bytes(v1, {at(0, kGiB)}, 4 * kKiB), (512 + 1 + 1) * 4 * kKiB);
  EXPECT_EQ(bytes(v1, {at(0, 512 * kGiB)}, kGiB), 4 * kKiB);
  EXPECT_EQ(bytes(v1, {at(512 * kGiB, kGiB)}, kGiB), (1 + 1) * 4 * kKiB);          // four levels
  EXPECT_EQ(bytes(v1, {at(256 * kTiB, kGiB)}, kGiB), (1 + 1 + 1) * 4 * kKiB);      // five
  EXPECT_EQ(bytes(v1, {at(1ULL << 57, kGiB)}, kGiB), (1 + 1 + 1 + 1) * 4 * kKiB);  // six
  // A page between two levels lives in the table of the largest level whose entry is not larger.
  EXPECT_EQ(bytes(v1, {at(0, 16 * kKiB)}, 16 * kKiB), 3 * 4 * kKiB);
  EXPECT_EQ(bytes(v1, {at(0, kGiB)}, 64 * kKiB), (512 + 1 + 1) * 4 * kKiB);
  EXPECT_EQ(bytes(v1, {at(0, kGiB)}, 512 * kMiB), (1 + 1) * 4 * kKiB);
}

TEST(PageTables, MockHasTablesOfFourKiBForPagesOfTwo) {
  // 512 entries of 2 KiB: 1 MiB, 512 MiB, 256 GiB.
  const TableShape mock = shape(PageTableFormat::mock, 2, 3, 56, ((1ULL << 37) - 1) & ~0x7ffULL);
  EXPECT_EQ(bytes(mock, {at(16 * kMiB, 16 * kMiB)}, 2 * kKiB), (16 + 1 + 1) * 4 * kKiB);
  EXPECT_EQ(bytes(mock, {at(16 * kMiB, 16 * kMiB)}, 16 * kMiB), (1 + 1) * 4 * kKiB);
  EXPECT_EQ(bytes(mock, {at(0, 64 * kGiB)}, 64 * kGiB), 4 * kKiB);
  // The last address makes it grow to four levels.
  EXPECT_EQ(bytes(mock, {at(256 * kGiB, kGiB)}, kGiB), (1 + 1) * 4 * kKiB);
}

// ------------------------------------------------------------------------------------------------------ brute force

unsigned leaf_lg2(const TableShape& s) {
  if (s.format == PageTableFormat::mock) return 11;
  return s.format == PageTableFormat::arm_lpae ? static_cast<unsigned>(std::countr_zero(s.page_sizes)) : 12;
}

unsigned index_bits(const TableShape& s) { return s.format == PageTableFormat::arm_lpae ? leaf_lg2(s) - 3 : 9; }

// Address bits below the entries of a table of this level.
unsigned entry_lg2(const TableShape& s, unsigned level) {
  if (s.format == PageTableFormat::s390) return level == 0 ? 12 : 20 + 11 * (level - 1);
  return leaf_lg2(s) + index_bits(s) * level;
}

std::uint64_t size_of_table(const TableShape& s, unsigned level) {
  if (s.format == PageTableFormat::s390) return level == 0 ? 2 * kKiB : 16 * kKiB;
  return 8ULL << index_bits(s);
}

std::uint64_t counted(const TableShape& s, const std::vector<MemoryRange>& memory, std::uint64_t backing) {
  unsigned levels = s.levels;
  if (s.format == PageTableFormat::amdv1 || s.format == PageTableFormat::mock) {
    while (entry_lg2(s, levels) < 64 && memory.back().gpa.last >> entry_lg2(s, levels) != 0) ++levels;
  }
  std::vector<std::set<std::uint64_t>> tables(levels);  // by level: which aligned piece each table maps
  for (const MemoryRange& m : memory) {
    for (std::uint64_t a = m.gpa.start; a <= m.gpa.last;) {
      std::uint64_t leaf = 0;
      for (std::uint64_t size = std::bit_floor(backing); size != 0; size /= 2) {
        if ((s.page_sizes & size) != 0 && a % size == 0 && m.gpa.last - a >= size - 1) {
          leaf = size;
          break;
        }
      }
      EXPECT_NE(leaf, 0U);
      if (leaf == 0) return 0;
      unsigned level = 0;  // the largest level whose entry is not larger than the leaf
      while (level + 1 < levels && (1ULL << entry_lg2(s, level + 1)) <= leaf) ++level;
      for (unsigned l = level; l + 1 < levels; ++l) tables[l].insert(a >> entry_lg2(s, l + 1));
      // A contiguous leaf may start entries of several tables of its level only when it is larger than one: never.
      a += leaf;
      if (a == 0) break;
    }
  }
  std::uint64_t sum = 0;
  for (unsigned l = 0; l + 1 < levels; ++l) sum += tables[l].size() * size_of_table(s, l);
  std::uint64_t roots = 1;
  if (s.format == PageTableFormat::arm_lpae && s.stage == 2 && s.address_bits > entry_lg2(s, levels)) {
    roots = 1ULL << (s.address_bits - entry_lg2(s, levels));
  }
  return sum + roots * size_of_table(s, levels - 1);
}

std::vector<TableShape> shapes() {
  const std::uint64_t k16 = 16 * kKiB, k64 = 64 * kKiB;
  return {
      kFour,
      shape(PageTableFormat::vtd_ss, 2, 3, 39, 4 * kKiB | 2 * kMiB),
      shape(PageTableFormat::x86_64, 1, 5, 57, k4K2M1G),
      shape(PageTableFormat::amdv1, 2, 3, 48, ((1ULL << 47) - 1) & ~0xfffULL & ~(1ULL << 39)),
      shape(PageTableFormat::mock, 2, 3, 56, ((1ULL << 37) - 1) & ~0x7ffULL),
      shape(PageTableFormat::arm_lpae, 1, 4, 48, k4K2M1G),
      shape(PageTableFormat::arm_lpae, 2, 3, 40, k4K2M1G),
      shape(PageTableFormat::arm_lpae, 1, 4, 48, k16 | 32 * kMiB),
      shape(PageTableFormat::arm_lpae, 2, 2, 40, k16 | 32 * kMiB),
      shape(PageTableFormat::arm_lpae, 1, 3, 52, k64 | 512 * kMiB | 4 * kTiB),
      shape(PageTableFormat::riscv, 1, 4, 48, 4 * kKiB | k64 | 2 * kMiB | kGiB),
      shape(PageTableFormat::s390, 1, 3, 42, 4 * kKiB),
  };
}

// Ranges whose edges fall on, beside and between the boundaries of large pages.
std::vector<MemoryRange> random_memory(std::mt19937_64& random, std::uint64_t page) {
  constexpr std::uint64_t kUnits[] = {4 * kKiB, 64 * kKiB, kMiB, 2 * kMiB, 32 * kMiB, 512 * kMiB, kGiB};
  std::vector<MemoryRange> memory;
  std::uint64_t next = random() % 3 == 0 ? 0 : (random() % 4) * kGiB;
  const std::size_t count = 1 + random() % 3;
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint64_t unit = std::max(page, kUnits[random() % std::size(kUnits)]);
    std::uint64_t size = unit * (1 + random() % 4);
    if (random() % 3 == 0) size += page * (random() % 5);
    if (random() % 3 == 0) next += page * (random() % 5);
    if (next / page * page != next) next = (next / page + 1) * page;
    memory.push_back(at(next, size));
    next += size + (random() % 2) * unit * (random() % 3);
    if (random() % 8 == 0) next += 600 * kGiB;
  }
  return memory;
}

TEST(PageTables, AgreeWithCountingLeaves) {
  constexpr std::uint64_t kBackings[] = {4 * kKiB, 64 * kKiB, 2 * kMiB, 2 * kMiB, 32 * kMiB, kGiB, kGiB};
  std::mt19937_64 random(7);
  for (int n = 0; n < 1200; ++n) {
    const TableShape s = shapes()[static_cast<std::size_t>(n) % shapes().size()];
    const std::uint64_t page = 1ULL << leaf_lg2(s);
    std::uint64_t backing = kBackings[random() % std::size(kBackings)];
    backing = std::max(backing, page);
    std::vector<MemoryRange> memory = random_memory(random, std::max(page, 4 * kKiB));
    // Many small leaves take long to count.
    std::uint64_t total = 0;
    for (const MemoryRange& m : memory) total += m.gpa.extent() + 1;
    if (total / std::min(backing, std::bit_floor(s.page_sizes)) > 300'000) continue;
    std::string text = fmt::format("format {} stage {} levels {} backing {}", static_cast<int>(s.format), s.stage,
                                   s.levels, format_size(backing));
    for (const MemoryRange& m : memory) text += fmt::format(" [{:#x}, {:#x}]", m.gpa.start, m.gpa.last);
    EXPECT_EQ(page_table_bytes(s, memory, backing), counted(s, memory, backing)) << text;
  }
}

}  // namespace
}  // namespace ioplan
