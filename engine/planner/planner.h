// Request -> Plan: the main job.
//
// engine/README.md walks through the trip and states what the contract leaves open. The same facts give the same Plan
// whatever their order; budgets are counted in work, not in time. Held by tests/plan_random_test.cc (brute force),
// tests/plan_determinism_test.cc and tests/examples_test.cc.
#pragma once

#include "engine/law/law.h"
#include "engine/model/plan.h"
#include "engine/model/request.h"
#include "engine/solve/cover.h"

namespace ioplan {

struct PlanOptions {
  CoverBudget budget;
  bool explain_no = true;  // fill conflict and fixes of an infeasible plan
};

// Requires: a Request as document/load.h gives it (sorted, references resolved), at least one VM.
Plan make_plan(const Request& request, const Law& law, const PlanOptions& options = {});

}  // namespace ioplan
