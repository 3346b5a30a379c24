// AMD v1 host tables: AMD IOMMU specification, 2.2.3; and the variant of them that iommufd's selftest driver (mock)
// uses.
//
// An entry names the level it leads to, so the top can grow: NextLevel 1 to 6 is a table, 0 a page of the item's size,
// 7 a page of any power of two between this level's item and the next one's. Such a page fills a run of equal entries;
// its size is told by the lowest zero bit of the address. Permissions of tables and page are ANDed, so tables permit
// everything.
//
// The top grows with the highest address ever mapped and never shrinks (as in Linux: the unit would have to be told
// under running DMA), save that a map that fails takes its own growth back. A former top that is empty is freed like
// any table.
//
// Mock: pages of 2 KiB in tables of still 4 KiB, and addresses one bit further left in the entry, in units of 2 KiB
// (drivers/iommu/generic_pt/fmt/amdv1.h, AMDV1_IOMMUFD_SELFTEST). Held by tests/page_table_test.cc.
#pragma once

#include <bit>
#include <cerrno>
#include <cstdint>

#include "backends/sim/page_table/entry.h"
#include "backends/sim/page_table/page_table.h"
#include "engine/base/log2.h"

namespace ioplan::sim {

template <unsigned granule_lg2>
class AmdV1 {
 public:
  static constexpr Entry kPresent = 1 << 0, kDirty = 1 << 6;
  static constexpr unsigned kNextLevelShift = 9;
  static constexpr Entry kNextLevel = 7 << kNextLevelShift;  // as a page's: its size is in the address
  static constexpr Entry kAddress = 0xffffffffff000;
  static constexpr Entry kForceCoherence = Entry{1} << 60, kReadable = Entry{1} << 61, kWriteable = Entry{1} << 62;
  static constexpr Entry kDirtyMask = kDirty, kDirtyValue = kDirty;
  static constexpr Entry kTableMask = kNextLevel;  // no table skips a level
  static constexpr unsigned kAddressLeft = 12 - granule_lg2, kAddressRight = 0, kEvenBits = 63;
  static constexpr unsigned kPageLg2 = granule_lg2;
  static constexpr unsigned kMostLevels = granule_lg2 == 12 ? 6 : 5, kOutputBits = 52 - kAddressLeft;
  static constexpr bool kGrows = true;
  static constexpr int kInUse = EADDRINUSE;
  static constexpr bool kCleanedByClearing = true;
  static constexpr bool kAddressInEveryEntry = false;
  static constexpr std::uint64_t kLargestGroup = 256;

  explicit AmdV1(const PageTableShape& shape) : always_(kPresent | (shape.force_coherence ? kForceCoherence : 0)) {}

  static bool supports(const PageTableShape& shape) { return shape.levels >= 1 && shape.levels <= kMostLevels; }

  static constexpr unsigned item_lg2(unsigned level) { return granule_lg2 + 9 * level; }
  static constexpr unsigned index_bits(unsigned) { return 9; }
  static constexpr unsigned table_lg2(unsigned) { return 12; }
  static constexpr unsigned root_lg2(unsigned) { return 12; }
  static constexpr Entry empty(unsigned) { return 0; }

  // Any power of two, but none in the topmost table that there can be.
  static std::uint64_t leaf_sizes(unsigned level) {
    return level + 1 < kMostLevels ? last_of_width(item_lg2(level + 1)) & ~last_of_width(item_lg2(level)) : 0;
  }

  Entry attributes(std::uint8_t protection) const {
    return always_ | ((protection & kRead) != 0 ? kReadable : 0) | ((protection & kWrite) != 0 ? kWriteable : 0);
  }

  static Entry leaf(std::uint64_t pa, unsigned level, unsigned size_lg2, Entry attributes) {
    const Entry page = (pa << kAddressLeft) | attributes;
    return size_lg2 == item_lg2(level) ? page : page | kNextLevel | size_code(size_lg2);
  }
  static constexpr Entry table_value(unsigned level) { return Entry{level} << kNextLevelShift; }
  static Entry table(std::uint64_t pa, unsigned level) {
    return (pa << kAddressLeft) | kPresent | table_value(level) | kReadable | kWriteable;
  }

  static std::uint64_t table_pa(Entry entry) { return (entry & kAddress) >> kAddressLeft; }
  static unsigned leaf_lg2(Entry entry, unsigned level) {
    if ((entry & kNextLevel) == 0) return item_lg2(level);
    return granule_lg2 + 1 + static_cast<unsigned>(std::countr_one(entry >> 12));
  }
  static std::uint64_t leaf_pa(Entry entry, unsigned level) {
    return table_pa(entry) & ~last_of_width(leaf_lg2(entry, level));
  }

  static Entry cleaned(Entry entry) { return entry & ~kDirty; }

 private:
  // Ones from bit 12 up, a zero at the highest address bit within the page.
  static Entry size_code(unsigned size_lg2) { return last_of_width(size_lg2 - 1 - granule_lg2) << 12; }

  Entry always_;
};

}  // namespace ioplan::sim
