// Which pages of a mapped range were written to: a bit a page, in the kernel's layout (IOMMU_HWPT_GET_DIRTY_BITMAP),
// which sets bits and clears none. So one bitmap gathers over several HWPTs, and over rounds, until its owner has sent
// the pages and clears it. Held by tests/iommufd_backend_test.cc.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/base/error.h"
#include "engine/base/range.h"

namespace ioplan::iommufd {

class DirtyBitmap {
 public:
  // All clean. Errors: `page` is no power of two, or the range does not consist of whole pages.
  static Result<DirtyBitmap> create(const Range& range, std::uint64_t page);

  const Range& range() const { return range_; }
  std::uint64_t page() const { return page_; }

  bool is_dirty(std::uint64_t iova) const;  // requires: within the range
  std::uint64_t dirty_pages() const;
  void clear();
  void add(const DirtyBitmap& part);  // requires: pages of the same size, within the range

  // Bit 0 of the first word is the first page.
  std::vector<std::uint64_t>& words() { return words_; }
  const std::vector<std::uint64_t>& words() const { return words_; }

 private:
  DirtyBitmap(const Range& range, std::uint64_t page);

  Range range_;
  std::uint64_t page_;
  std::vector<std::uint64_t> words_;
};

}  // namespace ioplan::iommufd
