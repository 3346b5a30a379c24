// The second opinion: Z3 chooses templates under the asserted rules.
//
// Allocation is evaluated; acceptance is not: for every slot a symbolic template, its attributes as expressions of the
// choice, and every rule asserted as a formula over those attributes and the device's facts. It must reach the same
// optimum as the cover (tests/symbolic_test.cc). Slow by design; for small requests.
#pragma once

#include "engine/solve/solver.h"

namespace ioplan {

Solved solve_symbolic(const Request& request, const std::vector<Needs>& needs, const Law& law,
                      const CoverBudget& budget);

}  // namespace ioplan
