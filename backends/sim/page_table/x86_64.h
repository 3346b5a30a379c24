// x86-64 first-stage tables, as VT-d and AMD units walk them for PASIDs: Intel SDM volume 3, 4.5; VT-d
// specification, 9.7; AMD IOMMU specification, 2.2.6.
//
// Reads cannot be forbidden: a present entry is readable. Accessed and dirty bits are set when the entry is made, as
// Linux does, so that hardware never has to write. Held by tests/page_table_test.cc.
#pragma once

#include <cstdint>

#include "backends/sim/page_table/four_kib_radix.h"
#include "backends/sim/page_table/page_table.h"

namespace ioplan::sim {

class X86_64 : public FourKibRadix {
 public:
  static constexpr Entry kPresent = 1 << 0, kWriteable = 1 << 1, kUser = 1 << 2, kAccessed = 1 << 5, kDirty = 1 << 6,
                         kLargePage = 1 << 7;
  static constexpr Entry kAddress = 0xffffffffff000;
  static constexpr Entry kTableMask = kLargePage;
  static constexpr unsigned kMostLevels = 5, kOutputBits = 52;

  explicit X86_64(const PageTableShape&) {}

  static bool supports(const PageTableShape& shape) {
    return shape.stage == 1 && (shape.levels == 4 || shape.levels == 5) && !shape.dirty_tracking;
  }

  static std::uint64_t leaf_sizes(unsigned level) { return level <= 2 ? one_size(level) : 0; }

  static Entry attributes(std::uint8_t protection) {
    return kPresent | kUser | kAccessed | ((protection & kWrite) != 0 ? kWriteable | kDirty : 0);
  }

  static Entry leaf(std::uint64_t pa, unsigned level, unsigned, Entry attributes) {
    return pa | attributes | (level != 0 ? kLargePage : 0);
  }
  static constexpr Entry table_value(unsigned) { return 0; }
  static Entry table(std::uint64_t pa, unsigned) { return pa | kPresent | kWriteable | kUser | kAccessed; }

  static std::uint64_t table_pa(Entry entry) { return entry & kAddress; }
  static unsigned leaf_lg2(Entry, unsigned level) { return item_lg2(level); }
  // None of the bits above the address is ever set.
  static std::uint64_t leaf_pa(Entry entry, unsigned level) { return entry & ~last_of_width(item_lg2(level)); }

  static Entry cleaned(Entry entry) { return entry; }
};

}  // namespace ioplan::sim
