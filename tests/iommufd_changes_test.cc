// Transitions between running layouts by the iommufd backend, on a system that keeps books: random lives of VMs go through
// every step, KVM's VFIO device knows the files that it should, and whatever call fails on the way, the old layout stands
// again: the same attachments, memory and files, and nothing left of a failed replace.
//
// IOPLAN_SCALE multiplies the random runs, IOPLAN_SEED runs one seed only.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

#include "backends/iommufd/iommufd_backend.h"
#include "constraints/kernel_law.h"
#include "engine/apply/apply.h"
#include "engine/base/text.h"
#include "engine/lifecycle/hotplug.h"
#include "engine/lifecycle/layout.h"
#include "engine/planner/planner.h"
#include "tests/support/fake_system.h"
#include "tests/support/history.h"
#include "tests/support/seeds.h"

namespace ioplan::iommufd {
namespace {

using fake::FakeSystem;
using testing::HasSubstr;
using testing::IsEmpty;

bool all_pci(const Host& host) {
  return std::ranges::all_of(host.devices, [](const Device& d) { return d.id.find(':') != std::string::npos; });
}

// A VM that lives on a machine of its own: what runs, and what is asked of it next.
struct Life {
  explicit Life(std::uint64_t seed) : history(seed) {
    PlanOptions options;
    options.explain_no = false;
    running = make_plan(history.request(), kernel_law(), options);
  }
  bool boots() const { return running.verdict == Verdict::feasible && all_pci(host()); }
  const Host& host() const { return history.request().host; }

  // False where the mode has no way.
  bool ask(HotplugPolicy mode) {
    const oracle::PlugChange c = history.next(oracle::layout_of(running));
    const Change change{c.vm, c.add, c.remove, c.memory, c.memory_size};
    auto answer = hotplug(running, history.request(), change, mode, kernel_law(), {{}, Advice::none});
    if (!answer || answer->verdict != Verdict::feasible) return false;
    next = std::move(answer->plan);
    steps = std::move(answer->transition.steps);
    return true;
  }

  generator::History history;
  Plan running, next;
  std::vector<Step> steps;
};

// A machine on which the life's layouts come out as planned, and the running one stands.
struct Stage {
  explicit Stage(const Life& lived) : life(lived) {
    system.become(life.host(), {&life.running, &life.next}, kernel_law());
    system.replaces = true;
    kvm = system.open_kvm();
    IommufdOptions options;
    options.kvm = kvm;
    backend = std::make_unique<IommufdBackend>(system, life.host(), options);
    booted = apply_plan(life.running, life.host(), *backend);
  }

  ApplyReport change() { return apply_transition(life.running, life.next, life.steps, life.host(), *backend); }

  // Everything but the numbers of objects and descriptors.
  std::string seen() {
    const auto observed = backend->observe();
    if (!observed) return to_text(observed.error());
    const Plan& plan = life.running;
    const auto found = drift(plan, *observed);
    return fmt::format("{}\nwith KVM {}\n{} descriptors, {} bytes pinned{}", found.empty() ? "as it was" : to_text(found),
                       fmt::join(system.with_kvm(kvm), " "), system.open_descriptors(), system.pinned(),
                       system.world().find("broken") == std::string::npos ? "" : ", broken by a replace");
  }

  const Life& life;
  FakeSystem system;
  int kvm = -1;
  std::unique_ptr<IommufdBackend> backend;
  ApplyReport booted;
};

std::string text_of(const ApplyReport& report) {
  std::string text = report.error ? to_text(*report.error) : "";
  for (const std::string& r : report.remains) text += "\nremains: " + r;
  return text;
}

std::vector<std::string> sorted(std::vector<std::string> names) {
  std::ranges::sort(names, natural_less);
  return names;
}

// Calls `each(life)` with every change of random lives that has a way.
template <class Each>
void for_each_change(double lives, Each each) {
  for_seeds(lives, [&](std::uint64_t seed) {
    Life life(seed);
    if (!life.boots()) return;
    for (std::uint64_t plug = 0; plug < 6 && !testing::Test::HasFailure(); ++plug) {
      SCOPED_TRACE(fmt::format("seed {} plug {}", seed, plug));
      if (!life.ask(static_cast<HotplugPolicy>((seed + plug) % 3))) continue;
      each(life);
      life.running = life.next;
    }
  });
}

TEST(IommufdChanges, TakesEveryStep) {
  std::size_t transitions = 0, steps = 0, replaced = 0;
  for_each_change(400, [&](const Life& life) {
    Stage stage(life);
    ASSERT_EQ(stage.booted.outcome, ApplyOutcome::done) << text_of(stage.booted);
    EXPECT_EQ(stage.system.with_kvm(stage.kvm), sorted(bound_devices(life.running)));
    const ApplyReport report = stage.change();
    ASSERT_EQ(report.outcome, ApplyOutcome::done) << text_of(report);
    EXPECT_EQ(stage.system.with_kvm(stage.kvm), sorted(bound_devices(life.next)));
    EXPECT_THAT(stage.system.violations, IsEmpty());
    ++transitions;
    steps += life.steps.size();
    replaced += static_cast<std::size_t>(std::ranges::count(life.steps, StepKind::replace, &Step::kind));
    stage.backend.reset();
    EXPECT_EQ(stage.system.open_descriptors(), 1U) << stage.system.world();  // KVM's
    EXPECT_THAT(stage.system.with_kvm(stage.kvm), IsEmpty());
  });
  fmt::print("{} transitions, {} steps, {} replaces\n", transitions, steps, replaced);
  if (one_seed_only()) return;
  EXPECT_GT(transitions, 0U);
}

TEST(IommufdChanges, AnyFailingCallLeavesTheOldLayout) {
  std::size_t failures = 0, done = 0;
  for_each_change(60, [&](const Life& life) {
    const std::string before = Stage(life).seen();
    for (std::uint64_t nth = 1; !testing::Test::HasFailure(); ++nth) {
      Stage stage(life);
      stage.system.fail_nth(nth, EIO);
      const ApplyReport report = stage.change();
      if (!stage.system.struck()) break;
      ++failures;
      stage.system.fail_nth(0, 0);
      if (report.outcome == ApplyOutcome::done) {
        ++done;  // the call was one that nothing depends on
        continue;
      }
      ASSERT_NE(report.outcome, ApplyOutcome::incomplete) << nth << " " << stage.system.calls.back() << ": " << text_of(report);
      EXPECT_EQ(stage.seen(), before) << nth << ": " << text_of(report);
      EXPECT_THAT(stage.system.violations, IsEmpty());
    }
  });
  fmt::print("{} failing calls, {} of no consequence\n", failures, done);
  if (one_seed_only()) return;
  EXPECT_GT(failures, done);
}

// The driver refuses what was predicted to be accepted: the group goes back to where it was by detaching and attaching.
TEST(IommufdChanges, ARefusedReplaceIsMended) {
  std::size_t refused = 0;
  for_each_change(400, [&](const Life& life) {
    const auto step = std::ranges::find(life.steps, StepKind::replace, &Step::kind);
    if (step == life.steps.end()) return;
    Stage stage(life);
    const std::string before = stage.seen();
    const std::string& from = home_of(life.running, step->device)->allocator;
    const std::string& to = find_hwpt(life.next, step->hwpt)->allocator;
    if (from == to) return;  // the fake knows HWPTs by who made them
    stage.system.refusals[{step->device, to}] = EINVAL;
    const ApplyReport report = stage.change();
    if (report.outcome == ApplyOutcome::done) return;  // the object is older than the plan's name for its maker
    EXPECT_EQ(report.outcome, ApplyOutcome::rolled_back) << text_of(report);
    EXPECT_THAT(report.error->message, HasSubstr("replacing"));
    EXPECT_THAT(report.error->message, HasSubstr("Invalid argument (EINVAL)"));
    EXPECT_EQ(stage.seen(), before);
    ++refused;
  });
  fmt::print("{} replaces refused\n", refused);
  if (one_seed_only()) return;
  EXPECT_GT(refused, 0U);
}

}  // namespace
}  // namespace ioplan::iommufd
