// Which page size the start of a contiguous run gets, and how far that size carries: the rule is the same for all
// formats.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

#include "backends/sim/page_table/page_table.h"
#include "engine/base/log2.h"

namespace ioplan::sim {

// log2 of the largest of `sizes` to which both addresses are aligned and that the run can fill.
// Requires: the smallest size divides addresses and run.
inline unsigned largest_leaf_lg2(std::uint64_t sizes, std::uint64_t iova, Extent run) {
  const std::uint64_t alignment = lowest_bit(iova | run.pa);  // 0: any
  const std::uint64_t aligned = alignment == 0 ? sizes : sizes & (alignment | (alignment - 1));
  const std::uint64_t fitting = aligned & last_of_width(static_cast<unsigned>(std::bit_width(run.size)));
  return static_cast<unsigned>(std::bit_width(fitting)) - 1;
}

// Bytes of the run until it ends, or until a larger page than 2^lg2 fits.
inline std::uint64_t bytes_of_leaf_size(std::uint64_t sizes, std::uint64_t iova, Extent run, unsigned lg2) {
  const std::uint64_t larger = lowest_bit(sizes & ~last_of_width(lg2 + 1));
  if (larger == 0 || ((iova ^ run.pa) & (larger - 1)) != 0) return run.size & ~last_of_width(lg2);
  const std::uint64_t before = larger - (iova & (larger - 1));
  const bool fits = before < run.size && run.size - before >= larger;
  return fits ? before : run.size & ~last_of_width(lg2);
}

}  // namespace ioplan::sim
