#include "engine/base/range.h"

#include <algorithm>

namespace ioplan {

namespace {

// Ranges that overlap or touch become one. `last + 1` may wrap, so adjacency is asked from below.
bool joins(const Range& a, const Range& b) {
  return a.overlaps(b) || (b.start > a.last ? b.start - a.last == 1 : a.start - b.last == 1);
}

}  // namespace

void RangeSet::add(const Range& range) {
  Range merged = range;
  std::vector<Range> kept;
  kept.reserve(ranges_.size() + 1);
  for (const Range& r : ranges_) {
    if (joins(r, merged)) {
      merged = {std::min(r.start, merged.start), std::max(r.last, merged.last)};
    } else {
      kept.push_back(r);
    }
  }
  kept.insert(std::upper_bound(kept.begin(), kept.end(), merged), merged);
  ranges_ = std::move(kept);
}

void RangeSet::subtract(const Range& range) {
  std::vector<Range> kept;
  kept.reserve(ranges_.size() + 1);
  for (const Range& r : ranges_) {
    if (!r.overlaps(range)) {
      kept.push_back(r);
      continue;
    }
    if (r.start < range.start) kept.push_back({r.start, range.start - 1});
    if (r.last > range.last) kept.push_back({range.last + 1, r.last});
  }
  ranges_ = std::move(kept);
}

bool RangeSet::contains(const Range& range) const {
  return std::ranges::any_of(ranges_, [&](const Range& r) { return r.contains(range); });
}

bool RangeSet::overlaps(const Range& range) const {
  return std::ranges::any_of(ranges_, [&](const Range& r) { return r.overlaps(range); });
}

}  // namespace ioplan
