// Who maps: our page tables, and the ordered maps that a simulator's author would reach for.
//
// One interface, written as templates so that nobody pays for a virtual call that is not his own. The ordered maps
// refuse overlaps, as a page table does, hold the physical address, the protection and a dirty flag, and are allowed
// every hint that their interface knows: a list of extents is checked once and appended. They are not safe for threads,
// and no hardware could walk them.
#pragma once

#include <absl/container/btree_map.h>

#include <boost/icl/interval_map.hpp>
#include <cerrno>
#include <cstdint>
#include <iterator>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <utility>

#include "backends/sim/page_table/page_table.h"
#include "backends/sim/table_arena.h"
#include "backends/sim/walker.h"
#include "bench/map_operations.h"

namespace ioplan::bench {

inline constexpr std::uint8_t kReadWrite = sim::kRead | sim::kWrite | sim::kCache;

class Table {
 public:
  explicit Table(const sim::PageTableShape& shape) : table_(sim::PageTable::create(shape, *arena_)) {}

  // What a caller holds in a register.
  class Calls {
   public:
    explicit Calls(sim::PageTable& table) : table_(&table) {}
    int map(std::uint64_t iova, std::uint64_t pa, std::uint64_t size) {
      return table_->map(iova, pa, size, kReadWrite);
    }
    int map(std::uint64_t iova, std::span<const sim::Extent> extents) { return table_->map(iova, extents, kReadWrite); }
    std::uint64_t unmap(std::uint64_t iova, std::uint64_t size) { return table_->unmap(iova, size); }
    std::optional<std::uint64_t> translate(std::uint64_t iova) const { return table_->iova_to_phys(iova); }

   private:
    sim::PageTable* table_;
  };
  Calls calls() const { return Calls(*table_); }

  // By simulated DMA: hardware makes pages dirty.
  void make_dirty(std::uint64_t iova) {
    sim::walk(*arena_, table_->shape(), table_->root(), iova, sim::DmaAccess::write);
  }
  void read_and_clear_dirty(Range range, sim::DirtyBitmap bitmap) {
    table_->read_dirty(range, sim::DirtyRead::clear, bitmap);
  }

  bool takes_part(Operation o) const { return !reads_dirty(o) || table_->shape().dirty_tracking; }

 private:
  std::unique_ptr<sim::TableArena> arena_ = std::make_unique<sim::TableArena>();
  std::unique_ptr<sim::PageTable> table_;
};

struct Mapping {
  std::uint64_t size = 0;
  std::uint64_t pa = 0;
  std::uint8_t protection = 0;
  bool dirty = false;
};

inline void mark(const sim::DirtyBitmap& bitmap, std::uint64_t iova, std::uint64_t size) {
  const std::uint64_t first = (iova - bitmap.base) >> bitmap.page_lg2, pages = size >> bitmap.page_lg2;
  for (std::uint64_t page = first; page < first + pages; ++page)
    bitmap.words[page / 64] |= std::uint64_t{1} << page % 64;
}

// std::map and absl::btree_map, from IOVA to a page.
template <class Map>
class OrderedMap {
 public:
  OrderedMap& calls() { return *this; }

  // A run is one node whatever its size: nothing to compare with pages.
  bool takes_part(Operation o) const { return o != Operation::map_run; }

  int map(std::uint64_t iova, std::uint64_t pa, std::uint64_t size) {
    const auto next = map_.lower_bound(iova);
    if (!vacant(next, iova, size)) return EADDRINUSE;
    map_.emplace_hint(next, iova, Mapping{size, pa, kReadWrite});
    return 0;
  }

  int map(std::uint64_t iova, std::span<const sim::Extent> extents) {
    std::uint64_t size = 0;
    for (const sim::Extent& e : extents) size += e.size;
    auto next = map_.lower_bound(iova);
    if (!vacant(next, iova, size)) return EADDRINUSE;
    for (const sim::Extent& e : extents) {
      next = std::next(map_.emplace_hint(next, iova, Mapping{e.size, e.pa, kReadWrite}));
      iova += e.size;
    }
    return 0;
  }

  std::uint64_t unmap(std::uint64_t iova, std::uint64_t size) {
    const auto first = map_.lower_bound(iova);
    std::uint64_t unmapped = 0;
    auto last = first;
    for (; last != map_.end() && last->first < iova + size; ++last) unmapped += last->second.size;
    map_.erase(first, last);
    return unmapped;
  }

  std::optional<std::uint64_t> translate(std::uint64_t iova) const {
    const auto after = map_.upper_bound(iova);
    if (after == map_.begin()) return std::nullopt;
    const auto& [start, page] = *std::prev(after);
    if (iova - start >= page.size) return std::nullopt;
    return page.pa + (iova - start);
  }

  void make_dirty(std::uint64_t iova) { map_.find(iova)->second.dirty = true; }
  void read_and_clear_dirty(Range range, sim::DirtyBitmap bitmap) {
    for (auto it = map_.lower_bound(range.start); it != map_.end() && it->first <= range.last; ++it) {
      if (!it->second.dirty) continue;
      mark(bitmap, it->first, it->second.size);
      it->second.dirty = false;
    }
  }

 private:
  template <class Iterator>
  bool vacant(Iterator next, std::uint64_t iova, std::uint64_t size) {
    if (next != map_.end() && next->first - iova < size) return false;
    if (next == map_.begin()) return true;
    const auto& [start, page] = *std::prev(next);
    return iova - start >= page.size;
  }

  Map map_;
};

using StdMap = OrderedMap<std::map<std::uint64_t, Mapping>>;
using BtreeMap = OrderedMap<absl::btree_map<std::uint64_t, Mapping>>;

// boost::icl::interval_map, from a range of IOVA to the distance of its memory: runs that continue each other join.
class IntervalMap {
 public:
  IntervalMap& calls() { return *this; }

  bool takes_part(Operation o) const { return o != Operation::map_run; }

  int map(std::uint64_t iova, std::uint64_t pa, std::uint64_t size) {
    const Interval interval(iova, iova + size);
    if (boost::icl::intersects(map_, interval)) return EADDRINUSE;
    map_.add({interval, Backing{pa - iova, kReadWrite}});
    return 0;
  }

  int map(std::uint64_t iova, std::span<const sim::Extent> extents) {
    std::uint64_t size = 0;
    for (const sim::Extent& e : extents) size += e.size;
    if (boost::icl::intersects(map_, Interval(iova, iova + size))) return EADDRINUSE;
    auto hint = map_.end();
    for (const sim::Extent& e : extents) {
      hint = map_.add(hint, {Interval(iova, iova + e.size), Backing{e.pa - iova, kReadWrite}});
      iova += e.size;
    }
    return 0;
  }

  std::uint64_t unmap(std::uint64_t iova, std::uint64_t size) {
    const Interval interval(iova, iova + size);
    std::uint64_t unmapped = 0;
    for (auto [it, end] = map_.equal_range(interval); it != end; ++it)
      unmapped += boost::icl::length(it->first & interval);
    map_.erase(interval);
    return unmapped;
  }

  std::optional<std::uint64_t> translate(std::uint64_t iova) const {
    const auto it = map_.find(iova);
    if (it == map_.end()) return std::nullopt;
    return iova + it->second.distance;
  }

  void make_dirty(std::uint64_t iova) { std::as_const(map_).find(iova)->second.dirty = true; }
  void read_and_clear_dirty(Range range, sim::DirtyBitmap bitmap) {
    auto [it, end] = std::as_const(map_).equal_range(Interval(range.start, range.last + 1));
    for (; it != end; ++it) {
      if (!it->second.dirty) continue;
      mark(bitmap, it->first.lower(), boost::icl::length(it->first));
      it->second.dirty = false;
    }
  }

 private:
  struct Backing {
    std::uint64_t distance = 0;
    std::uint8_t protection = 0;
    mutable bool dirty = false;  // an interval per page in every benchmark that reads it, so it never has to split one
    bool operator==(const Backing&) const = default;
    Backing& operator+=(const Backing& other) { return *this = other; }
  };
  using Map = boost::icl::interval_map<std::uint64_t, Backing, boost::icl::partial_enricher, std::less,
                                       boost::icl::inplace_plus, boost::icl::inter_section,
                                       boost::icl::right_open_interval<std::uint64_t>>;
  using Interval = Map::interval_type;

  Map map_;
};

}  // namespace ioplan::bench
