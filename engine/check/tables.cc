#include "engine/check/tables.h"

#include <algorithm>
#include <bit>
#include <vector>

namespace ioplan::check {

namespace {

// A radix tree of tables: an entry at level 1 maps 2^entry_lg2(1) bytes.
struct Radix {
  unsigned granule_lg2;
  unsigned index_bits;
  std::uint64_t bytes;  // of one table
  bool s390;            // 256-entry page tables below 2048-entry segment and region tables

  unsigned entry_lg2(unsigned level) const {
    if (!s390) return granule_lg2 + index_bits * (level - 1);
    return level == 1 ? 12 : 20 + 11 * (level - 2);
  }
  unsigned reach_lg2(unsigned level) const { return entry_lg2(level + 1); }
  std::uint64_t table_size(unsigned level) const { return s390 && level == 1 ? 2048 : bytes; }
};

Radix radix_of(const TableShape& shape) {
  switch (shape.format) {
    case PageTableFormat::mock:
      return {11, 9, 4096, false};
    case PageTableFormat::s390:
      return {12, 11, 16384, true};
    case PageTableFormat::arm_lpae: {
      const auto granule = static_cast<unsigned>(std::countr_zero(shape.page_sizes));
      return {granule, granule - 3, std::uint64_t{1} << granule, false};
    }
    default:
      return {12, 9, 4096, false};
  }
}

bool grows(PageTableFormat format) { return format == PageTableFormat::amdv1 || format == PageTableFormat::mock; }

// AMD v1 tables get another root whenever an address does not fit.
unsigned levels_for(const TableShape& shape, const Radix& radix, std::uint64_t last) {
  unsigned levels = shape.levels;
  if (!grows(shape.format)) return levels;
  while (radix.reach_lg2(levels) < 64 && last >> radix.reach_lg2(levels) != 0) ++levels;
  return levels;
}

struct Run {
  Range range;
  unsigned leaf_lg2;
};

// Leaf sizes that may be used, ascending. Memory that is backed by less than the smallest page takes that page.
std::vector<unsigned> leaf_sizes(std::uint64_t page_sizes, std::uint64_t backing) {
  std::vector<unsigned> sizes;
  for (unsigned lg2 = 0; lg2 < 64; ++lg2) {
    const std::uint64_t size = std::uint64_t{1} << lg2;
    if ((page_sizes & size) != 0 && (size <= backing || sizes.empty())) sizes.push_back(lg2);
  }
  return sizes;
}

// Does a leaf of 2^lg2 bytes fit between `at` and `last`?
bool fits(std::uint64_t at, std::uint64_t last, unsigned lg2) {
  return at <= last && last - at >= (std::uint64_t{1} << lg2) - 1;
}

// The next multiple of 2^lg2 from `at` on; nothing where that wraps.
std::uint64_t next_multiple(std::uint64_t at, unsigned lg2) {
  const std::uint64_t mask = (std::uint64_t{1} << lg2) - 1;
  return (at + mask) & ~mask;
}

// Largest leaves first: sizes climb to the largest that has room at its own boundary, then fall.
void append_runs(std::vector<Run>& runs, const Range& range, const std::vector<unsigned>& sizes) {
  std::uint64_t at = range.start;
  std::size_t k = 0;
  for (; k + 1 < sizes.size(); ++k) {
    const std::uint64_t boundary = next_multiple(at, sizes[k + 1]);
    if (boundary < at || !fits(boundary, range.last, sizes[k + 1])) break;
    if (boundary > at) runs.push_back({{at, boundary - 1}, sizes[k]});
    at = boundary;
  }
  for (std::size_t down = k + 1; down-- > 0;) {
    if (!fits(at, range.last, sizes[down])) continue;
    const std::uint64_t size = std::uint64_t{1} << sizes[down];
    const std::uint64_t leaves_but_one = (range.last - at - (size - 1)) / size;
    const std::uint64_t last = at + leaves_but_one * size + (size - 1);
    runs.push_back({{at, last}, sizes[down]});
    if (last == range.last) return;
    at = last + 1;
  }
}

// The level whose table holds such a leaf: the highest whose entries are not larger.
unsigned home_level(const Radix& radix, unsigned levels, unsigned leaf_lg2) {
  unsigned level = 1;
  while (level < levels && radix.entry_lg2(level + 1) <= leaf_lg2) ++level;
  return level;
}

std::uint64_t count_blocks(const std::vector<Run>& runs, const Radix& radix, unsigned levels, unsigned level) {
  const unsigned reach = radix.reach_lg2(level);
  if (reach >= 64) return 1;
  std::uint64_t count = 0;
  std::uint64_t next = 0;  // the lowest block that is not counted yet
  for (const Run& run : runs) {
    if (home_level(radix, levels, run.leaf_lg2) > level) continue;
    const std::uint64_t first = std::max(next, run.range.start >> reach);
    const std::uint64_t end = (run.range.last >> reach) + 1;
    if (end > first) count += end - first;
    next = std::max(next, end);
  }
  return count;
}

// One root, or the concatenated ones of Arm's stage 2.
std::uint64_t root_tables(const TableShape& shape, const Radix& radix, unsigned levels) {
  const unsigned reach = radix.reach_lg2(levels);
  const bool concatenated = shape.format == PageTableFormat::arm_lpae && shape.address_bits > reach;
  return concatenated ? std::uint64_t{1} << (shape.address_bits - reach) : 1;
}

}  // namespace

std::uint64_t table_bytes(const TableShape& shape, std::span<const MemoryRange> memory, std::uint64_t backing) {
  if (shape.levels == 0 || shape.page_sizes == 0) return 0;
  const Radix radix = radix_of(shape);
  const unsigned levels = levels_for(shape, radix, memory.empty() ? 0 : memory.back().gpa.last);
  const std::vector<unsigned> sizes = leaf_sizes(shape.page_sizes, backing);
  std::vector<Run> runs;
  for (const MemoryRange& m : memory) append_runs(runs, m.gpa, sizes);
  std::uint64_t bytes = root_tables(shape, radix, levels) * radix.table_size(levels);
  for (unsigned level = 1; level < levels; ++level) {
    bytes += count_blocks(runs, radix, levels, level) * radix.table_size(level);
  }
  return bytes;
}

}  // namespace ioplan::check
