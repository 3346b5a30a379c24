// Devices and memory come and go: what may change in a running layout, in which steps, and what the guest notices.
//
// README.md of this folder is the definition. The running layout is a feasible Plan; the answer holds the next one,
// which is a running layout in turn. Held by tests/lifecycle_test.cc: brute force over reachable layouts, a judge of
// traces.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/law/law.h"
#include "engine/lifecycle/change.h"
#include "engine/lifecycle/transition.h"
#include "engine/model/features.h"
#include "engine/model/plan.h"
#include "engine/model/request.h"
#include "engine/solve/cover.h"

namespace ioplan {

enum class Advice : bool { none, try_alternatives };

struct HotplugOptions {
  CoverBudget budget;
  Advice advice = Advice::try_alternatives;  // look for other modes and changes when the answer is no
};

// A mode or a change of the documents that would allow what was refused; it was tried.
struct Alternative {
  std::string change;  // machine word: "mode", "noncoherent-unplug", or a Fix's
  std::vector<std::string> subjects;
  std::string text;
};

struct HotplugAnswer {
  Verdict verdict = Verdict::infeasible;
  HotplugPolicy mode = HotplugPolicy::converge;
  Plan plan;                         // the next layout, when feasible
  Transition transition;             // from the running one to `plan`
  std::vector<FeatureChange> guest;  // what the guest notices
  std::vector<Conflict> conflict;    // when infeasible
  std::vector<Alternative> alternatives;
  std::vector<UnknownFact> unknown;  // when undecided
};

// Requires: `running` is feasible, and `request` holds the host that it was made for and its VMs.
// Errors: a change that makes no sense (unknown device, one that is already there, memory that overlaps, ...).
Result<HotplugAnswer> hotplug(const Plan& running, const Request& request, const Change& change, HotplugPolicy mode,
                              const Law& law, const HotplugOptions& options = {});

// The same for documents that are changed already (change.h), of which VM `vm` changed. They are marked meanwhile, and
// left as they were.
HotplugAnswer hotplug_in(const Plan& running, Request& changed, std::size_t vm, HotplugPolicy mode, const Law& law,
                         const HotplugOptions& options = {});

}  // namespace ioplan
