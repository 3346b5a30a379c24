// s390 region, segment and page tables (z/Architecture Principles of Operation, "Dynamic Address Translation"), as PCI
// functions walk them. The book counts bits from the left; here bit 0 is the lowest.
//
//   region entry   63:12 table origin   9 protection   7:6 TF: the first quarter that the next table has
//                  5 invalid   3:2 TT: 3 region first, 2 region second, 1 region third   1:0 TL: its last quarter
//   segment entry  63:11 page table origin   10 a 1 MiB frame (not used by PCI tables of 4 KiB pages)   9 protection
//                  5 invalid   3:2 TT: 0
//   page entry     63:12 frame   11 must be 0   10 invalid   9 protection
//
// An entry of zeros is valid: tables are full of invalid entries when they are new. Region and segment tables have 2048
// entries, page tables 256. Reads are always allowed, protection forbids writes. DMA is always coherent.
#pragma once

#include "backends/sim/walk/entry.h"

namespace ioplan::sim::hardware {

class S390 {
 public:
  explicit S390(const PageTableShape& shape) : output_bits_(shape.output_bits) {}

  unsigned width(unsigned levels) const { return levels >= 5 ? 64 : entry_lg2(levels) + index_bits(levels); }
  static constexpr bool sign_extended() { return false; }
  unsigned entry_lg2(unsigned level) const { return level == 1 ? 12 : 20 + 11 * (level - 2); }
  unsigned index_bits(unsigned level) const { return level == 1 ? 8 : 11; }

  Entry decode(std::uint64_t raw, unsigned level, std::uint64_t iova) const {
    const std::uint8_t allows = permissions(true, !bit(raw, 9));
    if (level == 1) return page(raw, allows);
    if (bit(raw, 5)) return Entry::fault(kNothingHere);
    if (bits(raw, 3, 2) != level - 2) return Entry::fault("an entry of another kind of table");
    return level == 2 ? segment(raw, allows) : region(raw, level, iova, allows);
  }

  static std::uint64_t marked(std::uint64_t raw, const Entry&, DmaAccess) { return raw; }

 private:
  bool too_wide(std::uint64_t pa) const { return output_bits_ < 64 && pa >> output_bits_ != 0; }

  Entry region(std::uint64_t raw, unsigned level, std::uint64_t iova, std::uint8_t allows) const {
    const std::uint64_t quarter = iova >> (entry_lg2(level - 1) + 9) & 3;
    if (level > 2 && (quarter < bits(raw, 7, 6) || quarter > bits(raw, 1, 0))) {
      return Entry::fault("an address that the next table is too short for");
    }
    if (too_wide(raw & mask(63, 12))) return Entry::fault(kTooWide);
    return Entry::table(raw & mask(63, 12), level - 1, allows);
  }

  Entry segment(std::uint64_t raw, std::uint8_t allows) const {
    if (bit(raw, 10)) return Entry::fault(kReservedEncoding);
    if (too_wide(raw & mask(63, 11))) return Entry::fault(kTooWide);
    return Entry::table(raw & mask(63, 11), 1, allows);
  }

  Entry page(std::uint64_t raw, std::uint8_t allows) const {
    if (bit(raw, 10)) return Entry::fault(kNothingHere);
    if (bit(raw, 11)) return Entry::fault(kReservedBits);
    if (too_wide(raw & mask(63, 12))) return Entry::fault(kTooWide);
    Entry e = Entry::page(raw & mask(63, 12), 12, allows);
    e.snooped = true;
    return e;
  }

  unsigned output_bits_;
};

}  // namespace ioplan::sim::hardware
