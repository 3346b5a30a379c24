// The simulator has both of Linux's interfaces: iommufd's contexts, and type1's containers.
#pragma once

#include <memory>

#include "backends/sim/machine.h"
#include "engine/apply/backend.h"

namespace ioplan::sim {

// The machine must outlive it.
std::unique_ptr<Backend> simulated_backend(Machine& machine, KernelInterface interface);

}  // namespace ioplan::sim
