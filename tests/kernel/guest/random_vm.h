// Random VMs over the guest's own devices, for the cases that apply plans.
#pragma once

#include <random>
#include <vector>

#include "engine/model/host.h"
#include "engine/model/virtual_machine.h"

namespace ioplan::kernel_test {

// Low and high RAM around a hole, and a read-only stretch: small, because the guest pins it. Some devices of `devices`
// (by index in the host), at least one.
VirtualMachine random_vm(const Host& host, const std::vector<unsigned>& devices, std::mt19937_64& random);

}  // namespace ioplan::kernel_test
