// The two judges of transitions, the engine's own (engine/check/transition) and the tests' (support/trace_judge), share no
// code: they must agree about the steps of random lives, about every way to spoil them (a step left out, done twice, done
// earlier, done to another), and about the naive order, plug first and tell KVM then, which must be unsafe somewhere.
//
// IOPLAN_SCALE multiplies the random runs, IOPLAN_SEED runs one seed only.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

#include "constraints/kernel_law.h"
#include "engine/apply/apply.h"
#include "engine/check/transition.h"
#include "engine/lifecycle/hotplug.h"
#include "engine/planner/planner.h"
#include "tests/support/history.h"
#include "tests/support/seeds.h"
#include "tests/support/trace_judge.h"

namespace ioplan {
namespace {

using Steps = std::vector<Step>;

// A way from one layout to another, and the documents afterwards.
struct Way {
  Plan from, to;
  Request changed;
  Steps steps;

  bool accepted_by_the_engine(const Steps& tried) const {
    return check_transition(from, to, tried, changed, kernel_law()).accepted();
  }
  std::vector<trace_judge::Violation> violations(const Steps& tried) const {
    return trace_judge::judge_trace(changed, oracle::layout_of(from), trace_judge::trace_of(tried), oracle::layout_of(to));
  }
};

std::string in_words(const Steps& steps) {
  std::string text;
  for (const Step& s : steps) text += to_text(s) + "\n";
  return text;
}

template <class Each>
void for_each_way(double lives, Each each) {
  for_seeds(lives, [&](std::uint64_t seed) {
    generator::History history(seed);
    PlanOptions options;
    options.explain_no = false;
    Plan running = make_plan(history.request(), kernel_law(), options);
    if (running.verdict != Verdict::feasible) return;
    for (std::uint64_t plug = 0; plug < 6 && !testing::Test::HasFailure(); ++plug) {
      const oracle::PlugChange c = history.next(oracle::layout_of(running));
      const Change change{c.vm, c.add, c.remove, c.memory, c.memory_size};
      const auto mode = static_cast<HotplugPolicy>((seed + plug) % 3);
      auto answer = hotplug(running, history.request(), change, mode, kernel_law(), {{}, Advice::none});
      if (!answer || answer->verdict != Verdict::feasible) continue;
      SCOPED_TRACE(fmt::format("seed {} plug {}", seed, plug));
      each(Way{running, answer->plan, *changed_request(running, history.request(), change), answer->transition.steps});
      running = answer->plan;
    }
  });
}

struct Mutant {
  std::string what;
  Steps steps;
};

// Every way to leave one out, to do one twice, to do one before its predecessor; and a few at random.
std::vector<Mutant> spoil(const Way& way, std::mt19937_64& random) {
  std::vector<Mutant> mutants;
  const Steps& steps = way.steps;
  for (std::size_t i = 0; i < steps.size(); ++i) {
    const auto at = static_cast<std::ptrdiff_t>(i);
    mutants.push_back({"without " + to_text(steps[i]), steps});
    mutants.back().steps.erase(mutants.back().steps.begin() + at);
    mutants.push_back({"twice " + to_text(steps[i]), steps});
    mutants.back().steps.insert(mutants.back().steps.begin() + at, steps[i]);
    if (i > 0) {
      mutants.push_back({"earlier " + to_text(steps[i]), steps});
      std::swap(mutants.back().steps[i - 1], mutants.back().steps[i]);
    }
    if (!steps[i].hwpt.empty()) {
      mutants.push_back({"to another than " + to_text(steps[i]), steps});
      mutants.back().steps[i].hwpt = fmt::format("hwpt{}", random() % 4);
    }
    if (!steps[i].device.empty()) {
      const auto& devices = way.changed.host.devices;
      mutants.push_back({"with another than " + to_text(steps[i]), steps});
      mutants.back().steps[i].device = devices[random() % devices.size()].id;
    }
    mutants.push_back({"somewhere else " + to_text(steps[i]), steps});
    Steps& moved = mutants.back().steps;
    moved.erase(moved.begin() + at);
    moved.insert(moved.begin() + static_cast<std::ptrdiff_t>(random() % (moved.size() + 1)), steps[i]);
  }
  return mutants;
}

TEST(TransitionCheck, BothJudgesAgreeAboutEveryMutant) {
  std::size_t accepted = 0, rejected = 0;
  std::map<std::string, std::size_t> by;
  std::mt19937_64 random(11);
  for_each_way(60, [&](const Way& way) {
    ASSERT_TRUE(way.accepted_by_the_engine(way.steps)) << in_words(way.steps);
    ASSERT_TRUE(way.violations(way.steps).empty()) << trace_judge::to_text(way.violations(way.steps)) << in_words(way.steps);
    // HWPTs of the kernel's own have only the names that a plan gives them, which a spoiled order may make untrue.
    const auto automatic = [](const Plan& p) { return std::ranges::any_of(p.hwpts, &PlannedHwpt::automatic); };
    if (automatic(way.from) || automatic(way.to)) return;
    for (const Mutant& m : spoil(way, random)) {
      const auto violations = way.violations(m.steps);
      const Judgement own = check_transition(way.from, way.to, m.steps, way.changed, kernel_law());
      std::string objections;
      for (const Objection& o : own.objections) objections += fmt::format("{}: {}\n", o.obligation, o.text);
      ASSERT_EQ(own.accepted(), violations.empty())
          << m.what << "\nthe engine's judge:\n" << objections << "the tests' judge:\n" << trace_judge::to_text(violations) << in_words(m.steps);
      ++(violations.empty() ? accepted : rejected);
      for (const auto& v : violations) ++by[v.obligation];
    }
  });
  fmt::print("mutants: {} rejected for {} reasons, {} harmless\n", rejected, by.size(), accepted);
  for (const auto& [obligation, n] : by) fmt::print("  {:<28} {}\n", obligation, n);
  if (one_seed_only()) return;
  EXPECT_GT(rejected, accepted);
  EXPECT_GT(by.size(), 10U);
}

// Everything that KVM must know, told at the end.
Steps plug_then_tell(Steps steps) {
  std::stable_partition(steps.begin(), steps.end(), [](const Step& s) { return s.kind != StepKind::kvm_file_add; });
  return steps;
}

TEST(TransitionCheck, TheNaiveOrderIsUnsafe) {
  std::size_t unsafe = 0, plugs = 0;
  for_each_way(200, [&](const Way& way) {
    const Steps naive = plug_then_tell(way.steps);
    if (naive == way.steps) return;
    ++plugs;
    const bool broken = trace_judge::names(way.violations(naive), "S1");
    EXPECT_TRUE(!broken || !way.accepted_by_the_engine(naive)) << in_words(naive);
    unsafe += broken ? 1 : 0;
  });
  fmt::print("{} of {} plugs are unsafe when KVM learns of them last\n", unsafe, plugs);
  if (one_seed_only()) return;
  EXPECT_GT(unsafe, 0U);
  EXPECT_LT(unsafe, plugs);
}

}  // namespace
}  // namespace ioplan
