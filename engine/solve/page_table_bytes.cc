#include "engine/solve/page_table_bytes.h"

#include <algorithm>
#include <bit>
#include <vector>

#include "engine/base/log2.h"

namespace ioplan {

namespace {

// A radix table: level 0 holds the smallest entries.
class Radix {
 public:
  explicit Radix(const TableShape& shape) : format_(shape.format) {
    if (format_ == PageTableFormat::mock) {
      granule_lg2_ = 11;  // but tables of 4 KiB (generic_pt/fmt/amdv1.h)
    } else if (format_ == PageTableFormat::arm_lpae && shape.page_sizes != 0) {
      granule_lg2_ = table_lg2_ = static_cast<unsigned>(std::countr_zero(shape.page_sizes));
    }
  }

  bool grows() const { return format_ == PageTableFormat::amdv1 || format_ == PageTableFormat::mock; }

  // Address bits that one table of this level spans.
  unsigned span_lg2(unsigned level) const {
    if (format_ == PageTableFormat::s390) return 20 + 11 * level;
    return granule_lg2_ + (table_lg2_ - 3) * (level + 1);
  }

  std::uint64_t table_bytes(unsigned level) const {
    if (format_ == PageTableFormat::s390) return level == 0 ? 2048 : 16384;
    return pow2(table_lg2_);
  }

 private:
  PageTableFormat format_;
  unsigned granule_lg2_ = 12;
  unsigned table_lg2_ = 12;
};

// Counts distinct aligned chunks of 2^span that intervals touch; intervals come in ascending order.
class ChunkCounter {
 public:
  explicit ChunkCounter(unsigned span_lg2) : span_lg2_(span_lg2) {}

  void touch(std::uint64_t start, std::uint64_t last) {
    std::uint64_t first_chunk = chunk(start);
    const std::uint64_t last_chunk = chunk(last);
    if (any_ && first_chunk <= highest_) first_chunk = highest_ + 1;
    if (any_ && last_chunk <= highest_) return;
    count_ += last_chunk - first_chunk + 1;
    highest_ = last_chunk;
    any_ = true;
  }

  std::uint64_t count() const { return count_; }

 private:
  std::uint64_t chunk(std::uint64_t address) const { return span_lg2_ >= 64 ? 0 : address >> span_lg2_; }

  unsigned span_lg2_;
  bool any_ = false;
  std::uint64_t highest_ = 0;
  std::uint64_t count_ = 0;
};

// Tables of one level: those that hold an entry for an address that no larger leaf covers.
std::uint64_t tables_at(unsigned span_lg2, std::span<const MemoryRange> memory, std::uint64_t leaf_sizes) {
  const std::uint64_t larger = span_lg2 >= 64 ? 0 : leaf_sizes & ~last_of_width(span_lg2);
  const std::uint64_t leaf = lowest_bit(larger);
  ChunkCounter chunks(span_lg2);
  for (const MemoryRange& m : memory) {
    const auto [start, last] = m.gpa;
    // The interior that larger leaves cover, if there is one: [inner, outer) in units of that leaf.
    const std::uint64_t inner = leaf == 0 ? 0 : (start >> std::countr_zero(leaf)) + ((start & (leaf - 1)) != 0 ? 1 : 0);
    const std::uint64_t outer = leaf == 0 ? 0 : (last >> std::countr_zero(leaf)) + ((~last & (leaf - 1)) == 0 ? 1 : 0);
    if (leaf == 0 || inner >= outer) {
      chunks.touch(start, last);
      continue;
    }
    const auto lg2 = static_cast<unsigned>(std::countr_zero(leaf));
    if (start < inner << lg2) chunks.touch(start, (inner << lg2) - 1);
    const std::uint64_t tail = outer << lg2;  // wraps to 0 only when the interior reaches the end of the space
    if (tail != 0 && tail <= last) chunks.touch(tail, last);
  }
  return chunks.count();
}

}  // namespace

std::uint64_t page_table_bytes(const TableShape& shape, std::span<const MemoryRange> memory, std::uint64_t backing) {
  if (shape.levels == 0 || memory.empty()) return 0;
  const Radix radix(shape);
  const std::uint64_t last = memory.back().gpa.last;
  unsigned levels = shape.levels;
  while (radix.grows() && radix.span_lg2(levels - 1) < 64 && last > last_of_width(radix.span_lg2(levels - 1))) ++levels;
  const std::uint64_t leaf_sizes = shape.page_sizes & (backing | (backing - 1));

  std::uint64_t bytes = 0;
  for (unsigned level = 0; level + 1 < levels; ++level) {
    bytes += radix.table_bytes(level) * tables_at(radix.span_lg2(level), memory, leaf_sizes);
  }
  // Arm's stage 2 may have several root tables, one after the other.
  const unsigned root_span = radix.span_lg2(levels - 1);
  const std::uint64_t roots = shape.format == PageTableFormat::arm_lpae && shape.stage == 2 &&
                                      shape.address_bits > root_span
                                  ? pow2(shape.address_bits - root_span)
                                  : 1;
  return bytes + roots * radix.table_bytes(levels - 1);
}

}  // namespace ioplan
