#include "backends/sim/io_page_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <iterator>

#include "engine/base/log2.h"

namespace ioplan::sim {

namespace {

constexpr std::uint64_t kLast = ~std::uint64_t{0};

bool overflows(std::uint64_t start, std::uint64_t length) { return length - 1 > kLast - start; }

}  // namespace

Answer<std::uint64_t> IoPageTable::map(std::vector<Piece> pieces, std::optional<std::uint64_t> fixed,
                                       std::uint8_t protection) {
  std::vector<std::unique_ptr<Area>> made;
  std::uint64_t length = 0;
  for (Piece& piece : pieces) {
    if (supply_.failures.strikes()) return refuse(ENOMEM, "injected: no memory for an area");
    made.push_back(std::make_unique<Area>(Area{{}, std::move(piece.pages), piece.slice, protection, false, {}}));
    length += piece.slice.length;
  }

  std::unique_lock lock(mutex_);
  auto placed = place(made, length, fixed);
  if (!placed) return placed;
  std::vector<Area*> areas;
  for (auto& area : made) {
    areas.push_back(area.get());
    areas_.emplace(area->iova.start, std::move(area));
  }
  lock.unlock();  // the areas hold their IOVAs; nobody else touches them while they are not ready

  Answer<void> filled;
  std::size_t done = 0;
  while (filled && done < areas.size()) filled = fill(*areas[done++], domains_);
  if (!filled) {
    for (std::size_t i = 0; i + 1 < done; ++i) unfill(*areas[i], domains_);
  }
  lock.lock();
  for (Area* area : areas) {
    area->ready = true;
    if (!filled) areas_.erase(area->iova.start);
  }
  if (!filled) return tl::make_unexpected(filled.error());
  return placed;
}

// Gives the areas their IOVAs: iopt_alloc_area_pages.
Answer<std::uint64_t> IoPageTable::place(std::span<const std::unique_ptr<Area>> made, std::uint64_t length,
                                         std::optional<std::uint64_t> fixed) const {
  if (length == 0 || (length & (alignment_ - 1)) != 0) return refuse(EINVAL, "the length is not aligned for the IOAS");
  const Area& first = *made.front();
  auto answer = fixed ? check_fixed(*fixed, length) : find_iova(first.pages->user_address(first.slice.start), length);
  if (!answer) return answer;
  std::uint64_t iova = *answer;
  for (const auto& area : made) {
    if ((area->protection & kWrite) != 0 && !area->pages->writeable()) {
      return refuse(EPERM, "the memory was mapped without WRITEABLE");
    }
    if ((area->slice.start % supply_.page_size & (alignment_ - 1)) != 0) {
      return refuse(EINVAL, "the user address is not aligned for the IOAS");
    }
    area->iova = {iova, iova + area->slice.length - 1};
    iova += area->slice.length;
  }
  return answer;
}

Answer<std::uint64_t> IoPageTable::check_fixed(std::uint64_t iova, std::uint64_t length) const {
  if ((iova & (alignment_ - 1)) != 0) return refuse(EINVAL, "the IOVA is not aligned for the IOAS");
  if (overflows(iova, length)) return refuse(EOVERFLOW, "the range leaves the address space");
  const Range range{iova, iova + length - 1};
  if (reserved_in(range)) return refuse(EINVAL, "the range overlaps a reserved one");
  if (area_in(range) != nullptr) return refuse(EEXIST, "something is mapped there");
  return iova;
}

Answer<std::vector<IoPageTable::Piece>> IoPageTable::pieces(std::uint64_t iova, std::uint64_t length) const {
  if (length == 0) return refuse(EINVAL, "the length is 0");
  if (overflows(iova, length)) return refuse(EOVERFLOW, "the source leaves the address space");
  const std::uint64_t last = iova + length - 1;
  const std::scoped_lock lock(mutex_);
  std::vector<Piece> found;
  for (std::uint64_t at = iova;;) {
    const Area* area = area_in({at, at});
    if (area == nullptr || !area->ready) return refuse(ENOENT, "the source has a hole");
    if (supply_.failures.strikes()) return refuse(ENOMEM, "injected: no memory for a list of pages");
    const std::uint64_t end = std::min(last, area->iova.last);
    found.push_back({area->pages, {area->slice.start + (at - area->iova.start), end - at + 1}});
    if (end == last) return found;
    at = end + 1;
  }
}

Answer<std::uint64_t> IoPageTable::unmap(Range range) {
  std::uint64_t unmapped = 0;
  std::unique_lock lock(mutex_);
  for (;;) {
    const auto it = first_area(range.start);
    if (it == areas_.end() || it->second->iova.start > range.last) return unmapped;
    Area& area = *it->second;
    if (!area.ready) return refuse(EBUSY, "the area is being mapped or unmapped");
    if (!range.contains(area.iova)) return refuse(ENOENT, "the range cuts an area");
    const Range gone = area.iova;
    area.ready = false;
    lock.unlock();
    unfill(area, domains_);
    unmapped += gone.extent() + 1;
    lock.lock();
    areas_.erase(gone.start);
    if (gone.last >= range.last) return unmapped;
    range.start = gone.last + 1;
  }
}

Answer<void> IoPageTable::reserve(Range range, const void* owner) {
  if (area_in(range) != nullptr) return refuse(EADDRINUSE, "a reserved region lies over something mapped");
  if (allowed_in(range)) return refuse(EADDRINUSE, "a reserved region lies over an allowed range");
  if (supply_.failures.strikes()) return refuse(ENOMEM, "injected: no memory for a reservation");
  reservations_[owner].push_back(range);
  ++reserved_[range];
  return {};
}

void IoPageTable::unreserve(const void* owner) {
  const auto held = reservations_.find(owner);
  if (held == reservations_.end()) return;
  for (const Range& range : held->second) {
    const auto it = reserved_.find(range);
    if (--it->second == 0) reserved_.erase(it);
  }
  reservations_.erase(held);
}

Answer<void> IoPageTable::allow(std::span<const Range> ranges) {
  std::vector<Range> sorted;
  for (const Range& r : ranges) {
    if (r.start >= r.last) return refuse(EINVAL, "an allowed range has less than two addresses");
    if (std::ranges::any_of(sorted, [&](const Range& s) { return s.overlaps(r); })) {
      return refuse(EINVAL, "allowed ranges overlap");
    }
    if (supply_.failures.strikes()) return refuse(ENOMEM, "injected: no memory for an allowed range");
    sorted.push_back(r);
  }
  if (std::ranges::any_of(sorted, [&](const Range& r) { return reserved_in(r); })) {
    return refuse(EADDRINUSE, "an allowed range is reserved");
  }
  std::ranges::sort(sorted);
  allowed_ = std::move(sorted);
  return {};
}

std::vector<Range> IoPageTable::usable() const {
  RangeSet gaps{{0, kLast}};
  for (const auto& [range, owners] : reserved_) gaps.subtract(range);
  return {gaps.ranges().begin(), gaps.ranges().end()};
}

Answer<void> IoPageTable::join(Domain& domain) {
  const std::uint64_t alignment = std::max(lowest_bit(domain.page_sizes()), alignment_);
  if (alignment > supply_.page_size) return refuse(EINVAL, "the smallest page of the HWPT is larger than the kernel's");
  if (auto answer = check_alignment(alignment); !answer) return answer;
  auto answer = reserve_outside(domain);
  if (answer && supply_.failures.strikes()) answer = refuse(ENOMEM, "injected: no memory for the list of HWPTs");
  const std::array<Domain*, 1> joining{&domain};
  std::vector<Area*> filled;
  for (auto it = areas_.begin(); answer && it != areas_.end(); ++it) {
    answer = fill(*it->second, joining);
    if (answer) filled.push_back(it->second.get());
  }
  if (!answer) {
    for (Area* area : filled) {
      domain.table->unmap(area->iova.start, area->slice.length);
      if (domains_.empty()) release(*area);
    }
    unreserve(&domain);
    return answer;
  }
  alignment_ = alignment;
  domains_.push_back(&domain);
  return {};
}

Answer<void> IoPageTable::reserve_outside(const Domain& domain) {
  const Range aperture = domain.aperture();
  if (aperture.start != 0) {
    if (auto answer = reserve({0, aperture.start - 1}, &domain); !answer) return answer;
  }
  if (aperture.last == kLast) return {};
  return reserve({aperture.last + 1, kLast}, &domain);
}

// Its place is taken by the one that was added last, as in the kernel's array. What it maps goes with its table, which
// nobody uses any more; memory is let go when no domain is left.
void IoPageTable::leave(Domain& domain) {
  const auto it = std::ranges::find(domains_, &domain);
  *it = domains_.back();
  domains_.pop_back();
  if (domains_.empty()) {
    for (const auto& [iova, area] : areas_) release(*area);
  }
  unreserve(&domain);
  alignment_ = wanted_alignment();
}

Answer<void> IoPageTable::check_alignment(std::uint64_t alignment) const {
  if (alignment == alignment_) return {};
  const std::uint64_t mask = alignment - 1;
  for (const auto& [iova, area] : areas_) {
    if (((iova | area->slice.length | area->slice.start % supply_.page_size) & mask) != 0) {
      return refuse(EADDRINUSE, "something mapped is not aligned as it would have to be");
    }
  }
  return {};
}

std::uint64_t IoPageTable::wanted_alignment() const {
  std::uint64_t alignment = large_pages_ ? 1 : supply_.page_size;
  for (const Domain* domain : domains_) alignment = std::max(alignment, lowest_bit(domain->page_sizes()));
  return accesses_.empty() ? alignment : std::max(alignment, *accesses_.rbegin());
}

Answer<void> IoPageTable::realign() {
  const std::uint64_t alignment = wanted_alignment();
  if (alignment > alignment_) {
    if (auto answer = check_alignment(alignment); !answer) return answer;
  }
  alignment_ = alignment;
  return {};
}

Answer<void> IoPageTable::add_access(std::uint64_t alignment) {
  const auto added = accesses_.insert(alignment);
  auto answer = realign();
  if (!answer) accesses_.erase(added);
  return answer;
}

void IoPageTable::remove_access(std::uint64_t alignment) {
  accesses_.erase(accesses_.find(alignment));
  alignment_ = wanted_alignment();
}

Answer<void> IoPageTable::disable_large_pages() {
  if (!large_pages_) return {};
  if (!domains_.empty() && !areas_.empty()) return refuse(EINVAL, "HWPTs may hold large pages already");
  large_pages_ = false;
  auto answer = realign();
  if (!answer) large_pages_ = true;
  return answer;
}

void IoPageTable::enable_large_pages() {
  large_pages_ = true;
  alignment_ = wanted_alignment();
}

void IoPageTable::clear_dirty(Domain& domain) const {
  std::uint64_t ignored[2] = {};
  for (const auto& [iova, area] : areas_) {
    if (area->ready) domain.table->read_dirty(area->iova, DirtyRead::clear, {0, 63, ignored});
  }
}

void IoPageTable::read_dirty(Domain& domain, Range range, DirtyRead mode, DirtyBitmap bitmap) const {
  const std::scoped_lock lock(mutex_);
  for (std::uint64_t at = range.start;;) {
    const Area* area = area_in({at, at});
    if (area == nullptr || !area->ready) return;
    const std::uint64_t end = std::min(range.last, area->iova.last);
    domain.table->read_dirty({at, end}, mode, bitmap);
    if (end == range.last) return;
    at = end + 1;
  }
}

IoPageTable::Areas::const_iterator IoPageTable::first_area(std::uint64_t from) const {
  auto it = areas_.upper_bound(from);
  if (it != areas_.begin() && std::prev(it)->second->iova.last >= from) --it;
  return it;
}

const IoPageTable::Area* IoPageTable::area_in(Range range) const {
  const auto it = first_area(range.start);
  return it != areas_.end() && it->second->iova.start <= range.last ? it->second.get() : nullptr;
}

bool IoPageTable::reserved_in(Range range) const {
  return std::ranges::any_of(reserved_, [&](const auto& r) { return r.first.overlaps(range); });
}

bool IoPageTable::allowed_in(Range range) const {
  return std::ranges::any_of(allowed_, [&](const Range& r) { return r.overlaps(range); });
}

std::vector<Range> IoPageTable::mapped() const {
  const std::scoped_lock lock(mutex_);
  std::vector<Range> ranges;
  for (const auto& [iova, area] : areas_) {
    if (!ranges.empty() && ranges.back().last + 1 == iova) {
      ranges.back().last = area->iova.last;
    } else {
      ranges.push_back(area->iova);
    }
  }
  return ranges;
}

void IoPageTable::append_text(std::string& text, const std::map<const void*, std::string>& owners) const {
  const auto out = std::back_inserter(text);
  fmt::format_to(out, "    alignment {} large_pages {} accesses {}\n", alignment_, large_pages_, accesses_.size());
  std::vector<std::string> lines;
  for (const auto& [who, ranges] : reservations_) {
    const auto name = owners.find(who);
    for (const Range& r : ranges) {
      lines.push_back(fmt::format("    reserved {:#x}-{:#x} by {}\n", r.start, r.last,
                                  name == owners.end() ? "?" : name->second));
    }
  }
  std::ranges::sort(lines);
  for (const std::string& line : lines) text += line;
  for (const Range& r : allowed_) fmt::format_to(out, "    allowed {:#x}-{:#x}\n", r.start, r.last);
  for (const auto& [iova, area] : areas_) {
    fmt::format_to(out, "    area {:#x}-{:#x} of {:#x} protection {} pinned {}\n", iova, area->iova.last,
                   area->pages->user_address(area->slice.start), area->protection, area->pages->pinned_bytes());
  }
}

}  // namespace ioplan::sim
