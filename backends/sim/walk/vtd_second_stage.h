// VT-d second-stage entries (Intel VT-d specification, "Second-Stage Paging Entries").
//
//   0 R   1 W   2 X, ignored   5:3 EMT, 6 IPAT: ignored   7 PS: a page above level 1
//   8 A, 9 D: used when the PASID entry's SSADE is set (the shape's dirty_tracking), else ignored   11 SNP, pages only
//   51:12 address   62 reserved   63, 61:52, 10 ignored
//
// There is no present bit: an entry without R and W is not present. Pages exist at levels 1 to 3.
#pragma once

#include <algorithm>

#include "backends/sim/walk/entry.h"

namespace ioplan::sim::hardware {

class VtdSecondStage : public FourKiBTables {
 public:
  explicit VtdSecondStage(const PageTableShape& shape)
      : bits_(shape.address_bits), output_bits_(std::min(shape.output_bits, 52U)), tracks_(shape.dirty_tracking) {}

  unsigned width(unsigned levels) const { return std::min(bits_, full_width(levels)); }
  static constexpr bool sign_extended() { return false; }

  Entry decode(std::uint64_t raw, unsigned level, std::uint64_t) const {
    const std::uint8_t allows = permissions(bit(raw, 0), bit(raw, 1));
    if (allows == 0) return Entry::fault(kNothingHere);
    if (bit(raw, 62) || (raw & mask(51, 12) & ~last_of_width(output_bits_)) != 0) return Entry::fault(kReservedBits);
    const bool is_page = level == 1 || bit(raw, 7);
    if (!is_page) {
      if (bit(raw, 11)) return Entry::fault(kReservedBits);
      return Entry::table(raw & mask(51, 12), level - 1, allows);
    }
    if (level > 3) return Entry::fault(kReservedBits);
    const unsigned page_lg2 = entry_lg2(level);
    if (page_lg2 > 12 && (raw & mask(page_lg2 - 1, 12)) != 0) return Entry::fault(kMisaligned);
    Entry page = Entry::page(raw & mask(51, 12), page_lg2, allows);
    page.snooped = bit(raw, 11);
    page.dirty = tracks_ && bit(raw, 9);
    return page;
  }

  std::uint64_t marked(std::uint64_t raw, const Entry& entry, DmaAccess access) const {
    if (!tracks_) return raw;
    const bool dirties = entry.kind == Entry::Kind::page && access == DmaAccess::write;
    return raw | pow2(8) | (dirties ? pow2(9) : 0);
  }

 private:
  unsigned bits_;
  unsigned output_bits_;
  bool tracks_;
};

}  // namespace ioplan::sim::hardware
