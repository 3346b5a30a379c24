#include "backends/iommufd/dirty_bitmap.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "engine/base/text.h"

namespace ioplan::iommufd {

DirtyBitmap::DirtyBitmap(const Range& range, std::uint64_t page)
    : range_(range), page_(page), words_(range.extent() / page / 64 + 1) {}

Result<DirtyBitmap> DirtyBitmap::create(const Range& range, std::uint64_t page) {
  if (!std::has_single_bit(page)) return failure(fmt::format("{} is no page size", page));
  if (range.start % page != 0 || (range.last + 1) % page != 0) {
    return failure(
        fmt::format("{:#x}-{:#x} does not consist of pages of {}", range.start, range.last, format_size(page)));
  }
  return DirtyBitmap(range, page);
}

bool DirtyBitmap::is_dirty(std::uint64_t iova) const {
  const std::uint64_t bit = (iova - range_.start) / page_;
  return (words_[bit / 64] >> bit % 64 & 1) != 0;
}

std::uint64_t DirtyBitmap::dirty_pages() const {
  std::uint64_t pages = 0;
  for (const std::uint64_t word : words_) pages += static_cast<std::uint64_t>(std::popcount(word));
  return pages;
}

void DirtyBitmap::add(const DirtyBitmap& part) {
  const std::uint64_t first = (part.range_.start - range_.start) / page_;
  for (std::uint64_t i = 0; i <= part.range_.extent() / page_; ++i) {
    if ((part.words_[i / 64] >> i % 64 & 1) != 0) words_[(first + i) / 64] |= std::uint64_t{1} << (first + i) % 64;
  }
}

void DirtyBitmap::clear() { std::ranges::fill(words_, 0); }

}  // namespace ioplan::iommufd
