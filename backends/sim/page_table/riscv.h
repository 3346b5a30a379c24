// RISC-V Sv39, Sv48 and Sv57 tables: RISC-V privileged specification, 12.4 to 12.6 and Svnapot (13); RISC-V IOMMU
// specification, 2.3.
//
// Leaves live at every level. A 64 KiB page is sixteen equal entries whose lowest PPN bits say so. A writeable page
// must be readable. Accessed and dirty bits are set when the entry is made, as Linux does. Held by
// tests/page_table_test.cc.
#pragma once

#include <cstdint>

#include "backends/sim/page_table/four_kib_radix.h"
#include "backends/sim/page_table/page_table.h"

namespace ioplan::sim {

class RiscV : public FourKibRadix {
 public:
  static constexpr Entry kValid = 1 << 0, kReadable = 1 << 1, kWriteable = 1 << 2, kExecutable = 1 << 3, kUser = 1 << 4,
                         kAccessed = 1 << 6, kDirty = 1 << 7;
  static constexpr Entry kNapot = Entry{1} << 63, kNapot64K = 1 << 13;
  static constexpr Entry kNumber = last_of_width(54) & ~last_of_width(10);  // physical page number
  static constexpr Entry kTableMask = kReadable | kWriteable | kExecutable;
  static constexpr unsigned kAddressRight = 2;
  static constexpr unsigned kMostLevels = 5, kOutputBits = 56, k64K = 16;

  explicit RiscV(const PageTableShape&) {}

  static bool supports(const PageTableShape& shape) {
    return shape.stage == 1 && shape.levels >= 3 && shape.levels <= kMostLevels && !shape.dirty_tracking;
  }

  static std::uint64_t leaf_sizes(unsigned level) { return one_size(level) | (level == 0 ? pow2(k64K) : 0); }

  static Entry attributes(std::uint8_t protection) {
    return kValid | kReadable | kExecutable | kUser | kAccessed |
           ((protection & kWrite) != 0 ? kWriteable | kDirty : 0);
  }

  static Entry leaf(std::uint64_t pa, unsigned level, unsigned size_lg2, Entry attributes) {
    const Entry page = pa >> kAddressRight | attributes;
    return level == 0 && size_lg2 == k64K ? page | kNapot | kNapot64K : page;
  }
  static constexpr Entry table_value(unsigned) { return 0; }
  static Entry table(std::uint64_t pa, unsigned) { return pa >> kAddressRight | kValid; }

  static std::uint64_t table_pa(Entry entry) { return (entry & kNumber) << kAddressRight; }
  static unsigned leaf_lg2(Entry entry, unsigned level) { return (entry & kNapot) != 0 ? k64K : item_lg2(level); }
  static std::uint64_t leaf_pa(Entry entry, unsigned level) {
    return table_pa(entry) & ~last_of_width(leaf_lg2(entry, level));
  }

  static Entry cleaned(Entry entry) { return entry; }
};

}  // namespace ioplan::sim
