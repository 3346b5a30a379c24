// One question: a host, the VMs to place on it, and the operator's policy. References are resolved.
#pragma once

#include <vector>

#include "engine/model/host.h"
#include "engine/model/policy.h"
#include "engine/model/virtual_machine.h"

namespace ioplan {

struct Request {
  Host host;
  std::vector<VirtualMachine> vms;  // sorted by name
  Policy policy;
};

}  // namespace ioplan
