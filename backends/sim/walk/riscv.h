// RISC-V Sv39, Sv48 and Sv57 entries (Privileged Architecture, "Sv39: Page-Based 39-bit Virtual-Memory System",
// Svnapot, Svpbmt), as the RISC-V IOMMU's first stage walks them.
//
//   0 V   1 R, 2 W, 3 X: all 0 in a table; W without R is reserved   4 U   5 G   6 A   7 D   9:8 for software
//   53:10 PPN   60:54 reserved   62:61 PBMT (0 as the memory is, 1 non-cacheable, 2 I/O, 3 reserved)   63 N
//
// A, D, U, PBMT and N of a table are reserved. N at level 1 with PPN bits 3:0 = 0b1000 is a 64 KiB page; any other N
// is reserved. Requests come with user privilege. A and D are set by hardware when the device context's SADE is (the
// shape's dirty_tracking); else a clear A faults, and so does a write with a clear D.
#pragma once

#include <algorithm>

#include "backends/sim/walk/entry.h"

namespace ioplan::sim::hardware {

class RiscV : public FourKiBTables {
 public:
  explicit RiscV(const PageTableShape& shape)
      : output_bits_(std::min(shape.output_bits, 56U)), tracks_(shape.dirty_tracking) {}

  unsigned width(unsigned levels) const { return full_width(levels); }
  static constexpr bool sign_extended() { return true; }

  Entry decode(std::uint64_t raw, unsigned level, std::uint64_t) const {
    if (!bit(raw, 0)) return Entry::fault(kNothingHere);
    if ((raw & mask(60, 54)) != 0 || bits(raw, 62, 61) == 3) return Entry::fault(kReservedBits);
    if (address(raw) >> output_bits_ != 0) return Entry::fault(kTooWide);
    const bool readable = bit(raw, 1), writeable = bit(raw, 2), executable = bit(raw, 3);
    if (writeable && !readable) return Entry::fault(kReservedEncoding);
    return readable || executable ? page(raw, level) : table(raw, level);
  }

  std::uint64_t marked(std::uint64_t raw, const Entry& entry, DmaAccess access) const {
    if (!tracks_ || entry.kind != Entry::Kind::page) return raw;
    return raw | pow2(6) | (access == DmaAccess::write ? pow2(7) : 0);
  }

 private:
  static std::uint64_t address(std::uint64_t raw) { return bits(raw, 53, 10) << 12; }

  static Entry table(std::uint64_t raw, unsigned level) {
    if (level == 1) return Entry::fault(kReservedEncoding);
    if ((raw & (pow2(4) | mask(7, 6) | mask(63, 61))) != 0) return Entry::fault(kReservedBits);
    return Entry::table(address(raw), level - 1, kReadWrite);
  }

  Entry page(std::uint64_t raw, unsigned level) const {
    const bool napot = bit(raw, 63);
    if (napot && (level != 1 || bits(raw, 13, 10) != 8)) return Entry::fault(kReservedEncoding);
    const unsigned page_lg2 = napot ? 16 : entry_lg2(level);
    if (!napot && (address(raw) & last_of_width(page_lg2)) != 0) return Entry::fault(kMisaligned);
    if (!bit(raw, 6) && !tracks_) return Entry::fault("the accessed bit is clear");
    const bool user = bit(raw, 4);
    const bool writeable = user && bit(raw, 2) && (tracks_ || bit(raw, 7));
    const std::uint8_t allows = permissions(user && bit(raw, 1), writeable);
    Entry e = Entry::page(address(raw) & ~last_of_width(page_lg2), page_lg2, allows);
    e.group_lg2 = napot ? 4 : 0;
    e.snooped = bits(raw, 62, 61) == 0;
    e.dirty = bit(raw, 7);
    return e;
  }

  unsigned output_bits_;
  bool tracks_;
};

}  // namespace ioplan::sim::hardware
