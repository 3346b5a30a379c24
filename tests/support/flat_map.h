// What a page table must hold, slowly and obviously: an ordered map from IOVA to leaf, and the format's geometry as
// two short functions. It knows no entry, no table and no code of backends/sim/page_table; it is written from the
// contract in page_table.h.
//
// A leaf is the unit that unmap takes and that becomes dirty as one. Which leaves a map makes follows from the rule
// alone: at every address the largest page that is aligned there (IOVA and PA) and fits in what is left of the run,
// where extents that continue each other are one run.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "backends/sim/page_table/page_table.h"

namespace ioplan::sim {

// Tables of a format, level 1 holding the smallest pages.
struct TableGeometry {
  explicit TableGeometry(const PageTableShape& shape);

  unsigned entry_lg2(unsigned level) const;          // bytes that one entry spans
  unsigned reach_lg2(unsigned level) const { return entry_lg2(level + 1); }  // bytes that one table spans; may be > 64
  std::uint64_t table_bytes(unsigned level) const;
  std::uint64_t root_bytes(unsigned levels) const;
  unsigned levels_for(std::uint64_t last) const;     // of a table that reaches `last`, growing from the shape's levels

 private:
  PageTableShape shape_;
};

// Whether a page that is mapped like this counts as dirty before anything was written.
bool starts_dirty(const PageTableShape& shape, std::uint8_t protection);

class FlatMap {
 public:
  struct Leaf {
    std::uint64_t pa = 0;
    unsigned size_lg2 = 0;
    std::uint8_t protection = 0;  // as the hardware will report it
    bool dirty = false;
  };
  using Leaves = std::map<std::uint64_t, Leaf>;

  explicit FlatMap(const PageTableShape& shape);

  // As PageTable's calls, memory never being out.
  int map(std::uint64_t iova, std::span<const Extent> extents, std::uint8_t protection);
  std::uint64_t unmap(std::uint64_t iova, std::uint64_t size);
  std::optional<std::uint64_t> iova_to_phys(std::uint64_t iova) const;
  void read_dirty(Range range, DirtyRead mode, DirtyBitmap bitmap);

  // What map() would answer, and the leaves that it would make: the first `most` of them.
  int verdict(std::uint64_t iova, std::span<const Extent> extents, std::uint8_t protection) const;
  std::vector<std::pair<std::uint64_t, Leaf>> split(std::uint64_t iova, std::span<const Extent> extents,
                                                   std::size_t most = ~std::size_t{0}) const;

  // The table has had so many levels before.
  void grown_to(unsigned levels) { levels_ = std::max(levels_, levels); }
  // The hardware writes to a mapped page.
  void make_dirty(std::uint64_t iova);

  Leaves::const_iterator find(std::uint64_t iova) const;  // the leaf that holds `iova`, or leaves().end()
  const Leaves& leaves() const { return leaves_; }
  std::uint64_t table_bytes() const;                      // the least that the format can do with, from scratch
  unsigned levels() const { return levels_; }             // the most that were ever needed
  const TableGeometry& geometry() const { return geometry_; }

 private:
  bool overlaps(std::uint64_t iova, std::uint64_t last) const;

  PageTableShape shape_;
  TableGeometry geometry_;
  unsigned levels_;
  Leaves leaves_;
};

// What hardware lets a device do with a page that was mapped with `protection`: some formats cannot say "write only",
// and only some say who snoops.
std::uint8_t effective_protection(const PageTableShape& shape, std::uint8_t protection);

}  // namespace ioplan::sim
