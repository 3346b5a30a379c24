// Minimal conflicts: which rule instances, enforced alone, already leave a VM without a plan.
#pragma once

#include <vector>

#include "engine/solve/solver.h"

namespace ioplan {

// A minimal conflict of a VM that has no plan of its own, the smallest where several have none (policy rules reach across
// VMs); empty when every VM alone is feasible. `vm` receives that VM.
std::vector<Conflict> minimal_conflict(const Request& request, const Solved& solved, const Law& law,
                                       const CoverBudget& budget, std::size_t& vm);

// A minimal conflict of VMs that have plans of their own and overdraw the units' domain ids together (one VM may do, too).
std::vector<Conflict> domain_id_conflict(const Request& request, const Solved& solved, const Law& law,
                                         const CoverBudget& budget);

}  // namespace ioplan
