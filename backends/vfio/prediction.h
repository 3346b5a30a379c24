// What a plan predicts, as the backends on Linux look it up and compare it with what the kernel says.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/base/range.h"
#include "engine/model/plan.h"

namespace ioplan::vfio {

// A plan's address space; one without predictions for a step that names none of the plan's.
PlannedIoas planned_space(const Plan& plan, const std::string& id);

// Is every predicted address among those that were seen?
bool contain(const std::vector<Range>& seen, const std::vector<Range>& predicted);

// What a backend holds under a name of the plan; null when it holds nothing.
template <class Values>
auto* find_name(Values& values, std::string_view name) {
  const auto it = values.find(name);
  return it == values.end() ? nullptr : &it->second;
}

}  // namespace ioplan::vfio
