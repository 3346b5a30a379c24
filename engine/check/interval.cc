#include "engine/check/interval.h"

#include <algorithm>

namespace ioplan::check {

Intervals merged(std::vector<Range> ranges) {
  std::sort(ranges.begin(), ranges.end());
  Intervals result;
  for (const Range& r : ranges) {
    // `r.start - 1` is safe: a range that starts at 0 sorts first or meets one that does too.
    const bool joins = !result.empty() && (r.start <= result.back().last || r.start - 1 == result.back().last);
    if (joins) {
      result.back().last = std::max(result.back().last, r.last);
    } else {
      result.push_back(r);
    }
  }
  return result;
}

Intervals within(const Intervals& from, const Range& window) {
  Intervals result;
  for (const Range& r : from) {
    const Range common{std::max(r.start, window.start), std::min(r.last, window.last)};
    if (common.start <= common.last) result.push_back(common);
  }
  return result;
}

// A hole leaves what lies below it and what lies above it.
Intervals without(const Intervals& from, const Range& hole) {
  Intervals result;
  if (hole.start > 0) result = within(from, {0, hole.start - 1});
  if (hole.last == kEverything.last) return result;
  for (const Range& r : within(from, {hole.last + 1, kEverything.last})) result.push_back(r);
  return result;
}

bool covers(const Intervals& list, const Range& range) {
  return std::any_of(list.begin(), list.end(), [&](const Range& r) { return r.contains(range); });
}

}  // namespace ioplan::check
