// From one layout to another: which HWPT of the target is which running object, and the steps between.
//
// README.md 5 and 6 of this folder. The matching interrupts the fewest devices; the steps pass through valid and safe
// worlds only. Held by tests/lifecycle_test.cc.
#pragma once

#include <string>
#include <vector>

#include "engine/law/law.h"
#include "engine/model/host.h"
#include "engine/model/plan.h"

namespace ioplan {

struct Transition {
  std::vector<Step> steps;
  std::vector<std::string> interrupted;  // devices of both layouts whose HWPT object changes, ascending
  std::vector<std::string> stopped;      // those of them that are detached for a while, ascending
};

// The target with the names of the running objects that it keeps. Equal ids in both plans are then one object.
// `known`: running objects that are decided already, by target HWPT; nothing or "": not decided.
// Requires: both are feasible layouts for the host.
Plan matched(const Plan& running, Plan target, const Host& host, const Law& law,
             const std::vector<std::string>& known = {});

// The steps from `running` to `target`. Requires: `target` is matched.
Transition make_transition(const Plan& running, const Plan& target, const Host& host, const Law& law);

}  // namespace ioplan
