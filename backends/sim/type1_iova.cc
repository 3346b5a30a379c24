#include "backends/sim/type1_iova.h"

#include <algorithm>

namespace ioplan::sim {

std::optional<Range> Type1Iova::hull() const {
  if (ranges_.empty()) return std::nullopt;
  return Range{ranges_.front().start, ranges_.back().last};
}

bool Type1Iova::contains(const Range& range) const {
  return std::ranges::any_of(ranges_, [&](const Range& r) { return r.contains(range); });
}

void Type1Iova::resize(const Range& aperture) {
  if (ranges_.empty()) {
    ranges_.push_back(aperture);
    return;
  }
  const auto first = std::ranges::find_if(ranges_, [&](const Range& r) { return aperture.start < r.last; });
  ranges_.erase(ranges_.begin(), first);
  if (!ranges_.empty()) ranges_.front().start = std::max(ranges_.front().start, aperture.start);
  std::erase_if(ranges_, [&](const Range& r) { return aperture.last <= r.start; });
  if (!ranges_.empty()) ranges_.back().last = std::min(ranges_.back().last, aperture.last);
}

bool Type1Iova::exclude(std::span<const ReservedRegion> regions) {
  for (const ReservedRegion& region : regions) {
    if (region.type == ReservedType::direct_relaxable) continue;
    std::vector<Range> left;
    for (const Range& r : ranges_) {
      if (!r.overlaps(region.range)) {
        left.push_back(r);
        continue;
      }
      if (region.range.start > r.start) left.push_back({r.start, region.range.start - 1});
      if (region.range.last < r.last) left.push_back({region.range.last + 1, r.last});
    }
    ranges_ = std::move(left);
  }
  return !ranges_.empty();
}

void Type1Iova::expand(const Range& aperture) {
  ranges_.front().start = aperture.start;
  ranges_.back().last = aperture.last;
}

}  // namespace ioplan::sim
