// Running containers of VFIO type1: what joins, leaves and moves lands where it was said to, nobody is stopped without need,
// and what fails on the way is taken back. The simulated container, which is held against Linux, is the judge; small VMs
// are held against every order in which groups can join.
//
// IOPLAN_SCALE multiplies the random runs, IOPLAN_SEED runs one seed only.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <optional>
#include <random>
#include <set>

#include "backends/sim/machine.h"
#include "backends/sim/sim_type1_backend.h"
#include "backends/sim/type1.h"
#include "constraints/kernel_law.h"
#include "engine/apply/apply.h"
#include "engine/apply/container_record.h"
#include "engine/check/transition.h"
#include "engine/document/plan_document.h"
#include "engine/lifecycle/container_domains.h"
#include "engine/lifecycle/hotplug.h"
#include "engine/lifecycle/layout.h"
#include "engine/planner/planner.h"
#include "engine/solve/broken_rule.h"
#include "engine/solve/needs.h"
#include "engine/solve/solver.h"
#include "tests/support/generator.h"
#include "tests/support/history.h"
#include "tests/support/seeds.h"

namespace ioplan {
namespace {

using generator::change_of;
using generator::History;

std::string to_text(const Change& c) {
  return fmt::format("{} +[{}] -[{}] memory {}", c.vm, fmt::join(c.add, " "), fmt::join(c.remove, " "),
                     c.memory_size + c.memory.size());
}

std::string in_words(const std::vector<Step>& steps) {
  std::string text;
  for (const Step& s : steps) text += to_text(s) + "\n";
  return text;
}

std::unique_ptr<sim::Machine> machine_of(const Host& host) {
  auto machine = sim::Machine::create(host, kernel_law());
  if (!machine) throw std::runtime_error(to_text(machine.error()));
  return std::move(*machine);
}

// VMs of containers: without mediated devices, and with what type1 can give.
struct Life {
  explicit Life(std::uint64_t seed) : history(seed), dice(seed), request(generator::for_containers(history.request())) {
    if (!request.vms.empty()) running = make_plan(request, type1_law(), {.budget = {}, .explain_no = false});
  }

  bool boots() const { return running.verdict == Verdict::feasible; }

  // The next change that is about these VMs and no mediated device; often several at once.
  std::optional<Change> next() {
    std::optional<Change> whole;
    const std::size_t parts = 1 + dice() % 4;
    for (std::size_t tries = 0; tries < 10 + parts; ++tries) {
      const Change part = change_of(history.next(oracle::layout_of(running)));
      const bool known = std::ranges::find(request.vms, part.vm, &VirtualMachine::name) != request.vms.end();
      const bool mediated = std::ranges::any_of(part.add, [](const auto& d) { return is_uuid(d); });
      if (!known || mediated || (whole && part.vm != whole->vm)) continue;
      Change longer = whole.value_or(Change{part.vm, {}, {}, {}, 0});
      longer.add.insert(longer.add.end(), part.add.begin(), part.add.end());
      longer.remove.insert(longer.remove.end(), part.remove.begin(), part.remove.end());
      if (longer.memory_size == 0) longer.memory_size = part.memory_size;
      if (changed_request(running, request, longer)) whole = longer;
      if (whole && tries >= parts) break;
    }
    return whole;
  }

  HotplugAnswer ask(const Change& change, HotplugPolicy mode) const {
    auto answer = hotplug(running, request, change, mode, type1_law(), {{}, Advice::none});
    EXPECT_TRUE(answer.has_value()) << to_text(answer.error());
    return answer ? std::move(*answer) : HotplugAnswer{};
  }

  History history;
  std::mt19937_64 dice;
  Request request;
  Plan running;
};

bool small(const Plan& plan) {
  const bool arm = std::ranges::count(plan.hwpts, PageTableFormat::arm_lpae, &PlannedHwpt::format) > 0;
  return plan.resources.pinned_bytes <= std::uint64_t{arm ? 32U : 64U} << 30;
}

void judge(const Plan& from, const HotplugAnswer& answer, const Request& changed) {
  const auto& steps = answer.transition.steps;
  for (const Objection& o : check_transition(from, answer.plan, steps, changed, type1_law()).objections) {
    ADD_FAILURE() << o.obligation << ": " << o.text << "\n" << in_words(steps) << in_words(from.steps);
  }
}

// ------------------------------------------------------------------------------------------------- the model

// Groups that join and leave at random: the simulated container makes the same domains.
TEST(ContainerDomains, AreThoseOfTheSimulatedContainer) {
  std::size_t moves = 0, several = 0;
  generator::GeneratorOptions options;
  options.absent = 0;
  for_seeds(400, [&](std::uint64_t seed) {
    const Request request = generator::random_request(seed, options);
    const Host& host = request.host;
    const auto machine = machine_of(host);
    const GroupLaw law(host, type1_law());
    const auto container = sim::Type1Container::open(*machine);
    ContainerDomains domains(law);
    std::mt19937_64 dice(seed);
    std::set<std::uint32_t> in;
    for (int move = 0; move < 30; ++move) {
      const Device& device = host.devices[dice() % host.devices.size()];
      if (!device.group || !device.unit || law.is_mixed(*device.group)) continue;
      if (in.erase(*device.group) == 1) {
        ASSERT_TRUE(container->detach_group(*device.group));
        domains.leave(*device.group);
      } else {
        if (!container->attach_group(*device.group)) continue;
        if (in.empty() && !container->set_iommu()) {
          ASSERT_TRUE(container->detach_group(*device.group));
          continue;
        }
        in.insert(*device.group);
        domains.join(device.id, fmt::format("hwpt{}", move));
      }
      ++moves;
      std::vector<std::set<std::uint32_t>> made, predicted;
      for (const sim::Type1Domain& d : container->domains()) made.insert(made.begin(), {d.groups.begin(), d.groups.end()});
      for (const ContainerDomain& d : domains.in_order()) predicted.emplace_back(d.groups.begin(), d.groups.end());
      const auto info = container->get_info();
      if (!in.empty()) {
        ASSERT_TRUE(info.has_value());
        RangeSet usable;
        for (const Range& r : info->iova_ranges) usable.add(r);
        ASSERT_EQ(usable, domains.usable()) << seed << " move " << move;
      }
      ASSERT_EQ(made, predicted) << seed << " move " << move;
      several += made.size() > 1 ? 1 : 0;
    }
  });
  fmt::print("{} joins and leaves, {} times several domains\n", moves, several);
  EXPECT_TRUE(one_seed_only() || (moves > scaled(2000) && several > scaled(200)));
}

// What a group needs to come back: that nothing newer is there.
TEST(ContainerRecord, OnlyWhatIsNewerIsTakenApart) {
  ContainerRecord was;
  for (const char* group : {"1", "3"}) was.join("hwpt0", group);
  was.join("hwpt1", "2");
  ContainerRecord now = was;
  now.leave("3");
  EXPECT_EQ(way_back(now, was), (std::vector<Regrouping>{{false, "2", "hwpt1"}, {true, "3", "hwpt0"}, {true, "2", "hwpt1"}}));
  now.leave("1");  // the domain has gone with it, and is made again before the newer one
  EXPECT_EQ(way_back(now, was), (std::vector<Regrouping>{{false, "2", "hwpt1"}, {true, "1", "hwpt0"}, {true, "3", "hwpt0", true}, {true, "2", "hwpt1"}}));

  ContainerRecord opened = was;  // by 1, which has left: as long as somebody is in it, nobody needs to open it
  opened.leave("1");
  now = opened;
  now.join("hwpt0", "4");
  now.leave("3");
  ContainerRecord target = opened;
  target.join("hwpt0", "4");
  EXPECT_EQ(way_back(now, target), (std::vector<Regrouping>{{false, "2", "hwpt1"}, {true, "3", "hwpt0"}, {true, "2", "hwpt1"}}));
  now.leave("4");
  EXPECT_EQ(way_back(now, opened), (std::vector<Regrouping>{{false, "2", "hwpt1"}, {true, "1", "hwpt0"}, {true, "3", "hwpt0"},
                                                            {false, "1", "hwpt0", true}, {true, "2", "hwpt1"}}));
  EXPECT_TRUE(way_back(was, was).empty());
}

// ------------------------------------------------------------------------------------------------- brute force

struct Made {
  std::set<std::uint32_t> groups;
  HwptQuantities what;
  friend auto operator<=>(const Made&, const Made&) = default;
};
using Outcome = std::set<Made>;

// The running container of a VM on the simulator, where any groups leave it and others join in any order.
class Trial {
 public:
  Trial(const Host& host, const Plan& running, const std::string& vm) : host_(host), machine_(machine_of(host)) {
    const PlannedIoas* ioas = space_of(running, vm);
    std::map<std::uint32_t, std::set<std::string>> attached;
    for (const Step& s : running.steps) {
      if (ioas == nullptr || s.ioas != ioas->id) continue;
      const std::uint32_t group = s.device.empty() ? 0 : group_of(s.device);
      if (s.kind == StepKind::attach_ioas && attached[group].insert(s.device).second && attached[group].size() == 1) {
        past_.push_back({true, group});
      }
      if (s.kind != StepKind::detach) continue;
      attached[group].erase(s.device);
      if (attached[group].empty()) past_.push_back({false, group});
    }
  }

  std::uint32_t group_of(const std::string& device) const { return host_.device(*host_.find_device(device)).group.value(); }

  // Was there a page table that the simulator does not have? Then what it refuses says nothing.
  bool limited() const { return limited_; }

  // Nothing when the kernel refuses somebody.
  std::optional<Outcome> after(const std::vector<std::uint32_t>& leaving, const std::vector<std::uint32_t>& joining) {
    const auto container = sim::Type1Container::open(*machine_);
    const auto join = [&](std::uint32_t group) {
      const bool first = container->domains().empty();
      auto joined = container->attach_group(group);
      if (joined && first) joined = container->set_iommu();
      limited_ = limited_ || (!joined && joined.error().errno_value == EOPNOTSUPP);
      return joined.has_value();
    };
    for (const auto& [joins, group] : past_) {
      if (joins ? !join(group) : !container->detach_group(group)) return std::nullopt;
    }
    for (const std::uint32_t g : leaving) {
      if (!container->detach_group(g)) return std::nullopt;
    }
    for (const std::uint32_t g : joining) {
      if (!join(g)) return std::nullopt;
    }
    Outcome made;
    for (const sim::Type1Domain& d : container->domains()) {
      made.insert({{d.groups.begin(), d.groups.end()}, type1_law().allocate(type1_law().describe(host_, d.allocator), 0)});
    }
    return made;
  }

 private:
  const Host& host_;
  std::unique_ptr<sim::Machine> machine_;
  std::vector<std::pair<bool, std::uint32_t>> past_;
  bool limited_ = false;
};

Outcome outcome_of(const Plan& plan, const std::string& vm, const Host& host) {
  Outcome made;
  const PlannedIoas* ioas = space_of(plan, vm);
  for (const PlannedHwpt& h : plan.hwpts) {
    if (ioas == nullptr || h.ioas != ioas->id) continue;
    Made m{{}, quantities_of(h, host, type1_law())};
    for (const std::string& d : h.devices) m.groups.insert(host.device(*host.find_device(d)).group.value());
    made.insert(m);
  }
  return made;
}

std::set<std::uint32_t> groups_of(const Plan& plan, const std::string& vm, const Host& host) {
  std::set<std::uint32_t> groups;
  for (const Made& m : outcome_of(plan, vm, host)) groups.insert(m.groups.begin(), m.groups.end());
  return groups;
}

std::vector<std::uint32_t> without(const std::set<std::uint32_t>& these, const std::set<std::uint32_t>& those) {
  std::vector<std::uint32_t> left;
  std::ranges::set_difference(these, those, std::back_inserter(left));
  return left;
}

// What an outcome costs under the policy; nothing when it breaks a rule.
std::optional<ObjectiveValues> cost_of(const Request& request, std::size_t vm, const Outcome& made) {
  const std::vector<Needs> needs = settle_needs(request, {});
  const VmModel model = model_vm(request, VmIndex(vm), needs[vm], RuleBook(type1_law()), type1_law());
  const Problem& problem = model.problem;
  if (!model.unusable.empty() || refuse_vm(request, VmIndex(vm))) return std::nullopt;
  std::vector<Placement> placements;
  std::uint64_t pages = ~std::uint64_t{0};
  ObjectiveValues values;
  for (const Made& m : made) {
    Placement& p = placements.emplace_back(Placement{m.what, {}});
    std::uint64_t enforceable = 0;
    for (std::uint32_t g = 0; g < problem.groups.size(); ++g) {
      const Device& d = request.host.device(problem.groups[g].assigned.front());
      if (!m.groups.contains(*d.group)) continue;
      p.groups.push_back(g);
      enforceable += problem.groups[g].enforceable;
    }
    pages &= m.what[HwptQ::page_sizes];
    values[Objective::hwpts] += 1;
    values[Objective::page_tables] += page_table_bytes_of(m.what, problem);
    if (m.what[HwptQ::enforce_cache_coherency] == 0) values[Objective::coherency] += enforceable;
  }
  const std::uint64_t page = problem.quantities[VmQ::page_size];
  if ((pages & (page - 1)) != 0) pages = (pages & ~(page - 1)) | page;
  if (pages == 0 || (pages & (~pages + 1)) > problem.quantities[VmQ::memory_alignment]) return std::nullopt;
  if (!first_broken_rule(problem, placements, RuleBook(type1_law())).empty()) return std::nullopt;
  return values;
}

// Frozen and additive: the best of all orders in which the arriving groups can join.
TEST(Type1Staying, IsTheBestOfAllOrders) {
  std::size_t best = 0, none = 0, orders = 0, choices = 0;
  for_seeds(1500, [&](std::uint64_t seed) {
    Life life(seed);
    if (!life.boots()) return;
    for (std::uint64_t plug = 0; plug < 6 && !testing::Test::HasFailure(); ++plug) {
      const auto change = life.next();
      if (!change) return;
      SCOPED_TRACE(fmt::format("seed {} plug {}: {}", seed, plug, to_text(*change)));
      const auto mode = (seed + plug) % 2 == 0 ? HotplugPolicy::frozen : HotplugPolicy::additive;
      const HotplugAnswer answer = life.ask(*change, mode);
      const bool feasible = answer.verdict == Verdict::feasible;
      if (!feasible && answer.conflict.at(0).rule != "type1.first-fit") continue;
      const Request changed = *changed_request(life.running, life.request, *change);
      const std::size_t vm = *vm_of(changed, *change);
      const std::string& name = changed.vms[vm].name;
      Trial trial(changed.host, life.running, name);
      std::set<std::uint32_t> wanted;
      for (const AssignedDevice& d : changed.vms[vm].devices) wanted.insert(changed.host.device(*d.host).group.value());
      const auto before = groups_of(life.running, name, changed.host);
      std::set<std::uint32_t> staying;  // with one of their devices
      for (const AssignedDevice& d : changed.vms[vm].devices) {
        const std::string& id = changed.host.device(*d.host).id;
        const bool arrives = std::ranges::find(change->add, id) != change->add.end();
        if (!arrives) staying.insert(changed.host.device(*d.host).group.value());
      }
      const auto leaving = without(before, staying);
      std::vector<std::uint32_t> joining = without(wanted, staying);
      const std::size_t standing = trial.after(leaving, {})->size();
      std::optional<ObjectiveValues> least;
      std::set<Outcome> seen;
      do {
        const auto made = trial.after(leaving, joining);
        ++orders;
        if (!made || (mode == HotplugPolicy::frozen && made->size() > standing)) continue;
        seen.insert(*made);
        const auto cost = cost_of(changed, vm, *made);
        if (cost && (!least || better(*cost, *least, changed.policy.objectives))) least = cost;
      } while (std::ranges::next_permutation(joining).found);
      if (trial.limited()) return;
      ASSERT_EQ(feasible, least.has_value());
      (feasible ? best : none) += 1;
      choices += seen.size() > 1 ? 1 : 0;
      if (!feasible) continue;
      const auto cost = cost_of(changed, vm, outcome_of(answer.plan, name, changed.host));
      ASSERT_TRUE(cost.has_value());
      ASSERT_FALSE(better(*least, *cost, changed.policy.objectives));
      ASSERT_FALSE(better(*cost, *least, changed.policy.objectives));
      life.running = answer.plan;
    }
  });
  fmt::print("{} answers are the best of {} orders, {} times there is none, {} times the order matters\n", best, orders, none, choices);
  EXPECT_TRUE(one_seed_only() || (best > scaled(1000) && none > scaled(50) && (choices > 0 || scale() < 1)));
}

// Converge: what `plan` gives, and no smaller set of groups has to stop for it.
TEST(Type1Converge, StopsTheFewestThatAnyOrderStops) {
  std::size_t plugs = 0, stopped = 0, trials = 0;
  for_seeds(1500, [&](std::uint64_t seed) {
    Life life(seed);
    if (!life.boots()) return;
    for (std::uint64_t plug = 0; plug < 6 && !testing::Test::HasFailure(); ++plug) {
      const auto change = life.next();
      if (!change) return;
      SCOPED_TRACE(fmt::format("seed {} plug {}: {}", seed, plug, to_text(*change)));
      // Additive layouts on the way are ones that no plan gives.
      const auto mode = plug % 2 == 0 ? HotplugPolicy::additive : HotplugPolicy::converge;
      const HotplugAnswer answer = life.ask(*change, mode);
      if (answer.verdict != Verdict::feasible) continue;
      const Plan before = std::exchange(life.running, answer.plan);
      if (mode != HotplugPolicy::converge) continue;
      const Request changed = *changed_request(before, life.request, *change);
      const Plan planned = make_plan(changed, type1_law(), {.budget = {}, .explain_no = false});
      std::size_t fewest = 0;
      for (const VirtualMachine& vm : changed.vms) {
        const Outcome target = outcome_of(planned, vm.name, changed.host);
        ASSERT_EQ(outcome_of(answer.plan, vm.name, changed.host), target);
        const auto was = groups_of(before, vm.name, changed.host), is = groups_of(planned, vm.name, changed.host);
        std::map<std::uint32_t, std::size_t> staying;  // devices by group
        for (const PlannedHwpt& h : before.hwpts) {
          for (const std::string& d : h.devices) {
            const std::uint32_t g = changed.host.device(*changed.host.find_device(d)).group.value();
            if (space_of(before, vm.name) != nullptr && h.ioas == space_of(before, vm.name)->id && is.contains(g) &&
                home_of(planned, d) != nullptr) {
              ++staying[g];
            }
          }
        }
        const std::vector<std::pair<std::uint32_t, std::size_t>> groups(staying.begin(), staying.end());
        if (groups.size() + without(is, was).size() > 6) return;
        Trial trial(changed.host, before, vm.name);
        std::size_t least = ~std::size_t{0};
        for (unsigned subset = 0; subset < 1U << groups.size(); ++subset) {
          std::set<std::uint32_t> stays;
          std::size_t devices = 0;
          for (std::size_t g = 0; g < groups.size(); ++g) {
            if ((subset >> g & 1) != 0) {
              devices += groups[g].second;
            } else {
              stays.insert(groups[g].first);
            }
          }
          if (devices >= least) continue;
          std::vector<std::uint32_t> joining = without(is, stays);
          do {
            ++trials;
            if (trial.after(without(was, stays), joining) == target) least = devices;
          } while (devices != least && std::ranges::next_permutation(joining).found);
        }
        if (least == ~std::size_t{0}) return;  // an opener that has left would be needed
        fewest += least;
      }
      ASSERT_LE(answer.transition.interrupted.size(), fewest) << in_words(answer.transition.steps) << in_words(before.steps);
      ASSERT_GE(answer.transition.interrupted.size(), fewest) << in_words(answer.transition.steps);
      ++plugs;
      stopped += fewest;
    }
  });
  fmt::print("{} plugs, {} devices stopped, {} orders tried\n", plugs, stopped, trials);
  EXPECT_TRUE(one_seed_only() || (plugs > scaled(500) && (stopped > 0 || scale() < 1)));
}

// ------------------------------------------------------------------------------------------------- transitions

TEST(Type1Transitions, TheSimulatorTakesEveryStep) {
  std::map<std::string, std::size_t> count;
  for_seeds(250, [&](std::uint64_t seed) {
    Life life(seed);
    if (!life.boots() || !small(life.running)) return;
    const auto machine = machine_of(life.request.host);
    sim::SimType1Backend backend(*machine);
    if (apply_plan(life.running, life.request.host, backend).outcome != ApplyOutcome::done) return;
    for (std::uint64_t plug = 0; plug < 6 && !testing::Test::HasFailure(); ++plug) {
      const auto change = life.next();
      if (!change) return;
      SCOPED_TRACE(fmt::format("seed {} plug {}: {}", seed, plug, to_text(*change)));
      const auto mode = static_cast<HotplugPolicy>((seed + plug) % 3);
      const HotplugAnswer answer = life.ask(*change, mode);
      ++count[fmt::format("{} {}", kHotplugPolicyNames[static_cast<std::size_t>(mode)],
                          answer.conflict.empty() ? kVerdictNames[static_cast<std::size_t>(answer.verdict)]
                                                 : answer.conflict[0].rule)];
      if (answer.verdict != Verdict::feasible || !small(answer.plan)) continue;
      EXPECT_TRUE(mode == HotplugPolicy::converge || answer.transition.interrupted.empty());
      judge(life.running, answer, *changed_request(life.running, life.request, *change));
      const ApplyReport report =
          apply_transition(life.running, answer.plan, answer.transition.steps, life.request.host, backend);
      ASSERT_EQ(report.outcome, ApplyOutcome::done)
          << (report.error ? to_text(*report.error) : "") << "\n" << in_words(answer.transition.steps) << "boot:\n"
          << in_words(life.running.steps) << to_json(answer.plan);
      count["steps"] += answer.transition.steps.size();
      count["stopped"] += answer.transition.stopped.size();
      count["openers that have left"] += std::ranges::count(answer.plan.steps, StepKind::detach, &Step::kind) > 0 ? 1 : 0;
      life.running = answer.plan;
    }
  });
  for (const auto& [what, n] : count) fmt::print("{:<40} {}\n", what, n);
  EXPECT_TRUE(one_seed_only() || count["steps"] > scaled(500));
}

// A layout with a history can be made from nothing, too.
TEST(Type1Transitions, EveryLayoutBoots) {
  std::size_t layouts = 0, guests = 0;
  for_seeds(150, [&](std::uint64_t seed) {
    Life life(seed);
    if (!life.boots()) return;
    for (std::uint64_t plug = 0; plug < 6 && !testing::Test::HasFailure(); ++plug) {
      const auto change = life.next();
      if (!change) return;
      const HotplugAnswer answer = life.ask(*change, static_cast<HotplugPolicy>((seed + plug) % 3));
      if (answer.verdict != Verdict::feasible || !small(answer.plan)) continue;
      life.running = answer.plan;
      const auto again = read_plan("plan", to_json(life.running));
      ASSERT_TRUE(again) << seed << to_text(again.error());
      const auto machine = machine_of(life.request.host);
      sim::SimType1Backend backend(*machine);
      const ApplyReport report = apply_plan(*again, life.request.host, backend);
      ASSERT_EQ(report.outcome, ApplyOutcome::done)
          << seed << " plug " << plug << (report.error ? to_text(*report.error) : "") << "\n" << in_words(again->steps);
      ++layouts;
      guests += std::ranges::count(again->steps, StepKind::detach, &Step::kind) > 0 ? 1 : 0;
    }
  });
  fmt::print("{} layouts, {} with an opener that has left\n", layouts, guests);
  EXPECT_TRUE(one_seed_only() || (layouts > scaled(75) && (guests > 0 || scale() < 1)));
}

// Whatever fails on the way, the layout is the old one or the new one.
TEST(Type1Transitions, AnyFailureOnTheWayIsTakenBack) {
  std::size_t failures = 0, whole = 0;
  for_seeds(25, [&](std::uint64_t seed) {
    Life life(seed);
    if (!life.boots() || !small(life.running)) return;
    for (std::uint64_t plug = 0; plug < 4 && !testing::Test::HasFailure(); ++plug) {
      const auto change = life.next();
      if (!change) return;
      SCOPED_TRACE(fmt::format("seed {} plug {}: {}", seed, plug, to_text(*change)));
      const HotplugAnswer answer = life.ask(*change, static_cast<HotplugPolicy>(1 + (seed + plug) % 2));
      if (answer.verdict != Verdict::feasible || !small(answer.plan)) continue;
      for (std::uint64_t nth = 1; nth < 200 && !testing::Test::HasFailure(); ++nth) {
        const auto machine = machine_of(life.request.host);
        sim::SimType1Backend backend(*machine);
        if (apply_plan(life.running, life.request.host, backend).outcome != ApplyOutcome::done) return;
        machine->fail_nth(nth);
        const ApplyReport report =
            apply_transition(life.running, answer.plan, answer.transition.steps, life.request.host, backend);
        const bool struck = machine->injected();
        machine->fail_nth(0);
        ASSERT_NE(report.outcome, ApplyOutcome::incomplete)
            << nth << ": " << to_text(*report.error) << fmt::format("{}", fmt::join(report.remains, "; ")) << "\n"
            << in_words(answer.transition.steps) << "boot:\n" << in_words(life.running.steps);
        const auto seen = backend.observe();
        ASSERT_TRUE(seen.has_value());
        const auto found = drift(report.outcome == ApplyOutcome::done ? answer.plan : life.running, *seen);
        ASSERT_TRUE(found.empty()) << nth << ": " << to_text(found);
        (struck ? failures : whole) += 1;
        if (!struck) break;
      }
      life.running = answer.plan;
    }
  });
  fmt::print("{} failures taken back or survived, {} transitions went through\n", failures, whole);
  EXPECT_TRUE(one_seed_only() || failures > scaled(50));
}

}  // namespace
}  // namespace ioplan
