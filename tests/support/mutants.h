// Single-fault mutants of a plan, for doubting the judge: each differs from a valid plan in one field, one decision or
// one step. Decisions come twice: as they are (the rest of the plan no longer fits), and with everything that follows
// from them derived anew, so that only the decision itself can be wrong. Whether a mutant is wrong at all is for the
// replay (replay.h) to say.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "engine/model/plan.h"
#include "engine/model/request.h"

namespace ioplan::mutants {

struct Mutant {
  std::string name;
  Plan plan;
};

// Requires: `derive` gives a plan whose fields follow from its decisions.
std::vector<Mutant> mutants_of(const Plan& plan, const Request& request, const std::function<Plan(Plan)>& derive);

struct StricterRequest {
  std::string name;
  Request request;
};

// The request with one thing more forbidden, needed or true of the host. The old plan may not be right any more.
std::vector<StricterRequest> stricter_requests(const Request& request, const Plan& plan);

// Mutants of an answer other than feasible.
std::vector<Mutant> mutants_of_a_no(const Plan& plan);

}  // namespace ioplan::mutants
