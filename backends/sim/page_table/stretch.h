// Stretches of entries that lie one after the other in a table: written, and looked through, as wide as the processor
// can.
//
// Plain loops, compiled for several widths (stretch.cc); entry.h says why readers may look on. Held by
// tests/page_table_test.cc, which compares every entry that comes of it.
#pragma once

#include <cstdint>
#include <span>

#include "backends/sim/page_table/entry.h"
#include "backends/sim/page_table/page_table.h"

namespace ioplan::sim::stretch {

// Whether all of them are `value`.
bool all(const Entry* first, std::uint64_t count, Entry value);

// Whether some entry has `value` in the bits of `mask`.
bool any(const Entry* first, std::uint64_t count, Entry mask, Entry value);

// Writes the same entry everywhere.
void fill(Entry* first, std::uint64_t count, Entry entry);

// Writes `entry`, `entry + step`, `entry + 2 * step`, ...
void write(Entry* first, std::uint64_t count, Entry entry, Entry step);

// What a list of extents has in common: the bits that occur in any of the addresses, and those in which some size
// differs from the size that it should have.
struct Common {
  std::uint64_t addresses = 0;
  std::uint64_t sizes = 0;
};
Common common(std::span<const Extent> extents, std::uint64_t size);

// Writes an entry for every extent: its physical address, shifted left or right, and the bits of `attributes`.
Common write_each(Entry* first, std::span<const Extent> extents, std::uint64_t size, unsigned left, unsigned right,
                  Entry attributes);

}  // namespace ioplan::sim::stretch
