#include "tests/support/flat_map.h"

#include <algorithm>
#include <bit>
#include <cerrno>

#include "engine/base/log2.h"

namespace ioplan::sim {

namespace {

unsigned smallest_lg2(const PageTableShape& shape) {
  return static_cast<unsigned>(std::countr_zero(shape.page_sizes));
}

bool aligned(std::uint64_t value, unsigned lg2) { return (value & last_of_width(lg2)) == 0; }

// Extents that continue each other become one.
std::vector<Extent> merged(std::span<const Extent> extents) {
  std::vector<Extent> runs;
  for (const Extent& e : extents) {
    if (!runs.empty() && runs.back().pa + runs.back().size == e.pa) {
      runs.back().size += e.size;
    } else {
      runs.push_back(e);
    }
  }
  return runs;
}

unsigned largest_page(const PageTableShape& shape, std::uint64_t iova, std::uint64_t pa, std::uint64_t left) {
  for (unsigned lg2 = 63; lg2 > smallest_lg2(shape); --lg2) {
    if (bit(shape.page_sizes, lg2) && pow2(lg2) <= left && aligned(iova | pa, lg2)) return lg2;
  }
  return smallest_lg2(shape);
}

}  // namespace

TableGeometry::TableGeometry(const PageTableShape& shape) : shape_(shape) {}

unsigned TableGeometry::entry_lg2(unsigned level) const {
  switch (shape_.format) {
    case PageTableFormat::s390: return level == 1 ? 12 : 20 + 11 * (level - 2);
    case PageTableFormat::mock: return 11 + 9 * (level - 1);
    case PageTableFormat::arm_lpae: return smallest_lg2(shape_) + (smallest_lg2(shape_) - 3) * (level - 1);
    default: return 12 + 9 * (level - 1);
  }
}

std::uint64_t TableGeometry::table_bytes(unsigned level) const {
  switch (shape_.format) {
    case PageTableFormat::s390: return level == 1 ? 2048 : 16384;
    case PageTableFormat::arm_lpae: return pow2(smallest_lg2(shape_));
    case PageTableFormat::virtio: return 0;
    default: return 4096;
  }
}

std::uint64_t TableGeometry::root_bytes(unsigned levels) const {
  if (shape_.format == PageTableFormat::virtio) return 0;
  const bool several = shape_.format == PageTableFormat::arm_lpae && shape_.address_bits > reach_lg2(levels);
  return table_bytes(levels) << (several ? shape_.address_bits - reach_lg2(levels) : 0);
}

unsigned TableGeometry::levels_for(std::uint64_t last) const {
  unsigned levels = shape_.levels;
  const bool grows = shape_.format == PageTableFormat::amdv1 || shape_.format == PageTableFormat::mock;
  while (grows && (last & ~last_of_width(reach_lg2(levels))) != 0) ++levels;
  return levels;
}

FlatMap::FlatMap(const PageTableShape& shape) : shape_(shape), geometry_(shape), levels_(shape.levels) {}

int FlatMap::verdict(std::uint64_t iova, std::span<const Extent> extents, std::uint8_t protection) const {
  const unsigned page_lg2 = smallest_lg2(shape_);
  if (extents.empty() || !aligned(iova, page_lg2) || (protection & (kRead | kWrite)) == 0) return EINVAL;
  if (shape_.force_writeable && (protection & kWrite) == 0) return EINVAL;
  for (const Extent& e : extents) {
    if (e.size == 0 || !aligned(e.pa | e.size, page_lg2)) return EINVAL;
  }
  std::uint64_t next = iova;
  for (const Extent& e : extents) {
    const std::uint64_t last = next + (e.size - 1);
    if (last < next || !shape_.aperture.contains({next, last})) return ERANGE;
    const std::uint64_t pa_last = e.pa + (e.size - 1);
    if (pa_last < e.pa || pa_last > last_of_width(shape_.output_bits)) return ERANGE;
    next = last + 1;
    if (next == 0 && &e != &extents.back()) return ERANGE;
  }
  const bool arm = shape_.format == PageTableFormat::arm_lpae;
  return overlaps(iova, next - 1) ? (arm ? EEXIST : EADDRINUSE) : 0;
}

std::vector<std::pair<std::uint64_t, FlatMap::Leaf>> FlatMap::split(std::uint64_t iova,
                                                                    std::span<const Extent> extents,
                                                                    std::size_t most) const {
  std::vector<std::pair<std::uint64_t, Leaf>> made;
  for (Extent run : merged(extents)) {
    while (run.size != 0 && made.size() < most) {
      const unsigned lg2 = largest_page(shape_, iova, run.pa, run.size);
      made.push_back({iova, {run.pa, lg2, 0, false}});
      iova += pow2(lg2);
      run.pa += pow2(lg2);
      run.size -= pow2(lg2);
    }
  }
  return made;
}

// Linux maps Arm's tracked pages writeable-dirty; every other format starts clean.
bool starts_dirty(const PageTableShape& shape, std::uint8_t protection) {
  return shape.format == PageTableFormat::arm_lpae && shape.dirty_tracking && (protection & kWrite) != 0;
}

int FlatMap::map(std::uint64_t iova, std::span<const Extent> extents, std::uint8_t protection) {
  const int error = verdict(iova, extents, protection);
  if (error != 0) return error;
  for (auto& [start, leaf] : split(iova, extents)) {
    leaf.protection = effective_protection(shape_, protection);
    leaf.dirty = starts_dirty(shape_, protection);
    leaves_.emplace(start, leaf);
    levels_ = std::max(levels_, geometry_.levels_for(start + (pow2(leaf.size_lg2) - 1)));
  }
  return 0;
}

std::uint64_t FlatMap::unmap(std::uint64_t iova, std::uint64_t size) {
  std::uint64_t done = 0;
  for (;;) {
    const auto leaf = leaves_.find(iova + done);
    if (leaf == leaves_.end() || pow2(leaf->second.size_lg2) > size - done) return done;
    done += pow2(leaf->second.size_lg2);
    leaves_.erase(leaf);
    if (done == size || iova + done == 0) return done;
  }
}

std::optional<std::uint64_t> FlatMap::iova_to_phys(std::uint64_t iova) const {
  const auto leaf = find(iova);
  if (leaf == leaves_.end()) return std::nullopt;
  return leaf->second.pa + (iova - leaf->first);
}

void FlatMap::read_dirty(Range range, DirtyRead mode, DirtyBitmap bitmap) {
  for (auto& [start, leaf] : leaves_) {
    const Range covered{start, start + (pow2(leaf.size_lg2) - 1)};
    if (!leaf.dirty || !covered.overlaps(range)) continue;
    const std::uint64_t first = (std::max(covered.start, range.start) - bitmap.base) >> bitmap.page_lg2;
    const std::uint64_t last = (std::min(covered.last, range.last) - bitmap.base) >> bitmap.page_lg2;
    for (std::uint64_t page = first; page <= last; ++page) bitmap.words[page / 64] |= pow2(page % 64);
    if (mode == DirtyRead::clear) leaf.dirty = false;
  }
}

void FlatMap::make_dirty(std::uint64_t iova) {
  leaves_.at(find(iova)->first).dirty = true;
}

FlatMap::Leaves::const_iterator FlatMap::find(std::uint64_t iova) const {
  auto leaf = leaves_.upper_bound(iova);
  if (leaf == leaves_.begin()) return leaves_.end();
  --leaf;
  return iova - leaf->first < pow2(leaf->second.size_lg2) ? leaf : leaves_.end();
}

bool FlatMap::overlaps(std::uint64_t iova, std::uint64_t last) const {
  if (find(iova) != leaves_.end()) return true;
  const auto next = leaves_.lower_bound(iova);
  return next != leaves_.end() && next->first <= last;
}

// A table of a level exists for every block of its reach that holds a leaf of that level or of one below.
std::uint64_t FlatMap::table_bytes() const {
  std::uint64_t bytes = geometry_.root_bytes(levels_);
  for (unsigned level = 1; level < levels_; ++level) {
    std::optional<std::uint64_t> counted;
    for (const auto& [start, leaf] : leaves_) {
      if (leaf.size_lg2 >= geometry_.reach_lg2(level)) continue;
      const std::uint64_t block = start >> geometry_.reach_lg2(level);
      if (counted == block) continue;
      counted = block;
      bytes += geometry_.table_bytes(level);
    }
  }
  return bytes;
}

std::uint8_t effective_protection(const PageTableShape& shape, std::uint8_t protection) {
  const auto given = static_cast<std::uint8_t>(protection & (kRead | kWrite));
  const auto readable = static_cast<std::uint8_t>(given | kRead);
  const auto forced = static_cast<std::uint8_t>(shape.force_coherence ? kCache : 0);
  switch (shape.format) {
    case PageTableFormat::vtd_ss:
    case PageTableFormat::amdv1:
    case PageTableFormat::mock: return static_cast<std::uint8_t>(given | forced);
    case PageTableFormat::x86_64: return static_cast<std::uint8_t>(readable | forced);
    case PageTableFormat::arm_lpae:
      return static_cast<std::uint8_t>((shape.stage == 1 ? readable : given) | (protection & kCache));
    case PageTableFormat::riscv:
    case PageTableFormat::s390: return static_cast<std::uint8_t>(readable | kCache);
    case PageTableFormat::virtio: break;
  }
  return protection;
}

}  // namespace ioplan::sim
