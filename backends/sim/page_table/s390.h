// s390 DMA translation tables: z/Architecture Principles of Operation, chapter 3 (dynamic address translation), as zPCI
// uses them (arch/s390 pci_dma, drivers/iommu/s390-iommu.c).
//
// Page tables have 256 entries, segment and region tables 2048. An empty entry is not 0: it says that it is invalid.
// Reads cannot be forbidden. Entries are kept in the host's byte order; a real one is big-endian. Held by
// tests/page_table_test.cc.
#pragma once

#include <cerrno>
#include <cstdint>

#include "backends/sim/page_table/entry.h"
#include "backends/sim/page_table/page_table.h"
#include "engine/base/log2.h"

namespace ioplan::sim {

class S390 {
 public:
  static constexpr Entry kPageInvalid = 0x400, kTableInvalid = 0x20, kProtected = 0x200;
  static constexpr Entry kWholeLength = 0x3;  // region tables: the table below has all its entries
  static constexpr unsigned kTypeShift = 2;   // of table entries: 0 segment, 1 to 3 region third to first
  static constexpr unsigned kPageLg2 = 12, kMostLevels = 5, kOutputBits = 64;
  static constexpr bool kGrows = false;
  static constexpr int kInUse = EADDRINUSE;
  static constexpr bool kCleanedByClearing = true;
  static constexpr bool kAddressInEveryEntry = false;
  static constexpr std::uint64_t kLargestGroup = 1;
  static constexpr unsigned kAddressLeft = 0, kAddressRight = 0, kEvenBits = 63;
  static constexpr Entry kDirtyMask = 0, kDirtyValue = 1;  // none is
  static constexpr Entry kTableMask = 0;                   // all are

  explicit S390(const PageTableShape&) {}

  static bool supports(const PageTableShape& shape) {
    return shape.stage == 1 && shape.levels >= 3 && shape.levels <= kMostLevels && !shape.dirty_tracking;
  }

  static constexpr unsigned item_lg2(unsigned level) { return level == 0 ? 12 : 9 + 11 * level; }
  static constexpr unsigned index_bits(unsigned level) { return level == 0 ? 8 : 11; }
  static constexpr unsigned table_lg2(unsigned level) { return index_bits(level) + 3; }
  static constexpr unsigned root_lg2(unsigned levels) { return table_lg2(levels - 1); }
  static constexpr Entry empty(unsigned level) { return level == 0 ? kPageInvalid : kTableInvalid; }

  static std::uint64_t leaf_sizes(unsigned level) { return level == 0 ? pow2(kPageLg2) : 0; }

  // Never 0, which would mean that the protection cannot be had: the low bits say that attributes are there.
  static Entry attributes(std::uint8_t protection) {
    return (protection & kWrite) != 0 ? kAttributes : kAttributes | kProtected;
  }

  static Entry leaf(std::uint64_t pa, unsigned, unsigned, Entry attributes) { return pa | (attributes & ~kAttributes); }
  static constexpr Entry table_value(unsigned) { return 0; }
  static Entry table(std::uint64_t pa, unsigned level) {
    return level == 1 ? pa : pa | Entry{level - 1} << kTypeShift | kWholeLength;
  }

  static std::uint64_t table_pa(Entry entry) { return entry & ~last_of_width(11); }
  static unsigned leaf_lg2(Entry, unsigned) { return kPageLg2; }
  static std::uint64_t leaf_pa(Entry entry, unsigned) { return entry & ~last_of_width(kPageLg2); }

  static Entry cleaned(Entry entry) { return entry; }

 private:
  static constexpr Entry kAttributes = 1;
};

}  // namespace ioplan::sim
