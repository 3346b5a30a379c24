// The geometry that most formats share: tables of 4 KiB with 512 entries, smallest pages of 4 KiB, 0 for an empty
// entry.
//
// Levels count from 0, the level of the smallest pages. An item is what one entry of a level spans.
#pragma once

#include <cerrno>
#include <cstdint>

#include "backends/sim/page_table/entry.h"
#include "engine/base/log2.h"

namespace ioplan::sim {

struct FourKibRadix {
  static constexpr unsigned kPageLg2 = 12;
  static constexpr bool kGrows = false;
  static constexpr int kInUse = EADDRINUSE;
  static constexpr bool kCleanedByClearing = true;
  static constexpr bool kAddressInEveryEntry = false;  // of a leaf that fills several
  static constexpr std::uint64_t kLargestGroup = 16;   // entries of one leaf, at the level of the smallest pages

  // How an address becomes a part of the entry: shifted, up to an address of so many bits.
  static constexpr unsigned kAddressLeft = 0, kAddressRight = 0, kEvenBits = 63;
  // A leaf is dirty when it has this value in these bits.
  static constexpr Entry kDirtyMask = 0, kDirtyValue = 1;

  static constexpr unsigned item_lg2(unsigned level) { return 12 + 9 * level; }
  static constexpr unsigned index_bits(unsigned) { return 9; }
  static constexpr unsigned table_lg2(unsigned) { return 12; }
  static constexpr unsigned root_lg2(unsigned) { return 12; }
  static constexpr Entry empty(unsigned) { return 0; }

  static constexpr std::uint64_t one_size(unsigned level) { return pow2(item_lg2(level)); }
};

}  // namespace ioplan::sim
