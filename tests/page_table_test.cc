// Page tables of every format and configuration against a flat ordered map (tests/support/flat_map.h) and the hardware
// walker (backends/sim/walker.h), by random operations (tests/support/page_table_trial.h). What must agree: every
// errno, bytes unmapped, translations of both kinds, page sizes chosen, permissions, dirty bits, bytes of tables, bytes
// to spare, and after a refusal that nothing has changed.
//
// Each configuration runs 100,000 operations; IOPLAN_SCALE multiplies that (10 is the soak run), IOPLAN_SEED chooses
// another sequence. A failure is cut down to a few operations and printed. Every kind of outcome, and every page size,
// must have been hit at least 100 times.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cstdio>
#include <ostream>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "backends/sim/page_table/page_table.h"
#include "engine/base/log2.h"
#include "engine/solve/page_table_bytes.h"
#include "tests/support/flat_map.h"
#include "tests/support/page_table_trial.h"
#include "tests/support/seeds.h"

namespace ioplan::sim {
namespace {

constexpr std::uint8_t kReadWrite = kRead | kWrite;
constexpr std::uint64_t kKiB = 1024, kMiB = kKiB * 1024, kGiB = kMiB * 1024, kTiB = kGiB * 1024;
constexpr std::uint64_t k4K = 4 * kKiB, k4K2M = k4K | 2 * kMiB, k4K2M1G = k4K2M | kGiB;
constexpr std::uint64_t k16K = 16 * kKiB | 32 * kMiB, k16KContiguous = k16K | 2 * kMiB | kGiB;
constexpr std::uint64_t k64K = 64 * kKiB | 512 * kMiB, k64KContiguous = k64K | 2 * kMiB | 16 * kGiB;
constexpr std::uint64_t k4KContiguous = k4K2M1G | 64 * kKiB | 32 * kMiB;

constexpr std::uint64_t sizes_between(unsigned low_lg2, unsigned high_lg2) {
  return last_of_width(high_lg2 + 1) & ~last_of_width(low_lg2);
}

struct Configuration {
  std::string name;
  PageTableShape shape;
};

void PrintTo(const Configuration& c, std::ostream* out) { *out << c.name; }

PageTableShape shape(PageTableFormat format, unsigned stage, unsigned levels, unsigned bits, std::uint64_t pages,
                     unsigned output_bits = 52) {
  PageTableShape s;
  s.format = format;
  s.stage = stage;
  s.levels = levels;
  s.address_bits = bits;
  s.aperture = {0, last_of_width(bits)};
  s.page_sizes = pages;
  s.output_bits = output_bits;
  return s;
}

PageTableShape vtd(unsigned levels, unsigned bits, std::uint64_t pages) {
  return shape(PageTableFormat::vtd_ss, 2, levels, bits, pages);
}

// Sign-extended: only the lower half is used.
PageTableShape lower_half(PageTableShape s) {
  s.aperture = {0, last_of_width(s.address_bits - 1)};
  return s;
}

PageTableShape x86(unsigned levels, std::uint64_t pages) {
  return lower_half(shape(PageTableFormat::x86_64, 1, levels, 12 + 9 * levels, pages));
}

PageTableShape amd(unsigned bits) {
  const std::uint64_t pages = sizes_between(12, std::min(51U, bits - 2)) & ~(512 * kGiB);
  return shape(PageTableFormat::amdv1, 2, 3, bits, pages);
}

PageTableShape arm(unsigned stage, unsigned levels, unsigned bits, std::uint64_t pages, unsigned output_bits = 48) {
  return shape(PageTableFormat::arm_lpae, stage, levels, bits, pages, output_bits);
}

PageTableShape riscv(unsigned levels, std::uint64_t pages) {
  return lower_half(shape(PageTableFormat::riscv, 1, levels, 12 + 9 * levels, pages, 56));
}

PageTableShape s390(unsigned levels, unsigned bits) { return shape(PageTableFormat::s390, 1, levels, bits, k4K, 64); }

PageTableShape mock() {
  PageTableShape s = shape(PageTableFormat::mock, 2, 3, 56, sizes_between(11, 36), 51);
  s.aperture = {1ULL << 24, (1ULL << 31) - 1};
  return s;
}

PageTableShape dirty(PageTableShape s) {
  s.dirty_tracking = true;
  return s;
}

PageTableShape coherent(PageTableShape s) {
  s.force_coherence = true;
  return s;
}

PageTableShape nesting_parent(PageTableShape s) {
  s.force_writeable = true;
  return s;
}

std::vector<Configuration> configurations() {
  const PageTableShape vtd4 = vtd(4, 48, k4K2M1G);
  return {
      {"vtd_ss_3_levels", vtd(3, 39, k4K2M1G)},
      {"vtd_ss_4_levels", vtd4},
      {"vtd_ss_4_levels_39_bits", vtd(4, 39, k4K2M1G)},
      {"vtd_ss_5_levels", coherent(vtd(5, 57, k4K2M1G))},
      {"vtd_ss_4K", vtd(4, 48, k4K)},
      {"vtd_ss_4K_2M", vtd(4, 46, k4K2M)},
      {"vtd_ss_snoop_dirty", dirty(coherent(vtd4))},
      {"vtd_ss_dirty_3_levels", dirty(vtd(3, 39, k4K2M))},
      {"vtd_ss_nesting_parent", nesting_parent(dirty(vtd4))},
      {"x86_4_levels", x86(4, k4K2M1G)},
      {"x86_4_levels_4K_2M", x86(4, k4K2M)},
      {"x86_5_levels", x86(5, k4K2M1G)},
      {"amdv1_48_bits", coherent(amd(48))},
      {"amdv1_57_bits_dirty", dirty(coherent(amd(57)))},
      {"amdv1_64_bits_dirty", dirty(amd(64))},
      {"amdv1_64_bits_4K_2M_1G", dirty(shape(PageTableFormat::amdv1, 2, 3, 64, k4K2M1G))},
      {"arm_s1_4K_39_bits", arm(1, 3, 39, k4K2M1G)},
      {"arm_s1_4K_dirty", dirty(arm(1, 4, 48, k4K2M1G))},
      {"arm_s1_4K_contiguous_dirty", dirty(arm(1, 4, 48, k4KContiguous))},
      {"arm_s2_4K_40_bits", arm(2, 3, 40, k4K2M1G, 40)},
      {"arm_s2_4K_42_bits_contiguous", arm(2, 3, 42, k4KContiguous, 42)},
      {"arm_s2_4K_48_bits_dirty", dirty(arm(2, 4, 48, k4K2M1G))},
      {"arm_s1_16K_contiguous_dirty", dirty(arm(1, 4, 48, k16KContiguous))},
      {"arm_s1_16K_36_bits", arm(1, 2, 36, k16K)},
      {"arm_s2_16K_40_bits", arm(2, 2, 40, k16KContiguous, 40)},
      {"arm_s2_16K_48_bits", arm(2, 3, 48, k16K)},
      {"arm_s1_64K_contiguous_dirty", dirty(arm(1, 3, 48, k64KContiguous))},
      {"arm_s1_64K_52_bits", arm(1, 3, 52, k64K | 4 * kTiB, 52)},
      {"arm_s2_64K_52_bits_contiguous", arm(2, 3, 52, k64KContiguous | 4 * kTiB, 52)},
      {"arm_s2_64K_42_bits_dirty", dirty(arm(2, 2, 42, k64K, 42))},
      {"riscv_sv39", riscv(3, k4K2M1G)},
      {"riscv_sv39_64K", riscv(3, k4K2M1G | 64 * kKiB)},
      {"riscv_sv48", riscv(4, k4K2M1G | 512 * kGiB)},
      {"riscv_sv48_64K", riscv(4, k4K2M1G | 512 * kGiB | 64 * kKiB)},
      {"riscv_sv57_64K", riscv(5, k4K2M1G | 512 * kGiB | 256 * kTiB | 64 * kKiB)},
      {"s390_42_bits", s390(3, 42)},
      {"s390_53_bits", s390(4, 53)},
      {"s390_64_bits", s390(5, 64)},
      {"mock", mock()},
      {"mock_dirty", dirty(mock())},
      {"virtio", shape(PageTableFormat::virtio, 1, 0, 64, sizes_between(12, 63), 64)},
  };
}

// ------------------------------------------------------------------------------------------------- what must be hit

constexpr std::uint64_t kOften = 100;

// Every outcome that this shape can have.
std::vector<std::string> outcomes(const PageTableShape& s) {
  const bool arm = s.format == PageTableFormat::arm_lpae, tables = s.format != PageTableFormat::virtio;
  std::vector<std::string> names = {"map", "map of extents", "EINVAL", arm ? "EEXIST" : "EADDRINUSE", "unmap",
                                    "unmap up to a hole", "ERANGE physical", "compared everything"};
  if (std::popcount(s.page_sizes) > 1) names.push_back("unmap up to a cut leaf");
  if (s.aperture.last != ~std::uint64_t{0} || s.aperture.start != 0) names.push_back("ERANGE aperture");
  for (unsigned lg2 = 0; lg2 < 64; ++lg2) {
    if (bit(s.page_sizes, lg2) && has_room_for(s, lg2)) names.push_back(fmt::format("page {}", lg2));
  }
  if (!tables) return names;
  names.insert(names.end(), {"ENOMEM", "DMA", "fault: not mapped"});
  if (!s.force_writeable) names.push_back("fault: write");
  if ((effective_protection(s, kWrite) & kRead) == 0) names.push_back("fault: read");
  if (s.dirty_tracking) names.insert(names.end(), {"made dirty", "made clean", "dirty kept"});
  return names;
}

std::string size_text(unsigned lg2) {
  return fmt::format("{}{}", pow2(lg2 % 10), std::string_view("BKMGTPE").substr(lg2 / 10, 1));
}

void print(const std::string& name, const Hits& hits) {
  std::vector<std::string> events, pages;
  for (const auto& [what, count] : hits) {
    if (what.starts_with("page ")) {
      pages.push_back(fmt::format("{} {}", size_text(static_cast<unsigned>(std::stoul(what.substr(5)))), count));
    } else {
      events.push_back(fmt::format("{} {}", what, count));
    }
  }
  fmt::print("{}\n  {}\n  pages: {}\n", name, fmt::join(events, ", "), fmt::join(pages, ", "));
}

// ------------------------------------------------------------------------------------------------------ the long run

class PageTables : public testing::TestWithParam<Configuration> {};

std::string failure_text(const Configuration& c, std::uint64_t seed, std::vector<TableOperation> operations,
                         const std::string& difference) {
  std::string text = fmt::format("{} seed {}, operation {}: {}\n", c.name, seed, operations.size(), difference);
  operations = shrink(c.shape, std::move(operations), 400);
  text += fmt::format("cut down to {} operations:\n", operations.size());
  TableTrial trial(c.shape);
  for (const TableOperation& op : operations) {
    const std::string found = trial.apply(op);
    text += "  " + to_text(op) + (found.empty() ? "" : "  <- " + found) + "\n";
  }
  return text;
}

TEST_P(PageTables, AgreeWithTheFlatMapAndTheWalker) {
  const Configuration& c = GetParam();
  ASSERT_TRUE(PageTable::supported(c.shape));
  const double scale = number_from("IOPLAN_SCALE", 1);
  const auto seed = static_cast<std::uint64_t>(number_from("IOPLAN_SEED", 1));
  const auto count = static_cast<std::uint64_t>(100'000 * scale);
  TableTrial trial(c.shape);
  TableScript script(c.shape, seed);
  std::vector<TableOperation> done;
  for (std::uint64_t i = 0; i < count; ++i) {
    done.push_back(script.next(trial.expected()));
    const std::string difference = trial.apply(done.back());
    ASSERT_EQ(difference, "") << failure_text(c, seed, done, difference);
  }
  print(c.name, trial.hits());
  if (scale < 1) return;
  for (const std::string& outcome : outcomes(c.shape)) {
    const auto hit = trial.hits().find(outcome);
    EXPECT_GE(hit == trial.hits().end() ? 0 : hit->second, kOften) << outcome;
  }
}

std::string name_of(const testing::TestParamInfo<Configuration>& test) { return test.param.name; }

INSTANTIATE_TEST_SUITE_P(All, PageTables, testing::ValuesIn(configurations()), name_of);

// ------------------------------------------------------------------------------------------ small spaces, page by page

// Every page of the first tables' reach, and of its neighbours, through both translations.
TEST(PageTablesSmall, EveryAddressOfASmallSpace) {
  for (const Configuration& c : configurations()) {
    if (c.shape.format == PageTableFormat::virtio) continue;
    TableTrial trial(c.shape);
    std::mt19937_64 random(7);
    const auto small = static_cast<unsigned>(std::countr_zero(c.shape.page_sizes));
    const std::uint64_t pages = std::min<std::uint64_t>(1536, pow2(TableGeometry(c.shape).reach_lg2(1) - small) * 3);
    for (std::uint64_t page = 0; page < pages; page += 1 + random() % 9) {
      TableOperation op{.kind = TableOperation::Kind::map,
                        .iova = c.shape.aperture.start + (page << small),
                        .extents = {{random() % 64 << small, (1 + random() % 40) << small}},
                        .protection = kReadWrite};
      ASSERT_EQ(trial.apply(op), "") << c.name << ": " << to_text(op);
    }
    for (std::uint64_t page = 0; page < pages + 64; ++page) {
      TableOperation op{.kind = TableOperation::Kind::translate,
                        .iova = c.shape.aperture.start + (page << small) + random() % pow2(small),
                        .extents = {}};
      ASSERT_EQ(trial.apply(op), "") << c.name << ": " << to_text(op);
    }
  }
}

// ------------------------------------------------------------------------------------------- traces of what went wrong

struct Trace {
  std::string name;
  PageTableShape shape;
  std::vector<TableOperation> operations;
};

TableOperation map_of(std::uint64_t iova, std::vector<Extent> extents) {
  return {.kind = TableOperation::Kind::map, .iova = iova, .extents = std::move(extents), .protection = kReadWrite};
}

TableOperation unmap_of(std::uint64_t iova, std::uint64_t size) {
  return {.kind = TableOperation::Kind::unmap, .iova = iova, .size = size, .extents = {}};
}

// Cut down by the long run above, and kept.
std::vector<Trace> traces() {
  const PageTableShape virtio = shape(PageTableFormat::virtio, 1, 0, 64, sizes_between(12, 63), 64);
  const std::uint64_t half = pow2(51);
  return {
      {"the first page of a space of 64 bits", virtio, {map_of(0, {{pow2(62), pow2(61)}})}},
      {"an empty table that grows under a run of extents",
       amd(57),
       {map_of(0, {{0, half}, {0, half}, {half, half}, {half, half}})}},
      {"a scan of a part of a group that is dirty elsewhere",
       dirty(amd(64)),
       {map_of(kGiB, {{kMiB, kMiB}}),
        {.kind = TableOperation::Kind::dma_write, .iova = kGiB + kMiB - 1, .extents = {}},
        {.kind = TableOperation::Kind::read_dirty,
         .iova = kGiB,
         .size = kMiB / 4,
         .extents = {},
         .page_lg2 = 12,
         .mode = DirtyRead::clear}}},
      {"an unmap that would wrap around to 0",
       s390(5, 64),
       {map_of(0 - 4 * k4K, {{8 * k4K, 4 * k4K}}), map_of(0, {{0, 4 * k4K}}), unmap_of(0 - 2 * k4K, 8 * k4K)}},
  };
}

TEST(PageTableTraces, StayRight) {
  for (const Trace& trace : traces()) {
    TableTrial trial(trace.shape);
    for (const TableOperation& op : trace.operations) ASSERT_EQ(trial.apply(op), "") << trace.name;
    ASSERT_EQ(trial.apply({.kind = TableOperation::Kind::compare, .extents = {}}), "") << trace.name;
  }
}

// ------------------------------------------------------------------------------------------------- bytes, three ways

// The table, the flat map and the planner's arithmetic count the same bytes for memory that is mapped once.
TEST(PageTableBytes, AreWhatThePlannerPredicts) {
  std::mt19937_64 random(3);
  for (const Configuration& c : configurations()) {
    const auto small = static_cast<unsigned>(std::countr_zero(c.shape.page_sizes));
    for (int round = 0; round < 40; ++round) {
      const unsigned size_lg2 = small + static_cast<unsigned>(random() % 20);
      const std::uint64_t size = (1 + random() % 3) << size_lg2;
      const std::uint64_t room = c.shape.aperture.extent() - size;
      const std::uint64_t start = (c.shape.aperture.start + random() % room) & ~last_of_width(small);
      TableArena arena;
      const auto table = PageTable::create(c.shape, arena);
      ASSERT_EQ(table->map(start, start & last_of_width(36), size, kReadWrite), 0);
      const std::vector<MemoryRange> memory = {{{start, start + (size - 1)}, Access::read_write}};
      const TableShape planned = {c.shape.format, c.shape.stage, c.shape.levels, c.shape.address_bits,
                                  c.shape.page_sizes & last_of_width(37)};
      const std::uint64_t bytes = page_table_bytes(planned, memory, pow2(36));
      EXPECT_EQ(table->table_bytes(), bytes) << c.name << " " << start << "+" << size;
    }
  }
}

}  // namespace
}  // namespace ioplan::sim
