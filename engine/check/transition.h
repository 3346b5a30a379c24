// The judge of transitions: replays a step list from one layout to another and doubts every world between.
//
// It shares no code with engine/lifecycle: its own worlds, its own replay, the law through the seam. The definition is
// engine/lifecycle/README.md 6: each step must be one that the kernel takes, each world must be safe, the last must be
// the target. Held by tests/transition_check_test.cc (mutants) and tests/lifecycle_test.cc.
#pragma once

#include <string_view>
#include <vector>

#include "engine/check/check.h"
#include "engine/model/plan.h"
#include "engine/model/request.h"

namespace ioplan {

namespace obligation {
inline constexpr std::string_view step_taken = "step-taken";    // the kernel would take the step
inline constexpr std::string_view always_safe = "always-safe";  // S1 to S3, before and after every step
inline constexpr std::string_view target_reached = "target-reached";
}  // namespace obligation

// Objections against `steps` as the way from `from` to `to`; `request` is that of the target.
// The first step that fails ends the replay: what follows would only repeat it. Requires: complete facts.
Judgement check_transition(const Plan& from, const Plan& to, const std::vector<Step>& steps, const Request& request,
                           const Law& law);

}  // namespace ioplan
