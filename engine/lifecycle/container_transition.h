// The steps from one layout of type1 containers to another (README.md 10).
//
// Whole groups leave and join; what cannot stay where it is, is closed and opened again. Held by
// tests/type1_lifecycle_test.cc.
#pragma once

#include "engine/lifecycle/transition.h"

namespace ioplan {

// Requires: both are type1 plans of the host, and `target` is matched.
Transition make_container_transition(const Plan& running, const Plan& target, const Host& host, const Law& law);

}  // namespace ioplan
