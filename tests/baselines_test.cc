// What the kernel's automatic attach, QEMU's loop and type1's walk make of a VM's devices (backends/sim/walks.h), held
// against its needs, the policy and the strict rules (engine/solve/broken_rule.h).
//
// Small hosts whose outcome KR 2.3, 5.1 and 9.3 state, order by order; then random hosts: every walk over the simulated
// machine ends as the same walk over rules alone does (tests/support/rule_walks.h), HWPT by HWPT, and whatever the order
// of plugging, no walk that ends well has fewer HWPTs than the plan. All orders up to five groups, twenty shuffles elsewhere.
// IOPLAN_SCALE multiplies the number of hosts (500).
#include "backends/sim/walks.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "cli/compare.h"
#include "constraints/kernel_law.h"
#include "engine/document/load.h"
#include "engine/planner/missing.h"
#include "engine/planner/planner.h"
#include "tests/support/generator.h"
#include "tests/support/rule_walks.h"
#include "tests/support/seeds.h"

namespace ioplan {
namespace {

using cli::Contest;
using sim::kWalkNames;
using sim::Walk;
using sim::WalkOutcome;
using sim::WalkStatistics;

constexpr std::uint64_t bit_of(unsigned n) { return std::uint64_t{1} << n; }

// VT-d registers by the names of KR 3.1; MGAW 48.
constexpr std::uint64_t k2m = bit_of(34), k1g = bit_of(35), kFs1g = bit_of(56), kCm = bit_of(7);
constexpr std::uint64_t kC = 1, kSc = bit_of(7), kSmts = bit_of(43), kSsads = bit_of(45), kSsts = bit_of(46),
                        kFsts = bit_of(47), kSmpwc = bit_of(48);
constexpr std::uint64_t kFour = std::uint64_t{47} << 16 | 4 << 8 | k2m | k1g | kFs1g;
constexpr std::uint64_t kLegacy = kC | kSc;
constexpr std::uint64_t kScalable = kSmts | kSsts | kSmpwc | kSc;

std::string intel(std::uint64_t cap, std::uint64_t ecap) {
  return fmt::format("driver: intel, cap: {:#x}, ecap: {:#x}", cap, ecap);
}

// One device behind each unit, named 0, 1, 2, in this order; one VM with all of them.
Request request_of(const std::vector<std::string>& units, const std::string& policy = {}) {
  std::string text = "apiVersion: ioplan/v1\nkind: Host\nkernel: {isolated_msi: true, la57: false}\niommus:\n";
  for (std::size_t i = 0; i < units.size(); ++i) text += fmt::format("  - {{id: u{}, {}}}\n", i, units[i]);
  text += "devices:\n";
  for (std::size_t i = 0; i < units.size(); ++i) {
    const bool arm = units[i].find("smmuv3") != std::string::npos;
    text += fmt::format("  - {{id: d{0}, iommu: u{0}, group: {0}{1}}}\n", i,
                        arm ? ", canwbs: false, dma_coherent: {value: true, source: firmware}" : "");
  }
  text +=
      "---\napiVersion: ioplan/v1\nkind: VirtualMachine\nname: vm0\nmemory: {ranges: [{gpa: [0x40000000, "
      "0x7fffffff]}]}\ndevices:\n";
  for (std::size_t i = 0; i < units.size(); ++i) text += fmt::format("  - {{host: d{}}}\n", i);
  if (!policy.empty()) text += "---\napiVersion: ioplan/v1\nkind: Policy\n" + policy + "\n";
  auto loaded = load_text("case", text);
  if (!loaded) {
    ADD_FAILURE() << to_text(loaded.error()) << "\n" << text;
    return {};
  }
  return std::move(loaded->request);
}

Contest contest_of(const Request& request, std::size_t vm = 0) {
  auto contest = Contest::create(request, VmIndex(vm), request.vms[vm].needs);
  if (!contest) throw std::runtime_error(to_text(contest.error()));
  return std::move(*contest);
}

// "2", "1!intel.first-stage.snoop-control" where a rule is broken, "fails" where an attach fails for good.
std::string outcome(Walk kind, const Request& request, const std::vector<std::uint32_t>& order) {
  Contest contest = contest_of(request);
  const WalkOutcome o = contest.walk(kind, order);
  if (!o.complete()) return "fails";
  const std::string broken = contest.broken(o);
  return std::to_string(o.hwpts.size()) + (broken.empty() ? "" : "!" + broken);
}

struct Case {
  const char* what;
  std::vector<std::string> units;
  std::vector<std::uint32_t> order;
  const char *kernel, *qemu, *type1;
};

TEST(Baselines, SmallHostsByHand) {
  // KR 9.3: A has first-stage tables, B has none, C neither them, snoop control nor 1 GiB pages.
  const std::vector<std::string> three = {intel(kFour, kScalable | kFsts), intel(kFour, kScalable),
                                          intel(kFour & ~k1g, kScalable & ~kSc)};
  const std::string cc = intel(kFour, kLegacy), non_cc = intel(kFour, kC);
  const std::string first = intel(kFour, kScalable | kFsts), first_non_cc = intel(kFour, (kScalable & ~kSc) | kFsts);
  const std::string incoherent = intel(kFour, kSc), small = intel(kFour & ~(k2m | k1g), kLegacy),
                    caching = intel(kFour | kCm, kLegacy);
  const std::string dirty = intel(kFour, kScalable | kFsts | kSsads), clean = intel(kFour, kScalable | kFsts);
  const std::string both_levels = intel(kFour | 8 << 8, kLegacy), four_levels = cc;
  const std::string smmu = "driver: smmuv3, idr: [0x2, 0x0, 0x0, 0x0, 0x0, 0x15], coherent: true";
  const std::string riscv = "driver: riscv, capabilities: 0x200";
  const std::vector<Case> cases = {
      {"the worked example", three, {0, 1, 2}, "3", "3", "3"},
      {"the worked example, C first: all join it", three, {2, 0, 1}, "1", "1", "3"},
      {"the worked example, B first: C makes its own", three, {1, 2, 0}, "2", "2", "3"},
      {"not CC first: both join", {non_cc, cc}, {0, 1}, "1", "1", "2"},
      {"CC first: the other is refused; type1 never mixes", {non_cc, cc}, {1, 0}, "2", "2", "2"},
      {"first stage: Linux does not check snoop control",
       {first, first_non_cc},
       {0, 1},
       "1!intel.first-stage.snoop-control",
       "1!intel.first-stage.snoop-control",
       "2"},
      {"first stage, the weaker first", {first, first_non_cc}, {1, 0}, "1", "1", "2"},
      {"incoherent walks first", {incoherent, cc}, {0, 1}, "1", "1", "1"},
      {"coherent walks first", {incoherent, cc}, {1, 0}, "2", "2", "2"},
      {"small pages first", {small, cc}, {0, 1}, "1", "1", "1"},
      {"large pages first", {small, cc}, {1, 0}, "2", "2", "2"},
      {"caching mode first", {caching, cc}, {0, 1}, "1", "1", "1"},
      {"caching mode later", {caching, cc}, {1, 0}, "2", "2", "2"},
      {"four levels first", {four_levels, both_levels}, {0, 1}, "1", "1", "1"},
      {"five levels first: the unit takes them where it can", {four_levels, both_levels}, {1, 0}, "2", "2", "2"},
      {"first stage first", {first, intel(kFour, kScalable)}, {0, 1}, "2", "2", "2"},
      {"second stage first: type1 compares the domain operations",
       {first, intel(kFour, kScalable)},
       {1, 0},
       "1",
       "1",
       "2"},
      {"QEMU asks for dirty tracking where it can", {dirty, clean}, {0, 1}, "1", "2", "1"},
      {"QEMU, without dirty tracking first: no flag, so first stage", {dirty, clean}, {1, 0}, "1", "1", "1"},
      {"one HWPT an SMMU", {smmu, smmu}, {0, 1}, "2", "2", "2"},
      {"a driver that answers no capability query: no device can be bound", {riscv, cc}, {0, 1}, "fails", "fails", "fails"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.what);
    const Request request = request_of(c.units);
    if (request.vms.empty()) continue;
    EXPECT_EQ(outcome(Walk::kernel, request, c.order), c.kernel);
    EXPECT_EQ(outcome(Walk::qemu, request, c.order), c.qemu);
    EXPECT_EQ(outcome(Walk::type1, request, c.order), c.type1);
  }
}

// Walks know no policy; what they break is named.
TEST(Baselines, BrokenPoliciesAreNamed) {
  const std::string cc = intel(kFour, kLegacy), small = intel(kFour & ~(k2m | k1g), kLegacy);
  const auto kernel = [](const std::vector<std::string>& units, const char* policy) {
    return outcome(Walk::kernel, request_of(units, policy), {0, 1});
  };
  EXPECT_EQ(kernel({cc, cc}, "rules: [{name: x, separate: {a: {host: d0}, b: {host: d1}}}]"), "1!policy.separate");
  EXPECT_EQ(kernel({small, cc}, "rules: [{name: x, require: {page_size: 1GiB}, for: {host: d1}}]"),
            "1!policy.page-size");
  EXPECT_EQ(kernel({cc, small}, "rules: [{name: x, limit: {hwpts: 1}}]"), "2!policy.limit");
  EXPECT_EQ(kernel({cc, small}, "rules: [{name: x, together: {host: [d0, d1]}}]"), "2!policy.together");
  EXPECT_EQ(kernel({intel(kFour, kC), cc}, "coherency: strict"), "1!coherency.strict");
  EXPECT_EQ(kernel({intel(kFour, kC), cc}, "coherency: safe"), "1");
}

// The distribution that `plan --compare` shows.
TEST(Baselines, StatisticsCountEveryOrder) {
  Contest contest = contest_of(
      request_of({intel(kFour, kScalable | kFsts), intel(kFour, kScalable), intel(kFour & ~k1g, kScalable & ~kSc)}));
  const WalkStatistics all = contest.orders(Walk::kernel, 1000, 1);
  EXPECT_EQ(all.orders, 6U);  // three groups have six orders
  EXPECT_EQ(all.failed, 0U);
  std::size_t sum = 0;
  for (const auto& [hwpts, n] : all.valid) sum += n;
  for (const auto& [key, n] : all.unsafe) sum += n;
  EXPECT_EQ(sum, 6U);
  const WalkStatistics some = contest.orders(Walk::kernel, 5, 1);
  EXPECT_EQ(some.orders, 5U);
  EXPECT_EQ(contest.orders(Walk::kernel, 5, 1).valid, some.valid);  // seeded
}

// ------------------------------------------------------------------------------------------------------ random hosts

// The number of HWPTs first, required needs only, plenty of domain ids: what the walks can be compared with.
Request comparable_request(std::uint64_t seed) {
  Request request = generator::random_request(seed, {.absent = 0, .scarce_ids = 0});
  for (const MissingFact& f : unknown_facts(request)) f.set(request, f.candidates.at(0));
  for (VirtualMachine& vm : request.vms) {
    for (Need* need : {&vm.needs.dirty_tracking, &vm.needs.nest_parent, &vm.needs.pasid}) {
      if (*need == Need::preferred) *need = Need::no;
    }
  }
  for (Unit& unit : request.host.units) {
    for (UnitFact f : {UnitFact::domains_used, UnitFact::context_banks, UnitFact::domain_first, UnitFact::domain_last})
      unit.facts[f].reset();
    if (unit.driver == Driver::intel) *unit.facts[UnitFact::cap] |= 6;  // ND
  }
  request.policy.objectives = Policy{}.objectives;
  return request;
}

std::size_t planned_hwpts(const Plan& plan, const std::string& vm) {
  return static_cast<std::size_t>(std::ranges::count_if(plan.hwpts, [&](const PlannedHwpt& h) {
    return std::ranges::any_of(plan.ioas, [&](const PlannedIoas& i) { return i.id == h.ioas && i.vm == vm; });
  }));
}

struct Tally {
  std::size_t hosts = 0, walks = 0, failed = 0, valid = 0, more = 0, fewer_but_unsafe = 0;
};

// "3+1 cc: 0 4; " for each HWPT: its allocator, flags, coherency and devices.
std::string layout(const WalkOutcome& outcome) {
  std::string text;
  for (const sim::WalkedHwpt& h : outcome.hwpts) {
    text += fmt::format("{}+{}{}:", h.allocator.value, h.flags, h.enforce_cache_coherency ? " cc" : "");
    for (DeviceIndex d : h.devices) text += fmt::format(" {}", d.value);
    text += "; ";
  }
  return text;
}

std::string layout(const RuleWalk& walk, const std::vector<std::vector<DeviceIndex>>& groups) {
  std::string text;
  for (const RuleTable& t : walk.tables) {
    text += fmt::format("{}+{}{}:", t.allocator.value, t.hwpt[HwptQ::flags],
                        t.hwpt[HwptQ::enforce_cache_coherency] != 0 ? " cc" : "");
    for (std::uint32_t g : t.groups) {
      for (DeviceIndex d : groups[g]) text += fmt::format(" {}", d.value);
    }
    text += "; ";
  }
  return text;
}

void compare(Contest& contest, std::size_t planned, const std::vector<std::uint32_t>& order, Tally& tally) {
  for (Walk kind : {Walk::kernel, Walk::qemu, Walk::type1}) {
    SCOPED_TRACE(fmt::format("{} order {}", kWalkNames[static_cast<std::size_t>(kind)], fmt::join(order, " ")));
    const WalkOutcome o = contest.walk(kind, order);
    const RuleWalk rules = walk_rules(kind, contest.machine().host(), contest.groups(), order, kernel_law());
    ++tally.walks;
    ASSERT_EQ(o.complete(), rules.complete) << (o.refusal ? o.refusal->reason : "");
    ASSERT_EQ(layout(o), layout(rules, contest.groups()));
    tally.failed += !o.complete();
    if (!o.complete()) continue;
    const std::string broken = contest.broken(o);
    tally.fewer_but_unsafe += !broken.empty() && o.hwpts.size() < planned;
    if (!broken.empty()) continue;
    ++tally.valid;
    tally.more += o.hwpts.size() > planned;
    EXPECT_GE(o.hwpts.size(), planned);
  }
}

TEST(Baselines, NeverBeatThePlanOnRandomHosts) {
  Tally tally;
  const auto wanted = static_cast<std::size_t>(500 * number_from("IOPLAN_SCALE", 1));
  std::mt19937_64 random(1);
  for (std::uint64_t seed = 0; tally.hosts < wanted; ++seed) {
    const Request request = comparable_request(seed);
    const Plan plan = make_plan(request, kernel_law(), {.budget = {}, .explain_no = false});
    if (plan.verdict != Verdict::feasible) continue;
    ++tally.hosts;
    for (std::size_t v = 0; v < request.vms.size(); ++v) {
      SCOPED_TRACE(fmt::format("seed {} vm {}", seed, v));
      const std::size_t planned = planned_hwpts(plan, request.vms[v].name);
      Contest contest = contest_of(request, v);
      std::vector<std::uint32_t> order(contest.groups().size());
      std::iota(order.begin(), order.end(), 0U);
      if (order.size() <= 5) {
        do {
          compare(contest, planned, order, tally);
        } while (std::ranges::next_permutation(order).found);
        continue;
      }
      for (int n = 0; n < 20; ++n) {
        std::shuffle(order.begin(), order.end(), random);
        compare(contest, planned, order, tally);
      }
    }
    if (testing::Test::HasFatalFailure()) return;
  }
  std::printf(
      "%zu hosts, %zu walks: %zu fail, %zu end well, %zu of them with more HWPTs than the plan; %zu have fewer and break "
      "a rule\n",
      tally.hosts, tally.walks, tally.failed, tally.valid, tally.more, tally.fewer_but_unsafe);
  if (wanted < 500) return;
  EXPECT_GE(tally.valid, 5000U);
  EXPECT_GE(tally.more, 500U);
  EXPECT_GE(tally.fewer_but_unsafe, 100U);
}

}  // namespace
}  // namespace ioplan
