// The judge of traces judged: valid traces pass, each broken requirement is named, the naive orders break S1, and
// spoilt traces are found out. Hand-made cases are on tests/support/small_host.h; the random ones are transitions of
// the oracle (tests/support/lifecycle_oracle.h) along random histories, by the definition's own order of steps.
#include "tests/support/trace_judge.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "tests/support/history.h"
#include "tests/support/layout_rules.h"
#include "tests/support/lifecycle_oracle.h"
#include "tests/support/reference_trace.h"
#include "tests/support/seeds.h"
#include "tests/support/small_host.h"

namespace ioplan {
namespace {

using oracle::Layout;
using oracle::PlugChange;
using trace_judge::Act;
using trace_judge::TraceStep;
using trace_judge::Violation;
using namespace small_host;  // NOLINT: names of four devices

struct Transition {
  Request request;
  Layout from, to;
  std::vector<TraceStep> steps;

  std::vector<Violation> judged(const std::vector<TraceStep>& trace) const {
    return trace_judge::judge_trace(request, from, trace, to);
  }
};

Transition converge(const Request& request, const std::vector<std::string>& add,
                    const std::vector<std::string>& remove) {
  Transition t;
  t.request = request;
  t.from = oracle::boot(request).value();
  const auto answer =
      oracle::plug(request, t.from, {"vm0", add, remove, {}, 0}, HotplugPolicy::converge, oracle::Unplug::release);
  EXPECT_EQ(answer.outcome, oracle::Outcome::feasible);
  t.to = answer.layout;
  t.steps = trace_judge::reference_trace(request, t.from, t.to);
  return t;
}

std::vector<std::string> texts(const std::vector<TraceStep>& steps) {
  std::vector<std::string> lines;
  for (const TraceStep& s : steps) lines.push_back(trace_judge::to_text(s));
  return lines;
}

// ------------------------------------------------------------------------------------------------- the orders by hand

TEST(TraceJudge, TheDefinitionsOrderOfPluggingANonCoherentDevice) {
  const Transition t = converge(request_with({kCoherent}), {kNonCoherent}, {});
  const std::vector<std::string> expected = {
      "kvm-file-add 0000:02:00.0",  "bind 0000:02:00.0",         "hwpt-alloc 0000:02:00.0 ioas0 hwpt1 flags 0",
      "replace 0000:01:00.0 hwpt1", "attach 0000:02:00.0 hwpt1", "hwpt-destroy hwpt0"};
  EXPECT_EQ(texts(t.steps), expected);
  EXPECT_EQ(trace_judge::to_text(t.judged(t.steps)), "");
}

TEST(TraceJudge, TheDefinitionsOrderOfUnpluggingTheLastNonCoherentDevice) {
  const Transition t = converge(request_with({kCoherent, kNonCoherent}), {}, {kNonCoherent});
  const std::vector<std::string> expected = {
      "detach 0000:02:00.0",        "hwpt-alloc 0000:01:00.0 ioas0 hwpt1 flags 0",
      "replace 0000:01:00.0 hwpt1", "hwpt-destroy hwpt0",
      "kvm-file-del 0000:02:00.0",  "unbind 0000:02:00.0"};
  EXPECT_EQ(texts(t.steps), expected);
  EXPECT_EQ(trace_judge::to_text(t.judged(t.steps)), "");
}

TEST(TraceJudge, PlugThenFixBreaksTheCoherencyInvariant) {
  const Transition t = converge(request_with({kCoherent}), {kNonCoherent}, {});
  const auto late = trace_judge::plug_then_fix(t.steps);
  const auto violations = t.judged(late);
  ASSERT_TRUE(trace_judge::names(violations, "S1")) << trace_judge::to_text(violations);
  EXPECT_EQ(trace_judge::to_text(late[violations.front().step - 1]), "replace 0000:01:00.0 hwpt1");
}

TEST(TraceJudge, TellingKvmFirstAndThenMovingAwayBreaksTheCoherencyInvariant) {
  const Transition t = converge(request_with({kCoherent, kNonCoherent}), {}, {kNonCoherent});
  const auto early = trace_judge::tell_kvm_then_move(t.steps);
  const auto violations = t.judged(early);
  ASSERT_TRUE(trace_judge::names(violations, "S1")) << trace_judge::to_text(violations);
  EXPECT_EQ(trace_judge::to_text(early[violations.front().step - 1]), "kvm-file-del 0000:02:00.0");
}

TEST(TraceJudge, AttachingFirstAndThenTellingKvmBreaksTheCoherencyInvariant) {
  const Transition t = converge(request_with({kNonCoherent}), {kNonCoherent2, kMediated}, {kNonCoherent});
  EXPECT_EQ(trace_judge::to_text(t.judged(t.steps)), "");
  // With the one that is there taken away first, nobody covers the arrivals.
  auto steps = t.steps;
  std::ranges::stable_partition(steps, [](const TraceStep& s) {
    return s.device == kNonCoherent && (s.act == Act::detach || s.act == Act::kvm_file_del || s.act == Act::unbind);
  });
  EXPECT_TRUE(trace_judge::names(t.judged(trace_judge::plug_then_fix(steps)), "S1"));
}

// --------------------------------------------------------------------------------------------- each requirement by
// name

struct Spoilt {
  const char* obligation;
  TraceStep step;
};

TraceStep step(Act act, std::string device, std::string ioas = {}, std::string hwpt = {}) {
  return {act, std::move(device), std::move(ioas), std::move(hwpt), 0, {}, {}, true};
}

TraceStep step_with(Act act, Range iova, std::vector<Range> ranges = {}) {
  return {act, "", "ioas0", "", 0, std::move(ranges), iova, true};
}

// The first step of a trace over {coherent, non-coherent in hwpt0; 1 GiB mapped} that must be refused for one reason.
TEST(TraceJudge, NamesTheRequirementThatIsBroken) {
  const Request request = request_with({kCoherent, kNonCoherent});
  const Layout layout = oracle::boot(request).value();
  constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;
  TraceStep pasid = step(Act::hwpt_alloc, kCoherent, "ioas0", "hwpt9");
  pasid.flags = kPasid | kNestParent;
  const std::vector<Spoilt> cases = {
      {"kvm-file-add.registered", step(Act::kvm_file_add, kCoherent)},
      {"bind.bound", step(Act::bind, kCoherent)},
      {"bind.known", step(Act::bind, "0000:77:00.0")},
      {"ioas-alloc.exists", step(Act::ioas_alloc, "", "ioas0")},
      {"allow-iovas.ioas", step(Act::allow_iovas, "", "ioas7")},
      {"allow-iovas.mapped", step_with(Act::allow_iovas, {}, {{0, 0xfffff}})},
      {"allow-iovas.reserved", step_with(Act::allow_iovas, {}, {{0, 0xffffffff}})},
      {"allow-iovas.aperture", step_with(Act::allow_iovas, {}, {{0, kGiB - 1}, {kGiB << 20, (kGiB << 20) + 0xfff}})},
      {"allow-iovas.disjoint", step_with(Act::allow_iovas, {}, {{0, kGiB - 1}, {0x1000, 0x1fff}})},
      {"hwpt-alloc.bound", step(Act::hwpt_alloc, kCoherent2, "ioas0", "hwpt9")},
      {"hwpt-alloc.exists", step(Act::hwpt_alloc, kCoherent, "ioas0", "hwpt0")},
      {"hwpt-alloc.allocation", pasid},
      {"attach.bound", step(Act::attach, kCoherent2, "", "hwpt0")},
      {"attach.attached", step(Act::attach, kCoherent, "", "hwpt0")},
      {"attach.hwpt", step(Act::attach, kCoherent2, "", "hwpt9")},
      {"attach-ioas.bound", step(Act::attach_ioas, kMediated, "ioas0")},
      {"replace.attached", step(Act::replace, kCoherent2, "", "hwpt0")},
      {"replace.hwpt", step(Act::replace, kCoherent, "", "hwpt9")},
      {"replace.other", step(Act::replace, kCoherent, "", "hwpt0")},
      {"detach.attached", step(Act::detach, kCoherent2)},
      {"hwpt-destroy.empty", step(Act::hwpt_destroy, "", "", "hwpt0")},
      {"hwpt-destroy.hwpt", step(Act::hwpt_destroy, "", "", "hwpt9")},
      {"kvm-file-del.attached", step(Act::kvm_file_del, kCoherent)},
      {"kvm-file-del.registered", step(Act::kvm_file_del, kCoherent2)},
      {"unbind.registered", step(Act::unbind, kCoherent)},
      {"unbind.attached", step(Act::unbind, kCoherent)},
      {"unbind.bound", step(Act::unbind, kCoherent2)},
      {"map.allowed", step_with(Act::map, {kGiB, kGiB + 0xfff})},
      {"map.reserved", step_with(Act::map, {0xfee00000, 0xfee00fff})},
      {"map.mapped", step_with(Act::map, {0, 0xfff})},
      {"map.alignment", step_with(Act::map, {kGiB + 0x100, kGiB + 0x1ff})},
      {"map.aperture", step_with(Act::map, {kGiB << 20, (kGiB << 20) + 0xfff})},
      {"unmap.whole", step_with(Act::unmap, {0, 0xfff})},
      {"unmap.mapped", step_with(Act::unmap, {kGiB, kGiB + 0xfff})},
      {"ioas-destroy.mapped", step(Act::ioas_destroy, "", "ioas0")},
      {"ioas-destroy.hwpt", step(Act::ioas_destroy, "", "ioas0")},
  };
  for (const Spoilt& c : cases) {
    const auto violations = trace_judge::judge_trace(request, layout, std::vector{c.step}, layout);
    EXPECT_TRUE(trace_judge::names(violations, c.obligation))
        << c.obligation << " of " << trace_judge::to_text(c.step) << "\n"
        << trace_judge::to_text(violations);
  }
}

TEST(TraceJudge, NamesWhatAHwptOrAnOwnerRefuses) {
  const Request request = request_with({kCoherent, kCoherent2});
  Layout layout = oracle::boot(request).value();
  const std::vector<TraceStep> steps = {step(Act::kvm_file_add, kNonCoherent), step(Act::bind, kNonCoherent),
                                        step(Act::attach, kNonCoherent, "", "hwpt0")};
  EXPECT_TRUE(trace_judge::names(trace_judge::judge_trace(request, layout, steps, layout), "attach.accepts"));

  Request mixed = request_with({kNonCoherent, kCoherent});
  mixed.policy.coherency = CoherencyPolicy::strict;
  layout = oracle::boot(mixed).value();
  ASSERT_EQ(layout.spaces[0].hwpts.size(), 2U);
  const std::string enforcing = layout.spaces[0].hwpts[0].id;
  auto violations =
      trace_judge::judge_trace(mixed, layout, std::vector{step(Act::replace, kNonCoherent, "", enforcing)}, layout);
  EXPECT_TRUE(trace_judge::names(violations, "S4")) << trace_judge::to_text(violations);
  violations = trace_judge::judge_trace(mixed, layout, std::vector{step(Act::replace, kCoherent, "", "hwpt1")}, layout);
  EXPECT_TRUE(trace_judge::names(violations, "S2")) << trace_judge::to_text(violations);
}

TEST(TraceJudge, TheFirstWorldIsJudgedToo) {
  const Request request = request_with({kCoherent, kNonCoherent});
  Layout layout = oracle::boot(request).value();
  layout.spaces[0].hwpts[0].devices = {kCoherent};  // in the HWPT that the other one made
  const auto violations = trace_judge::judge_trace(request, layout, {}, layout);
  ASSERT_EQ(violations.size(), 1U) << trace_judge::to_text(violations);
  EXPECT_EQ(violations[0].step, 0U);
  EXPECT_EQ(violations[0].obligation, "S1");
  layout.spaces[0].retained = {kNonCoherent};  // its file is still with KVM
  EXPECT_TRUE(trace_judge::judge_trace(request, layout, {}, layout).empty());
}

TEST(TraceJudge, MemoryUnderARegionOfAnArrival) {
  Request request = request_with({kCoherent});
  request.host.devices[2].reserved = {{{{0x10000000, 0x1000ffff}, ReservedType::reserved}}};
  const Layout layout = oracle::boot(request).value();
  const std::vector<TraceStep> steps = {step(Act::kvm_file_add, kCoherent2), step(Act::bind, kCoherent2),
                                        step(Act::attach, kCoherent2, "", "hwpt0")};
  const auto violations = trace_judge::judge_trace(request, layout, steps, layout);
  EXPECT_TRUE(trace_judge::names(violations, "attach.regions"));
  EXPECT_TRUE(trace_judge::names(violations, "S3"));
}

TEST(TraceJudge, AHwptWithoutADomainIdTakesNobody) {
  Request request = request_with({kCoherent});
  request.host.units[0].facts[UnitFact::domains_used] = 1021;  // one is left, and hwpt0 has it
  const Layout layout = oracle::boot(request).value();
  const std::vector<TraceStep> steps = {step(Act::hwpt_alloc, kCoherent, "ioas0", "hwpt1"),
                                        step(Act::replace, kCoherent, "", "hwpt1")};
  EXPECT_TRUE(trace_judge::names(trace_judge::judge_trace(request, layout, steps, layout), "replace.ids"));
  const std::vector<TraceStep> stopping = {step(Act::hwpt_alloc, kCoherent, "ioas0", "hwpt1"),
                                           step(Act::detach, kCoherent), step(Act::attach, kCoherent, "", "hwpt1"),
                                           step(Act::hwpt_destroy, "", "", "hwpt0")};
  const auto violations = trace_judge::judge_trace(request, layout, stopping, layout);
  EXPECT_FALSE(trace_judge::names(violations, "attach.ids")) << trace_judge::to_text(violations);
  EXPECT_TRUE(trace_judge::names(violations, "target.hwpts"));
}

// All IOMMUs but Intel's take the id when the HWPT is made.
TEST(TraceJudge, AHwptWithoutADomainIdOfItsOwnIsNotMade) {
  Request request = request_with({kCoherent});
  request.host.units[0].driver = Driver::amd;
  request.host.units[0].facts[UnitFact::domains_used] = 65534;  // one is left, and hwpt0 has it
  const Layout layout = oracle::boot(request).value();
  const auto made = [&](std::vector<TraceStep> steps) {
    steps.push_back(step(Act::hwpt_alloc, kCoherent, "ioas0", "hwpt1"));
    return !trace_judge::names(trace_judge::judge_trace(request, layout, steps, layout), "hwpt-alloc.ids");
  };
  EXPECT_FALSE(made({}));
  EXPECT_FALSE(made({step(Act::detach, kCoherent)}));
  EXPECT_TRUE(made({step(Act::detach, kCoherent), step(Act::hwpt_destroy, "", "", "hwpt0")}));
}

// -------------------------------------------------------------------------------------------- random histories

// Every feasible change of random histories in the mode, from layout to layout.
void each_transition(std::uint64_t seeds, HotplugPolicy mode, const std::function<void(const Transition&)>& visit) {
  for (std::uint64_t seed = 0; seed < seeds; ++seed) {
    generator::History history(seed);
    auto now = oracle::boot(history.request());
    const auto unplug = seed % 2 == 0 ? oracle::Unplug::release : oracle::Unplug::retain;
    for (int change = 0; now && change < 8; ++change) {
      const auto answer = oracle::plug(history.request(), *now, history.next(*now), mode, unplug);
      if (answer.outcome != oracle::Outcome::feasible) continue;
      visit({history.request(), *now, answer.layout,
             trace_judge::reference_trace(history.request(), *now, answer.layout)});
      now = answer.layout;
      if (testing::Test::HasFailure()) return;
    }
  }
}

struct Mix {
  std::size_t transitions = 0, replaces = 0, stopped = 0, accesses = 0, automatic = 0, maps = 0, unmakes = 0;
};

std::size_t count(const std::vector<TraceStep>& steps, Act act) {
  return static_cast<std::size_t>(std::ranges::count(steps, act, &TraceStep::act));
}

bool stops_one(const Transition& t) {
  return std::ranges::any_of(t.steps, [&](const TraceStep& s) {
    return s.act == Act::detach && std::ranges::any_of(t.to.spaces, [&](const oracle::Space& space) {
             return std::ranges::count(oracle::attached_devices(space), s.device) > 0;
           });
  });
}

TEST(TraceJudge, TheDefinitionsOrderIsSafeInRandomHistories) {
  Mix mix;
  const auto seeds = static_cast<std::uint64_t>(2500 * scale());
  for (const HotplugPolicy mode : {HotplugPolicy::frozen, HotplugPolicy::additive, HotplugPolicy::converge}) {
    each_transition(seeds, mode, [&](const Transition& t) {
      const auto violations = t.judged(t.steps);
      std::string trace;
      for (const std::string& line : texts(t.steps)) trace += line + '\n';
      EXPECT_TRUE(violations.empty()) << trace_judge::to_text(violations) << trace;
      ++mix.transitions;
      mix.replaces += count(t.steps, Act::replace) > 0;
      mix.stopped += stops_one(t);
      mix.accesses += std::ranges::any_of(
          t.steps, [](const TraceStep& s) { return s.act == Act::attach_ioas && is_uuid(s.device); });
      mix.automatic += std::ranges::any_of(
          t.steps, [](const TraceStep& s) { return s.act == Act::attach_ioas && !is_uuid(s.device); });
      mix.maps += count(t.steps, Act::map) > 0;
      mix.unmakes += count(t.steps, Act::ioas_destroy) > 0;
    });
  }
  std::printf(
      "[ mix      ] %zu transitions: %zu move, %zu stop a device, %zu mediated, %zu automatic, %zu map, %zu end\n",
      mix.transitions, mix.replaces, mix.stopped, mix.accesses, mix.automatic, mix.maps, mix.unmakes);
  if (scale() < 1) return;
  EXPECT_GE(mix.transitions, 20000U);
  EXPECT_GE(mix.replaces, 500U);
  EXPECT_GE(mix.stopped, 3U);
  EXPECT_GE(mix.accesses, 200U);
  EXPECT_GE(mix.automatic, 20U);
  EXPECT_GE(mix.maps, 200U);
  EXPECT_GE(mix.unmakes, 50U);
}

// Without one of its steps a trace cannot lead to the same world, but for an allow-iovas that a later one overrides.
bool may_be_dropped(const std::vector<TraceStep>& steps, std::size_t i) {
  return steps[i].act == Act::allow_iovas &&
         std::any_of(steps.begin() + static_cast<std::ptrdiff_t>(i) + 1, steps.end(),
                     [&](const TraceStep& s) { return s.act == Act::allow_iovas && s.ioas == steps[i].ioas; });
}

TEST(TraceJudge, SpoiltTracesAreFoundOut) {
  std::size_t dropped = 0, retargeted = 0, swapped = 0;
  each_transition(static_cast<std::uint64_t>(250 * scale()), HotplugPolicy::converge, [&](const Transition& t) {
    for (std::size_t i = 0; i < t.steps.size(); ++i) {
      auto without = t.steps;
      without.erase(without.begin() + static_cast<std::ptrdiff_t>(i));
      if (!may_be_dropped(t.steps, i)) {
        EXPECT_FALSE(t.judged(without).empty()) << "without " << trace_judge::to_text(t.steps[i]);
        ++dropped;
      }
      if (t.steps[i].hwpt.empty()) continue;
      auto elsewhere = t.steps;
      elsewhere[i].hwpt = "hwpt77";
      for (const auto& h : t.from.spaces.empty() ? std::vector<oracle::RunningHwpt>{} : t.from.spaces[0].hwpts) {
        if (h.id != t.steps[i].hwpt) elsewhere[i].hwpt = h.id;
      }
      EXPECT_FALSE(t.judged(elsewhere).empty()) << trace_judge::to_text(elsewhere[i]);
      ++retargeted;
    }
    // What a step makes, uses or takes apart is in order: swapped with the next one about the same thing it fails.
    for (std::size_t i = 0; i + 1 < t.steps.size(); ++i) {
      const TraceStep &a = t.steps[i], &b = t.steps[i + 1];
      const bool pair = (a.act == Act::kvm_file_del && b.act == Act::unbind) ||
                        (a.act == Act::hwpt_alloc && b.act == Act::replace && a.hwpt == b.hwpt) ||
                        (a.act == Act::bind && b.act == Act::attach && a.device == b.device) ||
                        (a.act == Act::allow_iovas && b.act == Act::map) ||
                        (a.act == Act::bind && b.act == Act::hwpt_alloc && a.device == b.device);
      if (!pair) continue;
      auto exchanged = t.steps;
      std::swap(exchanged[i], exchanged[i + 1]);
      EXPECT_FALSE(t.judged(exchanged).empty()) << trace_judge::to_text(a) << " after " << trace_judge::to_text(b);
      ++swapped;
    }
  });
  std::printf("[ mix      ] %zu dropped, %zu retargeted, %zu swapped\n", dropped, retargeted, swapped);
  if (scale() < 1) return;
  EXPECT_GE(dropped, 2000U);
  EXPECT_GE(retargeted, 500U);
  EXPECT_GE(swapped, 100U);
}

bool kvm_non_coherent(const Request& request, const oracle::Space* space) {
  return space != nullptr && oracle::kvm_non_coherent(request.host, *space);
}

// Is there a device in a HWPT that does not enforce, before, and still in the VM afterwards?
bool somebody_leaves_a_lax_hwpt(const Transition& t, const oracle::Space& from, const oracle::Space& to) {
  const auto stay = oracle::attached_devices(to);
  return std::ranges::any_of(from.hwpts, [&](const oracle::RunningHwpt& h) {
    const bool some = std::ranges::any_of(h.devices, [&](const auto& d) { return std::ranges::count(stay, d) > 0; });
    return some && !oracle::describe(t.request.host, from, h).enforce_cache_coherency;
  });
}

// Where KVM's verdict changes and somebody is in a HWPT that does not enforce, the naive orders are unsafe.
TEST(TraceJudge, NaiveOrdersAreFoundUnsafeInRandomHistories) {
  std::size_t late = 0, early = 0;
  each_transition(static_cast<std::uint64_t>(2500 * scale()), HotplugPolicy::converge, [&](const Transition& t) {
    for (const oracle::Space& s : t.from.spaces) {
      const oracle::Space* next = oracle::space_of(t.to, s.vm);
      const bool before = kvm_non_coherent(t.request, &s), after = kvm_non_coherent(t.request, next);
      if (next == nullptr || before == after) continue;
      if (after) {
        EXPECT_TRUE(trace_judge::names(t.judged(trace_judge::plug_then_fix(t.steps)), "S1"));
        ++late;
      } else if (somebody_leaves_a_lax_hwpt(t, s, *next)) {
        EXPECT_TRUE(trace_judge::names(t.judged(trace_judge::tell_kvm_then_move(t.steps)), "S1"));
        ++early;
      }
    }
  });
  std::printf("[ mix      ] %zu told KVM too late, %zu too early\n", late, early);
  if (scale() < 1) return;
  EXPECT_GE(late, 150U);
  EXPECT_GE(early, 10U);
}

}  // namespace
}  // namespace ioplan
