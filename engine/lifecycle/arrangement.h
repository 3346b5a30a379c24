// Where arrivals go while everything that stays, stays: frozen and additive hot-plug of one VM (README.md 3).
//
// Standing HWPTs are tried for every arriving item, new HWPTs are a cover of the items that join none. The best by the
// policy's objectives, then the first in canonical order. Held by tests/lifecycle_test.cc (brute force over all
// reachable layouts).
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "engine/law/law.h"
#include "engine/model/plan.h"
#include "engine/model/request.h"
#include "engine/solve/solver.h"

namespace ioplan {

struct ArrangedHwpt {
  std::string id;  // of the standing HWPT; empty: a new one
  std::string allocator;
  std::uint8_t flags = 0;
  std::vector<std::string> devices;  // ascending
};

struct Arrangement {
  std::vector<ArrangedHwpt> hwpts;
  std::vector<Conflict> conflict;  // why there is none; then hwpts is empty
  bool budget_exhausted = false;   // there may be a better one
};

enum class NewHwpts : bool { never, allowed };

// Requires: complete facts; `request` is the changed one (devices marked expected have a promise in `running`), `needs`
// settled, by VM.
Arrangement arrange(const Plan& running, const Request& request, VmIndex vm, const Needs& needs, NewHwpts made,
                    const Law& law, const CoverBudget& budget);

}  // namespace ioplan
