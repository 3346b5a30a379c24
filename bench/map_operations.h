// The operations that are timed and counted, written once for every contestant (map_contestants.h).
//
// An operation is prepared (the contestant filled or emptied; untimed), performed (timed), and judged by what it left
// or gave back (untimed), every time. The contestant stays, so tables, nodes and caches are warm.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "bench/map_workload.h"

namespace ioplan::bench {

enum class Operation : std::uint8_t {
  map_each,         // one call per page of scattered memory, ascending IOVA
  map_each_random,  // the same, IOVA shuffled
  map_list,         // one call with the extents
  map_run,          // one call, memory contiguous
  unmap_each,       // one call per page
  unmap_each_random,
  unmap_all,  // one call
  translate,  // one call per page, ascending
  translate_random,
  dirty_none,  // read and clear over the whole range, nothing dirty
  dirty_1_in_64,
  dirty_all,
};
inline constexpr std::array<std::string_view, 12> kOperationNames = {
    "map-each",  "map-each-random", "map-list",         "map-run",    "unmap-each",    "unmap-each-random",
    "unmap-all", "translate",       "translate-random", "dirty-none", "dirty-1-in-64", "dirty-all"};

inline std::string_view name(Operation o) { return kOperationNames[static_cast<std::size_t>(o)]; }
inline bool maps(Operation o) { return o <= Operation::map_run; }
inline bool unmaps(Operation o) { return o >= Operation::unmap_each && o <= Operation::unmap_all; }
inline bool reads_dirty(Operation o) { return o >= Operation::dirty_none; }

// How many pages lie between two dirty ones; 0: none is.
inline std::size_t dirty_stride(Operation o) {
  if (o == Operation::dirty_none) return 0;
  return o == Operation::dirty_all ? 1 : 64;
}

template <class Contestant>
class Trial {
  using Calls = decltype(std::declval<Contestant&>().calls());  // a value, or a reference to the contestant

 public:
  Trial(Contestant& contestant, const Workload& work)
      : contestant_(contestant), calls_(contestant.calls()), work_(work), words_(work.pages() / 64) {}

  void prepare(Operation o) {
    if (maps(o)) {
      empty();
    } else if (content_ != Content::scattered) {
      fill();
    }
    if (!reads_dirty(o)) return read_list();
    mark_dirty(dirty_stride(o));
  }

  // What the calls gave back, added up.
  std::uint64_t perform(Operation o) {
    switch (o) {
      case Operation::map_each:
        return map_each(Ascending{});
      case Operation::map_each_random:
        return map_each(work_.order.data());
      case Operation::map_list:
        return static_cast<std::uint64_t>(calls_.map(Workload::kBase, work_.extents));
      case Operation::map_run:
        return static_cast<std::uint64_t>(calls_.map(Workload::kBase, work_.contiguous_pa(0), work_.size()));
      case Operation::unmap_each:
        return unmap_each(Ascending{});
      case Operation::unmap_each_random:
        return unmap_each(work_.order.data());
      case Operation::unmap_all:
        return calls_.unmap(Workload::kBase, work_.size());
      case Operation::translate:
        return translate(Ascending{});
      case Operation::translate_random:
        return translate(work_.order.data());
      default:
        contestant_.read_and_clear_dirty(range(), {Workload::kBase, work_.page_lg2, words_});
        return 0;
    }
  }

  // Whether `perform` did its work, as far as that is quickly told.
  bool right(Operation o, std::uint64_t result) {
    if (maps(o)) content_ = o == Operation::map_run ? Content::run : Content::scattered;
    if (unmaps(o)) content_ = Content::nothing;
    if (maps(o)) return result == 0 && page_is_right(work_.pages() - 1);
    if (unmaps(o)) return result == work_.size() && !calls_.translate(work_.iova(0));
    if (reads_dirty(o)) return dirty_bits() == dirty_pages(dirty_stride(o));
    return result == sum_of_translations();
  }

  // Every translation against the formula; to be asked once, before timing.
  bool every_page_right() const {
    for (std::size_t page = 0; page < work_.pages(); ++page) {
      if (!page_is_right(page)) return false;
    }
    return !calls_.translate(work_.iova(0) - 1) && !calls_.translate(work_.iova(0) + work_.size());
  }

  void empty() {
    if (content_ != Content::nothing) calls_.unmap(Workload::kBase, work_.size());
    content_ = Content::nothing;
  }

 private:
  enum class Content : std::uint8_t { nothing, scattered, run };
  static constexpr std::uint64_t kOffset = 0x568;  // within the page

  struct Ascending {
    std::size_t operator[](std::size_t i) const { return i; }
  };

  Range range() const { return {Workload::kBase, Workload::kBase + (work_.size() - 1)}; }

  // Loops over pages keep to registers what they can: their own instructions are counted with the calls.
  struct Each {
    explicit Each(const Workload& w) : extents(w.extents.data()), pages(w.pages()), lg2(w.page_lg2) {}
    std::uint64_t iova(std::size_t page) const { return Workload::kBase + (page << lg2); }
    const sim::Extent* extents;
    std::size_t pages;
    unsigned lg2;
  };

  template <class Order>
  std::uint64_t map_each(const Order order) {
    const Each each(work_);
    Calls calls = calls_;
    const std::uint64_t size = work_.page_size();
    int errors = 0;
    for (std::size_t i = 0; i < each.pages; ++i) {
      const std::size_t page = order[i];
      errors |= calls.map(each.iova(page), each.extents[page].pa, size);
    }
    return static_cast<std::uint64_t>(errors);
  }

  template <class Order>
  std::uint64_t unmap_each(const Order order) {
    const Each each(work_);
    Calls calls = calls_;
    const std::uint64_t size = work_.page_size();
    std::uint64_t bytes = 0;
    for (std::size_t i = 0; i < each.pages; ++i) bytes += calls.unmap(each.iova(order[i]), size);
    return bytes;
  }

  template <class Order>
  std::uint64_t translate(const Order order) const {
    const Each each(work_);
    const Calls calls = calls_;
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < each.pages; ++i) sum += calls.translate(each.iova(order[i]) + kOffset).value_or(0);
    return sum;
  }

  // Whoever maps memory has just come by its addresses.
  void read_list() const {
    std::uint64_t sum = 0;
    for (const sim::Extent& e : work_.extents) sum += e.pa;
    volatile std::uint64_t kept = sum;
    static_cast<void>(kept);
  }

  void fill() {
    empty();
    calls_.map(Workload::kBase, work_.extents);
    content_ = Content::scattered;
  }

  // From clean pages on.
  void mark_dirty(std::size_t stride) {
    contestant_.read_and_clear_dirty(range(), {Workload::kBase, work_.page_lg2, words_});
    words_.assign(words_.size(), 0);
    if (stride == 0) return;
    for (std::size_t page = 0; page < work_.pages(); page += stride) contestant_.make_dirty(work_.iova(page));
  }

  std::uint64_t dirty_pages(std::size_t stride) const {
    return stride == 0 ? 0 : (work_.pages() + stride - 1) / stride;
  }

  std::uint64_t dirty_bits() const {
    std::uint64_t bits = 0;
    for (std::uint64_t word : words_) bits += static_cast<std::uint64_t>(std::popcount(word));
    return bits;
  }

  bool page_is_right(std::size_t page) const {
    const std::uint64_t pa = content_ == Content::run ? work_.contiguous_pa(page) : work_.scattered_pa(page);
    return calls_.translate(work_.iova(page)) == pa &&
           calls_.translate(work_.iova(page) + work_.page_size() - 1) == pa + work_.page_size() - 1;
  }

  // The order of translations does not matter to their sum. Translations are timed on scattered memory.
  std::uint64_t sum_of_translations() const {
    std::uint64_t sum = 0;
    for (const sim::Extent& e : work_.extents) sum += e.pa + kOffset;
    return sum;
  }

  Contestant& contestant_;
  Calls calls_;
  const Workload& work_;
  std::vector<std::uint64_t> words_;
  Content content_ = Content::nothing;
};

}  // namespace ioplan::bench
