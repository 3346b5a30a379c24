// The tree of tables: ways down to an entry, and how tables come, are shared between threads, and go. What is done with
// the entries is radix_table.h's.
//
// A format (vtd_second_stage.h is the plainest) says what an entry looks like and how large tables are. Levels count
// from 0, the level of the smallest pages.
//
// How threads get along. Beside every table lies a word of state (table_arena.h): how many of its entries are in use, a
// mark that it is dead, and an incarnation that changes whenever the memory becomes a table anew.
//
// A writer first counts the entries that it is about to write (reserve), with one compare-and-swap of that word. A
// table whose count is not 0 does not die, so from there on the table, and every table above it, stays.
//
// Whoever takes the count to 0 and then swaps in the mark, unlinks the table from the one above, whose count falls by
// one in turn, and advances the generation. A thread that meets a dead table starts over; the window is a few stores.
//
// On its way down everybody reads the generation first and looks again before following an entry or believing one: as
// long as it stands still, no table of this tree has been freed, and what was read was the tree. A writer's swap then
// fails if the table has died since, whatever it may be by now.
//
// Missing tables are built aside, from the bottom up, counted and written, and become visible with one
// compare-and-swap.
//
// The hardware walker knows none of this; TableArena::WalkGuard keeps freed tables from being reused under it. The only
// lock is the arena's, for handing out and taking back a table. The root never dies: it counts one entry more than it
// holds. Held by tests/page_table_test.cc and tests/page_table_threads_test.cc.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cerrno>
#include <cstdint>
#include <optional>
#include <thread>

#include "backends/sim/page_table/entry.h"
#include "backends/sim/page_table/page_table.h"
#include "backends/sim/page_table/stretch.h"
#include "backends/sim/page_table/tables_at_hand.h"
#include "engine/base/log2.h"

namespace ioplan::sim {

template <class Format>
class RadixTree {
 public:
  // An entry on the way to an address, and where it is. No table: the address lies beyond what the root spans.
  struct Place {
    std::uint64_t table = 0;
    unsigned level = 0;
    Entry entry = 0;
    std::uint64_t state = 0;  // the table's, read while it was in the tree
    bool empty() const { return table == 0 || entry == Format::empty(level); }
  };

  // A table with entries counted for the caller, or why there is none.
  struct Reserved {
    std::uint64_t table = 0;
    int error = 0;
    bool written = false;  // the table was made for the occasion
  };

  // Former roots that a map has put tables on, kept until the map ends, when they may have to be roots again.
  struct Growth {
    unsigned below = 0;  // bitmap of levels: those that hold entries, and stay counted as roots
    std::array<std::uint64_t, Format::kMostLevels> aside{};  // by level: empty ones, out of the tree; or 0
  };

  RadixTree(const Format& format, Range aperture, TableArena& arena)
      : format_(format), aperture_(aperture), arena_(arena), base_(arena.at(0)), states_(arena.states()) {}
  ~RadixTree();
  RadixTree(const RadixTree&) = delete;
  RadixTree& operator=(const RadixTree&) = delete;
  bool plant(unsigned levels);  // the root; false when there is no memory for it

  TableRoot root() const { return current_root().as_table_root(); }
  std::uint64_t table_bytes() const { return table_bytes_.load(std::memory_order_relaxed); }
  std::uint64_t spare_bytes() const;

  // The geometry.
  static constexpr unsigned span_lg2(unsigned level) { return Format::item_lg2(level) + Format::index_bits(level); }
  static constexpr std::uint64_t entries(unsigned level) { return pow2(Format::index_bits(level)); }
  std::uint64_t index(std::uint64_t iova, unsigned level) const {
    return index(iova, level, level == current_root().top());
  }
  // Of an entry that is not empty.
  static constexpr bool is_table(Entry entry, unsigned level) {
    return level != 0 && (entry & Format::kTableMask) == Format::table_value(level);
  }
  // For levels below the root's.
  static std::uint64_t index_below(std::uint64_t iova, unsigned level) { return index(iova, level, false); }
  Entry* slot(std::uint64_t table, std::uint64_t index) const { return entries_at(base_ + table) + index; }

  // The entry for `iova` at level `lowest`, or above it the one that leads no further.
  Place find(std::uint64_t iova, unsigned lowest) const;

  // The leaf for `iova`, when the table of this level is at hand and it lies there; else, and sometimes for no reason,
  // false.
  struct Leaf {
    std::uint64_t table = 0;
    Entry entry = 0;
    Entry* slot = nullptr;
  };
  template <unsigned level>
  bool find_at_hand(std::uint64_t iova, Leaf& leaf) const;

  // The table for `iova` at `level`, with `count` of its entries counted as the caller's; EADDRINUSE (or the format's
  // word for it) or ENOMEM. A table that has to be made is written by `write(first entry)` before anybody sees it, or
  // given up with the error that `write` returns.
  template <class Write>
  Reserved reserve(std::uint64_t iova, unsigned level, std::uint64_t count, Growth& growth, Write&& write);
  // The same, when the table is at hand; else, and sometimes for no reason, false.
  template <unsigned level>
  bool reserve_at_hand(std::uint64_t iova, std::uint64_t count, std::uint64_t& table);
  // Takes the table of a found smallest page at hand, when the same stretch is found the second time in a row.
  void remember_found(std::uint64_t iova, const Place& place);
  // Counts one entry more where a place was found, if the table is still there.
  bool pin(const Place& place);

  // Gives up `count` entries of a table that are empty by now. The table goes when none is left.
  void drop(std::uint64_t table, unsigned level, std::uint64_t iova, std::uint64_t count);
  // Whether a leaf lies at or below some of `count` entries of a table that the caller has entries counted in. False
  // means that there was none, or that the tree moved.
  bool holds_leaf(std::uint64_t table, unsigned level, std::uint64_t first, std::uint64_t count) const;

  static bool full(const Place& place) { return State::count(place.state) == entries(place.level); }
  // Drops a full table with its entries, all of them leaves of the caller's. False when something has come up.
  bool drop_full(const Place& place, std::uint64_t iova);

  // What becomes of the top when a map has succeeded or failed.
  void keep(Growth growth);
  void undo(Growth growth);

 private:
  // Where the tree begins: physical address and number of levels in one word, so that they change together.
  struct Root {
    explicit Root(std::uint64_t w) : word(w) {}
    Root(std::uint64_t pa, unsigned levels) : word(pa | levels) {}
    std::uint64_t pa() const { return word & ~std::uint64_t{7}; }
    unsigned top() const { return (static_cast<unsigned>(word) & 7) - 1; }
    TableRoot as_table_root() const { return {pa(), top() + 1}; }
    std::uint64_t word;
  };

  // The word beside a table.
  struct State {
    static constexpr std::uint64_t kCount = last_of_width(24), kDead = pow2(24), kIncarnation = pow2(25);
    static std::uint64_t count(std::uint64_t state) { return state & kCount; }
    static bool dead(std::uint64_t state) { return (state & kDead) != 0; }
    static std::uint64_t alive(std::uint64_t state) { return state & ~kDead; }
    static std::uint64_t reborn(std::uint64_t state, std::uint64_t count) {
      return (state & ~(kIncarnation - 1)) + kIncarnation + count;
    }
  };

  // A root may have more entries than other tables of its level, or need fewer; none of its address bits is masked
  // away.
  static std::uint64_t index(std::uint64_t iova, unsigned level, bool in_root) {
    const std::uint64_t number = iova >> Format::item_lg2(level);
    return in_root && !Format::kGrows ? number : number & (entries(level) - 1);
  }

  Root current_root() const { return Root(root_.load(std::memory_order_acquire)); }
  std::atomic<std::uint64_t>& state(std::uint64_t table) const { return states_[table >> TableArena::kSmallestLg2]; }
  std::uint64_t generation() const { return generation_.load(std::memory_order_acquire); }
  bool swap_state(std::uint64_t table, std::uint64_t expected, std::uint64_t wanted) const {
    return state(table).compare_exchange_strong(expected, wanted, std::memory_order_acq_rel);
  }
  bool bury(std::uint64_t table, std::uint64_t expected) {
    return swap_state(table, expected, expected | State::kDead);
  }

  template <unsigned level>
  const auto& at_hand() const {
    if constexpr (level == 0) {
      return low_tables_;
    } else {
      return middle_tables_;
    }
  }

  static bool beyond(Root root, std::uint64_t iova, unsigned level);
  bool try_find(std::uint64_t iova, unsigned lowest, Place& place) const;

  std::uint64_t new_table(unsigned level, std::uint64_t count, TableArena::Content content);
  void free_table(std::uint64_t table, unsigned level);
  void release_unlinked(std::uint64_t table, unsigned level);
  std::optional<Reserved> link_new(const Place& above, std::uint64_t iova, unsigned level, std::uint64_t bottom);
  std::uint64_t build_up(std::uint64_t iova, std::uint64_t bottom, unsigned lowest, unsigned level);
  void discard(std::uint64_t table, unsigned level);
  void free_chain(std::uint64_t table, unsigned level, unsigned lowest, std::uint64_t iova);
  void remember(std::uint64_t iova, unsigned level, std::uint64_t table);
  void remove(std::uint64_t table, unsigned level, std::uint64_t iova, std::uint64_t empty_state);
  void unlink(std::uint64_t table, unsigned level, std::uint64_t iova);
  void free_below(std::uint64_t table, unsigned level, std::uint64_t count);

  bool holds_leaf(std::uint64_t table, unsigned level, std::uint64_t first, std::uint64_t count,
                  std::uint64_t generation_before) const;

  int grow(std::uint64_t iova, unsigned level, Growth& growth);
  void set_aside(Root former, Growth& growth);
  bool lower_top(unsigned former, Growth& growth);

  Format format_;
  Range aperture_;
  TableArena& arena_;
  std::byte* base_;
  std::atomic<std::uint64_t>* states_;
  // Read by every call, written only when a table goes or the top changes.
  alignas(64) std::atomic<std::uint64_t> generation_{0};
  std::atomic<std::uint64_t> root_{0};
  // Written whenever a table comes or goes.
  alignas(64) std::atomic<std::uint64_t> table_bytes_{0};
  std::atomic<std::uint64_t> missed_{~std::uint64_t{0}};  // the stretch that was last looked for from further up
  std::array<std::atomic<std::uint64_t>, Format::kMostLevels> spare_{};  // an empty table of each level, or 0
  // 16 KiB and 4 KiB: with 4 KiB pages, all tables of 4 GiB and of 512 GiB.
  alignas(64) TablesAtHand<span_lg2(0), 11> low_tables_;  // of level 0
  TablesAtHand<span_lg2(1), 9> middle_tables_;            // of level 1
};

// ------------------------------------------------------------------------------------------------------ begin and end

template <class Format>
bool RadixTree<Format>::plant(unsigned levels) {
  const unsigned lg2 = format_.root_lg2(levels);
  const std::uint64_t root = arena_.allocate(lg2);
  if (root == 0) return false;
  const Entry empty = Format::empty(levels - 1);
  if (empty != 0) stretch::fill(slot(root, 0), pow2(lg2) / sizeof(Entry), empty);
  state(root).store(State::reborn(state(root).load(std::memory_order_relaxed), 1), std::memory_order_release);
  table_bytes_.store(pow2(lg2), std::memory_order_relaxed);
  root_.store(Root(root, levels).word, std::memory_order_release);
  return true;
}

template <class Format>
RadixTree<Format>::~RadixTree() {
  const Root root = current_root();
  if (root.word == 0) return;
  const unsigned lg2 = format_.root_lg2(root.top() + 1);
  free_below(root.pa(), root.top(), pow2(lg2) / sizeof(Entry));
  arena_.free(root.pa(), lg2);
  for (unsigned level = 0; level < spare_.size(); ++level) {
    const std::uint64_t spare = spare_[level].load(std::memory_order_acquire);
    if (spare != 0) arena_.free(spare, Format::table_lg2(level));
  }
}

template <class Format>
void RadixTree<Format>::free_below(std::uint64_t table, unsigned level, std::uint64_t count) {
  for (std::uint64_t i = 0; level != 0 && i < count; ++i) {
    const Entry entry = load_entry(slot(table, i));
    if (entry == Format::empty(level) || !is_table(entry, level)) continue;
    free_below(Format::table_pa(entry), level - 1, entries(level - 1));
    arena_.free(Format::table_pa(entry), Format::table_lg2(level - 1));
  }
}

template <class Format>
std::uint64_t RadixTree<Format>::spare_bytes() const {
  std::uint64_t bytes = 0;
  for (unsigned level = 0; level < spare_.size(); ++level) {
    if (spare_[level].load(std::memory_order_relaxed) != 0) bytes += pow2(Format::table_lg2(level));
  }
  return bytes;
}

// --------------------------------------------------------------------------------------------------------- ways down

template <class Format>
typename RadixTree<Format>::Place RadixTree<Format>::find(std::uint64_t iova, unsigned lowest) const {
  Place place;
  while (!try_find(iova, lowest, place)) std::this_thread::yield();
  return place;
}

// False when the tree moved meanwhile.
template <class Format>
inline bool RadixTree<Format>::try_find(std::uint64_t iova, unsigned lowest, Place& place) const {
  const std::uint64_t before = generation();
  std::uint64_t table = 0, number = index_below(iova, 1);
  unsigned level = 1;
  if (lowest > 1 || !middle_tables_.find(iova, table)) {
    const Root root = current_root();
    if (beyond(root, iova, lowest)) [[unlikely]] {
      place = {};
      return true;
    }
    table = root.pa();
    level = root.top();
    number = index(iova, level, true);
  }
  Entry entry = load_entry(slot(table, number));
  while (level != lowest && is_table(entry, level) && entry != Format::empty(level)) {
    if (generation() != before) [[unlikely]]
      return false;
    table = Format::table_pa(entry);
    --level;
    entry = load_entry(slot(table, index_below(iova, level)));
  }
  const std::uint64_t word = state(table).load(std::memory_order_acquire);
  place.table = table;
  place.level = level;
  place.entry = entry;
  place.state = word;
  return generation() == before && !State::dead(word);
}

// A reader has no entries in the table, so he counts himself in it for as long as it takes.
template <class Format>
void RadixTree<Format>::remember_found(std::uint64_t iova, const Place& place) {
  const std::uint64_t stretch = iova >> span_lg2(0);
  if (place.level != 0 || place.table == 0) return;
  if (missed_.load(std::memory_order_relaxed) != stretch) return missed_.store(stretch, std::memory_order_relaxed);
  if (!pin(place)) return;
  remember(iova, 0, place.table);
  drop(place.table, 0, iova, 1);
}

template <class Format>
bool RadixTree<Format>::beyond(Root root, std::uint64_t iova, unsigned level) {
  if constexpr (!Format::kGrows) return false;
  const unsigned bits = span_lg2(root.top());
  return root.top() < level || (bits < 64 && iova >> bits != 0);
}

template <class Format>
template <unsigned level>
inline bool RadixTree<Format>::find_at_hand(std::uint64_t iova, Leaf& leaf) const {
  const std::uint64_t before = generation();
  if (!at_hand<level>().find(iova, leaf.table)) [[unlikely]]
    return false;
  leaf.slot = slot(leaf.table, index_below(iova, level));
  leaf.entry = load_entry(leaf.slot);
  return leaf.entry != Format::empty(level) && !is_table(leaf.entry, level) && generation() == before;
}

// ----------------------------------------------------------------------------------------------------------- entries

template <class Format>
template <class Write>
typename RadixTree<Format>::Reserved RadixTree<Format>::reserve(std::uint64_t iova, unsigned level, std::uint64_t count,
                                                                Growth& growth, Write&& write) {
  for (;; std::this_thread::yield()) {
    Place place;
    if (!try_find(iova, level, place)) continue;
    if (place.table == 0) {
      if (const int error = grow(iova, level, growth)) return {0, error};
      continue;
    }
    const bool there = place.level == level;
    if (!there && !place.empty()) return {0, Format::kInUse};
    if (!swap_state(place.table, place.state, place.state + (there ? count : 1))) continue;
    if (there) {
      remember(iova, level, place.table);
      return {place.table};
    }
    const bool full = count == entries(level);
    const std::uint64_t table = new_table(level, count, full ? TableArena::Content::any : TableArena::Content::zeroed);
    int error = table == 0 ? ENOMEM : 0;
    if (error == 0) {
      error = write(slot(table, index_below(iova, level)));
      if (error != 0) discard(table, level);
    }
    if (error != 0) {
      drop(place.table, place.level, iova, 1);
      return {0, error};
    }
    const std::optional<Reserved> linked = link_new(place, iova, level, table);
    if (!linked) continue;
    if (linked->error == 0) remember(iova, level, table);
    return *linked;
  }
}

// Takes a table at hand. One that reaches beyond the aperture is not, nor is a root, whose index is made differently.
template <class Format>
void RadixTree<Format>::remember(std::uint64_t iova, unsigned level, std::uint64_t table) {
  if (level > 1 || current_root().top() <= level) return;
  const std::uint64_t within = last_of_width(span_lg2(level));
  if (!aperture_.contains({iova & ~within, iova | within})) return;
  level == 0 ? low_tables_.remember(iova, table) : middle_tables_.remember(iova, table);
}

template <class Format>
template <unsigned level>
inline bool RadixTree<Format>::reserve_at_hand(std::uint64_t iova, std::uint64_t count, std::uint64_t& table) {
  const std::uint64_t before = generation();
  if (!at_hand<level>().find(iova, table)) [[unlikely]]
    return false;
  // A dead table's state is not what it would be alive, so the swap fails.
  const std::uint64_t expected = State::alive(state(table).load(std::memory_order_acquire));
  return generation() == before && swap_state(table, expected, expected + count);
}

template <class Format>
bool RadixTree<Format>::pin(const Place& place) {
  return swap_state(place.table, place.state, place.state + 1);
}

template <class Format>
inline void RadixTree<Format>::drop(std::uint64_t table, unsigned level, std::uint64_t iova, std::uint64_t count) {
  const std::uint64_t left = state(table).fetch_sub(count, std::memory_order_acq_rel) - count;
  if (State::count(left) == 0) [[unlikely]]
    remove(table, level, iova, left);
}

template <class Format>
[[gnu::noinline]] void RadixTree<Format>::remove(std::uint64_t table, unsigned level, std::uint64_t iova,
                                                 std::uint64_t empty_state) {
  // When the burial fails, somebody has come in the meantime, and it is his to drop.
  if (!bury(table, empty_state)) return;
  unlink(table, level, iova);
  release_unlinked(table, level);
}

template <class Format>
bool RadixTree<Format>::drop_full(const Place& place, std::uint64_t iova) {
  if (!bury(place.table, place.state)) return false;
  unlink(place.table, place.level, iova);
  arena_.free(place.table, Format::table_lg2(place.level));
  return true;
}

template <class Format>
bool RadixTree<Format>::holds_leaf(std::uint64_t table, unsigned level, std::uint64_t first,
                                   std::uint64_t count) const {
  return holds_leaf(table, level, first, count, generation());
}

template <class Format>
bool RadixTree<Format>::holds_leaf(std::uint64_t table, unsigned level, std::uint64_t first, std::uint64_t count,
                                   std::uint64_t generation_before) const {
  for (std::uint64_t i = first; i < first + count; ++i) {
    const Entry entry = load_entry(slot(table, i));
    if (generation() != generation_before) return false;
    if (entry == Format::empty(level)) continue;
    if (!is_table(entry, level)) return true;
    if (holds_leaf(Format::table_pa(entry), level - 1, 0, entries(level - 1), generation_before)) return true;
  }
  return false;
}

// ------------------------------------------------------------------------------------------------------------ tables

// A table with `count` of its entries counted in advance; 0 when memory is out.
template <class Format>
std::uint64_t RadixTree<Format>::new_table(unsigned level, std::uint64_t count, TableArena::Content content) {
  const bool none = spare_[level].load(std::memory_order_relaxed) == 0;
  std::uint64_t table = none ? 0 : spare_[level].exchange(0, std::memory_order_acq_rel);
  if (table == 0) {
    table = arena_.allocate(Format::table_lg2(level), content);
    if (table == 0) return 0;
    if (Format::empty(level) != 0) stretch::fill(slot(table, 0), entries(level), Format::empty(level));
  } else if (arena_.fails_now()) {
    free_table(table, level);
    return 0;
  }
  state(table).store(State::reborn(state(table).load(std::memory_order_relaxed), count), std::memory_order_release);
  table_bytes_.fetch_add(pow2(Format::table_lg2(level)), std::memory_order_relaxed);
  return table;
}

// Frees a table that nobody has seen, whatever it holds.
template <class Format>
void RadixTree<Format>::discard(std::uint64_t table, unsigned level) {
  table_bytes_.fetch_sub(pow2(Format::table_lg2(level)), std::memory_order_relaxed);
  arena_.free(table, Format::table_lg2(level));
}

// Requires: no entry in use, and that nobody can reach the table any more.
template <class Format>
void RadixTree<Format>::free_table(std::uint64_t table, unsigned level) {
  std::uint64_t none = 0;
  if (!spare_[level].compare_exchange_strong(none, table, std::memory_order_acq_rel)) {
    arena_.free(table, Format::table_lg2(level));
  }
}

// Requires: an unlinked table without entries. It may become the spare if no hardware walk can still be in it.
template <class Format>
void RadixTree<Format>::release_unlinked(std::uint64_t table, unsigned level) {
  if (arena_.walked()) {
    arena_.free(table, Format::table_lg2(level));
  } else {
    free_table(table, level);
  }
}

// Hangs a new table of `level`, and those that it takes to lead there, into the empty entry at `above`, which the
// caller has counted. Nothing when another thread was faster.
template <class Format>
std::optional<typename RadixTree<Format>::Reserved> RadixTree<Format>::link_new(const Place& above, std::uint64_t iova,
                                                                                unsigned level, std::uint64_t bottom) {
  const std::uint64_t chain = build_up(iova, bottom, level, above.level - 1);
  Entry expected = Format::empty(above.level);
  const bool linked = chain != 0 && replace_entry(slot(above.table, index(iova, above.level)), expected,
                                                  Format::table(chain, above.level));
  if (linked) return Reserved{bottom, 0, true};
  if (chain != 0) free_chain(chain, above.level - 1, level, iova);
  drop(above.table, above.level, iova, 1);
  if (chain == 0) return Reserved{0, ENOMEM};
  return std::nullopt;
}

// Tables from the one above `bottom` up to `level`, each with nothing but the way to the next. 0 when memory is out,
// and then `bottom` is gone, too.
template <class Format>
std::uint64_t RadixTree<Format>::build_up(std::uint64_t iova, std::uint64_t bottom, unsigned lowest, unsigned level) {
  std::uint64_t below = bottom;
  for (unsigned at = lowest + 1; at <= level; ++at) {
    const std::uint64_t table = new_table(at, 1, TableArena::Content::zeroed);
    if (table == 0) {
      free_chain(below, at - 1, lowest, iova);
      return 0;
    }
    store_entry(slot(table, index_below(iova, at)), Format::table(below, at));
    below = table;
  }
  return below;
}

// Frees what build_up() made and nobody has seen.
template <class Format>
void RadixTree<Format>::free_chain(std::uint64_t table, unsigned level, unsigned lowest, std::uint64_t iova) {
  for (unsigned at = level; at > lowest; --at) {
    Entry* const only = slot(table, index_below(iova, at));
    const std::uint64_t below = Format::table_pa(load_entry(only));
    store_entry(only, Format::empty(at));
    table_bytes_.fetch_sub(pow2(Format::table_lg2(at)), std::memory_order_relaxed);
    free_table(table, at);
    table = below;
  }
  discard(table, lowest);
}

// Takes a dead table out of the tree. The one above lives: it counts this one.
template <class Format>
void RadixTree<Format>::unlink(std::uint64_t table, unsigned level, std::uint64_t iova) {
  if (level == 0) low_tables_.forget(iova, table);
  if (level == 1) middle_tables_.forget(iova, table);
  const Place above = find(iova, level + 1);
  store_entry(slot(above.table, index(iova, level + 1)), Format::empty(level + 1));
  generation_.fetch_add(1, std::memory_order_seq_cst);
  table_bytes_.fetch_sub(pow2(Format::table_lg2(level)), std::memory_order_relaxed);
  drop(above.table, level + 1, iova, 1);
}

// ----------------------------------------------------------------------------------------------------------- the top

// Puts tables on top until the root spans `iova` and can hold entries of `level`.
template <class Format>
int RadixTree<Format>::grow(std::uint64_t iova, unsigned level, Growth& growth) {
  for (;;) {
    const Root root = current_root();
    if (!beyond(root, iova, level)) return 0;
    // Counted, so that nobody takes this root down while there is a new one over it.
    const std::uint64_t before = State::alive(state(root.pa()).load(std::memory_order_acquire));
    if (!swap_state(root.pa(), before, before + 1)) continue;
    const unsigned top = root.top() + 1;
    // The former root, and one for being the root.
    const std::uint64_t table = new_table(top, 2, TableArena::Content::zeroed);
    bool grown = false;
    if (table != 0) {
      store_entry(slot(table, 0), Format::table(root.pa(), top));
      std::uint64_t word = root.word;
      grown = root_.compare_exchange_strong(word, Root(table, top + 1).word, std::memory_order_acq_rel);
      if (!grown) discard(table, top);
    }
    drop(root.pa(), root.top(), 0, 1);
    if (grown) set_aside(root, growth);
    if (table == 0) return ENOMEM;
  }
}

// An empty former root leaves the tree at once: it must not be in the way of a page.
template <class Format>
void RadixTree<Format>::set_aside(Root former, Growth& growth) {
  const std::uint64_t before = State::alive(state(former.pa()).load(std::memory_order_acquire));
  if (State::count(before) == 1 && bury(former.pa(), before)) {
    unlink(former.pa(), former.top(), 0);
    growth.aside[former.top()] = former.pa();
  } else {
    growth.below |= 1U << former.top();
  }
}

// The former roots become tables like others: empty ones go.
template <class Format>
void RadixTree<Format>::keep(Growth growth) {
  for (unsigned level = 0; level < Format::kMostLevels; ++level) {
    if (growth.aside[level] != 0) release_unlinked(growth.aside[level], level);
    if ((growth.below >> level & 1) != 0) drop(find(0, level).table, level, 0, 1);
  }
}

// Makes the former roots roots again, from the top down, as long as nobody else has come to use what is above them.
template <class Format>
void RadixTree<Format>::undo(Growth growth) {
  for (unsigned level = Format::kMostLevels; level-- > 0;) {
    if (growth.aside[level] == 0 && (growth.below >> level & 1) == 0) continue;
    if (!lower_top(level, growth)) return keep(growth);
  }
}

template <class Format>
bool RadixTree<Format>::lower_top(unsigned former, Growth& growth) {
  const Root root = current_root();
  const std::uint64_t before = state(root.pa()).load(std::memory_order_acquire);
  const std::uint64_t aside = growth.aside[former];
  // Nothing in the top but the former root, if that.
  const std::uint64_t held = aside != 0 ? 1 : 2;
  if (root.top() != former + 1 || State::dead(before) || State::count(before) != held || !bury(root.pa(), before)) {
    return false;
  }
  const std::uint64_t table = aside != 0 ? aside : Format::table_pa(load_entry(slot(root.pa(), 0)));
  if (aside != 0) {
    state(aside).store(State::reborn(state(aside).load(std::memory_order_relaxed), 1), std::memory_order_release);
    table_bytes_.fetch_add(pow2(Format::table_lg2(former)), std::memory_order_relaxed);
  }
  root_.store(Root(table, former + 1).word, std::memory_order_release);
  generation_.fetch_add(1, std::memory_order_seq_cst);
  store_entry(slot(root.pa(), 0), Format::empty(root.top()));
  table_bytes_.fetch_sub(pow2(Format::table_lg2(root.top())), std::memory_order_relaxed);
  release_unlinked(root.pa(), root.top());
  growth.aside[former] = 0;
  growth.below &= ~(1U << former);
  return true;
}

}  // namespace ioplan::sim
