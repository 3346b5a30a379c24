// The executor alone, on a backend of the test's own: a world that is a list of things, whose every call can be made to
// fail, to lie, or to show something else than was predicted. tests/apply_sim_test.cc does the same with the simulator.
#include "engine/apply/apply.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <set>
#include <string>
#include <vector>

#include "constraints/kernel_law.h"
#include "engine/document/load.h"
#include "engine/planner/planner.h"
#include "tests/support/paths.h"

namespace ioplan {
namespace {

constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;

// What the plan promises, of the objects that exist so far.
Observation as_planned(const Plan& plan, const std::vector<Step>& done) {
  Observation seen;
  std::uint64_t mapped = 0;
  for (const Step& s : done) {
    if (s.kind == StepKind::ioas_alloc) {
      const auto p = std::ranges::find(plan.ioas, s.ioas, &PlannedIoas::id);
      RangeSet memory;
      for (const MemoryRange& m : p->memory) memory.add(m.gpa);
      seen.ioas.push_back(
          {p->id, p->ranges, p->alignment, std::vector<Range>(memory.ranges().begin(), memory.ranges().end())});
    }
    if (s.kind == StepKind::hwpt_alloc) {
      const auto p = std::ranges::find(plan.hwpts, s.hwpt, &PlannedHwpt::id);
      seen.hwpts.push_back({p->id, p->ioas, p->stage, p->levels, p->address_bits, p->format, p->aperture, p->page_sizes,
                            p->enforce_cache_coherency, p->flags, p->page_table_bytes, p->devices, p->allocator,
                            p->driver, p->automatic});
    }
    if (s.kind == StepKind::map) mapped += s.iova.extent() + 1;
  }
  seen.pinned_bytes = mapped;
  return seen;
}

class Fake final : public Backend {
 public:
  std::vector<Step> world;       // done and not undone, in order
  std::vector<std::string> log;  // "prepare 3", "perform 3", "undo 3"; the number of the prepare
  int calls = 0;                 // of prepare, perform and observe
  int failing_call = 0;          // counted from 1
  std::set<int> failing_undos;   // numbers of prepares
  std::set<int> lying_undos;     // say that they worked
  bool admits = true;
  std::function<void(Observation&)> distort;

  std::string_view name() const override { return "fake"; }
  Result<void> admit(const Plan&) override { return admits ? Result<void>{} : failure("not here"); }
  Result<std::unique_ptr<Action>> prepare(const Plan& plan, const Step& step) override;
  Result<Observation> observe() override {
    if (++calls == failing_call) return failure("cannot look");
    Observation seen = as_planned(*plan_, world);
    if (distort) distort(seen);
    return seen;
  }
  explicit Fake(const Plan& plan) : plan_(&plan) {}

 private:
  class FakeAction;
  const Plan* plan_;
  int prepared_ = 0;
};

class Fake::FakeAction final : public Action {
 public:
  FakeAction(Fake& fake, Step step, int number) : fake_(fake), step_(std::move(step)), number_(number) {}

  Result<void> perform(const Progress& progress) override {
    fake_.log.push_back(fmt::format("perform {}", number_));
    if (++fake_.calls == fake_.failing_call) return tl::make_unexpected(Error{"ENOMEM: out of tables", "", {}, ENOMEM});
    fake_.world.push_back(step_);
    if (step_.kind == StepKind::map) progress((step_.iova.extent() + 1) / 2);
    return {};
  }

  Result<void> undo() override {
    fake_.log.push_back(fmt::format("undo {}", number_));
    if (fake_.failing_undos.contains(number_)) return failure("stuck");
    if (fake_.lying_undos.contains(number_)) return {};
    const auto it = std::ranges::find_if(fake_.world, [&](const Step& s) { return to_text(s) == to_text(step_); });
    EXPECT_NE(it, fake_.world.end()) << "undone, and was never done: " << to_text(step_);
    fake_.world.erase(it);
    return {};
  }

  std::string remains() const override { return fmt::format("thing {}", number_); }

 private:
  Fake& fake_;
  Step step_;
  int number_;
};

Result<std::unique_ptr<Action>> Fake::prepare(const Plan&, const Step& step) {
  log.push_back(fmt::format("prepare {}", ++prepared_));
  if (++calls == failing_call) return failure("cannot prepare");
  return std::make_unique<FakeAction>(*this, step, prepared_);
}

class Apply : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::string folder = source_folder().string() + "/examples/three-drhd/";
    const std::vector<std::string> files = {folder + "host.yaml", folder + "vm.yaml", folder + "policy.yaml"};
    auto loaded = load(files);
    ASSERT_TRUE(loaded) << to_text(loaded.error());
    request_ = loaded->request;
    plan_ = make_plan(request_, kernel_law());
    ASSERT_EQ(plan_.verdict, Verdict::feasible);
    ASSERT_EQ(plan_.hwpts.size(), 2U);
  }

  ApplyReport apply(Fake& fake) const { return apply_plan(plan_, request_.host, fake, options_); }

  // How many calls a whole application makes; all but the first observe can fail in the middle.
  int calls_needed() const {
    Fake fake(plan_);
    EXPECT_EQ(apply(fake).outcome, ApplyOutcome::done);
    return fake.calls;
  }

  Request request_;
  Plan plan_;
  ApplyOptions options_;
};

// ------------------------------------------------------------------------------------------------- the journal

TEST_F(Apply, PreparesEachStepBeforeItAndNoneEarlier) {
  options_.piece = ~std::uint64_t{0} >> 1;
  Fake fake(plan_);
  const ApplyReport report = apply(fake);
  EXPECT_EQ(report.outcome, ApplyOutcome::done);
  EXPECT_FALSE(report.error);
  EXPECT_EQ(report.observed, as_planned(plan_, plan_.steps));
  std::vector<std::string> expected;
  for (std::size_t i = 1; i <= plan_.steps.size(); ++i) {
    expected.push_back(fmt::format("prepare {}", i));
    expected.push_back(fmt::format("perform {}", i));
  }
  EXPECT_EQ(fake.log, expected);
}

TEST_F(Apply, TakesEverythingBackInReverseWhateverFails) {
  const int needed = calls_needed();
  ASSERT_GT(needed, 30);
  for (int k = 2; k <= needed; ++k) {
    SCOPED_TRACE(fmt::format("call {} of {}", k, needed));
    Fake fake(plan_);
    fake.failing_call = k;
    const ApplyReport report = apply(fake);
    EXPECT_EQ(report.outcome, ApplyOutcome::rolled_back);
    EXPECT_TRUE(report.error);
    EXPECT_TRUE(report.remains.empty());
    EXPECT_TRUE(fake.world.empty());
    std::vector<std::string> done, undone;
    for (const std::string& line : fake.log) {
      if (line.starts_with("perform")) done.push_back(line.substr(8));
      if (line.starts_with("undo")) undone.push_back(line.substr(5));
    }
    if (report.error->errno_value == ENOMEM) done.pop_back();  // it did not do anything
    std::ranges::reverse(undone);
    EXPECT_EQ(done, undone);
  }
}

TEST_F(Apply, NamesTheStepAndTheErrno) {
  Fake fake(plan_);
  fake.failing_call = 3;  // observe, prepare, perform
  const ApplyReport report = apply(fake);
  EXPECT_EQ(report.failed_step, std::optional<std::size_t>(0));
  EXPECT_EQ(report.error->message, "step 1, allocate ioas0: ENOMEM: out of tables");
  EXPECT_EQ(report.error->errno_value, ENOMEM);
}

TEST_F(Apply, ListsExactlyWhatRemains) {
  const int needed = calls_needed();
  std::size_t incomplete = 0;
  for (int k = 2; k <= needed; ++k) {
    Fake clean(plan_);
    clean.failing_call = k;
    apply(clean);
    const int journaled =
        static_cast<int>(std::ranges::count_if(clean.log, [](const std::string& l) { return l.starts_with("undo"); }));
    for (int first = 1; first <= journaled; ++first) {
      for (int second = first; second <= journaled; ++second) {
        SCOPED_TRACE(fmt::format("call {}, undo {} and {}", k, first, second));
        Fake fake(plan_);
        fake.failing_call = k;
        fake.failing_undos = {first, second};
        const ApplyReport report = apply(fake);
        EXPECT_EQ(report.outcome, ApplyOutcome::incomplete);
        std::vector<std::string> expected = {fmt::format("thing {}: stuck", second)};
        if (first != second) expected.push_back(fmt::format("thing {}: stuck", first));
        EXPECT_EQ(report.remains, expected);
        EXPECT_EQ(fake.world.size(), expected.size());
        ++incomplete;
      }
    }
  }
  EXPECT_GE(incomplete, 1000U);
}

TEST_F(Apply, DoubtsAnUndoThatSaysItWorked) {
  Fake fake(plan_);
  fake.failing_call = calls_needed();
  fake.lying_undos = {1};  // ioas0
  const ApplyReport report = apply(fake);
  EXPECT_EQ(report.outcome, ApplyOutcome::incomplete);
  EXPECT_EQ(report.remains, std::vector<std::string>{"ioas0: still there"});
}

// ------------------------------------------------------------------------------------------------- refusals

TEST_F(Apply, TouchesNothingWhenRefused) {
  const auto refusal = [&](Fake& fake) {
    const ApplyReport report = apply(fake);
    EXPECT_EQ(report.outcome, ApplyOutcome::refused);
    EXPECT_TRUE(fake.log.empty());
    return report.error ? report.error->message : "";
  };
  Fake unwilling(plan_);
  unwilling.admits = false;
  EXPECT_EQ(refusal(unwilling), "not here");
  Fake blind(plan_);
  blind.failing_call = 1;
  EXPECT_EQ(refusal(blind), "cannot look");

  Fake fake(plan_);
  const std::string own = plan_.fingerprint;
  plan_.fingerprint = "00000000-0000-0000-0000-000000000000";
  EXPECT_EQ(
      refusal(fake),
      "the plan was made for a host with fingerprint `00000000-0000-0000-0000-000000000000`, and `three-drhd` has `" +
          own + "`");
  plan_.fingerprint = own;
  plan_.verdict = Verdict::infeasible;
  EXPECT_EQ(refusal(fake), "the plan is infeasible: there is nothing to apply");
  plan_.verdict = Verdict::undecided;
  EXPECT_EQ(refusal(fake), "the plan is undecided: there is nothing to apply");
}

// ------------------------------------------------------------------------------------------------- differences

struct Distortion {
  std::string text;  // of the error
  std::function<void(Observation&)> distort;
};

// A tampering of the first HWPT, as soon as there is one.
template <class Change>
std::function<void(Observation&)> first_hwpt(Change change) {
  return [change](Observation& o) {
    if (!o.hwpts.empty()) change(o.hwpts[0]);
  };
}

template <class Change>
std::function<void(Observation&)> first_ioas(Change change) {
  return [change](Observation& o) {
    if (!o.ioas.empty()) change(o.ioas[0]);
  };
}

TEST_F(Apply, AnyDifferenceIsAnErrorThatNamesBoth) {
  const PlannedHwpt h = plan_.hwpts[0];
  ASSERT_EQ(h.format, PageTableFormat::vtd_ss);
  const std::vector<Distortion> distortions = {
      {"hwpt0.ioas: predicted ioas0, observed ioas7", first_hwpt([](ObservedHwpt& o) { o.ioas = "ioas7"; })},
      {"hwpt0.stage: predicted 2, observed 1", first_hwpt([](ObservedHwpt& o) { o.stage = 1; })},
      {"hwpt0.format: predicted vtd-ss, observed amdv1",
       first_hwpt([](ObservedHwpt& o) { o.format = PageTableFormat::amdv1; })},
      {fmt::format("hwpt0.levels: predicted {}, observed 3", h.levels),
       first_hwpt([](ObservedHwpt& o) { o.levels = 3; })},
      {fmt::format("hwpt0.address_bits: predicted {}, observed 39", h.address_bits),
       first_hwpt([](ObservedHwpt& o) { o.address_bits = 39; })},
      {fmt::format("hwpt0.aperture: predicted 0x0-{:#x}, observed 0x0-0xffff", h.aperture.last),
       first_hwpt([](ObservedHwpt& o) {
         o.aperture = Range{0, 0xffff};
       })},
      {"hwpt0.page_sizes: predicted 4KiB 2MiB 1GiB, observed 4KiB 2MiB",
       first_hwpt([](ObservedHwpt& o) { o.page_sizes = 0x201000; })},
      {"hwpt0.allocator: predicted 0000:65:00.0, observed 0000:17:00.0",
       first_hwpt([](ObservedHwpt& o) { o.allocator = "0000:17:00.0"; })},
      {"hwpt0.driver: predicted intel, observed amd", first_hwpt([](ObservedHwpt& o) { o.driver = Driver::amd; })},
      {"hwpt0.automatic: predicted false, observed true", first_hwpt([](ObservedHwpt& o) { o.automatic = true; })},
      {"hwpt0.flags: predicted nothing, observed nest-parent (and 1 more)",
       first_hwpt([](ObservedHwpt& o) { o.flags = kNestParent; })},
      {"hwpt0.flags: predicted nothing, observed dirty-tracking pasid",
       first_hwpt([](ObservedHwpt& o) { o.flags = kDirtyTracking | kPasid; })},
      {fmt::format("hwpt0.enforce_cache_coherency: predicted {0}, observed {1}", h.enforce_cache_coherency,
                   !h.enforce_cache_coherency),
       first_hwpt([&](ObservedHwpt& o) { o.enforce_cache_coherency = !h.enforce_cache_coherency; })},
      {"ioas9.id: predicted nothing, observed ioas9",
       [](Observation& o) {
         o.ioas.push_back({"ioas9", {}, {}, {}});
       }},
      // Only the whole shows these.
      {"hwpt0.devices: predicted 0000:17:00.0 0000:65:00.0, observed nothing",
       first_hwpt([](ObservedHwpt& o) { o.devices->clear(); })},
      {fmt::format("hwpt0.page_table_bytes: predicted {}KiB, observed 0B (and 1 more)", h.page_table_bytes / 1024),
       first_hwpt([](ObservedHwpt& o) { o.page_table_bytes = 0; })},
      {"hwpt0.id: predicted hwpt0, observed nothing (and 1 more)",
       [](Observation& o) { std::erase_if(o.hwpts, [](const ObservedHwpt& seen) { return seen.id == "hwpt0"; }); }},
      {"ioas0.alignment: predicted 4KiB, observed 2MiB", first_ioas([](ObservedIoas& o) { o.alignment = 0x200000; })},
      {"ioas0.ranges: predicted 0x0-0xfedfffff 0xfef00000-0x1ffffffffffffff, observed 0x0-0xffff",
       first_ioas([](ObservedIoas& o) {
         o.ranges = {{0, 0xffff}};
       })},
      {"ioas0.memory: predicted 0x0-0x7fffffff 0x100000000-0x107fffffff, observed nothing",
       first_ioas([](ObservedIoas& o) { o.mapped->clear(); })},
      {"resources.pinned_bytes: predicted 64GiB, observed 1GiB", [](Observation& o) { o.pinned_bytes = kGiB; }},
  };
  for (const Distortion& d : distortions) {
    SCOPED_TRACE(d.text);
    Fake fake(plan_);
    fake.distort = [&](Observation& o) {
      if (!fake.world.empty()) d.distort(o);
    };
    const ApplyReport report = apply(fake);
    EXPECT_EQ(report.outcome, ApplyOutcome::rolled_back);
    ASSERT_TRUE(report.error);
    EXPECT_EQ(report.error->message, d.text);
    EXPECT_FALSE(report.differences.empty());
    EXPECT_TRUE(fake.world.empty());
  }
}

TEST_F(Apply, WhatCannotBeSeenIsNotCompared) {
  Fake fake(plan_);
  fake.distort = [](Observation& o) {
    for (ObservedIoas& i : o.ioas) i = {i.id, {}, {}, {}};
    for (ObservedHwpt& h : o.hwpts) h = {h.id, h.ioas, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}};
    o.pinned_bytes.reset();
  };
  EXPECT_EQ(apply(fake).outcome, ApplyOutcome::done);
}

// What a HWPT is shows before memory is pinned for it.
TEST_F(Apply, StopsAtTheFirstHwptThatIsNotAsPredicted) {
  Fake fake(plan_);
  fake.distort = first_hwpt([](ObservedHwpt& o) { o.stage = 1; });
  const ApplyReport report = apply(fake);
  ASSERT_TRUE(report.failed_step);
  EXPECT_EQ(plan_.steps[*report.failed_step].kind, StepKind::hwpt_alloc);
}

// A VM of mediated devices alone has no HWPT, and nothing is pinned for it until their driver asks.
TEST_F(Apply, MediatedDevicesPinAsTheyGo) {
  Observation seen = as_planned(plan_, plan_.steps);
  PlannedIoas more = plan_.ioas[0];
  more.id = "ioas1";
  plan_.ioas.push_back(more);
  plan_.resources.pinned_bytes *= 2;
  seen.ioas.push_back(seen.ioas[0]);
  seen.ioas[1].id = "ioas1";
  EXPECT_TRUE(differences(plan_, seen, Scope::complete).empty());
}

// ------------------------------------------------------------------------------------------------- pieces and progress

std::vector<Range> pieces_of(const Fake& fake) {
  std::vector<Range> pieces;
  for (const Step& s : fake.world) {
    if (s.kind == StepKind::map) pieces.push_back(s.iova);
  }
  return pieces;
}

TEST_F(Apply, LongMapsComeInPiecesAtMultiples) {
  options_.piece = 24 * kGiB;
  Fake fake(plan_);
  apply(fake);  // [0, 2 GiB) and [4 GiB, 66 GiB)
  const std::vector<Range> expected = {
      {0, 2 * kGiB - 1}, {4 * kGiB, 24 * kGiB - 1}, {24 * kGiB, 48 * kGiB - 1}, {48 * kGiB, 66 * kGiB - 1}};
  EXPECT_EQ(pieces_of(fake), expected);
}

TEST_F(Apply, NoPieceCutsAPageOfTheBacking) {
  ASSERT_EQ(plan_.ioas[0].backing, kGiB);
  options_.piece = 1;
  Fake fake(plan_);
  apply(fake);
  EXPECT_EQ(pieces_of(fake).size(), 64U);
  for (const Range& r : pieces_of(fake)) EXPECT_EQ(r.start % kGiB, 0U);
}

TEST_F(Apply, ReachesTheTopOfTheSpace) {
  std::erase_if(plan_.steps, [](const Step& s) { return s.kind == StepKind::map; });
  Step map;
  map.kind = StepKind::map;
  map.ioas = "ioas0";
  map.iova = {~std::uint64_t{0} - 3 * kGiB + 1, ~std::uint64_t{0}};
  plan_.steps.push_back(map);
  options_.piece = 2 * kGiB;
  Fake fake(plan_);
  fake.distort = [&](Observation& o) { o.pinned_bytes.reset(); };
  EXPECT_EQ(apply(fake).outcome, ApplyOutcome::done);
  EXPECT_EQ(pieces_of(fake), (std::vector<Range>{{map.iova.start, map.iova.start + (kGiB - 1)},
                                                 {map.iova.start + kGiB, map.iova.last}}));
}

TEST_F(Apply, ProgressGrowsToTheWhole) {
  std::uint64_t last = 0;
  std::size_t told = 0;
  options_.progress = [&](const ApplyProgress& p) {
    EXPECT_GE(p.mapped, last);
    EXPECT_LE(p.mapped, p.to_map);
    EXPECT_EQ(p.to_map, 64 * kGiB);
    EXPECT_EQ(p.steps, plan_.steps.size());
    last = p.mapped;
    ++told;
  };
  Fake fake(plan_);
  apply(fake);
  EXPECT_EQ(last, 64 * kGiB);
  EXPECT_GT(told, plan_.steps.size());
}

}  // namespace
}  // namespace ioplan
