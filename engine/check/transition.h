// The judge of transitions: replays a step list from one layout to another and doubts every world between.
//
// It shares no code with engine/lifecycle: its own worlds, its own replay, the law through the seam. The definition is
// engine/lifecycle/README.md 6: each step must be one that the kernel takes, each world must be safe, the last must be
// the target. Held by tests/transition_check_test.cc (mutants) and tests/lifecycle_test.cc.
#pragma once

#include <vector>

#include "engine/check/check.h"
#include "engine/model/plan.h"
#include "engine/model/request.h"

namespace ioplan {

// Objections against `steps` as the way from `from` to `to`; `request` is that of the target.
// The first step that fails ends the replay: what follows would only repeat it.
Judgement check_transition(const Plan& from, const Plan& to, const std::vector<Step>& steps, const Request& request,
                           const Law& law);

}  // namespace ioplan
