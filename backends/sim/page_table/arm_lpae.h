// Arm long-descriptor (VMSAv8-64) tables of stage 1 and 2: Arm DDI 0487, D8.3 (descriptors), D8.6.1 (contiguous),
// D8.5.4 (dirty).
//
// A page at the lowest level and a table have the same type, a block another. Contiguous entries each carry their own
// address and a hint. With a 64 KiB granule address bits 51:48 sit in bits 15:12. A stage 2 root may be up to sixteen
// tables, one after the other. Leaves are made accessed. Where dirty bits are tracked (DBM), a writeable leaf is dirty
// from the start, as Linux makes it (arm_lpae_prot_to_pte under IO_PGTABLE_QUIRK_ARM_HD): AP[2] clear in stage 1, S2AP[1]
// set in stage 2; reading with clear makes it writeable-clean. Held by tests/page_table_test.cc.
#pragma once

#include <bit>
#include <cerrno>
#include <cstdint>

#include "backends/sim/page_table/entry.h"
#include "backends/sim/page_table/page_table.h"
#include "engine/base/log2.h"

namespace ioplan::sim {

template <unsigned granule_lg2, unsigned stage>
class ArmLpae {
 public:
  static constexpr Entry kType = 3, kBlock = 1, kTableOrPage = 3;
  static constexpr Entry kOuterShareable = 2 << 8, kInnerShareable = 3 << 8, kAccessed = 1 << 10;
  static constexpr Entry kDirtyModifier = Entry{1} << 51, kContiguous = Entry{1} << 52;
  // Stage 1. Attribute index 0 is non-cacheable memory, 1 write-back.
  static constexpr Entry kUnprivileged = 1 << 6, kReadOnly = 1 << 7, kNotGlobal = 1 << 11, kCachedIndex = 1 << 2;
  // Stage 2.
  static constexpr Entry kReadable = 1 << 6, kWriteable = 1 << 7, kWriteBack = 0xf << 2, kNonCacheable = 0x5 << 2;

  static constexpr Entry kTableMask = kType;
  static constexpr Entry kDirtyMask = kDirtyModifier | (stage == 1 ? kReadOnly : kWriteable);
  static constexpr Entry kDirtyValue = kDirtyModifier | (stage == 1 ? 0 : kWriteable);
  static constexpr unsigned kAddressLeft = 0, kAddressRight = 0, kEvenBits = granule_lg2 == 16 ? 48 : 63;
  static constexpr unsigned kPageLg2 = granule_lg2, kMostLevels = 4;
  static constexpr unsigned kOutputBits = granule_lg2 == 16 ? 52 : 48;
  static constexpr unsigned kIndexBits = granule_lg2 - 3;
  static constexpr bool kGrows = false;
  static constexpr int kInUse = EEXIST;
  static constexpr bool kCleanedByClearing = stage == 2;
  static constexpr bool kAddressInEveryEntry = true;
  static constexpr std::uint64_t kLargestGroup = granule_lg2 == 12 ? 16 : granule_lg2 == 14 ? 128 : 32;

  explicit ArmLpae(const PageTableShape& shape)
      : tracks_dirty_(shape.dirty_tracking), address_bits_(shape.address_bits) {}

  static bool supports(const PageTableShape& shape) {
    const unsigned span = shape.levels == 0 ? 0 : item_lg2(shape.levels);
    const unsigned roots = shape.stage == 2 ? 4 : 0;  // log2 of how many at most
    return shape.stage == stage && shape.levels >= 1 && shape.levels <= kMostLevels &&
           shape.address_bits <= span + roots;
  }

  static constexpr unsigned item_lg2(unsigned level) { return granule_lg2 + kIndexBits * level; }
  static constexpr unsigned index_bits(unsigned) { return kIndexBits; }
  static constexpr unsigned table_lg2(unsigned) { return granule_lg2; }
  unsigned root_lg2(unsigned levels) const {
    const unsigned span = item_lg2(levels);
    return granule_lg2 + (address_bits_ > span ? address_bits_ - span : 0);
  }
  static constexpr Entry empty(unsigned) { return 0; }

  // How many entries one after the other may be marked contiguous, log2; 0: none.
  static constexpr unsigned contiguous_lg2(unsigned level) {
    if (level >= 2) return 0;
    return granule_lg2 == 12 ? 4 : granule_lg2 == 14 && level == 0 ? 7 : 5;
  }

  static std::uint64_t leaf_sizes(unsigned level) {
    if (level > 2) return 0;
    const std::uint64_t item = pow2(item_lg2(level));
    return item | item << contiguous_lg2(level);
  }

  Entry attributes(std::uint8_t protection) const {
    const bool write = (protection & kWrite) != 0, cache = (protection & kCache) != 0;
    const Entry common = kAccessed | (cache ? kInnerShareable : kOuterShareable);
    const Entry tracked = write && tracks_dirty_ ? kDirtyModifier : 0;
    if constexpr (stage == 1) {
      return common | tracked | kNotGlobal | kUnprivileged | (cache ? kCachedIndex : 0) |
             (write ? 0 : kReadOnly);
    } else {
      return common | tracked | (cache ? kWriteBack : kNonCacheable) | ((protection & kRead) != 0 ? kReadable : 0) |
             (write ? kWriteable : 0);
    }
  }

  static Entry leaf(std::uint64_t pa, unsigned level, unsigned size_lg2, Entry attributes) {
    return address(pa) | attributes | (level == 0 ? kTableOrPage : kBlock) |
           (size_lg2 != item_lg2(level) ? kContiguous : 0);
  }
  static constexpr Entry table_value(unsigned) { return kTableOrPage; }
  static Entry table(std::uint64_t pa, unsigned) { return address(pa) | kTableOrPage; }

  static std::uint64_t table_pa(Entry entry) {
    const std::uint64_t low = entry & last_of_width(48) & ~last_of_width(granule_lg2);
    if constexpr (granule_lg2 == 16) return low | (entry & 0xf000) << 36;
    return low;
  }
  static unsigned leaf_lg2(Entry entry, unsigned level) {
    return item_lg2(level) + ((entry & kContiguous) != 0 ? contiguous_lg2(level) : 0);
  }
  static std::uint64_t leaf_pa(Entry entry, unsigned level) {
    return table_pa(entry) & ~last_of_width(leaf_lg2(entry, level));
  }

  static Entry cleaned(Entry entry) { return stage == 1 ? entry | kReadOnly : entry & ~kWriteable; }

 private:
  static Entry address(std::uint64_t pa) {
    if constexpr (granule_lg2 == 16) return (pa & last_of_width(48)) | (pa >> 36 & 0xf000);
    return pa;
  }

  bool tracks_dirty_;
  unsigned address_bits_;
};

}  // namespace ioplan::sim
