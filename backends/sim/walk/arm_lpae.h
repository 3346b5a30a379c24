// VMSAv8-64 descriptors, stage 1 and stage 2 (Arm Architecture Reference Manual DDI 0487, D8.3 "Translation table
// descriptor formats"), as an SMMUv3 or SMMUv2 walks them.
//
//   1:0   0b11 table, or page at the last level; 0b01 block: at lookup levels 1 and 2 (4K), 2 (16K), 2 (64K), and 1
//         (64K with 52-bit addresses)
//   4:2   stage 1 AttrIndx (MAIR as Linux sets it: 0 non-cacheable, 1 write-back); 5:2 stage 2 MemAttr (0b1111
//         write-back)
//   7:6   stage 1 AP[2:1]: 7 read-only, 6 unprivileged; stage 2 S2AP: 7 write, 6 read
//   9:8   SH   10 AF   11 nG   47:n address, and with 64K pages 15:12 hold address bits 51:48   49:48 RES0
//   51    DBM: with hardware dirty state (the shape's dirty_tracking) a page may be written that is not writeable yet;
//         the write makes it so, and that is its dirty state
//   52    contiguous: the aligned group of 16 entries (4K), 128 and 32 (16K: pages, blocks), 32 (64K) is one run
//   62:61 APTable in stage 1 tables: 62 forbids writes, 61 unprivileged accesses
//
// Where the architecture leaves the outcome open (RES0 address bits that are set, contiguous entries out of place),
// this hardware faults: tables that rely on luck are wrong. `level` counts from 1 for pages: lookup level = 4 - level.
// Several root tables of stage 2 lie one after the other, which makes the first index wider.
#pragma once

#include <bit>

#include "backends/sim/walk/entry.h"

namespace ioplan::sim::hardware {

class ArmLpae {
 public:
  explicit ArmLpae(const PageTableShape& shape)
      : granule_lg2_(static_cast<unsigned>(std::countr_zero(shape.page_sizes))),
        bits_(shape.address_bits),
        output_bits_(shape.output_bits),
        stage_1_(shape.stage == 1),
        tracks_(shape.dirty_tracking) {}

  unsigned width(unsigned) const { return bits_; }
  static constexpr bool sign_extended() { return false; }
  unsigned entry_lg2(unsigned level) const { return granule_lg2_ + (granule_lg2_ - 3) * (level - 1); }
  unsigned index_bits(unsigned) const { return granule_lg2_ - 3; }

  Entry decode(std::uint64_t raw, unsigned level, std::uint64_t iova) const {
    if (!bit(raw, 0)) return Entry::fault(kNothingHere);
    const bool table_or_page = bit(raw, 1);
    if (level == 1) return table_or_page ? page(raw, level, iova) : Entry::fault(kReservedEncoding);
    if (table_or_page) return table(raw, level);
    return has_blocks(level) ? page(raw, level, iova) : Entry::fault(kReservedEncoding);
  }

  std::uint64_t marked(std::uint64_t raw, const Entry& entry, DmaAccess access) const {
    if (!tracks_ || entry.kind != Entry::Kind::page) return raw;
    const std::uint64_t accessed = raw | pow2(10);
    if (access == DmaAccess::read || !bit(raw, 51)) return accessed;
    return stage_1_ ? accessed & ~pow2(7) : accessed | pow2(7);
  }

 private:
  bool has_blocks(unsigned level) const {
    if (level == 2) return true;
    return level == 3 && (granule_lg2_ == 12 || (granule_lg2_ == 16 && output_bits_ > 48));
  }

  unsigned contiguous_lg2(unsigned level) const {
    if (granule_lg2_ == 12) return 4;
    if (granule_lg2_ == 14) return level == 1 ? 7 : 5;
    return 5;
  }

  std::uint64_t address(std::uint64_t raw) const {
    const std::uint64_t low = raw & mask(47, granule_lg2_);
    return granule_lg2_ == 16 ? low | bits(raw, 15, 12) << 48 : low;
  }

  // The address field below the page or the table, and what lies above it.
  bool reserved_address_bits(std::uint64_t raw, unsigned lg2) const {
    const std::uint64_t low = mask(lg2 - 1, 12) & ~(granule_lg2_ == 16 ? mask(15, 12) : 0);
    return (raw & (low | mask(49, 48))) != 0;
  }

  bool too_wide(std::uint64_t pa) const { return output_bits_ < 64 && pa >> output_bits_ != 0; }

  Entry table(std::uint64_t raw, unsigned level) const {
    if (reserved_address_bits(raw, granule_lg2_)) return Entry::fault(kReservedBits);
    if (too_wide(address(raw))) return Entry::fault(kTooWide);
    const std::uint8_t allows = stage_1_ ? permissions(!bit(raw, 61), !bit(raw, 61) && !bit(raw, 62)) : kReadWrite;
    return Entry::table(address(raw), level - 1, allows);
  }

  Entry page(std::uint64_t raw, unsigned level, std::uint64_t iova) const {
    const unsigned entry_bits = entry_lg2(level);
    if (reserved_address_bits(raw, entry_bits)) return Entry::fault(kReservedBits);
    if (too_wide(address(raw))) return Entry::fault(kTooWide);
    if (!bit(raw, 10) && !tracks_) return Entry::fault("the access flag is clear");
    const unsigned group = bit(raw, 52) ? contiguous_lg2(level) : 0;
    const std::uint64_t place_in_group = last_of_width(entry_bits + group) & ~last_of_width(entry_bits);
    if (((address(raw) ^ iova) & place_in_group) != 0) return Entry::fault("a contiguous entry out of its place");
    Entry e = Entry::page(address(raw) & ~place_in_group, entry_bits + group, allows(raw));
    e.group_lg2 = group;
    e.snooped = stage_1_ ? bits(raw, 4, 2) == 1 : bits(raw, 5, 2) == 0xf;
    e.dirty = tracks_ && bit(raw, 51) && bit(raw, 7) != stage_1_;
    return e;
  }

  std::uint8_t allows(std::uint64_t raw) const {
    const bool written_on_demand = tracks_ && bit(raw, 51);
    if (!stage_1_) return permissions(bit(raw, 6), bit(raw, 7) || written_on_demand);
    const bool unprivileged = bit(raw, 6);
    return permissions(unprivileged, unprivileged && (!bit(raw, 7) || written_on_demand));
  }

  unsigned granule_lg2_;
  unsigned bits_;
  unsigned output_bits_;
  bool stage_1_;
  bool tracks_;
};

}  // namespace ioplan::sim::hardware
