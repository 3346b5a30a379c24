// VT-d second-stage tables: Intel VT-d specification, 9.8 (SS-PML5E to SS-PTE), 3.7 (second-stage translation).
//
// There is no present bit: an entry is present when it permits reads or writes. Held by tests/page_table_test.cc.
#pragma once

#include <cerrno>
#include <cstdint>

#include "backends/sim/page_table/four_kib_radix.h"
#include "backends/sim/page_table/page_table.h"

namespace ioplan::sim {

class VtdSecondStage : public FourKibRadix {
 public:
  static constexpr Entry kReadable = 1 << 0, kWriteable = 1 << 1, kLargePage = 1 << 7, kDirty = 1 << 9,
                         kSnoop = 1 << 11;
  static constexpr Entry kAddress = 0xffffffffff000;
  static constexpr Entry kDirtyMask = kDirty, kDirtyValue = kDirty;
  static constexpr Entry kTableMask = kLargePage;
  static constexpr std::uint64_t kLargestGroup = 1;
  static constexpr unsigned kMostLevels = 5, kOutputBits = 52;

  explicit VtdSecondStage(const PageTableShape& shape)
      : always_(shape.force_coherence ? kSnoop : 0), force_writeable_(shape.force_writeable) {}

  static bool supports(const PageTableShape& shape) {
    return shape.stage == 2 && shape.levels >= 3 && shape.levels <= kMostLevels;
  }

  static std::uint64_t leaf_sizes(unsigned level) { return level <= 2 ? one_size(level) : 0; }

  Entry attributes(std::uint8_t protection) const {
    if (force_writeable_ && (protection & kWrite) == 0) return 0;
    return ((protection & kRead) != 0 ? kReadable : 0) | ((protection & kWrite) != 0 ? kWriteable : 0) | always_;
  }

  static Entry leaf(std::uint64_t pa, unsigned level, unsigned, Entry attributes) {
    return pa | attributes | (level != 0 ? kLargePage : 0);
  }
  static constexpr Entry table_value(unsigned) { return 0; }
  static Entry table(std::uint64_t pa, unsigned) { return pa | kReadable | kWriteable; }

  static std::uint64_t table_pa(Entry entry) { return entry & kAddress; }
  static unsigned leaf_lg2(Entry, unsigned level) { return item_lg2(level); }
  // None of the bits above the address is ever set.
  static std::uint64_t leaf_pa(Entry entry, unsigned level) { return entry & ~last_of_width(item_lg2(level)); }

  static Entry cleaned(Entry entry) { return entry & ~kDirty; }

 private:
  Entry always_;
  bool force_writeable_;
};

}  // namespace ioplan::sim
