// Can a running VM land on another host, with the features that its guest has seen since boot? README.md 9.
//
// Every device needs a substitute of its class there. The destination is planned with what the guest sees as needs;
// what that leaves different, or forbids, is said. Held by tests/migration_test.cc.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "engine/law/law.h"
#include "engine/model/features.h"
#include "engine/model/plan.h"
#include "engine/model/request.h"

namespace ioplan {

struct Landing {
  std::string host;
  bool lands = false;
  bool live = false;  // while the VM runs: every HWPT of the source tracks dirty pages
  std::vector<std::pair<std::string, std::string>> substitutes;  // by device of the source
  std::vector<FeatureChange> differences;                        // source -> destination
  std::vector<Conflict> reasons;                                 // why it does not land, or only cold
  Plan plan;                                                     // at the destination, when it lands
};

// The best first: those that it can land on, live before cold, then the fewest differences, the policy's objectives,
// the name. `request`: the source's documents. Requires: complete facts; the plan has one VM.
std::vector<Landing> migrate(const Plan& running, const Request& request, const std::vector<Host>& destinations,
                             const Law& law);

}  // namespace ioplan
