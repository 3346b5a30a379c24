// x86-64 first-stage entries (Intel VT-d specification, "First-Stage Paging Entries"; AMD64 APM volume 2, 5.3).
//
//   0 P   1 R/W   2 U/S   3 PWT, 4 PCD: memory type   5 A   6 D, pages only   7 PS: a page above level 1 (PAT at 1)
//   11:8 ignored here   51:12 address (bit 12 of a large page is PAT)   62:52 ignored   63 XD: DMA fetches no code
//
// Requests come with user privilege, so an entry without U/S allows nothing. Hardware always sets A, and D on a write.
// No entry tells whether an access snoops: the PASID entry's PGSNP does (the shape's force_coherence).
#pragma once

#include <algorithm>

#include "backends/sim/walk/entry.h"

namespace ioplan::sim::hardware {

class X86FirstStage : public FourKiBTables {
 public:
  explicit X86FirstStage(const PageTableShape& shape)
      : output_bits_(std::min(shape.output_bits, 52U)), snoops_(shape.force_coherence) {}

  unsigned width(unsigned levels) const { return full_width(levels); }
  static constexpr bool sign_extended() { return true; }

  Entry decode(std::uint64_t raw, unsigned level, std::uint64_t) const {
    if (!bit(raw, 0)) return Entry::fault(kNothingHere);
    if ((raw & mask(51, 12) & ~last_of_width(output_bits_)) != 0) return Entry::fault(kReservedBits);
    const bool user = bit(raw, 2);
    const std::uint8_t allows = permissions(user, user && bit(raw, 1));
    const bool is_page = level == 1 || bit(raw, 7);
    if (!is_page) return Entry::table(raw & mask(51, 12), level - 1, allows);
    if (level > 3) return Entry::fault(kReservedBits);
    const unsigned page_lg2 = entry_lg2(level);
    if (page_lg2 > 12 && (raw & mask(page_lg2 - 1, 13)) != 0) return Entry::fault(kMisaligned);
    Entry page = Entry::page(raw & mask(51, page_lg2), page_lg2, allows);
    page.snooped = snoops_;
    page.dirty = bit(raw, 6);
    return page;
  }

  std::uint64_t marked(std::uint64_t raw, const Entry& entry, DmaAccess access) const {
    const bool dirties = entry.kind == Entry::Kind::page && access == DmaAccess::write;
    return raw | pow2(5) | (dirties ? pow2(6) : 0);
  }

 private:
  unsigned output_bits_;
  bool snoops_;
};

}  // namespace ioplan::sim::hardware
