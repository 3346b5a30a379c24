#include "backends/vfio/prediction.h"

#include <algorithm>

namespace ioplan::vfio {

PlannedIoas planned_space(const Plan& plan, const std::string& id) {
  const auto it = std::ranges::find(plan.ioas, id, &PlannedIoas::id);
  if (it != plan.ioas.end()) return *it;
  PlannedIoas unknown;
  unknown.id = id;
  return unknown;
}

bool contain(const std::vector<Range>& seen, const std::vector<Range>& predicted) {
  RangeSet set;
  for (const Range& r : seen) set.add(r);
  return std::ranges::all_of(predicted, [&](const Range& r) { return set.contains(r); });
}

}  // namespace ioplan::vfio
