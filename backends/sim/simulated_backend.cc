#include "backends/sim/simulated_backend.h"

#include "backends/sim/sim_backend.h"
#include "backends/sim/sim_type1_backend.h"

namespace ioplan::sim {

std::unique_ptr<Backend> simulated_backend(Machine& machine, KernelInterface interface) {
  if (interface == KernelInterface::type1) return std::make_unique<SimType1Backend>(machine);
  return std::make_unique<SimBackend>(machine);
}

}  // namespace ioplan::sim
