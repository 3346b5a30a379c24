// Where an automatic map goes: iopt_alloc_iova (drivers/iommu/iommufd/io_pagetable.c).
//
// The lowest place inside the allowed ranges (everything, when there are none) that is free of areas and reservations,
// aligned like the user's address as far as large pages profit from it. Never the first page, never the last.

#include <algorithm>
#include <bit>
#include <cerrno>

#include "backends/sim/io_page_table.h"
#include "engine/base/log2.h"

namespace ioplan::sim {

namespace {

constexpr std::uint64_t kLast = ~std::uint64_t{0};

// Moves `start` up to the alignment and the offset into the page; false when the length does not fit behind it.
bool fits(std::uint64_t& start, std::uint64_t last, std::uint64_t length, std::uint64_t alignment,
          std::uint64_t page_offset) {
  if (start > kLast - (alignment - 1)) return false;
  const std::uint64_t aligned = ((start + alignment - 1) & ~(alignment - 1)) | page_offset;
  if (aligned >= last || last - aligned < length - 1) return false;
  start = aligned;
  return true;
}

// One entry of a page middle directory: what transparent huge pages are made of.
std::uint64_t huge_page(std::uint64_t page) { return page / 8 * page; }

}  // namespace

Answer<std::uint64_t> IoPageTable::find_iova(std::uint64_t user_address, std::uint64_t length) const {
  if (length >= kLast / 2) return refuse(EOVERFLOW, "the length leaves the address space");
  std::uint64_t alignment = std::bit_ceil(length);
  if (user_address != 0) alignment = std::min(alignment, lowest_bit(user_address));
  alignment = std::min(alignment, huge_page(supply_.page_size));
  if (alignment < alignment_) return refuse(EINVAL, "the user address is not aligned for the IOAS");

  const std::uint64_t offset = user_address % supply_.page_size;
  for (Span allowed : allowed_spans({supply_.page_size, kLast - supply_.page_size})) {
    if (!fits(allowed.start, allowed.last, length, alignment, offset)) continue;
    for (std::uint64_t at = allowed.start;;) {
      const auto used = next_used({at, allowed.last});
      std::uint64_t start = at;
      const bool hole = !used || used->start > at;
      if (hole && fits(start, used ? used->start - 1 : allowed.last, length, alignment, offset)) return start;
      if (!used || used->last >= allowed.last) break;
      at = used->last + 1;
    }
  }
  return refuse(ENOSPC, "no free range is large enough");
}

// The first area or reservation within the span.
std::optional<IoPageTable::Span> IoPageTable::next_used(Span within) const {
  std::optional<Span> first;
  const auto consider = [&](const Range& r) {
    if (r.last < within.start || r.start > within.last || (first && first->start <= r.start)) return;
    first = Span{r.start, r.last};
  };
  if (const auto area = first_area(within.start); area != areas_.end()) consider(area->second->iova);
  for (const auto& [range, owners] : reserved_) consider(range);
  return first;
}

// Ranges that touch are one.
std::vector<IoPageTable::Span> IoPageTable::allowed_spans(Span within) const {
  if (allowed_.empty()) return {within};
  RangeSet joined;
  for (const Range& r : allowed_) joined.add(r);
  std::vector<Span> spans;
  for (const Range& r : joined.ranges()) {
    const Span clipped{std::max(r.start, within.start), std::min(r.last, within.last)};
    if (clipped.start <= clipped.last) spans.push_back(clipped);
  }
  return spans;
}

}  // namespace ioplan::sim
