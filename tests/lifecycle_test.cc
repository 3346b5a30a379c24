// Plans over time: the answer does not depend on history, nobody is interrupted without need, and every moment between
// two layouts is one that the kernel takes and that is safe. Brute force (support/lifecycle_oracle), the judge of
// traces (support/trace_judge), the engine's own judge and the simulator each say so.
//
// IOPLAN_SCALE multiplies the random runs (50 is a full one: 20,000 histories), IOPLAN_SEED runs one seed only.
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
#include "engine/check/check.h"
#include "engine/check/transition.h"
#include "engine/document/load.h"
#include "engine/document/plan_document.h"
#include "engine/lifecycle/assignment.h"
#include "engine/lifecycle/hotplug.h"
#include "engine/lifecycle/layout.h"
#include "engine/planner/planner.h"
#include "tests/support/generator.h"
#include "tests/support/history.h"
#include "tests/support/lifecycle_oracle.h"
#include "tests/support/seeds.h"
#include "tests/support/trace_judge.h"

namespace ioplan {
namespace {

using generator::change_of;
using generator::History;

std::string to_text(const oracle::PlugChange& c) {
  std::string text = c.vm;
  for (const std::string& d : c.add) text += " +" + d;
  for (const std::string& d : c.remove) text += " -" + d;
  if (c.memory_size != 0) text += " +" + format_size(c.memory_size);
  for (const Range& r : c.memory) text += fmt::format(" +{:#x}-{:#x}", r.start, r.last);
  return text;
}

// Partition and attributes, without names and allocators: what converge makes equal to a plan.
std::multiset<std::string> essence(const Plan& plan) {
  std::multiset<std::string> hwpts;
  for (const PlannedHwpt& h : plan.hwpts) {
    const auto ioas = std::ranges::find(plan.ioas, h.ioas, &PlannedIoas::id);
    hwpts.insert(fmt::format("{} {} {} {} {} {} {} {:#x}-{:#x} {:#x} {} {} {} {}", ioas->vm, static_cast<int>(h.kind),
                             h.flags, static_cast<int>(h.driver), h.stage, static_cast<int>(h.format), h.levels,
                             h.aperture.start, h.aperture.last, h.page_sizes, h.enforce_cache_coherency, h.automatic,
                             h.page_table_bytes, fmt::join(h.devices, " ")));
  }
  return hwpts;
}

std::string in_words(const oracle::Layout& layout) {
  std::string text;
  for (const oracle::Space& s : layout.spaces) {
    text += fmt::format("{} {} mediated [{}] retained [{}] {} ranges\n", s.id, s.vm, fmt::join(s.mediated, " "),
                        fmt::join(s.retained, " "), s.memory.size());
    for (const oracle::RunningHwpt& h : s.hwpts) {
      text += fmt::format("  {} by {} flags {}: {}\n", h.id, h.allocator, h.flags, fmt::join(h.devices, " "));
    }
  }
  return text;
}

std::string in_words(const std::vector<Step>& steps) {
  std::string text;
  for (const Step& s : steps) text += to_text(s) + "\n";
  return text;
}

// One VM's life: boots as planned, then lives through changes.
struct Life {
  explicit Life(std::uint64_t seed) : history(seed) {
    PlanOptions options;
    options.explain_no = false;
    running = make_plan(history.request(), kernel_law(), options);
  }

  bool boots() const { return running.verdict == Verdict::feasible; }
  const Request& request() const { return history.request(); }

  HotplugAnswer ask(const oracle::PlugChange& change, HotplugPolicy mode) const {
    auto answer = hotplug(running, request(), change_of(change), mode, kernel_law(), {{}, Advice::none});
    EXPECT_TRUE(answer.has_value()) << to_text(answer.error());
    return answer ? std::move(*answer) : HotplugAnswer{};
  }

  History history;
  Plan running;
};

// Both judges of the way from one layout to the next.
void judge(const Life& life, const HotplugAnswer& answer, const Request& changed) {
  const auto& steps = answer.transition.steps;
  const Judgement own = check_transition(life.running, answer.plan, steps, changed, kernel_law());
  for (const Objection& o : own.objections) ADD_FAILURE() << o.obligation << ": " << o.text << "\n" << in_words(steps);
  const auto violations = trace_judge::judge_trace(changed, oracle::layout_of(life.running),
                                                   trace_judge::trace_of(steps), oracle::layout_of(answer.plan));
  EXPECT_TRUE(violations.empty()) << trace_judge::to_text(violations) << in_words(steps);
}

TEST(Converge, HistoryDoesNotMatter) {
  std::map<std::string, std::size_t> count;
  for_seeds(400, [&](std::uint64_t seed) {
    Life life(seed);
    if (!life.boots()) return;
    for (int plug = 0; plug < 8 && !testing::Test::HasFailure(); ++plug) {
      const oracle::PlugChange change = life.history.next(oracle::layout_of(life.running));
      SCOPED_TRACE(fmt::format("seed {} plug {}: {}", seed, plug, to_text(change)));
      const HotplugAnswer answer = life.ask(change, HotplugPolicy::converge);
      const Request changed = *changed_request(life.running, life.request(), change_of(change));
      PlanOptions options;
      options.explain_no = false;
      const Plan planned = make_plan(changed, kernel_law(), options);
      ASSERT_EQ(answer.verdict, planned.verdict);
      ++count[answer.verdict == Verdict::feasible ? "feasible" : "infeasible"];
      if (answer.verdict != Verdict::feasible) continue;
      EXPECT_EQ(essence(answer.plan), essence(planned));
      const auto fewest =
          oracle::best_matching(changed.host, oracle::layout_of(life.running), oracle::layout_of(planned));
      EXPECT_EQ(answer.transition.interrupted.size(), fewest.interrupted);
      EXPECT_EQ(in_words(oracle::layout_of(answer.plan)), in_words(fewest.target));
      judge(life, answer, changed);
      for (const Objection& o : check_plan(answer.plan, changed, kernel_law()).objections) {
        ADD_FAILURE() << o.obligation << ": " << o.text;
      }
      count["interrupted"] += answer.transition.interrupted.size();
      count["stopped"] += answer.transition.stopped.size();
      life.running = answer.plan;
    }
  });
  for (const auto& [what, n] : count) std::printf("%-12s %zu\n", what.c_str(), n);
}

class Staying : public testing::TestWithParam<HotplugPolicy> {};

TEST_P(Staying, IsTheBestThatBruteForceFinds) {
  const HotplugPolicy mode = GetParam();
  std::map<std::string, std::size_t> count;
  for_seeds(300, [&](std::uint64_t seed) {
    Life life(seed);
    if (!life.boots()) return;
    for (int plug = 0; plug < 6 && !testing::Test::HasFailure(); ++plug) {
      const oracle::Layout now = oracle::layout_of(life.running);
      const oracle::PlugChange change = life.history.next(now);
      SCOPED_TRACE(fmt::format("seed {} plug {}: {}", seed, plug, to_text(change)));
      const HotplugAnswer answer = life.ask(change, mode);
      const oracle::PlugAnswer truth =
          oracle::plug(life.request(), now, change, mode, oracle::unplug_of(life.request().policy));
      ASSERT_NE(truth.outcome, oracle::Outcome::bad_input) << fmt::format("{}", fmt::join(truth.why, "; "));
      const bool feasible = answer.verdict == Verdict::feasible;
      std::string reasons = fmt::format("{}", fmt::join(truth.why, "; "));
      for (const Conflict& c : answer.conflict) reasons += fmt::format("\n  {}: {}", c.rule, c.because);
      ASSERT_EQ(feasible, truth.outcome == oracle::Outcome::feasible) << reasons << "\n" << in_words(now);
      ++count[feasible ? "feasible" : answer.conflict.front().rule];
      if (!feasible) continue;
      EXPECT_EQ(answer.plan.objectives, truth.objectives);
      // A new HWPT that equals one that would vanish is that one (README 5).
      const auto named = oracle::best_matching(life.request().host, now, truth.layout);
      EXPECT_EQ(in_words(oracle::layout_of(answer.plan)), in_words(named.target));
      EXPECT_TRUE(answer.transition.interrupted.empty());
      const Request changed = *changed_request(life.running, life.request(), change_of(change));
      judge(life, answer, changed);
      life.running = answer.plan;
    }
  });
  for (const auto& [what, n] : count) std::printf("%-28s %zu\n", what.c_str(), n);
}

INSTANTIATE_TEST_SUITE_P(Modes, Staying, testing::Values(HotplugPolicy::frozen, HotplugPolicy::additive),
                         [](const auto& mode) {
                           return std::string(kHotplugPolicyNames[static_cast<std::size_t>(mode.param)]);
                         });

// ------------------------------------------------------------------------------------------------- carried out

// No machine has RAM that an SMMU's output addresses (36 bits at least, of those asked) do not reach.
bool small(const Plan& plan) {
  const bool arm = std::ranges::count(plan.hwpts, PageTableFormat::arm_lpae, &PlannedHwpt::format) > 0;
  return plan.resources.pinned_bytes <= std::uint64_t{arm ? 32U : 64U} << 30;
}

TEST(Transitions, TheSimulatorTakesEveryStep) {
  std::size_t transitions = 0, steps = 0;
  for_seeds(80, [&](std::uint64_t seed) {
    Life life(seed);
    if (!life.boots() || !small(life.running)) return;
    auto machine = sim::Machine::create(life.request().host, kernel_law());
    ASSERT_TRUE(machine.has_value());
    sim::SimBackend backend(**machine);
    if (apply_plan(life.running, life.request().host, backend).outcome != ApplyOutcome::done) return;
    for (std::uint64_t plug = 0; plug < 6 && !testing::Test::HasFailure(); ++plug) {
      const oracle::PlugChange change = life.history.next(oracle::layout_of(life.running));
      SCOPED_TRACE(fmt::format("seed {} plug {}: {}", seed, plug, to_text(change)));
      const auto mode = static_cast<HotplugPolicy>((seed + plug) % 3);
      const HotplugAnswer answer = life.ask(change, mode);
      if (answer.verdict != Verdict::feasible || !small(answer.plan)) continue;
      const ApplyReport report =
          apply_transition(life.running, answer.plan, answer.transition.steps, life.request().host, backend);
      ASSERT_EQ(report.outcome, ApplyOutcome::done) << (report.error ? to_text(*report.error) : "") << "\n"
                                                    << in_words(answer.transition.steps);
      ++transitions;
      steps += answer.transition.steps.size();
      life.running = answer.plan;
    }
  });
  std::printf("%zu transitions, %zu steps\n", transitions, steps);
  EXPECT_TRUE(one_seed_only() || transitions > 20U);
}

// Whatever fails on the way, the layout is the old one or the new one.
TEST(Transitions, AnyFailureOnTheWayIsTakenBack) {
  std::size_t failures = 0, whole = 0;
  for_seeds(25, [&](std::uint64_t seed) {
    Life life(seed);
    if (!life.boots() || !small(life.running)) return;
    for (int plug = 0; plug < 3 && !testing::Test::HasFailure(); ++plug) {
      const oracle::PlugChange change = life.history.next(oracle::layout_of(life.running));
      SCOPED_TRACE(fmt::format("seed {} plug {}: {}", seed, plug, to_text(change)));
      const HotplugAnswer answer = life.ask(change, HotplugPolicy::converge);
      if (answer.verdict != Verdict::feasible || !small(answer.plan)) continue;
      for (std::uint64_t nth = 1; nth < 200 && !testing::Test::HasFailure(); ++nth) {
        auto machine = sim::Machine::create(life.request().host, kernel_law());
        ASSERT_TRUE(machine.has_value());
        sim::SimBackend backend(**machine);
        if (apply_plan(life.running, life.request().host, backend).outcome != ApplyOutcome::done) return;
        (*machine)->fail_nth(nth);
        const ApplyReport report =
            apply_transition(life.running, answer.plan, answer.transition.steps, life.request().host, backend);
        const bool struck = (*machine)->injected();
        (*machine)->fail_nth(0);
        ASSERT_NE(report.outcome, ApplyOutcome::incomplete)
            << nth << ": " << to_text(*report.error) << fmt::format("{}", fmt::join(report.remains, "; "));
        const Plan& stands = report.outcome == ApplyOutcome::done ? answer.plan : life.running;
        const auto seen = backend.observe();
        ASSERT_TRUE(seen.has_value());
        const auto found = drift(stands, *seen);
        ASSERT_TRUE(found.empty()) << nth << ": " << to_text(found);
        (struck ? failures : whole) += 1;
        if (!struck) break;
      }
      life.running = answer.plan;
    }
  });
  std::printf("%zu failures taken back or survived, %zu transitions went through\n", failures, whole);
  EXPECT_GT(failures, 100U);
}

// Memory above 512 GiB makes a table of AMD's v1 format grow a level, which Linux keeps when the memory goes.
TEST(Transitions, AGrownTableIsNoDrift) {
  const auto loaded = load_text("documents", R"(
apiVersion: ioplan/v1
kind: Host
name: h
iommus: [{id: ivhd0, driver: amd, efr: 0x246577efa2254afa, efr2: 0x0}]
devices: [{id: "0000:01:00.0", iommu: ivhd0, group: 1, dma_coherent: {value: true, source: architecture}}]
---
apiVersion: ioplan/v1
kind: VirtualMachine
name: v
memory: {ranges: [{gpa: [0x0, 0x3fffffff]}]}
devices: [{host: "0000:01:00.0"}]
)");
  ASSERT_TRUE(loaded.has_value()) << to_text(loaded.error());
  const Request& request = loaded->request;
  const Plan low = make_plan(request, kernel_law());
  ASSERT_EQ(low.verdict, Verdict::feasible);
  ASSERT_EQ(low.hwpts.at(0).format, PageTableFormat::amdv1);
  const Change more{"v", {}, {}, {{std::uint64_t{1} << 41, (std::uint64_t{1} << 41) + 0x3fffffff}}, 0};
  const auto answer = hotplug(low, request, more, HotplugPolicy::frozen, kernel_law());
  ASSERT_TRUE(answer.has_value() && answer->verdict == Verdict::feasible);
  const Plan& high = answer->plan;

  auto machine = sim::Machine::create(request.host, kernel_law());
  ASSERT_TRUE(machine.has_value());
  sim::SimBackend backend(**machine);
  ASSERT_EQ(apply_plan(low, request.host, backend).outcome, ApplyOutcome::done);
  const auto go = [&](const Plan& from, const Plan& to) {
    const ApplyReport report =
        apply_transition(from, to, make_transition(from, to, request.host, kernel_law()).steps, request.host, backend);
    EXPECT_EQ(report.outcome, ApplyOutcome::done) << (report.error ? to_text(*report.error) : "");
  };
  go(low, high);
  go(high, low);
  const auto seen = backend.observe();
  ASSERT_TRUE(seen.has_value());
  EXPECT_GT(*seen->hwpts.at(0).page_table_bytes, low.hwpts[0].page_table_bytes);
  EXPECT_TRUE(drift(low, *seen).empty());
  EXPECT_FALSE(differences(low, *seen, Scope::complete).empty());
  go(low, high);
}

// AMD's page tables take their id when they are made. The only one left is in the HWPT that has to go.
TEST(Transitions, AHwptThatNeedsTheLastIdIsMadeWhenTheOldOneIsGone) {
  const auto loaded = load_text("documents", R"(
apiVersion: ioplan/v1
kind: Host
name: h
iommus:
  - {id: ivhd0, driver: amd, efr: 0x247577efa2254afa, efr2: 0x0, domains_used: 65534}
  - {id: ivhd1, driver: amd, efr: 0x246577efa2254afa, efr2: 0x0, domains_used: 65534}
devices:
  - {id: "0000:01:00.0", iommu: ivhd0, group: 1, dma_coherent: {value: true, source: architecture}}
  - {id: "0000:02:00.0", iommu: ivhd1, group: 2, dma_coherent: {value: true, source: architecture}}
---
apiVersion: ioplan/v1
kind: VirtualMachine
name: v
memory: {ranges: [{gpa: [0x0, 0x3fffffff]}]}
needs: {dirty_tracking: preferred}
devices: [{host: "0000:01:00.0"}]
)");
  ASSERT_TRUE(loaded.has_value()) << to_text(loaded.error());
  const Request& request = loaded->request;
  const Plan alone = make_plan(request, kernel_law());
  ASSERT_EQ(alone.verdict, Verdict::feasible);
  const auto answer = hotplug(alone, request, {"v", {"0000:02:00.0"}, {}, {}, 0}, HotplugPolicy::converge, kernel_law());
  ASSERT_TRUE(answer.has_value() && answer->verdict == Verdict::feasible);
  ASSERT_EQ(answer->transition.stopped, std::vector<std::string>{"0000:01:00.0"}) << in_words(answer->transition.steps);
  const auto at = [&](StepKind kind) {
    return std::ranges::find(answer->transition.steps, kind, &Step::kind) - answer->transition.steps.begin();
  };
  EXPECT_LT(at(StepKind::hwpt_destroy), at(StepKind::hwpt_alloc));
  auto machine = sim::Machine::create(request.host, kernel_law());
  ASSERT_TRUE(machine.has_value());
  sim::SimBackend backend(**machine);
  ASSERT_EQ(apply_plan(alone, request.host, backend).outcome, ApplyOutcome::done);
  EXPECT_EQ(apply_transition(alone, answer->plan, answer->transition.steps, request.host, backend).outcome,
            ApplyOutcome::done);
}

// ------------------------------------------------------------------------------------------------- documents

// What a document says about a device holds again when the device comes back: its name and label, by which the policy may
// choose it, and the needs and expectations that name it.
TEST(Documents, ADeviceComesBackAsItIsDocumented) {
  const auto loaded = load_text("documents", R"(
apiVersion: ioplan/v1
kind: Host
name: h
iommus: [{id: dmar0, driver: intel, cap: 0x19ed008c40780c66, ecap: 0x3ef9ea6f050df}]
devices:
  - {id: "0000:01:00.0", iommu: dmar0, group: 1, dma_coherent: {value: true, source: architecture}}
  - {id: "0000:02:00.0", iommu: dmar0, group: 2, dma_coherent: {value: true, source: architecture}}
---
apiVersion: ioplan/v1
kind: VirtualMachine
name: v
memory: {size: 4GiB}
machine: {type: q35, cpu_vendor: intel}
devices: [{host: "0000:01:00.0", name: gpu0, label: fast}]
hotplug: {expect: [{host: "0000:02:00.0"}]}
---
apiVersion: ioplan/v1
kind: Policy
name: p
hotplug: converge
rules: [{name: pages, require: {dirty_tracking: true}, for: {label: fast}}]
)");
  ASSERT_TRUE(loaded.has_value()) << to_text(loaded.error());
  const Request& request = loaded->request;
  const auto after = [&](const Plan& running, const Change& change) {
    auto answer = hotplug(running, request, change, HotplugPolicy::converge, kernel_law(), {{}, Advice::none});
    EXPECT_TRUE(answer.has_value() && answer->verdict == Verdict::feasible);
    return answer->plan;
  };
  const Plan booted = make_plan(request, kernel_law());
  ASSERT_EQ(booted.verdict, Verdict::feasible);
  ASSERT_EQ(booted.hwpts.at(0).flags, kDirtyTracking);
  ASSERT_EQ(booted.promises.size(), 1U);

  const Plan bare = after(booted, {"v", {}, {"0000:01:00.0"}, {}, 0});
  EXPECT_TRUE(bare.hwpts.empty());
  const Plan back = after(bare, {"v", {"0000:01:00.0"}, {}, {}, 0});
  EXPECT_EQ(back.hwpts, booted.hwpts);

  const Plan grown = after(back, {"v", {"0000:02:00.0"}, {}, {}, 0});
  EXPECT_TRUE(grown.promises.empty());
  EXPECT_EQ(after(grown, {"v", {}, {"0000:02:00.0"}, {}, 0}).promises, booted.promises);
}

// A fact that is unknown and decides nothing: the next layout is for the same documents as the running one.
TEST(Documents, TheNextLayoutIsForTheHostAsDocumented) {
  std::size_t layouts = 0;
  for_seeds(150, [&](std::uint64_t seed) {
    History history(seed);
    Request request = history.request();
    for (Unit& unit : request.host.units) unit.facts[UnitFact::rwbf_quirk].reset();
    request.host.kernel.facts[KernelFact::intel_iommu_sp_off].reset();
    request.host.kernel.facts[KernelFact::amd_iommu_pgtbl_v2].reset();
    request.host.kernel.facts[KernelFact::page_size].reset();
    const Plan running = make_plan(request, kernel_law(), {.budget = {}, .explain_no = false});
    if (running.verdict != Verdict::feasible) return;
    ASSERT_EQ(running.fingerprint, fingerprint(request.host));
    const Change change = change_of(history.next(oracle::layout_of(running)));
    for (const HotplugPolicy mode : {HotplugPolicy::frozen, HotplugPolicy::additive, HotplugPolicy::converge}) {
      const auto answer = hotplug(running, request, change, mode, kernel_law(), {{}, Advice::none});
      if (!answer || answer->verdict != Verdict::feasible) continue;
      EXPECT_EQ(answer->plan.fingerprint, running.fingerprint) << seed;
      ++layouts;
    }
  });
  std::printf("%zu layouts\n", layouts);
  EXPECT_TRUE(one_seed_only() || layouts > 0);
}

TEST(Documents, ALayoutReadsBackAsItWasWritten) {
  for_seeds(60, [&](std::uint64_t seed) {
    Life life(seed);
    if (!life.boots()) return;
    for (std::uint64_t plug = 0; plug < 4; ++plug) {
      const oracle::PlugChange change = life.history.next(oracle::layout_of(life.running));
      const HotplugAnswer answer = life.ask(change, static_cast<HotplugPolicy>(plug % 3));
      if (answer.verdict != Verdict::feasible) continue;
      Plan carrier = answer.plan;
      for (const Plan& plan : {answer.plan, [&] {
                                 carrier.steps = answer.transition.steps;
                                 return carrier;
                               }()}) {
        const std::string text = to_json(plan);
        const auto again = read_plan("plan", text);
        ASSERT_TRUE(again.has_value()) << to_text(again.error());
        EXPECT_EQ(to_json(*again), text);
      }
      life.running = answer.plan;
    }
  });
}

// ------------------------------------------------------------------------------------------------- assignment

std::int64_t best_by_permutations(const WeightMatrix& weight) {
  const std::size_t columns = weight.empty() ? 0 : weight[0].size();
  std::vector<std::size_t> order(std::max(weight.size(), columns));
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::int64_t best = 0;
  do {
    std::int64_t sum = 0;
    for (std::size_t r = 0; r < weight.size(); ++r) sum += order[r] < columns ? weight[r][order[r]].value_or(0) : 0;
    best = std::max(best, sum);
  } while (std::ranges::next_permutation(order).found);
  return best;
}

TEST(Assignment, IsTheBestOfAllPermutations) {
  std::mt19937_64 random(7);
  for (int round = 0; round < 2000; ++round) {
    WeightMatrix weight(1 + random() % 5);
    const std::size_t columns = 1 + random() % 5;
    for (auto& row : weight) {
      for (std::size_t c = 0; c < columns; ++c) {
        row.push_back(random() % 4 == 0 ? std::nullopt : std::optional<std::int64_t>(1 + random() % 6));
      }
    }
    const auto chosen = best_matching(weight);
    std::int64_t sum = 0;
    std::set<std::size_t> used;
    for (std::size_t r = 0; r < chosen.size(); ++r) {
      if (!chosen[r]) continue;
      EXPECT_TRUE(used.insert(*chosen[r]).second);
      sum += weight[r][*chosen[r]].value();
    }
    ASSERT_EQ(sum, best_by_permutations(weight));
  }
}

}  // namespace
}  // namespace ioplan
