// Devices and memory come and go: what may change in a running layout, in which steps, and what the guest notices.
//
// README.md of this folder is the definition. The running layout is a feasible Plan; the answer holds the next one,
// which is a running layout in turn. Held by tests/lifecycle_test.cc: brute force over reachable layouts, a judge of
// traces.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/base/error.h"
#include "engine/law/law.h"
#include "engine/lifecycle/features.h"
#include "engine/lifecycle/transition.h"
#include "engine/model/plan.h"
#include "engine/model/request.h"
#include "engine/solve/cover.h"

namespace ioplan {

struct Change {
  std::string vm;                // empty: the request's only one
  std::vector<std::string> add;  // host device ids and mediated devices' UUIDs
  std::vector<std::string> remove;
  std::vector<Range> memory;      // to map, GPA
  std::uint64_t memory_size = 0;  // to map, bytes, where `+SIZE` puts it (README 1)
};

struct HotplugOptions {
  CoverBudget budget;
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

// The documents as they are after the change: this VM's devices are the new set, its memory explicit ranges (README 1).
Result<Request> changed_request(const Plan& running, const Request& request, const Change& change, const Law& law);

}  // namespace ioplan
