// Which table of a level serves a stretch of IOVA, from memory: what spares most calls the walk from the root.
//
// A word for every stretch modulo 2^slots_lg2, each word holding the rest of the stretch's number and the table's
// address. What makes it sound without a lock (RadixTree holds to this):
//   - a table is remembered by a thread that has entries counted in it, which keep it from dying meanwhile;
//   - a table is forgotten after it is marked dead and before the tree's generation advances.
// So whoever reads the generation, asks here, and finds the generation unmoved after having read the table's state or
// entry, has read it while the table served that stretch.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "engine/base/log2.h"

namespace ioplan::sim {

template <unsigned span_lg2, unsigned slots_lg2>
class TablesAtHand {
 public:
  TablesAtHand() {
    for (Word& word : words_) word.store(kNone, std::memory_order_relaxed);
  }

  // False when it is not known.
  bool find(std::uint64_t iova, std::uint64_t& table) const {
    const std::uint64_t unit = word(iova).load(std::memory_order_acquire) ^ key(iova);
    table = unit << kUnitLg2;
    return unit < pow2(kUnitBits);
  }

  void remember(std::uint64_t iova, std::uint64_t table) {
    word(iova).store(key(iova) | table >> kUnitLg2, std::memory_order_release);
  }

  void forget(std::uint64_t iova, std::uint64_t table) {
    std::uint64_t known = key(iova) | table >> kUnitLg2;
    word(iova).compare_exchange_strong(known, kNone, std::memory_order_acq_rel, std::memory_order_relaxed);
  }

 private:
  using Word = std::atomic<std::uint64_t>;
  static constexpr unsigned kUnitLg2 = 11, kUnitBits = 28;  // tables in units of 2 KiB, below 512 GiB
  static constexpr std::uint64_t kNone = ~std::uint64_t{0};
  static_assert(64 - span_lg2 - slots_lg2 + kUnitBits < 64, "no key has the top bit, which kNone has");

  static std::uint64_t key(std::uint64_t iova) { return iova >> (span_lg2 + slots_lg2) << kUnitBits; }
  Word& word(std::uint64_t iova) { return words_[iova >> span_lg2 & (pow2(slots_lg2) - 1)]; }
  const Word& word(std::uint64_t iova) const { return words_[iova >> span_lg2 & (pow2(slots_lg2) - 1)]; }

  std::array<Word, pow2(slots_lg2)> words_;
};

}  // namespace ioplan::sim
