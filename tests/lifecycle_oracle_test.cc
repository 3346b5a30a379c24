// The oracle of plans over time (tests/support/lifecycle_oracle.h) judged: answers known by hand on
// tests/support/small_host.h, and on random histories what must hold whatever the right answer is. Its search is
// compared with the oracle of plans where the two answer the same question, and with enumeration without any thought
// where they do not. The mix of histories is asserted.
#include "tests/support/lifecycle_oracle.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "constraints/kernel_law.h"
#include "tests/support/generator.h"
#include "tests/support/history.h"
#include "tests/support/layout_rules.h"
#include "tests/support/seeds.h"
#include "tests/support/small_host.h"

namespace ioplan {
namespace {

using oracle::Layout;
using oracle::Outcome;
using oracle::PlugAnswer;
using oracle::PlugChange;
using oracle::RunningHwpt;
using oracle::Space;
using oracle::Unplug;
using namespace small_host;  // NOLINT: names of four devices

constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;
using Names = std::vector<std::string>;

PlugChange adding(const Names& devices) { return {"vm0", devices, {}, {}, 0}; }
PlugChange removing(const Names& devices) { return {"vm0", {}, devices, {}, 0}; }

struct Case {
  Request request;
  Layout now;
  Unplug unplug = Unplug::release;

  explicit Case(const Names& devices) : request(request_with(devices)) { boot(); }
  void boot() { now = oracle::boot(request).value(); }

  PlugAnswer in(HotplugPolicy mode, const PlugChange& change) const {
    return oracle::plug(request, now, change, mode, unplug);
  }
  PlugAnswer frozen(const PlugChange& change) const { return in(HotplugPolicy::frozen, change); }
  PlugAnswer additive(const PlugChange& change) const { return in(HotplugPolicy::additive, change); }
  PlugAnswer converge(const PlugChange& change) const { return in(HotplugPolicy::converge, change); }
};

const Space& space(const PlugAnswer& answer) { return answer.layout.spaces.at(0); }
std::string reason(const PlugAnswer& answer) { return answer.why.empty() ? "" : answer.why.front(); }

// ------------------------------------------------------------------------------------------------ modes, by hand

TEST(LifecycleOracle, ANonCoherentDeviceComesToACoherentVm) {
  const Case c({kCoherent});
  EXPECT_EQ(c.frozen(adding({kNonCoherent})).outcome, Outcome::infeasible);
  EXPECT_TRUE(reason(c.frozen(adding({kNonCoherent}))).starts_with("lifecycle.kvm-verdict"));

  const PlugAnswer added = c.additive(adding({kNonCoherent}));
  ASSERT_EQ(added.outcome, Outcome::feasible);
  const std::vector<RunningHwpt> two = {{"hwpt0", kCoherent, 0, false, {kCoherent}},
                                        {"hwpt1", kNonCoherent, 0, false, {kNonCoherent}}};
  EXPECT_EQ(space(added).hwpts, two);
  EXPECT_EQ(added.objectives[Objective::hwpts], 2U);
  EXPECT_EQ(added.objectives[Objective::coherency], 0U);

  const PlugAnswer moved = c.converge(adding({kNonCoherent}));
  ASSERT_EQ(moved.outcome, Outcome::feasible);
  const std::vector<RunningHwpt> one = {{"hwpt1", kNonCoherent, 0, false, {kCoherent, kNonCoherent}}};
  EXPECT_EQ(space(moved).hwpts, one);
  EXPECT_EQ(moved.interrupted, 1U);
  EXPECT_EQ(moved.kept, 0U);
}

TEST(LifecycleOracle, ACoherentDeviceJoinsInEveryMode) {
  const Case c({kCoherent});
  for (const auto mode : {HotplugPolicy::frozen, HotplugPolicy::additive, HotplugPolicy::converge}) {
    const PlugAnswer answer = c.in(mode, adding({kCoherent2}));
    ASSERT_EQ(answer.outcome, Outcome::feasible);
    const std::vector<RunningHwpt> joined = {{"hwpt0", kCoherent, 0, false, {kCoherent, kCoherent2}}};
    EXPECT_EQ(space(answer).hwpts, joined);
    EXPECT_EQ(answer.interrupted, 0U);
  }
}

TEST(LifecycleOracle, TheLastNonCoherentDeviceLeaves) {
  Case c({kCoherent, kNonCoherent});
  EXPECT_TRUE(reason(c.frozen(removing({kNonCoherent}))).starts_with("lifecycle.kvm-verdict"));
  EXPECT_TRUE(reason(c.additive(removing({kNonCoherent}))).starts_with("lifecycle.unplug-coherency"));
  const PlugAnswer moved = c.converge(removing({kNonCoherent}));
  ASSERT_EQ(moved.outcome, Outcome::feasible);
  const std::vector<RunningHwpt> enforcing = {{"hwpt1", kCoherent, 0, false, {kCoherent}}};
  EXPECT_EQ(space(moved).hwpts, enforcing);
  EXPECT_EQ(moved.interrupted, 1U);

  c.unplug = Unplug::retain;
  for (const auto mode : {HotplugPolicy::frozen, HotplugPolicy::additive}) {
    const PlugAnswer kept = c.in(mode, removing({kNonCoherent}));
    ASSERT_EQ(kept.outcome, Outcome::feasible);
    EXPECT_EQ(space(kept).retained, Names{kNonCoherent});
    EXPECT_EQ(space(kept).hwpts[0].devices, Names{kCoherent});
  }
  EXPECT_TRUE(space(c.converge(removing({kNonCoherent}))).retained.empty());
}

TEST(LifecycleOracle, SeparateHwptsLetTheLastNonCoherentDeviceGo) {
  Case c({kCoherent, kNonCoherent});
  c.request.policy.coherency = CoherencyPolicy::strict;
  c.boot();
  ASSERT_EQ(c.now.spaces[0].hwpts.size(), 2U);
  const PlugAnswer answer = c.additive(removing({kNonCoherent}));
  ASSERT_EQ(answer.outcome, Outcome::feasible);
  EXPECT_EQ(space(answer).hwpts.size(), 1U);  // the empty one vanishes
  EXPECT_TRUE(reason(c.frozen(removing({kNonCoherent}))).starts_with("lifecycle.kvm-verdict"));
}

TEST(LifecycleOracle, ARetainedDeviceIsLetGoWhenItIsNotNeeded) {
  Case c({kCoherent, kNonCoherent});
  c.unplug = Unplug::retain;
  c.now = c.frozen(removing({kNonCoherent})).layout;
  ASSERT_EQ(c.now.spaces[0].retained, Names{kNonCoherent});
  // It comes back, or another one comes, or a mediated one.
  for (const char* comes : {kNonCoherent, kNonCoherent2, kMediated}) {
    const PlugAnswer answer = c.frozen(adding({comes}));
    ASSERT_EQ(answer.outcome, Outcome::feasible) << comes;
    EXPECT_TRUE(space(answer).retained.empty()) << comes;
  }
  // A coherent device comes: still needed, for the one in the HWPT that does not enforce.
  EXPECT_EQ(space(c.additive(adding({kCoherent2}))).retained, Names{kNonCoherent});
  // Everybody is moved to where coherency is enforced.
  EXPECT_TRUE(space(c.converge(adding({kCoherent2}))).retained.empty());
  // Nobody is left: additive lets it go and the address space with it, frozen leaves all as it is.
  EXPECT_TRUE(c.additive(removing({kCoherent})).layout.spaces.empty());
  const PlugAnswer empty = c.frozen(removing({kCoherent}));
  ASSERT_EQ(empty.outcome, Outcome::feasible);
  EXPECT_EQ(space(empty).retained, Names{kNonCoherent});
  EXPECT_TRUE(space(empty).hwpts.at(0).devices.empty());
}

TEST(LifecycleOracle, OfSeveralThatLeaveTheLowestHostDeviceIsRetained) {
  Case c({kCoherent, kNonCoherent, kNonCoherent2, kMediated});
  c.unplug = Unplug::retain;
  EXPECT_EQ(space(c.frozen(removing({kMediated, kNonCoherent2, kNonCoherent}))).retained, Names{kNonCoherent});
  EXPECT_TRUE(space(c.frozen(removing({kNonCoherent2, kNonCoherent}))).retained.empty());  // the mediated one stays
  c.now = c.frozen(removing({kNonCoherent2, kNonCoherent})).layout;
  EXPECT_EQ(space(c.frozen(removing({kMediated}))).retained, Names{kMediated});
}

TEST(LifecycleOracle, FrozenKeepsEmptyHwptsAndAdditiveDoesNot) {
  Case c({kCoherent, kCoherent2});
  keep_apart(c.request, kCoherent, kCoherent2);
  c.boot();
  ASSERT_EQ(c.now.spaces[0].hwpts.size(), 2U);
  const Layout frozen = c.frozen(removing({kCoherent2})).layout;
  const Layout additive = c.additive(removing({kCoherent2})).layout;
  EXPECT_EQ(frozen.spaces[0].hwpts.size(), 2U);
  EXPECT_EQ(additive.spaces[0].hwpts.size(), 1U);
  // It can come back to the HWPT that waits, whose allocator is gone meanwhile or not.
  c.now = frozen;
  EXPECT_EQ(space(c.frozen(adding({kCoherent2}))).hwpts[1].devices, Names{kCoherent2});
  c.now = additive;
  EXPECT_EQ(c.frozen(adding({kCoherent2})).outcome, Outcome::infeasible);
  EXPECT_EQ(c.additive(adding({kCoherent2})).outcome, Outcome::feasible);
}

TEST(LifecycleOracle, AnIdenticalHwptIsNeverRebuilt) {
  const Case c({kCoherent2});
  const PlugAnswer answer = c.converge(adding({kCoherent}));  // a lower device, which `plan` would let allocate
  ASSERT_EQ(answer.outcome, Outcome::feasible);
  const std::vector<RunningHwpt> same = {{"hwpt0", kCoherent2, 0, false, {kCoherent, kCoherent2}}};
  EXPECT_EQ(space(answer).hwpts, same);
  EXPECT_EQ(answer.interrupted, 0U);
  EXPECT_EQ(answer.kept, 1U);
}

TEST(LifecycleOracle, TheFirstDeviceMakesAnAddressSpaceAndTheLastTakesItAway) {
  Case c({kCoherent});
  c.now = {};
  EXPECT_EQ(c.frozen(adding({kCoherent})).outcome, Outcome::infeasible);
  for (const auto mode : {HotplugPolicy::additive, HotplugPolicy::converge}) {
    const PlugAnswer answer = c.in(mode, adding({kCoherent}));
    ASSERT_EQ(answer.outcome, Outcome::feasible);
    EXPECT_EQ(space(answer).memory, c.request.vms[0].memory.ranges);
    EXPECT_EQ(space(answer).hwpts.size(), 1U);
  }
  c.boot();
  EXPECT_TRUE(c.converge(removing({kCoherent})).layout.spaces.empty());
  EXPECT_TRUE(c.additive(removing({kCoherent})).layout.spaces.empty());
  EXPECT_EQ(c.frozen(removing({kCoherent})).layout.spaces.size(), 1U);
}

TEST(LifecycleOracle, ChangesThatMakeNoSense) {
  const Case c({kCoherent});
  const std::vector<PlugChange> senseless = {
      adding({kCoherent}),
      adding({"0000:99:00.0"}),
      adding({kCoherent2, kCoherent2}),
      removing({kCoherent2}),
      {"vm7", {kCoherent2}, {}, {}, 0},
      {"vm0", {}, {}, {{0, 0xfff}}, 0},
      {"vm0", {}, {}, {{2 * kGiB, 2 * kGiB + 0x7ff}}, 0},
      {"vm0", {}, {}, {}, ~std::uint64_t{0}},
  };
  for (const PlugChange& change : senseless) {
    EXPECT_EQ(c.additive(change).outcome, Outcome::bad_input) << reason(c.additive(change));
  }
}

// ----------------------------------------------------------------------------------------------------- memory

TEST(LifecycleOracle, MemoryGoesBehindWhatIsMapped) {
  const Case c({kCoherent});
  for (const auto mode : {HotplugPolicy::frozen, HotplugPolicy::additive, HotplugPolicy::converge}) {
    const PlugAnswer answer = c.in(mode, {"vm0", {}, {}, {}, 2 * kGiB});
    ASSERT_EQ(answer.outcome, Outcome::feasible);
    const std::vector<MemoryRange> memory = {{{0, kGiB - 1}, Access::read_write},
                                             {{kGiB, 3 * kGiB - 1}, Access::read_write}};
    EXPECT_EQ(space(answer).memory, memory);
    // Under the MSI window, and beyond 48 bits.
    EXPECT_EQ(c.in(mode, {"vm0", {}, {}, {}, 4 * kGiB}).outcome, Outcome::infeasible);
    EXPECT_EQ(c.in(mode, {"vm0", {}, {}, {{0xfee00000, 0xfee00fff}}, 0}).outcome, Outcome::infeasible);
    EXPECT_EQ(c.in(mode, {"vm0", {}, {}, {{kGiB << 18, (kGiB << 18) + 0xfff}}, 0}).outcome, Outcome::infeasible);
  }
  EXPECT_EQ(*oracle::place_memory({{{0, kGiB}, Access::read_write}}, 4096, kGiB), (Range{2 * kGiB, 3 * kGiB - 1}));
  EXPECT_EQ(*oracle::place_memory({{{0, kGiB - 1}, Access::read_write}}, 4 * kGiB, kGiB),
            (Range{4 * kGiB, 5 * kGiB - 1}));
  EXPECT_FALSE(oracle::place_memory({{{0, ~std::uint64_t{0}}, Access::read_write}}, 4096, kGiB));
}

// --------------------------------------------------------------------------------------------------- matching

Layout layout_with(std::vector<RunningHwpt> hwpts) {
  Space s;
  s.id = "ioas0";
  s.vm = "vm0";
  s.memory = {{{0, kGiB - 1}, Access::read_write}};
  s.allowed = {{0, kGiB - 1}};
  s.hwpts = std::move(hwpts);
  return {{s}, {}};
}

TEST(LifecycleOracle, TheMatchingInterruptsTheFewest) {
  const Host host = request_with({}).host;
  // Two HWPTs of one kind. By their lowest devices the targets would be exchanged; two devices would move.
  const Layout running = layout_with({{"hwpt3", kNonCoherent, 0, false, {kNonCoherent, kNonCoherent2}},
                                      {"hwpt5", kNonCoherent2, 0, false, {kCoherent, kCoherent2}}});
  const Layout target = layout_with({{"hwpt0", kNonCoherent, 0, false, {kCoherent, kNonCoherent, kNonCoherent2}},
                                     {"hwpt1", kNonCoherent, 0, false, {kCoherent2}}});
  const oracle::Matching m = oracle::best_matching(host, running, target);
  EXPECT_EQ(m.interrupted, 1U);
  EXPECT_EQ(m.kept, 2U);
  const std::vector<RunningHwpt> named = {{"hwpt3", kNonCoherent, 0, false, {kCoherent, kNonCoherent, kNonCoherent2}},
                                          {"hwpt5", kNonCoherent2, 0, false, {kCoherent2}}};
  EXPECT_EQ(m.target.spaces[0].hwpts, named);
  // Of another kind: nothing is kept, everybody moves.
  const Layout enforcing = layout_with({{"hwpt0", kCoherent, 0, false, {kCoherent, kCoherent2}},
                                        {"hwpt1", kNonCoherent, 0, false, {kNonCoherent, kNonCoherent2}}});
  const oracle::Matching other = oracle::best_matching(host, running, enforcing);
  EXPECT_EQ(other.interrupted, 2U);
  EXPECT_EQ(other.kept, 1U);
  EXPECT_EQ(other.target.spaces[0].hwpts[0].id, "hwpt0");
}

TEST(LifecycleOracle, EqualChoicesTakeTheLowestObject) {
  const Host host = request_with({}).host;
  const Layout running = layout_with({{"hwpt2", kCoherent, 0, false, {}}, {"hwpt10", kCoherent2, 0, false, {}}});
  const oracle::Matching m =
      oracle::best_matching(host, running, layout_with({{"a", kCoherent2, 0, false, {kCoherent2}}}));
  EXPECT_EQ(m.target.spaces[0].hwpts[0].id, "hwpt2");
  EXPECT_EQ(m.target.spaces[0].hwpts[0].allocator, kCoherent2);  // kCoherent is not of the VM any more
}

// -------------------------------------------------------------------------------------------------- foresight

oracle::Foresight foresee(const Names& devices, const Names& expected, CoherencyPolicy coherency,
                          std::uint64_t memory = 0) {
  Request request = request_with(devices);
  request.policy.coherency = coherency;
  request.vms[0].hotplug.hosts = expected;
  request.vms[0].hotplug.memory = memory;
  const oracle::Foresight f = oracle::foresee(request);
  EXPECT_TRUE(f.feasible);
  EXPECT_TRUE(oracle::broken_promises(request, f.layout).empty());
  return f;
}

TEST(LifecycleOracle, PromisesThatCanBeKept) {
  const auto safe = CoherencyPolicy::safe, strict = CoherencyPolicy::strict;
  EXPECT_EQ(foresee({kCoherent}, {kCoherent2}, safe).devices, Names{kCoherent2});
  EXPECT_EQ(foresee({kCoherent}, {kNonCoherent}, safe).devices, Names{});  // the verdict of KVM would change
  EXPECT_EQ(foresee({kNonCoherent}, {kCoherent, kNonCoherent2}, safe).devices, (Names{kCoherent, kNonCoherent2}));
  EXPECT_EQ(foresee({kNonCoherent}, {kCoherent}, strict).devices, Names{});  // nobody can make a HWPT for it
  EXPECT_EQ(foresee({kNonCoherent, kCoherent2}, {kCoherent}, strict).devices, Names{kCoherent});
}

TEST(LifecycleOracle, AHwptWaitsWhereNobodyElseMayBe) {
  Request request = request_with({kCoherent});
  keep_apart(request, kCoherent, kCoherent2);
  request.vms[0].hotplug.hosts = {kCoherent2};
  const oracle::Foresight f = oracle::foresee(request);
  EXPECT_EQ(f.objectives[Objective::hwpts], 2U);
  const std::vector<RunningHwpt> waiting = {{"hwpt0", kCoherent, 0, false, {kCoherent}},
                                            {"hwpt1", kCoherent, 0, false, {}}};
  EXPECT_EQ(f.layout.spaces[0].hwpts, waiting);
  EXPECT_TRUE(oracle::broken_promises(request, f.layout).empty());
  // Without the HWPT the promise is broken, and that is found.
  Layout without = f.layout;
  without.spaces[0].hwpts.pop_back();
  without.spaces[0].promised[0].hwpt = "hwpt0";
  EXPECT_FALSE(oracle::broken_promises(request, without).empty());
}

TEST(LifecycleOracle, PromisedMemoryIsSetAside) {
  const auto f = foresee({kCoherent}, {kCoherent2}, CoherencyPolicy::safe, kGiB);
  EXPECT_EQ(f.memory, (Range{kGiB, 2 * kGiB - 1}));
  EXPECT_EQ(f.layout.spaces[0].memory.size(), 1U);
  EXPECT_EQ(f.layout.spaces[0].allowed.size(), 2U);
  const auto none = foresee({kCoherent}, {}, CoherencyPolicy::safe, 8 * kGiB);  // over the MSI window
  EXPECT_EQ(none.memory, std::nullopt);
  EXPECT_EQ(none.refused, Names{"memory"});
}

TEST(LifecycleOracle, ExpectationsByClassAreDevicesThatNobodyHas) {
  Request request = request_with({kCoherent});
  request.vms[0].hotplug.classes = {"0x02"};
  EXPECT_EQ(oracle::expected_devices(request, request.vms[0]), (Names{kNonCoherent, kCoherent2, kNonCoherent2}));
  request.vms[0].hotplug.classes = {"0x0108"};
  EXPECT_TRUE(oracle::expected_devices(request, request.vms[0]).empty());
}

// ------------------------------------------------------------------------------------- against other brute force

bool equal_by_law(const Host& host, DeviceIndex a, std::uint8_t flags_a, DeviceIndex b, std::uint8_t flags_b) {
  const Law& law = kernel_law();
  return law.allocate(law.describe(host, a), flags_a) == law.allocate(law.describe(host, b), flags_b);
}

// README 1 defines equal HWPTs by the law; the oracle's own kernel means the same.
TEST(LifecycleOracle, EqualHwptsAreEqualByTheLaw) {
  std::size_t pairs = 0, equal = 0;
  for (std::uint64_t seed = 0; seed < 1500; ++seed) {
    const Host host = generator::History(seed).request().host;
    for (std::size_t a = 0; a < host.devices.size(); ++a) {
      for (std::size_t b = 0; b < a; ++b) {
        for (std::uint8_t flags = 0; flags < kHwptFlagSets; ++flags) {
          const auto ta = oracle::allocate(host, DeviceIndex(a), flags),
                     tb = oracle::allocate(host, DeviceIndex(b), flags);
          if (!ta || !tb) continue;
          const bool alike = oracle::equal_attributes(host, *ta, *tb);
          EXPECT_EQ(alike, equal_by_law(host, DeviceIndex(a), flags, DeviceIndex(b), flags))
              << seed << ' ' << host.devices[a].id << ' ' << host.devices[b].id << ' ' << unsigned{flags};
          ++pairs;
          equal += alike;
        }
      }
    }
    if (HasFailure()) return;
  }
  EXPECT_GE(pairs, 10000U);
  EXPECT_GE(equal, pairs / 10);
  EXPECT_GE(pairs - equal, pairs / 10);
}

std::vector<oracle::Hwpt> described(const Host& host, const Layout& layout) {
  std::vector<oracle::Hwpt> hwpts;
  for (const Space& s : layout.spaces) {
    for (const RunningHwpt& h : s.hwpts) hwpts.push_back(oracle::describe(host, s, h));
  }
  return hwpts;
}

// With nothing expected foresight is a plan: the search over placements gives what the search over partitions gives.
TEST(LifecycleOracle, WithoutExpectationsForesightIsThePlan) {
  std::size_t feasible = 0, several = 0, preferring = 0;
  const auto seeds = static_cast<std::uint64_t>(3000 * scale());
  for (std::uint64_t seed = 0; seed < seeds && !HasFailure(); ++seed) {
    Request request = generator::random_expectations(seed);
    request.vms[0].hotplug = {};
    const oracle::Answer plan = oracle::judge(request);
    const oracle::Foresight f = oracle::foresee(request);
    ASSERT_EQ(f.feasible, plan.feasible) << seed;
    if (!f.feasible) continue;
    EXPECT_EQ(f.objectives, plan.objectives) << seed;
    EXPECT_EQ(f.preferences, plan.preferences) << seed;
    EXPECT_EQ(described(request.host, f.layout), plan.hwpts) << seed;
    EXPECT_EQ(oracle::objectives_of(request, f.layout), plan.objectives) << seed;
    EXPECT_TRUE(oracle::faults_of(request, f.layout).empty()) << seed;
    ++feasible;
    several += plan.hwpts.size() > 1;
    preferring += !f.preferences.empty();
  }
  if (scale() < 1) return;
  EXPECT_GE(feasible, 1200U);
  EXPECT_GE(several, 200U);
  EXPECT_GE(preferring, 50U);
}

// Every layout that differs from `now` by the added devices alone, each in any HWPT of the VM or in a new one of its
// own made by anybody with any flags: no group, no rule and no mode is thought of. Calls `visit` with each.
template <class Visit>
void each_layout(const Host& host, const Layout& now, const std::string& vm, const Names& add, std::size_t next,
                 const Visit& visit) {
  if (next == add.size()) return visit(now);
  for (std::size_t s = 0; s < now.spaces.size(); ++s) {
    if (now.spaces[s].vm != vm) continue;
    for (std::size_t h = 0; h < now.spaces[s].hwpts.size(); ++h) {
      Layout with = now;
      auto& devices = with.spaces[s].hwpts[h].devices;
      devices.push_back(add[next]);
      std::ranges::sort(devices, natural_less);
      each_layout(host, with, vm, add, next + 1, visit);
    }
    Names makers = oracle::attached_devices(now.spaces[s]);
    makers.insert(makers.end(), add.begin() + static_cast<std::ptrdiff_t>(next), add.end());
    for (const std::string& maker : makers) {
      for (std::uint8_t flags = 0; flags < kHwptFlagSets; ++flags) {
        const auto table = oracle::allocate(host, *host.find_device(maker), flags);
        if (!table) continue;
        Layout with = now;
        with.spaces[s].hwpts.push_back(
            {"new" + std::to_string(next), maker, flags, table->driver == Driver::smmuv2, {add[next]}});
        each_layout(host, with, vm, add, next + 1, visit);
      }
    }
  }
}

// Is the answer to a change that only adds host devices what that enumeration finds?
void compare_with_enumeration(const Request& request, const Layout& now, const PlugChange& change, HotplugPolicy mode,
                              const PlugAnswer& answer) {
  Names why;
  const Request after = oracle::request_after(request, now, change, why).value();
  const bool frozen = mode == HotplugPolicy::frozen;
  Layout start = now;
  for (Space& s : start.spaces) {
    if (s.vm == change.vm && !frozen) std::erase_if(s.hwpts, [](const RunningHwpt& h) { return h.devices.empty(); });
  }
  const Space* before = oracle::space_of(now, change.vm);
  const std::size_t hwpts_before = before->hwpts.size();
  std::optional<ObjectiveValues> best;
  each_layout(request.host, start, change.vm, change.add, 0, [&](const Layout& layout) {
    const Space* next = oracle::space_of(layout, change.vm);
    if (frozen && next->hwpts.size() > hwpts_before) return;
    if (frozen && oracle::kvm_non_coherent(request.host, *next) != oracle::kvm_non_coherent(request.host, *before))
      return;
    if (!oracle::faults_of(after, layout).empty()) return;
    const ObjectiveValues cost = oracle::objectives_of(after, layout);
    if (!best || oracle::less_cost(cost, *best, request.policy)) best = cost;
  });
  ASSERT_EQ(best.has_value(), answer.outcome == Outcome::feasible) << reason(answer);
  if (best) {
    EXPECT_EQ(*best, answer.objectives);
  }
}

bool only_host_devices_come(const Host& host, const Layout& now, const PlugChange& change) {
  return oracle::space_of(now, change.vm) != nullptr && change.remove.empty() && change.memory.empty() &&
         change.memory_size == 0 && !change.add.empty() && change.add.size() <= 2 &&
         std::ranges::all_of(change.add, [&](const std::string& d) { return host.find_device(d).has_value(); });
}

TEST(LifecycleOracle, AdditiveAndFrozenAreWhatBlindEnumerationFinds) {
  std::size_t compared = 0, feasible = 0, with_new = 0;
  const auto seeds = static_cast<std::uint64_t>(1500 * scale());
  for (std::uint64_t seed = 0; seed < seeds && !HasFailure(); ++seed) {
    generator::History history(seed);
    auto now = oracle::boot(history.request());
    const auto mode = seed % 2 == 0 ? HotplugPolicy::additive : HotplugPolicy::frozen;
    for (int change = 0; now && change < 5; ++change) {
      const PlugChange next = history.next(*now);
      const PlugAnswer answer = oracle::plug(history.request(), *now, next, mode, Unplug::retain);
      if (only_host_devices_come(history.request().host, *now, next)) {
        SCOPED_TRACE(testing::Message() << "seed " << seed << " change " << change);
        compare_with_enumeration(history.request(), *now, next, mode, answer);
        ++compared;
        feasible += answer.outcome == Outcome::feasible;
        with_new +=
            answer.outcome == Outcome::feasible &&
            answer.objectives[Objective::hwpts] > oracle::objectives_of(history.request(), *now)[Objective::hwpts];
      }
      if (answer.outcome == Outcome::feasible) now = answer.layout;
    }
  }
  std::printf("[ mix      ] %zu compared, %zu feasible, %zu with a new HWPT\n", compared, feasible, with_new);
  if (scale() < 1) return;
  EXPECT_GE(compared, 800U);
  EXPECT_GE(feasible, 300U);
  EXPECT_GE(with_new, 50U);
}

// --------------------------------------------------------------------------------------------------- random lives

struct Mix {
  std::map<std::string, std::size_t> of;
  std::size_t& operator[](const std::string& name) { return of[name]; }
  void print() const {
    for (const auto& [name, n] : of) std::printf("[ mix      ] %s: %zu\n", name.c_str(), n);
  }
};

const RunningHwpt* hwpt_of(const Layout& layout, const std::string& device) {
  for (const Space& s : layout.spaces) {
    for (const RunningHwpt& h : s.hwpts) {
      if (std::ranges::count(h.devices, device) > 0) return &h;
    }
  }
  return nullptr;
}

// What frozen and additive promise: who stays, stays.
void expect_nothing_moves(const Layout& before, const PlugChange& change, const Layout& after) {
  for (const Space& s : before.spaces) {
    for (const std::string& d : oracle::attached_devices(s)) {
      if (std::ranges::count(change.remove, d) > 0) continue;
      const RunningHwpt *then = hwpt_of(before, d), *now = hwpt_of(after, d);
      ASSERT_NE(now, nullptr) << d;
      EXPECT_TRUE(then->id == now->id && then->allocator == now->allocator && then->flags == now->flags) << d;
    }
  }
}

void count_change(Mix& mix, const std::string& mode, const Request& request, const Layout& before,
                  const PlugChange& change, const PlugAnswer& answer) {
  ++mix[mode + " changes"];
  if (answer.outcome != Outcome::feasible) {
    ++mix[mode + " infeasible"];
    if (reason(answer).starts_with("lifecycle.")) ++mix[mode + " refused for coherency"];
    return;
  }
  const Space *then = oracle::space_of(before, change.vm), *now = oracle::space_of(answer.layout, change.vm);
  const bool was = then != nullptr && oracle::kvm_non_coherent(request.host, *then);
  const bool is = now != nullptr && oracle::kvm_non_coherent(request.host, *now);
  if (was != is) ++mix[mode + " cross the coherency boundary"];
  if (now != nullptr && now->hwpts.size() > 1) ++mix[mode + " with several HWPTs"];
  if (now != nullptr && !now->retained.empty()) ++mix[mode + " with a retained device"];
  if (answer.interrupted > 0) ++mix[mode + " interrupt"];
  if (now != nullptr && then != nullptr && now->memory.size() > then->memory.size()) ++mix[mode + " with new memory"];
}

TEST(LifecycleOracle, RandomLivesAreValidInEveryMode) {
  Mix mix;
  const auto seeds = static_cast<std::uint64_t>(1500 * scale());
  const std::map<std::string, HotplugPolicy> modes = {
      {"frozen", HotplugPolicy::frozen}, {"additive", HotplugPolicy::additive}, {"converge", HotplugPolicy::converge}};
  for (const auto& [name, mode] : modes) {
    for (std::uint64_t seed = 0; seed < seeds && !HasFailure(); ++seed) {
      SCOPED_TRACE(testing::Message() << name << " seed " << seed);
      generator::History history(seed);
      auto now = oracle::boot(history.request());
      const auto unplug = seed % 2 == 0 ? Unplug::release : Unplug::retain;
      for (int i = 0; now && i < 8; ++i) {
        const PlugChange change = history.next(*now);
        const PlugAnswer answer = oracle::plug(history.request(), *now, change, mode, unplug);
        ASSERT_NE(answer.outcome, Outcome::bad_input) << reason(answer);
        count_change(mix, name, history.request(), *now, change, answer);
        if (answer.outcome != Outcome::feasible) continue;
        Names why;
        const auto after = oracle::request_after(history.request(), *now, change, why);
        const Names faults = oracle::faults_of(*after, answer.layout);
        EXPECT_TRUE(faults.empty()) << (faults.empty() ? "" : faults.front());
        if (mode == HotplugPolicy::converge) {
          EXPECT_EQ(answer.interrupted, oracle::interrupted_devices(*now, answer.layout));
          const PlugAnswer again =
              oracle::plug(history.request(), answer.layout, {change.vm, {}, {}, {}, 0}, mode, unplug);
          EXPECT_EQ(again.interrupted, 0U);
          EXPECT_TRUE(again.layout == answer.layout);
        } else {
          expect_nothing_moves(*now, change, answer.layout);
        }
        now = answer.layout;
      }
    }
  }
  mix.print();
  if (scale() < 1) return;
  for (const char* mode : {"frozen", "additive", "converge"}) {
    const std::string name = mode;
    EXPECT_GE(mix[name + " changes"], 4000U);
    EXPECT_GE(mix[name + " infeasible"], 300U);
    EXPECT_GE(mix[name + " with several HWPTs"], 400U);
    EXPECT_GE(mix[name + " with new memory"], 100U);
  }
  EXPECT_EQ(mix["frozen cross the coherency boundary"], 0U);
  EXPECT_GE(mix["additive cross the coherency boundary"], 100U);
  EXPECT_GE(mix["converge cross the coherency boundary"], 100U);
  EXPECT_GE(mix["frozen refused for coherency"], 100U);
  EXPECT_GE(mix["additive refused for coherency"], 8U);
  EXPECT_GE(mix["frozen with a retained device"], 100U);
  EXPECT_GE(mix["additive with a retained device"], 12U);
  EXPECT_EQ(mix["converge with a retained device"], 0U);
  EXPECT_GE(mix["converge interrupt"], 150U);
}

TEST(LifecycleOracle, PromisesToRandomVmsAreKeptInEveryOrder) {
  std::size_t promised = 0, refused = 0, memory = 0, waiting = 0, together = 0;
  const auto seeds = static_cast<std::uint64_t>(1500 * scale());
  for (std::uint64_t seed = 0; seed < seeds && !HasFailure(); ++seed) {
    const Request request = generator::random_expectations(seed);
    const oracle::Foresight f = oracle::foresee(request);
    if (!f.feasible) continue;
    const Names broken = oracle::broken_promises(request, f.layout);
    EXPECT_TRUE(broken.empty()) << seed << ": " << (broken.empty() ? "" : broken.front());
    EXPECT_TRUE(oracle::faults_of(request, f.layout).empty()) << seed;
    promised += f.devices.size();
    refused += f.refused.size();
    memory += f.memory.has_value();
    together += f.devices.size() > 1;
    waiting += std::ranges::any_of(f.layout.spaces[0].hwpts, [](const RunningHwpt& h) { return h.devices.empty(); });
  }
  std::printf(
      "[ mix      ] %zu promised, %zu refused, %zu VMs with several, %zu with memory, %zu with a HWPT that waits\n",
      promised, refused, together, memory, waiting);
  if (scale() < 1) return;
  EXPECT_GE(promised, 800U);
  EXPECT_GE(refused, 200U);
  EXPECT_GE(together, 200U);
  EXPECT_GE(memory, 100U);
  EXPECT_GE(waiting, 30U);
}

}  // namespace
}  // namespace ioplan
