// Plans for VFIO type1: the domains that they predict are those that the simulated container makes of the same groups in
// the same order; no other order of a small VM makes fewer that keep the rules; the judge, which replays by itself, agrees
// with the container about every order; and what type1 cannot do is refused by name.
//
// IOPLAN_SCALE multiplies the random runs, IOPLAN_SEED runs one seed only.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <numeric>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "backends/sim/machine.h"
#include "backends/sim/sim_backend.h"
#include "backends/sim/sim_type1_backend.h"
#include "backends/sim/type1.h"
#include "constraints/kernel_law.h"
#include "engine/apply/apply.h"
#include "engine/check/check.h"
#include "engine/document/load.h"
#include "engine/document/plan_document.h"
#include "engine/planner/planner.h"
#include "engine/solve/broken_rule.h"
#include "engine/solve/needs.h"
#include "engine/solve/solver.h"
#include "tests/support/generator.h"
#include "tests/support/seeds.h"

namespace ioplan {
namespace {

using testing::HasSubstr;

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;

// Calls `each(seed, request)`: random questions without mediated devices, whose memory is small enough to be applied.
template <class Each>
void for_each_request(std::uint64_t count, std::size_t most_groups, Each each) {
  generator::GeneratorOptions options;
  options.absent = 0;
  options.most_groups = most_groups;
  const char* only = std::getenv("IOPLAN_SEED");
  const std::uint64_t first = only == nullptr ? 1 : std::strtoull(only, nullptr, 10);
  for (std::uint64_t seed = first; seed < first + (only == nullptr ? count : 1); ++seed) {
    Request request = generator::random_request(seed, options);
    for (VirtualMachine& vm : request.vms) {
      std::erase_if(vm.devices, [](const AssignedDevice& a) { return !a.host; });
      if (seed % 2 == 0) vm.needs.dirty_tracking = vm.needs.nest_parent = vm.needs.pasid = Need::no;
      vm.needs.p2p.clear();
      if (vm.memory.size) vm.memory.size = std::min(*vm.memory.size, 16 * kMiB + *vm.memory.size % kMiB);
      for (MemoryRange& m : vm.memory.ranges) m.gpa.last = m.gpa.start + std::min(m.gpa.extent(), 16 * kMiB - 1);
    }
    std::erase_if(request.vms, [](const VirtualMachine& vm) { return vm.devices.empty(); });
    if (request.vms.empty()) continue;
    if (seed % 2 == 0) std::erase_if(request.policy.rules, [](const PolicyRule& r) {
      return std::holds_alternative<RequireRule>(r.what);
    });
    each(seed, request);
    if (testing::Test::HasFatalFailure()) return;
  }
}

std::string objections(const Judgement& judgement) {
  std::string text;
  for (const Objection& o : judgement.objections) text += fmt::format("{}: {}\n", o.obligation, o.text);
  return text;
}

std::string text_of(const ApplyReport& report) {
  std::string text = report.error ? to_text(*report.error) : "";
  for (const Difference& d : report.differences) {
    text += fmt::format("\n{}.{}: predicted {}, observed {}", d.subject, d.attribute, d.predicted, d.observed);
  }
  return text;
}

std::unique_ptr<sim::Machine> machine_of(const Host& host) {
  auto machine = sim::Machine::create(host, kernel_law());
  if (!machine) throw std::runtime_error(to_text(machine.error()));
  return std::move(*machine);
}

// The groups of a plan's IOAS in the order of its steps.
std::vector<std::uint32_t> joining(const Plan& plan, const std::string& ioas, const Host& host) {
  std::vector<std::uint32_t> groups;
  for (const Step& s : plan.steps) {
    if (s.kind != StepKind::attach_ioas || s.ioas != ioas) continue;
    const std::uint32_t group = host.device(*host.find_device(s.device)).group.value();
    if (std::ranges::count(groups, group) == 0) groups.push_back(group);
  }
  return groups;
}

struct Made {
  std::set<std::uint32_t> groups;
  std::uint32_t opener = 0;
  friend auto operator<=>(const Made&, const Made&) = default;
};

struct Contained {
  std::set<Made> made;
  std::uint64_t page_sizes = 0;  // that mappings can have
};

// What one container makes of groups in this order; nothing when one is refused.
std::optional<Contained> contain(sim::Machine& machine, const std::vector<std::uint32_t>& order) {
  const auto container = sim::Type1Container::open(machine);
  for (std::size_t i = 0; i < order.size(); ++i) {
    if (!container->attach_group(order[i])) return std::nullopt;
    if (i == 0 && !container->set_iommu()) return std::nullopt;
  }
  std::set<Made> made;
  for (const sim::Type1Domain& d : container->domains()) {
    made.insert({{d.groups.begin(), d.groups.end()}, d.groups.front()});
  }
  return Contained{std::move(made), container->get_info()->page_sizes};
}

std::set<Made> made_by_plan(const Plan& plan, const std::string& ioas, const Host& host) {
  std::set<Made> made;
  for (const PlannedHwpt& h : plan.hwpts) {
    if (h.ioas != ioas) continue;
    Made domain;
    for (const std::string& d : h.devices) domain.groups.insert(host.device(*host.find_device(d)).group.value());
    domain.opener = host.device(*host.find_device(h.allocator)).group.value();
    made.insert(std::move(domain));
  }
  return made;
}

// ------------------------------------------------------------------------------------------------- prediction

TEST(Type1Plan, StandsInTheSimulatedContainerAsPredicted) {
  std::size_t feasible = 0, several = 0, shared = 0, proved = 0;
  std::map<std::string, std::size_t> refused;
  for_each_request(scaled(3000), 8, [&](std::uint64_t seed, const Request& request) {
    const Plan plan = make_plan(request, type1_law());
    ASSERT_NE(plan.verdict, Verdict::undecided) << seed;
    ASSERT_EQ(plan.interface, KernelInterface::type1);
    const auto reread = read_plan("plan", to_json(plan));
    ASSERT_TRUE(reread) << seed << to_text(reread.error());
    const Judgement judgement = check_plan(*reread, request, type1_law());
    ASSERT_TRUE(judgement.accepted()) << seed << "\n" << objections(judgement) << generator::to_documents(request);
    if (plan.verdict != Verdict::feasible) {
      for (const Conflict& c : plan.conflict) ++refused[c.rule];
      return;
    }
    const auto machine = machine_of(request.host);
    const std::string before = machine->world();
    for (const PlannedIoas& ioas : plan.ioas) {
      const auto contained = contain(*machine, joining(plan, ioas.id, request.host));
      ASSERT_TRUE(contained) << seed;
      ASSERT_EQ(contained->made, made_by_plan(plan, ioas.id, request.host)) << seed << generator::to_documents(request);
      shared += std::ranges::any_of(contained->made, [](const Made& m) { return m.groups.size() > 1; }) ? 1 : 0;
    }
    {
      sim::SimType1Backend backend(*machine);
      const ApplyReport report = apply_plan(plan, request.host, backend);
      ASSERT_EQ(report.outcome, ApplyOutcome::done) << seed << text_of(report) << generator::to_documents(request);
      for (const PlannedIoas& ioas : plan.ioas) {  // of a layout without a history no more either
        const auto seen = std::ranges::find(report.observed.ioas, ioas.id, &ObservedIoas::id);
        ASSERT_EQ(seen->ranges, ioas.ranges) << seed << generator::to_documents(request);
      }
    }
    ASSERT_EQ(machine->world(), before) << seed;
    ++feasible;
    several += plan.hwpts.size() > plan.vms.size() ? 1 : 0;
    proved += plan.optimality.proved[static_cast<std::size_t>(Objective::hwpts)] ? 1 : 0;
  });
  fmt::print("type1 plans: {} feasible, {} with several HWPTs, {} that share, {} proved least\n", feasible, several, shared, proved);
  for (const auto& [rule, n] : refused) fmt::print("  refused {:<28} {}\n", rule, n);
  if (std::getenv("IOPLAN_SEED") != nullptr) return;
  EXPECT_GE(feasible, scaled(800));
  EXPECT_GE(several, scaled(200));
  EXPECT_GE(shared, scaled(300));
  EXPECT_GE(proved, feasible * 8 / 10);
}

// Rules that refuse more than the kernel does: what it would make there is not known, or too near an edge.
bool cautious(const Plan& plan) {
  return std::ranges::any_of(plan.conflict, [](const Conflict& c) {
    return c.rule == "type1.group" || c.rule == "core.domain-ids";
  });
}

// The rule that a container's outcome breaks, or nothing.
std::string broken_by(const VmModel& model, const Request& request, const std::set<Made>& made) {
  const RuleBook rules(type1_law());
  std::vector<Placement> placements;
  for (const Made& m : made) {
    Placement& p = placements.emplace_back();
    for (std::uint32_t g = 0; g < model.problem.groups.size(); ++g) {
      const Device& d = request.host.device(model.problem.groups[g].assigned.front());
      if (m.groups.contains(*d.group)) p.groups.push_back(g);
      if (m.opener == *d.group) {
        p.hwpt = type1_law().allocate(model.problem.classes[model.problem.groups[g].assigned_classes.front()].quantities, 0);
      }
    }
  }
  return first_broken_rule(model.problem, placements, rules);
}

TEST(Type1Plan, NoOrderOfASmallVmIsBetter) {
  std::size_t plans = 0, orders = 0, none = 0, saved = 0;
  for_each_request(scaled(1500), 5, [&](std::uint64_t seed, Request request) {
    request.vms.resize(1);
    const Objective first = *std::ranges::find_if(request.policy.objectives, [](Objective o) { return o != Objective::ioas; });
    if (first != Objective::hwpts) return;
    const Plan plan = make_plan(request, type1_law());
    if (cautious(plan)) return;
    const std::vector<Needs> needs = settle_needs(request, plan.preferences);
    const VmModel model = model_vm(request, VmIndex(0), needs[0], RuleBook(type1_law()), type1_law());
    const bool usable = model.unusable.empty() && !refuse_vm(request, VmIndex(0));
    std::vector<std::uint32_t> order;
    for (const ProblemGroup& g : model.problem.groups) order.push_back(request.host.device(g.assigned.front()).group.value());
    std::ranges::sort(order);
    if (order.size() > 5) return;
    const auto machine = machine_of(request.host);
    std::size_t least = 0, most = 0;
    do {
      ++orders;
      const auto contained = contain(*machine, order);
      if (!usable || !contained || !broken_by(model, request, contained->made).empty()) continue;
      const std::uint64_t smallest = contained->page_sizes & (~contained->page_sizes + 1);
      if (smallest == 0 || smallest > model.problem.quantities[VmQ::memory_alignment]) continue;
      least = least == 0 ? contained->made.size() : std::min(least, contained->made.size());
      most = std::max(most, contained->made.size());
    } while (std::ranges::next_permutation(order).found);
    ASSERT_EQ(plan.hwpts.size(), least) << seed << " " << (plan.conflict.empty() ? "" : plan.conflict[0].rule) << "\n"
                                        << generator::to_documents(request);
    ++plans;
    none += least == 0 ? 1 : 0;
    saved += least < most ? 1 : 0;
  });
  fmt::print("{} VMs over {} orders: {} without any good order, {} where the order matters\n", plans, orders, none, saved);
  if (std::getenv("IOPLAN_SEED") != nullptr) return;
  EXPECT_GE(plans, scaled(500));
  EXPECT_GE(none, scaled(50));
  EXPECT_GE(saved, scaled(5));
}

// ------------------------------------------------------------------------------------------------- the judge

TEST(Type1Plan, TheJudgeAndTheContainerAgreeAboutEveryOrder) {
  std::size_t same = 0, other = 0;
  std::mt19937_64 random(7);
  for_each_request(scaled(1500), 6, [&](std::uint64_t seed, const Request& request) {
    const Plan plan = make_plan(request, type1_law());
    if (plan.verdict != Verdict::feasible || plan.hwpts.size() == plan.ioas.size()) return;
    const auto machine = machine_of(request.host);
    for (int i = 0; i < 4; ++i) {
      Plan shuffled = plan;
      std::vector<std::size_t> attaches;
      for (std::size_t s = 0; s < plan.steps.size(); ++s) {
        if (plan.steps[s].kind == StepKind::attach_ioas && plan.steps[s].ioas == "ioas0") attaches.push_back(s);
      }
      for (std::size_t n = attaches.size(); n > 1; --n) {
        std::swap(shuffled.steps[attaches[n - 1]], shuffled.steps[attaches[random() % n]]);
      }
      const auto contained = contain(*machine, joining(shuffled, "ioas0", request.host));
      const bool as_planned = contained && contained->made == made_by_plan(plan, "ioas0", request.host);
      const Judgement judgement = check_plan(shuffled, request, type1_law());
      ASSERT_EQ(judgement.accepted(), as_planned) << seed << "\n" << objections(judgement) << generator::to_documents(request);
      ++(as_planned ? same : other);
    }
  });
  fmt::print("orders that make the plan's HWPTs: {}; that do not: {}\n", same, other);
  if (std::getenv("IOPLAN_SEED") != nullptr) return;
  EXPECT_GE(same, scaled(100));
  EXPECT_GE(other, scaled(100));
}

std::string host_of(const std::string& units, const std::string& devices) {
  return fmt::format(R"(apiVersion: ioplan/v1
kind: Host
name: host
kernel: {{arch: x86_64, release: 7.2.13, page_size: 4KiB, intel_iommu_sm: true, isolated_msi: true}}
iommus:
{}devices:
{}---
)",
                     units, devices);
}

// dmar0 can block no-snoop, dmar1 and dmar2 cannot; dmar2 has no 1 GiB pages.
const std::string kUnits =
    "  - {id: dmar0, driver: intel, cap: 0xd2008c40660462, ecap: 0xf050da}\n"
    "  - {id: dmar1, driver: intel, cap: 0xd2008c40660462, ecap: 0xf0505a}\n"
    "  - {id: dmar2, driver: intel, cap: 0xd2008440660462, ecap: 0xf0505a}\n";
const std::string kDevices =
    "  - {id: \"0000:01:00.0\", iommu: dmar0, group: 1}\n"
    "  - {id: \"0000:02:00.0\", iommu: dmar1, group: 2}\n"
    "  - {id: \"0000:03:00.0\", iommu: dmar2, group: 3}\n"
    "  - {id: \"0000:03:00.1\", iommu: dmar2, group: 3}\n";

Request request_of(const std::string& documents) {
  const auto loaded = load_text("case.yaml", documents);
  if (!loaded) throw std::runtime_error(to_text(loaded.error()));
  return loaded->request;
}

Request three(const std::string& more = "", const std::string& policy = "") {
  return request_of(host_of(kUnits, kDevices) + fmt::format(R"(apiVersion: ioplan/v1
kind: VirtualMachine
name: vm
memory: {{ranges: [{{gpa: [0x0, 0x3fffffff]}}]}}
devices: [{{host: "0000:01:00.0"}}, {{host: "0000:02:00.0"}}, {{host: "0000:03:00.0"}}]
{}
)",
                                                            more) +
                    policy);
}

// dmar2's own domain takes dmar1's device, not the other way round: its group joins first.
TEST(Type1Plan, TheGroupWhoseDomainTakesTheOthersJoinsFirst) {
  const Request request = three();
  const Plan plan = make_plan(request, type1_law());
  ASSERT_EQ(plan.verdict, Verdict::feasible);
  ASSERT_EQ(plan.hwpts.size(), 2U);
  EXPECT_EQ(plan.hwpts[0].devices, (std::vector<std::string>{"0000:01:00.0"}));
  EXPECT_TRUE(plan.hwpts[0].enforce_cache_coherency);
  EXPECT_EQ(plan.hwpts[1].allocator, "0000:03:00.0");
  EXPECT_TRUE(plan.hwpts[1].automatic);
  const auto order = joining(plan, "ioas0", request.host);
  EXPECT_LT(std::ranges::find(order, 3U), std::ranges::find(order, 2U));
  EXPECT_EQ(plan.optimality.lower_bound, 2U);
  EXPECT_EQ(plan.optimality.proof, ProofKind::witness);
  EXPECT_EQ(plan.steps.front().kind, StepKind::ioas_alloc);
  EXPECT_EQ(make_plan(request, kernel_law()).hwpts.size(), 1U);  // iommufd lets all three share
}

struct Mutant {
  const char* what;
  void (*change)(Plan&);
  std::string_view obligation;
};

TEST(Type1Plan, EveryMutantIsRejected) {
  const Request request = three();
  const Plan plan = make_plan(request, type1_law());
  ASSERT_TRUE(check_plan(plan, request, type1_law()).accepted()) << objections(check_plan(plan, request, type1_law()));
  const Mutant mutants[] = {
      {"another interface", [](Plan& p) { p.interface = KernelInterface::iommufd; }, obligation::interface},
      {"another opener", [](Plan& p) { p.hwpts[1].allocator = "0000:02:00.0"; }, obligation::joining},
      {"another order",
       [](Plan& p) { std::swap(*std::ranges::find(p.steps, "0000:02:00.0", &Step::device), *std::ranges::find(p.steps, "0000:03:00.0", &Step::device)); },
       obligation::joining},
      {"allocated, not automatic", [](Plan& p) { p.hwpts[0].automatic = false; }, obligation::attributes},
      {"a bind", [](Plan& p) { p.steps.insert(p.steps.begin(), Step{}); p.steps[0].device = "0000:01:00.0"; }, obligation::steps},
      {"mapped first", [](Plan& p) { std::rotate(p.steps.begin() + 1, p.steps.end() - 1, p.steps.end()); }, obligation::steps},
      {"never joined", [](Plan& p) { p.steps.erase(p.steps.begin() + 1); }, obligation::steps},
      {"more usable", [](Plan& p) { p.ioas[0].ranges = {{0, ~std::uint64_t{0}}}; }, obligation::ioas},
      {"no regions", [](Plan& p) { p.ioas[0].reserved.clear(); }, obligation::ioas},
      {"aligned to bytes", [](Plan& p) { p.ioas[0].alignment = 1; }, obligation::ioas},
      {"dirty tracking", [](Plan& p) { p.hwpts[0].flags = kDirtyTracking; }, obligation::attributes},
      {"coherent", [](Plan& p) { p.hwpts[1].enforce_cache_coherency = true; }, obligation::attributes},
      {"one HWPT proved", [](Plan& p) { p.optimality.lower_bound = 3; }, obligation::optimality},
      {"moved", [](Plan& p) { std::swap(p.hwpts[0].devices[0], p.hwpts[1].devices[0]); }, obligation::acceptance},
  };
  for (const Mutant& m : mutants) {
    Plan wrong = plan;
    m.change(wrong);
    const Judgement judgement = check_plan(wrong, request, type1_law());
    EXPECT_TRUE(std::ranges::any_of(judgement.objections, [&](const Objection& o) { return o.obligation == m.obligation; }))
        << m.what << ":\n" << objections(judgement);
  }
}

// Regions of a device that is not assigned, and the widths of domains that are left for others, cut the container.
TEST(Type1Plan, WholeGroupsAndLeftDomainsCutTheIova) {
  std::string devices = kDevices;
  const std::string plain = "{id: \"0000:03:00.1\", iommu: dmar2, group: 3}";
  devices.replace(devices.find(plain), plain.size(),
                  "{id: \"0000:03:00.1\", iommu: dmar2, group: 3, reserved: [{range: [0xc0000000, 0xc0ffffff], type: reserved}]}");
  const std::string vm = R"(apiVersion: ioplan/v1
kind: VirtualMachine
name: vm
memory: {ranges: [{gpa: [0x0, %]}]}
devices: [{host: "0000:03:00.0"}]
)";
  const auto with_memory = [&](const std::string& last) {
    std::string text = vm;
    return make_plan(request_of(host_of(kUnits, devices) + text.replace(text.find('%'), 1, last)), type1_law());
  };
  const Plan plan = with_memory("0x3fffffff");
  ASSERT_EQ(plan.verdict, Verdict::feasible);
  ASSERT_GE(plan.ioas[0].ranges.size(), 3U);
  EXPECT_EQ(plan.ioas[0].ranges[0], (Range{0, 0xbfffffff}));
  const Plan over = with_memory("0xc0000fff");
  ASSERT_EQ(over.verdict, Verdict::infeasible);
  EXPECT_EQ(over.conflict.at(0).rule, "type1.reserved-regions");
}

// ------------------------------------------------------------------------------------------------- what type1 cannot do

std::vector<std::string> rules_of(const Plan& plan) {
  std::vector<std::string> rules;
  for (const Conflict& c : plan.conflict) rules.push_back(c.rule);
  return rules;
}

void expect_refused(const Request& request, const std::vector<std::string>& rules) {
  const Plan plan = make_plan(request, type1_law());
  EXPECT_EQ(plan.verdict, Verdict::infeasible);
  EXPECT_THAT(rules_of(plan), testing::UnorderedElementsAreArray(rules));
  const Judgement judgement = check_plan(plan, request, type1_law());
  EXPECT_TRUE(judgement.accepted()) << objections(judgement);
}

TEST(Type1Plan, WhatOnlyIommufdHasIsRefusedByName) {
  expect_refused(request_of(host_of(kUnits, kDevices) + R"(apiVersion: ioplan/v1
kind: VirtualMachine
name: vm
memory: {ranges: [{gpa: [0x0, 0x3fffffff]}]}
devices: [{host: "0000:01:00.0"}]
needs: {dirty_tracking: required}
)"),
                 {"needs.dirty-tracking", "type1.alloc-flags"});
  const std::string mdev = "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001";
  expect_refused(request_of(host_of(kUnits, kDevices) + fmt::format(R"(apiVersion: ioplan/v1
kind: VirtualMachine
name: vm
memory: {{ranges: [{{gpa: [0x0, 0x3fffffff]}}]}}
devices: [{{host: "0000:01:00.0"}}, {{mdev: {}}}]
)",
                                                                    mdev)),
                 {"type1.mediated"});
}

TEST(Type1Plan, PromisesNothing) {
  const Request request = request_of(host_of(kUnits, kDevices) + R"(apiVersion: ioplan/v1
kind: VirtualMachine
name: vm
memory: {ranges: [{gpa: [0x0, 0x3fffffff]}]}
devices: [{host: "0000:01:00.0"}]
hotplug: {expect: [{host: "0000:02:00.0"}], memory: 1GiB}
)");
  const Plan plan = make_plan(request, type1_law());
  ASSERT_EQ(plan.verdict, Verdict::feasible);
  EXPECT_TRUE(plan.promises.empty());
  std::vector<std::string> subjects;
  for (const Unpromised& u : plan.unpromised) subjects.push_back(u.subject);
  EXPECT_THAT(subjects, testing::ElementsAre("memory", "0000:02:00.0"));
  const Judgement judgement = check_plan(plan, request, type1_law());
  EXPECT_TRUE(judgement.accepted()) << objections(judgement);
}

TEST(Type1Plan, APolicyThatItsSharingBreaksIsRefused) {
  const auto rules = [](const std::string& text) {
    return "---\napiVersion: ioplan/v1\nkind: Policy\nname: p\nrules:\n" + text;
  };
  // Coherent and other devices never share.
  expect_refused(three("", rules("  - {name: pair, together: {host: [\"0000:01:00.0\", \"0000:02:00.0\"]}}\n")),
                 {"policy.together", "type1.cache-coherency", "intel.second-stage.snoop-control"});
  // Like groups always share.
  std::string devices = kDevices + "  - {id: \"0000:04:00.0\", iommu: dmar2, group: 4}\n";
  const Request like = request_of(host_of(kUnits, devices) + R"(apiVersion: ioplan/v1
kind: VirtualMachine
name: vm
memory: {ranges: [{gpa: [0x0, 0x3fffffff]}]}
devices: [{host: "0000:03:00.0"}, {host: "0000:04:00.0"}]
)" + rules("  - {name: tenants, separate: {a: {host: \"0000:03:00.0\"}, b: {host: \"0000:04:00.0\"}}}\n"));
  expect_refused(like, {"type1.first-fit"});
  const Plan plan = make_plan(like, type1_law());
  EXPECT_TRUE(std::ranges::any_of(plan.fixes, [](const Fix& f) { return f.change == "drop-rule"; }));
  EXPECT_EQ(make_plan(like, kernel_law()).verdict, Verdict::feasible);
}

TEST(Type1Plan, GroupsOfDevicesBehindOtherUnitsAreRefused) {
  std::string devices = kDevices;
  const std::string behind = "0000:03:00.1\", iommu: dmar";
  devices.replace(devices.find(behind + "2"), behind.size() + 1, behind + "0");
  const Request request = request_of(host_of(kUnits, devices) + R"(apiVersion: ioplan/v1
kind: VirtualMachine
name: vm
memory: {ranges: [{gpa: [0x0, 0x3fffffff]}]}
devices: [{host: "0000:03:00.0"}]
)");
  expect_refused(request, {"type1.group"});
}

TEST(Type1Plan, IsNotAppliedByWayOfAnotherInterface) {
  const Request request = three();
  const auto machine = machine_of(request.host);
  sim::SimBackend iommufd(*machine);
  sim::SimType1Backend type1(*machine);
  const ApplyReport wrong = apply_plan(make_plan(request, type1_law()), request.host, iommufd);
  EXPECT_EQ(wrong.outcome, ApplyOutcome::refused);
  EXPECT_THAT(to_text(*wrong.error), HasSubstr("--backend type1"));
  const ApplyReport other = apply_plan(make_plan(request, kernel_law()), request.host, type1);
  EXPECT_EQ(other.outcome, ApplyOutcome::refused);
  EXPECT_THAT(to_text(*other.error), HasSubstr("ioplan plan --backend type1"));
}

}  // namespace
}  // namespace ioplan
