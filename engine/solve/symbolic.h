// The second opinion: Z3 chooses templates under the asserted rules.
//
// Allocation is evaluated; acceptance is not: for every slot a symbolic template, its attributes as expressions of the
// choice, and every rule asserted as a formula over those attributes and the device's facts. It must reach the same
// optimum as the cover (tests/symbolic_test.cc). A no comes with an unsat core of rules and their subjects. Slow by
// design; for small requests.
#pragma once

#include "engine/solve/solver.h"

namespace ioplan {

// One rule instance of an unsat core.
struct CoreMember {
  std::string rule;
  std::string subject;  // a device id, a VM's name, or a policy rule's name
};

struct SymbolicAnswer {
  Verdict verdict = Verdict::feasible;  // undecided: the resource limit was reached
  ObjectiveValues values;
  std::vector<CoreMember> core;
};

// Requires: complete facts, preferences decided. Domain ids are not asked here.
SymbolicAnswer solve_symbolic(const Request& request, const std::vector<Needs>& needs, const Law& law);

}  // namespace ioplan
