// A Plan as people read it.
#pragma once

#include <string>

#include "engine/document/load.h"
#include "engine/model/plan.h"

namespace ioplan::cli {

// Several lines, with places (file:line:col) of the facts that an infeasible or undecided answer rests on.
std::string plan_text(const Plan& plan, const Request& request, const Sources& sources);

// "4096 B" and the like, rounded down to two digits after the point of the largest unit: "1.25GiB".
std::string approximate_size(std::uint64_t bytes);

}  // namespace ioplan::cli
