// Map, unmap, translate and read dirty, written once for all formats: the entries of a tree of tables (radix_tree.h,
// which says how threads get along).
//
// Every call has a full path, which takes anything, and most a fast one in front of it, which takes what is common and
// declines the rest: one smallest page whose table is at hand; a list of extents of one size. Both leave the same
// entries behind.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <thread>

#include "backends/sim/page_table/entry.h"
#include "backends/sim/page_table/largest_leaf.h"
#include "backends/sim/page_table/page_table.h"
#include "backends/sim/page_table/radix_tree.h"
#include "backends/sim/page_table/stretch.h"
#include "engine/base/log2.h"

namespace ioplan::sim {

template <class Format>
class RadixTable final : public PageTable {
 public:
  // Null when there is no memory for the root.
  static std::unique_ptr<PageTable> create(const PageTableShape& shape, TableArena& arena);

  int map(std::uint64_t iova, std::span<const Extent> extents, std::uint8_t protection) override;
  int map(std::uint64_t iova, std::uint64_t pa, std::uint64_t size, std::uint8_t protection) override;
  std::uint64_t unmap(std::uint64_t iova, std::uint64_t size) override;
  std::optional<std::uint64_t> iova_to_phys(std::uint64_t iova) const override;
  void read_dirty(Range range, DirtyRead mode, DirtyBitmap bitmap) override;

  TableRoot root() const override { return tree_.root(); }
  std::uint64_t table_bytes() const override { return tree_.table_bytes(); }
  std::uint64_t spare_bytes() const override { return tree_.spare_bytes(); }

 private:
  using Tree = RadixTree<Format>;
  using Place = typename Tree::Place;

  // Leaves of one size, one after the other in one table.
  struct Leaves {
    unsigned lg2 = 0;
    unsigned level = 0;
    std::uint64_t count = 0;
    std::uint64_t slots() const { return count << (lg2 - Format::item_lg2(level)); }
  };

  // A map under way: what all its entries have, and what has become of it so far.
  struct Mapping {
    Entry attributes = 0;
    std::uint64_t done = 0;  // bytes
    typename Tree::Growth growth{};
  };

  RadixTable(const PageTableShape& shape, TableArena& arena);

  // Map.
  int give_back(std::uint64_t table, unsigned level, std::uint64_t iova, std::uint64_t slots);
  int map_other(std::uint64_t iova, std::uint64_t pa, std::uint64_t size, std::uint8_t protection);
  int map_leaf(std::uint64_t iova, std::uint64_t pa, unsigned lg2, Entry attributes);
  enum class Seen : std::uint8_t { by_nobody, by_all };
  template <class Write>
  int claim(std::uint64_t iova, unsigned level, std::uint64_t slots, Mapping& mapping, Write&& write);
  int check(std::uint64_t iova, std::span<const Extent> extents, Entry attributes) const;
  bool looks_like_list(std::uint64_t iova, std::span<const Extent> extents, Entry attributes) const;
  bool is_list(stretch::Common common, std::uint64_t size) const;
  int map_runs(std::uint64_t iova, std::span<const Extent> extents, Mapping& mapping);
  int map_run(std::uint64_t iova, Extent run, Mapping& mapping);
  int map_list(std::uint64_t iova, std::span<const Extent> extents, Mapping& mapping);
  std::uint64_t plain_extents(std::uint64_t iova, std::span<const Extent> extents, unsigned lg2) const;
  int map_extents(std::uint64_t iova, std::span<const Extent> extents, unsigned lg2, Mapping& mapping);
  int finish(std::uint64_t iova, int error, const Mapping& mapping);
  Leaves best_leaves(std::uint64_t iova, Extent run) const;
  void write_leaves(Entry* first, std::uint64_t pa, const Leaves& leaves, Entry attributes) const;
  void write_leaf(Entry* first, std::uint64_t pa, unsigned level, unsigned lg2, Entry attributes) const;

  // Leaf sizes between two levels live at the higher level whose item is not larger.
  static constexpr auto kLevelOf = [] {
    std::array<std::uint8_t, 64> levels{};
    for (unsigned lg2 = 0; lg2 < levels.size(); ++lg2) {
      for (unsigned level = 1; level < Format::kMostLevels && Format::item_lg2(level) <= lg2; ++level) ++levels[lg2];
    }
    return levels;
  }();
  bool is_leaf_size(std::uint64_t size) const { return (size & (size - 1)) == 0 && (size & shape().page_sizes) != 0; }
  static constexpr bool steps_evenly(std::uint64_t addresses) { return addresses >> Format::kEvenBits == 0; }
  static constexpr Entry shifted(std::uint64_t pa) { return pa << Format::kAddressLeft >> Format::kAddressRight; }

  // Unmap.
  struct Cleared {
    std::uint64_t slots = 0, bytes = 0;
    bool stopped = false;
  };
  std::uint64_t unmap_other(std::uint64_t iova, std::uint64_t size);
  std::uint64_t unmap_range(std::uint64_t iova, std::uint64_t size);
  bool holds_tables(const Place& place, std::uint64_t first, std::uint64_t count) const;
  bool drop_whole(const Place& place, std::uint64_t iova, std::uint64_t last);
  Cleared clear_leaves(const Place& place, std::uint64_t iova, std::uint64_t last) const;

  std::optional<std::uint64_t> translate(std::uint64_t iova) const;
  static std::optional<std::uint64_t> address(Entry leaf, unsigned level, std::uint64_t iova);

  // Dirty.
  std::optional<std::uint64_t> scan(const Place& place, Range range, DirtyRead mode, DirtyBitmap bitmap) const;
  void take_dirty(Entry* first, std::uint64_t slots, DirtyRead mode) const;
  std::uint64_t slots_of(const Place& place, std::uint64_t i) const;
  bool clean(const Place& place, std::uint64_t first, std::uint64_t end) const;

  // Entries looked at together: no page of the lowest level has entries in two blocks.
  static constexpr std::uint64_t kBlock = std::max<std::uint64_t>(32, Format::kLargestGroup);

  // What a single smallest page has to satisfy.
  const std::uint64_t page_bytes_;  // 0, which no size is, when the table's smallest page is not the format's
  const std::uint64_t last_pa_;
  const std::uint64_t unusual_bits_;
  static constexpr std::uint8_t kProtections = kRead | kWrite | kCache;
  std::array<Entry, kProtections + 1> attributes_{};  // by protection; 0: cannot be had
  mutable Tree tree_;                                 // translations take tables at hand
};

template <class Format>
RadixTable<Format>::RadixTable(const PageTableShape& shape, TableArena& arena)
    : PageTable(shape),
      page_bytes_(lowest_bit(shape.page_sizes) == pow2(Format::kPageLg2) ? pow2(Format::kPageLg2) : 0),
      last_pa_(last_of_width(std::min(shape.output_bits, Format::kOutputBits))),
      unusual_bits_(~last_pa_ | last_of_width(Format::kPageLg2)),
      tree_(Format(shape), shape.aperture, arena) {
  const Format format(shape);
  for (std::uint8_t p = 0; p < attributes_.size(); ++p) {
    if ((p & (kRead | kWrite)) != 0) attributes_[p] = format.attributes(p);
  }
}

template <class Format>
std::unique_ptr<PageTable> RadixTable<Format>::create(const PageTableShape& shape, TableArena& arena) {
  std::unique_ptr<RadixTable> table(new RadixTable(shape, arena));
  if (!table->tree_.plant(shape.levels)) return nullptr;
  return table;
}

// --------------------------------------------------------------------------------------------------------------- map

// One smallest page whose table is at hand; all else is map_other()'s.
template <class Format>
int RadixTable<Format>::map(std::uint64_t iova, std::uint64_t pa, std::uint64_t size, std::uint8_t protection) {
  // Misaligned, or beyond what is surely wide enough. Tables at hand lie within the aperture.
  if (size != page_bytes_ || ((iova | pa) & unusual_bits_) != 0) [[unlikely]]
    return map_other(iova, pa, size, protection);
  const Entry attributes = attributes_[protection & kProtections];
  std::uint64_t table = 0;
  if (attributes == 0 || !tree_.template reserve_at_hand<0>(iova, 1, table)) [[unlikely]] {
    return map_other(iova, pa, page_bytes_, protection);
  }
  Entry* const slot = tree_.slot(table, Tree::index_below(iova, 0));
  if (load_entry(slot) != Format::empty(0)) [[unlikely]]
    return give_back(table, 0, iova, 1);
  store_entry(slot, Format::leaf(pa, 0, Format::kPageLg2, attributes));
  return 0;
}

template <class Format>
[[gnu::noinline]] int RadixTable<Format>::give_back(std::uint64_t table, unsigned level, std::uint64_t iova,
                                                    std::uint64_t slots) {
  tree_.drop(table, level, iova, slots);
  return Format::kInUse;
}

template <class Format>
[[gnu::noinline]] int RadixTable<Format>::map_other(std::uint64_t iova, std::uint64_t pa, std::uint64_t size,
                                                    std::uint8_t protection) {
  const Entry attributes = attributes_[protection & kProtections];
  const auto [start, last] = shape().aperture;
  // Aligned to its size, a leaf ends where its start's bits say: within the width when they are.
  if (attributes != 0 && is_leaf_size(size) && ((iova | pa) & (size - 1)) == 0 && (pa | (size - 1)) <= last_pa_ &&
      iova >= start && (iova | (size - 1)) <= last) {
    return map_leaf(iova, pa, static_cast<unsigned>(std::countr_zero(size)), attributes);
  }
  const Extent extent{pa, size};
  return map(iova, std::span(&extent, 1), protection);
}

// One leaf, which every check has passed.
template <class Format>
int RadixTable<Format>::map_leaf(std::uint64_t iova, std::uint64_t pa, unsigned lg2, Entry attributes) {
  std::uint64_t table = 0;
  if (lg2 == Format::item_lg2(1) && tree_.template reserve_at_hand<1>(iova, 1, table)) {
    Entry* const slot = tree_.slot(table, Tree::index_below(iova, 1));
    if (load_entry(slot) == Format::empty(1)) [[likely]] {
      store_entry(slot, Format::leaf(pa, 1, lg2, attributes));
      return 0;
    }
    tree_.drop(table, 1, iova, 1);
  }
  Mapping mapping{attributes};
  const unsigned level = kLevelOf[lg2];
  const int error = claim(iova, level, pow2(lg2 - Format::item_lg2(level)), mapping, [&](Entry* first, Seen) {
    write_leaf(first, pa, level, lg2, attributes);
    return 0;
  });
  return finish(iova, error, mapping);
}

// Counts `slots` entries of the table of `level` for `iova`, makes sure that they are empty, and has them written by
// `write(first entry, who sees it)`, which may refuse with an error as long as it has written nothing that is seen.
template <class Format>
template <class Write>
int RadixTable<Format>::claim(std::uint64_t iova, unsigned level, std::uint64_t slots, Mapping& mapping,
                              Write&& write) {
  const auto write_unseen = [&](Entry* first) { return write(first, Seen::by_nobody); };
  for (;; std::this_thread::yield()) {
    std::uint64_t table = 0;
    if ((level != 0 || !tree_.template reserve_at_hand<0>(iova, slots, table)) &&
        (level != 1 || !tree_.template reserve_at_hand<1>(iova, slots, table))) {
      const typename Tree::Reserved reserved = tree_.reserve(iova, level, slots, mapping.growth, write_unseen);
      if (reserved.error != 0 || reserved.written) return reserved.error;
      table = reserved.table;
    }
    const std::uint64_t index = tree_.index(iova, level);
    Entry* const first = tree_.slot(table, index);
    if (slots == 1 ? load_entry(first) == Format::empty(level) : stretch::all(first, slots, Format::empty(level))) {
      const int error = write(first, Seen::by_all);
      if (error != 0) tree_.drop(table, level, iova, slots);
      return error;
    }
    // A table without leaves is no obstacle: it is there as long as a scan has counted itself in it.
    const bool taken = tree_.holds_leaf(table, level, index, slots);
    tree_.drop(table, level, iova, slots);
    if (taken) return Format::kInUse;
  }
}

template <class Format>
int RadixTable<Format>::map(std::uint64_t iova, std::span<const Extent> extents, std::uint8_t protection) {
  const Entry attributes = attributes_[protection & kProtections];
  if (looks_like_list(iova, extents, attributes)) {
    // The list is looked at while it is mapped. When it turns out to be something else, all is as before.
    Mapping mapping{attributes};
    const int error = finish(iova, map_list(iova, extents, mapping), mapping);
    if (error == 0) return 0;
    if (error == ENOMEM && check(iova, extents, attributes) == 0) return ENOMEM;
  }
  if (const int error = check(iova, extents, attributes)) return error;
  Mapping mapping{attributes};
  return finish(iova, map_runs(iova, extents, mapping), mapping);
}

// All or nothing.
template <class Format>
int RadixTable<Format>::finish(std::uint64_t iova, int error, const Mapping& mapping) {
  if (error != 0 && mapping.done != 0) unmap_range(iova, mapping.done);
  if constexpr (Format::kGrows) error != 0 ? tree_.undo(mapping.growth) : tree_.keep(mapping.growth);
  return error;
}

template <class Format>
int RadixTable<Format>::check(std::uint64_t iova, std::span<const Extent> extents, Entry attributes) const {
  if (extents.empty() || attributes == 0) return EINVAL;
  std::uint64_t bits = iova;
  for (const Extent& e : extents) {
    if (e.size == 0) return EINVAL;
    bits |= e.pa | e.size;
  }
  if ((bits & (lowest_bit(shape().page_sizes) - 1)) != 0) return EINVAL;

  const auto [start, last] = shape().aperture;
  if (iova < start || iova > last) return ERANGE;
  std::uint64_t left = last - iova;  // bytes that fit, less one
  for (const Extent& e : extents) {
    if (e.size - 1 > left || e.pa > last_pa_ || e.size - 1 > last_pa_ - e.pa) return ERANGE;
    if (e.size > left && &e != &extents.back()) return ERANGE;
    left -= e.size;
  }
  return 0;
}

// Whether the first extent has the size of an item, and so many of them would be right.
template <class Format>
bool RadixTable<Format>::looks_like_list(std::uint64_t iova, std::span<const Extent> extents, Entry attributes) const {
  if (extents.size() < 2 || attributes == 0 || !is_leaf_size(extents[0].size)) return false;
  const unsigned lg2 = static_cast<unsigned>(std::countr_zero(extents[0].size));
  const auto [start, last] = shape().aperture;
  return lg2 == Format::item_lg2(kLevelOf[lg2]) && (iova & last_of_width(lg2)) == 0 && iova >= start && iova <= last &&
         extents.size() <= (last - iova) >> lg2;
}

// Whether extents of which the first has this size are such a list.
template <class Format>
bool RadixTable<Format>::is_list(stretch::Common common, std::uint64_t size) const {
  return common.sizes == 0 && (common.addresses & (size - 1)) == 0 && (common.addresses | (size - 1)) <= last_pa_ &&
         steps_evenly(common.addresses);
}

// Takes extents that continue each other as one.
template <class Format>
int RadixTable<Format>::map_runs(std::uint64_t iova, std::span<const Extent> extents, Mapping& mapping) {
  int error = 0;
  for (std::size_t i = 0; error == 0 && i < extents.size();) {
    Extent run = extents[i];
    while (++i < extents.size() && extents[i].pa == run.pa + run.size) run.size += extents[i].size;
    error = map_run(iova, run, mapping);
    iova += run.size;
  }
  return error;
}

template <class Format>
int RadixTable<Format>::map_run(std::uint64_t iova, Extent run, Mapping& mapping) {
  while (run.size != 0) {
    const Leaves leaves = best_leaves(iova, run);
    const int error = claim(iova, leaves.level, leaves.slots(), mapping, [&](Entry* first, Seen) {
      write_leaves(first, run.pa, leaves, mapping.attributes);
      return 0;
    });
    if (error != 0) return error;
    const std::uint64_t bytes = leaves.count << leaves.lg2;
    mapping.done += bytes;
    iova += bytes;
    run = {run.pa + bytes, run.size - bytes};
  }
  return 0;
}

// The largest leaf that the start of the run can have, and how many of them follow each other in one table before the
// end of the run, or before a still larger one fits.
template <class Format>
typename RadixTable<Format>::Leaves RadixTable<Format>::best_leaves(std::uint64_t iova, Extent run) const {
  const std::uint64_t sizes = shape().page_sizes;
  Leaves leaves;
  leaves.lg2 = largest_leaf_lg2(sizes, iova, run);
  leaves.level = kLevelOf[leaves.lg2];
  const unsigned span = std::min(Tree::span_lg2(leaves.level), 63U);
  const std::uint64_t bytes =
      std::min(bytes_of_leaf_size(sizes, iova, run, leaves.lg2), pow2(span) - (iova & last_of_width(span)));
  leaves.count = bytes >> leaves.lg2;
  return leaves;
}

template <class Format>
void RadixTable<Format>::write_leaves(Entry* first, std::uint64_t pa, const Leaves& leaves, Entry attributes) const {
  const std::uint64_t slots = pow2(leaves.lg2 - Format::item_lg2(leaves.level));
  const bool each_its_own = slots == 1 || Format::kAddressInEveryEntry;
  if (each_its_own && steps_evenly(pa + ((leaves.count << leaves.lg2) - 1))) {
    stretch::write(first, leaves.count * slots, Format::leaf(pa, leaves.level, leaves.lg2, attributes),
                   shifted(pow2(Format::item_lg2(leaves.level))));
    return;
  }
  for (std::uint64_t leaf = 0; leaf < leaves.count; ++leaf) {
    write_leaf(first + leaf * slots, pa + (leaf << leaves.lg2), leaves.level, leaves.lg2, attributes);
  }
}

template <class Format>
void RadixTable<Format>::write_leaf(Entry* first, std::uint64_t pa, unsigned level, unsigned lg2,
                                    Entry attributes) const {
  const unsigned item = Format::item_lg2(level);
  if (lg2 == item) return store_entry(first, Format::leaf(pa, level, lg2, attributes));
  if (!Format::kAddressInEveryEntry)
    return stretch::fill(first, pow2(lg2 - item), Format::leaf(pa, level, lg2, attributes));
  for (std::uint64_t i = 0; i < pow2(lg2 - item); ++i) {
    store_entry(first + i, Format::leaf(pa + (i << item), level, lg2, attributes));
  }
}

// Extents of one size, which is that of an item: most lists are scattered pages, and one entry each is all there is to
// it. EINVAL when they are not, after all.
template <class Format>
int RadixTable<Format>::map_list(std::uint64_t iova, std::span<const Extent> extents, Mapping& mapping) {
  const std::uint64_t size = extents[0].size;
  const unsigned lg2 = static_cast<unsigned>(std::countr_zero(size));
  while (!extents.empty()) {
    std::uint64_t count = plain_extents(iova, extents, lg2);
    int error = 0;
    if (count != 0) {
      error = map_extents(iova, extents.first(count), lg2, mapping);
    } else {
      do ++count;
      while (count < extents.size() && extents[count].pa == extents[count - 1].pa + size);
      if (!is_list(stretch::common(extents.first(count), size), size)) return EINVAL;
      error = map_run(iova, {extents[0].pa, count * size}, mapping);
    }
    if (error != 0) return error;
    iova += count * size;
    extents = extents.subspan(count);
  }
  return 0;
}

// How many extents follow that no larger page can take any of, up to the end of the table. A larger page takes an
// aligned group of extents, whose first and last lie as far apart as they would in it.
template <class Format>
std::uint64_t RadixTable<Format>::plain_extents(std::uint64_t iova, std::span<const Extent> extents,
                                                unsigned lg2) const {
  const unsigned level = kLevelOf[lg2];
  const std::uint64_t to_end = Tree::entries(level) - (iova >> lg2 & (Tree::entries(level) - 1));
  const std::uint64_t most = std::min<std::uint64_t>(extents.size(), to_end);
  const std::uint64_t larger = lowest_bit(shape().page_sizes & ~last_of_width(lg2 + 1));
  if (larger == 0) return most;
  const std::uint64_t group = larger >> lg2;
  const std::uint64_t apart = larger - pow2(lg2);
  for (std::uint64_t i = ((~iova + 1) & (larger - 1)) >> lg2; i < most && group <= extents.size() - i; i += group) {
    const std::uint64_t pa = extents[i].pa;
    if (extents[i + group - 1].pa - pa == apart && (pa & (larger - 1)) == 0) return i;
  }
  return most;
}

template <class Format>
int RadixTable<Format>::map_extents(std::uint64_t iova, std::span<const Extent> extents, unsigned lg2,
                                    Mapping& mapping) {
  const std::uint64_t size = pow2(lg2);
  const unsigned level = kLevelOf[lg2];
  const Entry bits = Format::leaf(0, level, lg2, mapping.attributes);
  const int error = claim(iova, level, extents.size(), mapping, [&](Entry* first, Seen seen) {
    if (seen == Seen::by_all && !is_list(stretch::common(extents, size), size)) return EINVAL;
    const stretch::Common common =
        stretch::write_each(first, extents, size, Format::kAddressLeft, Format::kAddressRight, bits);
    return is_list(common, size) ? 0 : EINVAL;
  });
  if (error == 0) mapping.done += extents.size() << lg2;
  return error;
}

// ------------------------------------------------------------------------------------------------------------- unmap

template <class Format>
std::uint64_t RadixTable<Format>::unmap(std::uint64_t iova, std::uint64_t size) {
  typename Tree::Leaf leaf;
  if (size != page_bytes_ || (iova & (pow2(Format::kPageLg2) - 1)) != 0 ||
      !tree_.template find_at_hand<0>(iova, leaf) || Format::leaf_lg2(leaf.entry, 0) != Format::kPageLg2) [[unlikely]] {
    return unmap_other(iova, size);
  }
  store_entry(leaf.slot, Format::empty(0));
  tree_.drop(leaf.table, 0, iova, 1);
  return pow2(Format::kPageLg2);
}

// One larger leaf whose table is at hand; else whatever there is.
template <class Format>
[[gnu::noinline]] std::uint64_t RadixTable<Format>::unmap_other(std::uint64_t iova, std::uint64_t size) {
  typename Tree::Leaf leaf;
  const bool low = tree_.template find_at_hand<0>(iova, leaf);
  if (!low && !tree_.template find_at_hand<1>(iova, leaf)) return unmap_range(iova, size);
  const unsigned level = low ? 0 : 1;
  if (pow2(Format::leaf_lg2(leaf.entry, level)) != size || (iova & (size - 1)) != 0) return unmap_range(iova, size);
  const std::uint64_t slots = size >> Format::item_lg2(level);
  if (slots == 1) {
    store_entry(leaf.slot, Format::empty(level));
  } else {
    stretch::fill(leaf.slot, slots, Format::empty(level));
  }
  tree_.drop(leaf.table, level, iova, slots);
  return size;
}

template <class Format>
std::uint64_t RadixTable<Format>::unmap_range(std::uint64_t iova, std::uint64_t size) {
  if (size == 0 || iova > shape().aperture.last) return 0;
  const std::uint64_t last = std::min(shape().aperture.last, size - 1 > ~iova ? ~std::uint64_t{0} : iova + (size - 1));
  std::uint64_t done = 0;
  while (done <= last - iova) {
    const std::uint64_t at = iova + done;
    const Place place = tree_.find(at, 0);
    if (place.empty()) break;
    if (size == page_bytes_) tree_.remember_found(at, place);
    if (drop_whole(place, at, last)) {
      done += pow2(Tree::span_lg2(place.level));
    } else {
      const Cleared cleared = clear_leaves(place, at, last);
      done += cleared.bytes;
      if (cleared.slots != 0) tree_.drop(place.table, place.level, at, cleared.slots);
      if (cleared.stopped) break;
    }
    if (done == 0) break;  // the whole space of 2^64 bytes, gone
  }
  return done;
}

// Drops a full table of leaves as a whole when the range covers it.
template <class Format>
bool RadixTable<Format>::drop_whole(const Place& place, std::uint64_t iova, std::uint64_t last) {
  const std::uint64_t within = last_of_width(Tree::span_lg2(place.level));
  if ((iova & within) != 0 || last - iova < within || !Tree::full(place)) return false;
  return !holds_tables(place, 0, Tree::entries(place.level)) && tree_.drop_full(place, iova);
}

// False is sure; empty entries may be taken for tables.
template <class Format>
bool RadixTable<Format>::holds_tables(const Place& place, std::uint64_t first, std::uint64_t count) const {
  return place.level != 0 &&
         stretch::any(tree_.slot(place.table, first), count, Format::kTableMask, Format::table_value(place.level));
}

// Clears leaves from `iova` to `last` up to the end of the table, or to an entry that leads to another table.
template <class Format>
typename RadixTable<Format>::Cleared RadixTable<Format>::clear_leaves(const Place& place, std::uint64_t iova,
                                                                      std::uint64_t last) const {
  const unsigned level = place.level, item = Format::item_lg2(level);
  const Entry empty = Format::empty(level);
  const std::uint64_t index = tree_.index(iova, level);
  // Past the end of a table lies the next one of a root of several.
  const std::uint64_t room = Tree::entries(level) - (index & (Tree::entries(level) - 1));
  const std::uint64_t items =
      std::min(room, ((last - iova) >> item) + (((last - iova) & last_of_width(item)) == last_of_width(item)));
  const std::uint64_t within = iova & last_of_width(item);
  Entry* const first = tree_.slot(place.table, index);
  std::uint64_t i = 0;
  bool stopped = within != 0;
  while (!stopped && i < room) {
    const Entry entry = load_entry(first + i);
    if (entry != empty && Tree::is_table(entry, level)) break;
    const unsigned lg2 = entry == empty ? 0 : Format::leaf_lg2(entry, level);
    const std::uint64_t slots = lg2 == item ? 1 : lg2 == 0 ? 0 : pow2(lg2 - item);
    stopped = slots == 0 || ((index + i) & (slots - 1)) != 0 || slots > items - i;
    if (stopped) break;
    for (std::uint64_t s = 0; s < slots; ++s) store_entry(first + i + s, empty);
    i += slots;
  }
  return {i, i << item, stopped};
}

// --------------------------------------------------------------------------------------------------------- translate

template <class Format>
std::optional<std::uint64_t> RadixTable<Format>::iova_to_phys(std::uint64_t iova) const {
  typename Tree::Leaf leaf;
  if (!tree_.template find_at_hand<0>(iova, leaf)) [[unlikely]]
    return translate(iova);
  return address(leaf.entry, 0, iova);
}

template <class Format>
[[gnu::noinline]] std::optional<std::uint64_t> RadixTable<Format>::translate(std::uint64_t iova) const {
  typename Tree::Leaf leaf;
  if (tree_.template find_at_hand<1>(iova, leaf)) return address(leaf.entry, 1, iova);
  if (iova < shape().aperture.start || iova > shape().aperture.last) return std::nullopt;
  const Place place = tree_.find(iova, 0);
  if (place.empty()) return std::nullopt;
  tree_.remember_found(iova, place);
  return address(place.entry, place.level, iova);
}

// Where a leaf leads an address. Not `return address`, of which g++ 12 makes a narrow store and a wide load, which is
// 20 cycles lost.
template <class Format>
inline std::optional<std::uint64_t> RadixTable<Format>::address(Entry leaf, unsigned level, std::uint64_t iova) {
  const std::uint64_t within = last_of_width(Format::leaf_lg2(leaf, level));
  const std::uint64_t where = Format::leaf_pa(leaf, level) | (iova & within);
  std::optional<std::uint64_t> pa;
  pa.emplace(where);
  return pa;
}

// ------------------------------------------------------------------------------------------------------------- dirty

// Marks the pages from `start` to `last`.
inline void mark(DirtyBitmap bitmap, std::uint64_t start, std::uint64_t last) {
  const std::uint64_t last_bit = (last - bitmap.base) >> bitmap.page_lg2;
  for (std::uint64_t bit = (start - bitmap.base) >> bitmap.page_lg2; bit <= last_bit; bit = (bit | 63) + 1) {
    const std::uint64_t upto = std::min(last_bit, bit | 63);
    bitmap.words[bit / 64] |= last_of_width(static_cast<unsigned>(upto - bit + 1)) << (bit % 64);
  }
}

template <class Format>
void RadixTable<Format>::read_dirty(Range range, DirtyRead mode, DirtyBitmap bitmap) {
  if (!shape().dirty_tracking) return;
  range.last = std::min(range.last, shape().aperture.last);
  while (range.start <= range.last) {
    const Place place = tree_.find(range.start, 0);
    if (place.table == 0) return;
    std::optional<std::uint64_t> through = range.start | last_of_width(Format::item_lg2(place.level));
    if (!place.empty()) {
      // Counted like an entry, so that the table cannot become another one under the scan.
      if (!tree_.pin(place)) continue;
      through = scan(place, range, mode, bitmap);
      tree_.drop(place.table, place.level, range.start, 1);
    }
    if (!through) continue;
    if (*through >= range.last) return;
    range.start = *through + 1;
  }
}

// Scans the leaves of one table from the start of `range` on; the last address that it has settled. Nothing when the
// first entry leads to another table by now.
template <class Format>
std::optional<std::uint64_t> RadixTable<Format>::scan(const Place& place, Range range, DirtyRead mode,
                                                      DirtyBitmap bitmap) const {
  const unsigned item = Format::item_lg2(place.level);
  const Entry empty = Format::empty(place.level);
  const auto address = [&, first = tree_.index(range.start, place.level)](std::uint64_t i) {
    return (range.start & ~last_of_width(item)) + ((i - first) << item);
  };
  std::uint64_t i = tree_.index(range.start, place.level);
  const std::uint64_t items_left = (range.last >> item) - (range.start >> item) + 1;
  std::uint64_t end = std::min((i | (Tree::entries(place.level) - 1)) + 1, i + items_left);
  if constexpr (Format::kLargestGroup > 1) {
    // Leaves that begin before the range or end after it are looked at as a whole.
    i &= ~(slots_of(place, i) - 1);
    end = ((end - 1) | (slots_of(place, end - 1) - 1)) + 1;
  }
  if (clean(place, i, end)) return address(end) - 1;
  while (i < end) {
    const std::uint64_t block_end = std::min(end, i + kBlock);
    if (i % kBlock == 0 && clean(place, i, block_end)) {
      i = block_end;
      continue;
    }
    // A leaf of several entries is dirty when any of them is.
    const Entry entry = load_entry(tree_.slot(place.table, i));
    if ((entry & Format::kDirtyMask) == Format::kDirtyValue) {
      const unsigned lg2 = Format::leaf_lg2(entry, place.level);
      const std::uint64_t slots = pow2(lg2 - item), start = address(i) & ~last_of_width(lg2);
      i &= ~(slots - 1);
      take_dirty(tree_.slot(place.table, i), slots, mode);
      mark(bitmap, std::max(start, range.start), std::min(start | last_of_width(lg2), range.last));
      i += slots;
    } else if (place.level != 0 && entry != empty && Tree::is_table(entry, place.level)) {
      if (address(i) <= range.start) return std::nullopt;
      break;
    } else {
      ++i;
    }
  }
  return address(i) - 1;
}

// How many entries the leaf has that entry `i` belongs to; 1 when there is none.
template <class Format>
std::uint64_t RadixTable<Format>::slots_of(const Place& place, std::uint64_t i) const {
  const Entry entry = load_entry(tree_.slot(place.table, i));
  if (entry == Format::empty(place.level) || Tree::is_table(entry, place.level)) return 1;
  return pow2(Format::leaf_lg2(entry, place.level) - Format::item_lg2(place.level));
}

// Whether no leaf that has entries between `first` and `end` is dirty, and none leads to a table; false when it takes a
// closer look.
template <class Format>
bool RadixTable<Format>::clean(const Place& place, std::uint64_t first, std::uint64_t end) const {
  const std::uint64_t from = first & ~(kBlock - 1), to = (end + kBlock - 1) & ~(kBlock - 1);
  return !stretch::any(tree_.slot(place.table, from), to - from, Format::kDirtyMask, Format::kDirtyValue) &&
         !holds_tables(place, from, to - from);
}

// Makes the entries of a leaf clean, unless it is to stay dirty. What hardware reports before the bit is cleared has
// been told; what it reports afterwards stays.
template <class Format>
void RadixTable<Format>::take_dirty(Entry* first, std::uint64_t slots, DirtyRead mode) const {
  if (mode == DirtyRead::keep) return;
  for (std::uint64_t i = 0; i < slots; ++i) {
    Entry entry = load_entry(first + i);
    if ((entry & Format::kDirtyMask) != Format::kDirtyValue) continue;
    if constexpr (Format::kCleanedByClearing) {
      clear_bits(first + i, Format::kDirtyMask & ~Format::cleaned(Format::kDirtyMask));
    } else {
      while ((entry & Format::kDirtyMask) == Format::kDirtyValue &&
             !replace_entry(first + i, entry, Format::cleaned(entry))) {
      }
    }
  }
}

}  // namespace ioplan::sim
