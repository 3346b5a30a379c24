// Carries a plan out on a backend, or leaves the world as it was.
//
// Steps are journaled with their undo prepared before each is performed. The first failure, or the first difference
// between what was predicted and what is observed, takes everything back in reverse. What cannot be taken back is
// listed. After a clean rollback the world is observed once more and compared with what it was before. Maps longer than
// `piece` are split at multiples of it, so that progress can be told and each piece is undone alone.
// Held by tests/apply_test.cc (every call and every undo of a fake backend fails) and tests/apply_sim_test.cc (every
// example, thousands of random plans and of wrong ones on the simulator).
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "engine/apply/backend.h"
#include "engine/model/host.h"
#include "engine/model/plan.h"

namespace ioplan {

enum class ApplyOutcome : std::uint8_t {
  done,         // everything stands, and is as predicted
  refused,      // nothing was touched: the plan is not for this host, not feasible, or nothing this backend can do
  rolled_back,  // something failed; the world is as before
  incomplete    // something failed, and some of it could not be taken back
};

// Something seen that the plan had predicted otherwise.
struct Difference {
  std::string subject;    // "hwpt0", "ioas0"
  std::string attribute;  // the Plan document's field: "aperture", "ranges", ...
  std::string predicted;
  std::string observed;
};

struct ApplyReport {
  ApplyOutcome outcome = ApplyOutcome::done;
  std::optional<Error> error;              // why not done
  std::optional<std::size_t> failed_step;  // index into the steps
  std::vector<Difference> differences;
  std::vector<std::string> remains;  // when incomplete
  Observation observed;              // when done
};

struct ApplyProgress {
  std::size_t step = 0, steps = 0;
  std::uint64_t mapped = 0, to_map = 0;  // bytes, over all map steps
};

struct ApplyOptions {
  std::uint64_t piece = std::uint64_t{16} << 30;  // bytes; rounded up to the memory's backing
  std::function<void(const ApplyProgress&)> progress;
};

// Whether the plan may be applied: feasible, made for this host, and something that the backend can do. Touches
// nothing.
Result<void> admissible(const Plan& plan, const Host& host, Backend& backend);

// Requires: a plan whose references the document reader accepts; wrong plans fail, and are taken back.
ApplyReport apply_plan(const Plan& plan, const Host& host, Backend& backend, const ApplyOptions& options = {});

// The same for the steps of a transition (engine/lifecycle/README.md 6), on a backend on which `from` stands:
// afterwards `to` does, or `from` again. Refused, when something else stands there.
ApplyReport apply_transition(const Plan& from, const Plan& to, const std::vector<Step>& steps, const Host& host,
                             Backend& backend, const ApplyOptions& options = {});

// so_far: what a HWPT is, for those that exist; nothing is missed. complete: everything.
enum class Scope : std::uint8_t { so_far, complete };

// Everything in `observed` that differs from what `plan` predicts of it, in the plan's order.
std::vector<Difference> differences(const Plan& plan, const Observation& observed, Scope scope);

// The same for a layout with a history: the device that a HWPT was made for may have gone, and is not compared; tables of
// AMD's v1 format may have grown for memory that has gone.
std::vector<Difference> drift(const Plan& layout, const Observation& observed);

// "hwpt0.page_sizes: predicted 4KiB 2MiB, observed 4KiB (and 2 more)". Requires: there is one.
std::string to_text(const std::vector<Difference>& differences);

// One line a step, as --dry-run prints it: "attach 0000:01:00.0 to hwpt0".
std::string to_text(const Step& step);

}  // namespace ioplan
