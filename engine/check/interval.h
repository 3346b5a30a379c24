// The judge's own interval arithmetic: canonical lists of inclusive ranges.
//
// A list is canonical when it is sorted, disjoint and no two of its ranges touch, so equal sets are equal lists. Every
// operation returns a canonical list. Shares nothing with engine/base/range.h but the struct Range.
#pragma once

#include <vector>

#include "engine/base/range.h"

namespace ioplan::check {

using Intervals = std::vector<Range>;

inline constexpr Range kEverything{0, ~std::uint64_t{0}};

// The canonical list of what any of `ranges` holds.
Intervals merged(std::vector<Range> ranges);

// What `from` holds and `hole` does not. Requires: `from` canonical.
Intervals without(const Intervals& from, const Range& hole);

// What both `from` and `window` hold. Requires: `from` canonical.
Intervals within(const Intervals& from, const Range& window);

// Every address of `range` is in `list`. Requires: `list` canonical.
bool covers(const Intervals& list, const Range& range);

}  // namespace ioplan::check
