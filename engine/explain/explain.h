// "No, and why": a minimal conflict among the rules that refuse, and the smallest changes that would help.
//
// The conflict is a set of rule instances, each a rule and its subjects. Enforced alone they already make the request
// infeasible, and without any one of them they do not. Fixes are changes of the request that were planned again.
// Held by tests/explain_test.cc.
#pragma once

#include <vector>

#include "engine/solve/solver.h"

namespace ioplan {

struct Explanation {
  std::vector<Conflict> conflict;
  std::vector<Fix> fixes;
};

// Requires: the request has complete facts and no plan.
Explanation explain_no(const Request& request, const Law& law, const CoverBudget& budget);

}  // namespace ioplan
