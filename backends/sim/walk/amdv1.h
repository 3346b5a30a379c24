// AMD v1 host entries (AMD I/O Virtualization Technology specification, 2.2.3 "I/O Page Tables for Host Translations").
//
//   0 PR   5 A, 6 D of a page, when the device table entry enables them (the shape's dirty_tracking)
//   11:9 NextLevel: 0 a page of the level's default size; 7 a page whose size is in its address; else a table
//   51:12 address   58:52 reserved   59 U, 60 FC: pages only   61 IR   62 IW   63, 8:7, 4:1 ignored
//
// A NextLevel may skip levels; then the address bits of the skipped levels are 0. A page of NextLevel 7 is as large as
// the lowest 0 bit of its address says: bits 12 to n-1 are 1, bit n is 0, and it has 2^(n+1) bytes; it lies in the
// table of the largest level whose default page is smaller, with equal entries in all the slots that it spans.
//
// The mock of the kernel's selftests has the same entries with pages from 2 KiB on: addresses are stored in units of
// 2 KiB from bit 12 up, and tables still have 512 entries (its only specification is generic_pt's amdv1.h, built by
// iommu_mock.c).
#pragma once

#include <algorithm>
#include <bit>

#include "backends/sim/walk/entry.h"

namespace ioplan::sim::hardware {

class AmdV1 {
 public:
  AmdV1(const PageTableShape& shape, unsigned granule_lg2)
      : granule_lg2_(granule_lg2), output_bits_(std::min(shape.output_bits, 52U)), tracks_(shape.dirty_tracking) {}

  unsigned width(unsigned levels) const { return std::min(64U, granule_lg2_ + 9 * levels); }
  static constexpr bool sign_extended() { return false; }
  unsigned entry_lg2(unsigned level) const { return granule_lg2_ + 9 * (level - 1); }
  static constexpr unsigned index_bits(unsigned) { return 9; }

  Entry decode(std::uint64_t raw, unsigned level, std::uint64_t iova) const {
    if (!bit(raw, 0)) return Entry::fault(kNothingHere);
    if ((raw & mask(58, 52)) != 0) return Entry::fault(kReservedBits);
    const std::uint8_t allows = permissions(bit(raw, 61), bit(raw, 62));
    const auto next_level = static_cast<unsigned>(bits(raw, 11, 9));
    const Entry entry = next_level == 0   ? default_page(raw, level, allows)
                        : next_level == 7 ? sized_page(raw, level, allows)
                                          : table(raw, level, next_level, iova, allows);
    const bool too_wide = entry.kind != Entry::Kind::fault && (entry.address & ~last_of_width(output_bits_)) != 0;
    return too_wide ? Entry::fault(kTooWide) : entry;
  }

  std::uint64_t marked(std::uint64_t raw, const Entry& entry, DmaAccess access) const {
    if (!tracks_ || entry.kind != Entry::Kind::page) return raw;
    return raw | pow2(5) | (access == DmaAccess::write ? pow2(6) : 0);
  }

 private:
  std::uint64_t address(std::uint64_t raw) const { return (raw & mask(51, 12)) >> (12 - granule_lg2_); }

  Entry table(std::uint64_t raw, unsigned level, unsigned next_level, std::uint64_t iova, std::uint8_t allows) const {
    if (next_level >= level) return Entry::fault(kReservedEncoding);
    if ((raw & mask(60, 59)) != 0) return Entry::fault(kReservedBits);
    const std::uint64_t skipped = last_of_width(entry_lg2(level)) & ~last_of_width(entry_lg2(next_level + 1));
    if ((iova & skipped) != 0) return Entry::fault("an address that a skipped level does not reach");
    return Entry::table(address(raw), next_level, allows);
  }

  Entry default_page(std::uint64_t raw, unsigned level, std::uint8_t allows) const {
    if (level == 6) return Entry::fault(kReservedEncoding);
    const unsigned page_lg2 = entry_lg2(level);
    if ((address(raw) & last_of_width(page_lg2)) != 0) return Entry::fault(kMisaligned);
    return page(raw, address(raw), page_lg2, 0, allows);
  }

  Entry sized_page(std::uint64_t raw, unsigned level, std::uint8_t allows) const {
    const auto ones = static_cast<unsigned>(std::countr_one(address(raw) >> granule_lg2_));
    const unsigned page_lg2 = granule_lg2_ + ones + 1;
    if (page_lg2 <= entry_lg2(level) || page_lg2 >= entry_lg2(level + 1)) return Entry::fault(kReservedEncoding);
    return page(raw, address(raw) & ~last_of_width(page_lg2), page_lg2, page_lg2 - entry_lg2(level), allows);
  }

  Entry page(std::uint64_t raw, std::uint64_t pa, unsigned page_lg2, unsigned group_lg2, std::uint8_t allows) const {
    Entry e = Entry::page(pa, page_lg2, allows);
    e.group_lg2 = group_lg2;
    e.snooped = bit(raw, 60);
    e.dirty = tracks_ && bit(raw, 6);
    return e;
  }

  unsigned granule_lg2_;
  unsigned output_bits_;
  bool tracks_;
};

}  // namespace ioplan::sim::hardware
