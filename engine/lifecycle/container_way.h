// What of a running type1 container can stay on the way to another layout of it (README.md 10).
//
// Domains that are there at a time are never equal, so a target's HWPT can be one running domain only. A set of them is
// kept when there is an order in which all others join, each landing where the target wants it. The set that stops the
// fewest devices is taken. Held by tests/type1_lifecycle_test.cc (brute force).
#pragma once

#include <map>
#include <string>
#include <vector>

#include "engine/lifecycle/container_domains.h"
#include "engine/model/plan.h"

namespace ioplan {

struct ContainerWay {
  std::map<std::string, std::string> kept;     // target's HWPT -> the running one
  std::map<std::string, std::string> openers;  // of the target's other HWPTs: allocators
  std::vector<std::string> order;              // the target's HWPTs, as they are made in the end
  std::vector<Range> usable;                   // of their container then, and also when the order makes it from nothing
};

// Of the VM's containers. Requires: both are type1 plans of the host.
ContainerWay container_way(const Plan& running, const Plan& target, const std::string& vm, const GroupLaw& law);

}  // namespace ioplan
