// Plans of random VMs over the guest's own devices, carried out on its own kernel and compared with what was predicted.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/model/host.h"

namespace ioplan::kernel_test {

struct PlanTally {
  unsigned applied = 0;     // and observed as predicted
  unsigned infeasible = 0;  // the planner said no: dirty tracking, which QEMU's units cannot do
  unsigned failed = 0;      // anything else; printed
};

// `devices`: indices of those that vfio-pci has.
PlanTally apply_random_plans(const Host& host, const std::vector<unsigned>& devices, std::uint64_t seed, unsigned count);

}  // namespace ioplan::kernel_test
