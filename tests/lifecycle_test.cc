// Plans over time: the answer does not depend on history, nobody is interrupted without need, and every moment between
// two layouts is one that the kernel takes and that is safe.
//
// IOPLAN_SCALE multiplies the random runs, IOPLAN_SEED runs one seed only.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <set>

#include "backends/sim/machine.h"
#include "backends/sim/sim_backend.h"
#include "constraints/kernel_law.h"
#include "engine/apply/apply.h"
#include "engine/check/transition.h"
#include "engine/lifecycle/hotplug.h"
#include "engine/lifecycle/layout.h"
#include "engine/planner/planner.h"
#include "tests/support/generator.h"
#include "tests/support/histories.h"

namespace ioplan {
namespace {

using histories::Random;

double number_from(const char* variable, double otherwise) {
  const char* text = std::getenv(variable);
  return text != nullptr ? std::strtod(text, nullptr) : otherwise;
}

std::uint64_t runs(double at_scale_one) {
  return static_cast<std::uint64_t>(std::max(1.0, at_scale_one * number_from("IOPLAN_SCALE", 1)));
}

// Calls `one` with every seed.
template <class F>
void for_seeds(double at_scale_one, F one) {
  if (const char* only = std::getenv("IOPLAN_SEED")) return one(std::strtoull(only, nullptr, 10));
  for (std::uint64_t seed = 1; seed <= runs(at_scale_one) && !testing::Test::HasFailure(); ++seed) one(seed);
}

// What README 3 calls the same layout: partition and attributes, without names and allocators.
std::multiset<std::string> essence(const Plan& plan) {
  std::multiset<std::string> hwpts;
  for (PlannedHwpt h : plan.hwpts) {
    const auto ioas = std::ranges::find(plan.ioas, h.ioas, &PlannedIoas::id);
    hwpts.insert(fmt::format("{} {} {} {} {} {} {} {:#x}-{:#x} {:#x} {} {} {} {}", ioas->vm, static_cast<int>(h.kind),
                             h.flags, static_cast<int>(h.driver), h.stage, static_cast<int>(h.format), h.levels,
                             h.aperture.start, h.aperture.last, h.page_sizes, h.enforce_cache_coherency, h.automatic,
                             h.page_table_bytes, fmt::join(h.devices, " ")));
  }
  return hwpts;
}

TEST(Converge, HistoryDoesNotMatter) {
  std::map<std::string, std::size_t> count;
  for_seeds(400, [&](std::uint64_t seed) {
    const Request request = histories::first_request(seed);
    Plan running = make_plan(request, kernel_law());
    if (running.verdict != Verdict::feasible) return;
    Random random(seed);
    for (int plug = 0; plug < 8 && !testing::Test::HasFailure(); ++plug) {
      const Change change = histories::random_change(random, running, request);
      SCOPED_TRACE(fmt::format("seed {} plug {}: {}", seed, plug, histories::to_text(change)));
      const auto answer = hotplug(running, request, change, HotplugPolicy::converge, kernel_law(), {{}, Advice::none});
      ASSERT_TRUE(answer.has_value()) << to_text(answer.error());
      const Request changed = *changed_request(running, request, change);
      PlanOptions options;
      options.explain_no = false;
      const Plan planned = make_plan(changed, kernel_law(), options);
      ASSERT_EQ(answer->verdict, planned.verdict);
      ++count[answer->verdict == Verdict::feasible ? "feasible" : "infeasible"];
      if (answer->verdict != Verdict::feasible) continue;
      EXPECT_EQ(essence(answer->plan), essence(planned));
      for (const Objection& o :
           check_transition(running, answer->plan, answer->transition.steps, changed, kernel_law()).objections) {
        ADD_FAILURE() << o.obligation << ": " << o.text;
      }
      count["moves"] += answer->transition.interrupted.size();
      count["stopped"] += answer->transition.stopped.size();
      running = answer->plan;
    }
  });
  for (const auto& [what, n] : count) std::printf("%-12s %zu\n", what.c_str(), n);
}

TEST(Converge, TheSimulatorTakesEveryStep) {
  std::size_t transitions = 0, steps = 0;
  for_seeds(60, [&](std::uint64_t seed) {
    const Request request = histories::first_request(seed);
    Plan running = make_plan(request, kernel_law());
    if (running.verdict != Verdict::feasible || running.resources.pinned_bytes > (std::uint64_t{64} << 30)) return;
    auto machine = sim::Machine::create(request.host, kernel_law());
    if (!machine) return;
    sim::SimBackend backend(**machine);
    if (apply_plan(running, request.host, backend).outcome != ApplyOutcome::done) return;
    Random random(seed);
    for (int plug = 0; plug < 6 && !testing::Test::HasFailure(); ++plug) {
      const Change change = histories::random_change(random, running, request);
      SCOPED_TRACE(fmt::format("seed {} plug {}: {}", seed, plug, histories::to_text(change)));
      const auto mode = static_cast<HotplugPolicy>(random() % 4 == 0 ? random() % 2 : 2);
      const auto answer = hotplug(running, request, change, mode, kernel_law(), {{}, Advice::none});
      ASSERT_TRUE(answer.has_value()) << to_text(answer.error());
      if (answer->verdict != Verdict::feasible) continue;
      const ApplyReport report =
          apply_transition(running, answer->plan, answer->transition.steps, request.host, backend);
      ASSERT_EQ(report.outcome, ApplyOutcome::done) << (report.error ? to_text(*report.error) : "");
      ++transitions;
      steps += answer->transition.steps.size();
      running = answer->plan;
    }
  });
  std::printf("%zu transitions, %zu steps\n", transitions, steps);
}

}  // namespace
}  // namespace ioplan
