#include "cli/compare.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include <fmt/format.h>

#include "constraints/kernel_law.h"
#include "engine/planner/missing.h"
#include "engine/solve/needs.h"

namespace ioplan::cli {

namespace {

using sim::Walk;
using sim::WalkOutcome;
using sim::WalkStatistics;

constexpr std::size_t kCompareOrders = 1000;
constexpr std::uint64_t kCompareSeed = 1;

// The groups of the VM's devices, whole, and the units of the request's host.
Host groups_of(const Host& host, const Problem& problem) {
  std::vector<std::uint32_t> groups;
  for (const ProblemGroup& g : problem.groups) groups.push_back(host.device(g.assigned.front()).group.value());
  std::ranges::sort(groups);
  Host part = host;
  std::erase_if(part.devices, [&](const Device& d) { return !d.group || !std::ranges::binary_search(groups, *d.group); });
  return part;
}

// A plan whose unknown facts do not matter is compared under the first value that was tried.
Request completed(Request request) {
  for (const MissingFact& f : unknown_facts(request)) {
    if (!f.candidates.empty()) f.set(request, f.candidates.front());
  }
  return request;
}

std::string hwpts_text(std::size_t n) { return fmt::format("{} HWPT{}", n, n == 1 ? "" : "s"); }

std::size_t planned_hwpts(const Plan& plan, const std::string& vm) {
  return static_cast<std::size_t>(std::ranges::count_if(plan.hwpts, [&](const PlannedHwpt& h) {
    return std::ranges::any_of(plan.ioas, [&](const PlannedIoas& i) { return i.id == h.ioas && i.vm == vm; });
  }));
}

std::string to_text(std::string_view walk, const WalkStatistics& s) {
  std::string text = fmt::format("    {:<7} {} orders:", walk, s.orders);
  for (const auto& [hwpts, n] : s.valid) text += fmt::format(" {} x{}", hwpts_text(hwpts), n);
  for (const auto& [key, n] : s.unsafe) text += fmt::format(" [{} but breaks {} x{}]", key.first, key.second, n);
  if (s.failed != 0) text += fmt::format(" [attach fails x{}]", s.failed);
  return text + "\n";
}

// Calls `each(vm, contest)` for every VM of the request.
template <class Each>
Result<void> for_each_vm(const Request& stated, const Plan& plan, Each each) {
  const Request request = completed(stated);
  const std::vector<Needs> needs = settle_needs(request, plan.preferences);
  for (std::size_t v = 0; v < request.vms.size(); ++v) {
    Result<Contest> contest = Contest::create(request, VmIndex(v), needs[v]);
    if (!contest) return tl::make_unexpected(contest.error());
    each(request.vms[v].name, *contest);
  }
  return {};
}

}  // namespace

Contest::Contest(Problem problem, std::unique_ptr<sim::Machine> machine)
    : problem_(std::move(problem)), rules_(kernel_law()), machine_(std::move(machine)) {}

Result<Contest> Contest::create(const Request& request, VmIndex vm, const Needs& needs) {
  Problem problem = make_problem(request, vm, needs, kernel_law());
  auto machine = sim::Machine::create(groups_of(request.host, problem), kernel_law());
  if (!machine) return tl::make_unexpected(machine.error());
  Contest contest(std::move(problem), std::move(*machine));
  const Host& host = contest.machine_->host();
  contest.group_of_.resize(host.devices.size());
  for (const ProblemGroup& group : contest.problem_.groups) {
    std::vector<DeviceIndex>& devices = contest.groups_.emplace_back();
    for (DeviceIndex assigned : group.assigned) {
      devices.push_back(host.find_device(request.host.device(assigned).id).value());
      contest.group_of_[devices.back().index()] = static_cast<std::uint32_t>(contest.groups_.size() - 1);
    }
  }
  return contest;
}

WalkStatistics Contest::orders(Walk kind, std::size_t most, std::uint64_t seed) {
  return sim::walk_orders(kind, *machine_, kernel_law(), groups_, most, seed,
                          [this](const WalkOutcome& outcome) { return broken(outcome); });
}

WalkOutcome Contest::walk(Walk kind, const std::vector<std::uint32_t>& order) {
  return sim::walk_groups(kind, *machine_, kernel_law(), groups_, order);
}

std::string Contest::broken(const WalkOutcome& outcome) const {
  std::vector<bool> placed(groups_.size(), false);
  std::vector<Placement> placements;
  for (const sim::WalkedHwpt& h : outcome.hwpts) {
    Placement& p = placements.emplace_back();
    p.hwpt = kernel_law().allocate(kernel_law().describe(machine_->host(), h.allocator), h.flags);
    p.hwpt[HwptQ::enforce_cache_coherency] = h.enforce_cache_coherency;
    for (DeviceIndex d : h.devices) {
      const std::uint32_t group = group_of_[d.index()];
      if (!placed[group]) p.groups.push_back(group);
      placed[group] = true;
    }
  }
  return first_broken_rule(problem_, placements, rules_);
}

Result<std::string> first_fit_line(const Request& request, const Plan& plan) {
  std::size_t tables = 0;
  std::string broken;
  bool complete = true;
  const bool in_containers = plan.interface == KernelInterface::type1;
  const Result<void> walked = for_each_vm(request, plan, [&](const std::string&, Contest& contest) {
    std::vector<std::uint32_t> order(contest.groups().size());
    std::iota(order.begin(), order.end(), 0U);
    const WalkOutcome outcome = contest.walk(in_containers ? Walk::type1 : Walk::kernel, order);
    tables += outcome.hwpts.size();
    complete = complete && outcome.complete();
    if (broken.empty() && outcome.complete()) broken = contest.broken(outcome);
  });
  if (!walked) return tl::make_unexpected(walked.error());
  std::string text = complete ? fmt::format("  first-fit  {} when", hwpts_text(tables)) : "  first-fit  fails when";
  text += in_containers ? " groups join in the order of their ids" : " devices are attached in the order of their ids";
  if (!broken.empty()) text += fmt::format(", which breaks {}", broken);
  return text + "\n";
}

Result<std::vector<Comparison>> compare(const Request& request, const Plan& plan) {
  std::vector<Comparison> comparisons;
  const Result<void> walked = for_each_vm(request, plan, [&](const std::string& vm, Contest& contest) {
    Comparison& c = comparisons.emplace_back(Comparison{vm, planned_hwpts(plan, vm), {}});
    for (std::size_t w = 0; w < c.by_walk.size(); ++w) {
      c.by_walk[w] = contest.orders(static_cast<Walk>(w), kCompareOrders, kCompareSeed);
    }
  });
  if (!walked) return tl::make_unexpected(walked.error());
  return comparisons;
}

std::string to_text(const Comparison& c) {
  std::string text =
      fmt::format("\n  compare {} (orders of plugging; ioplan: {} in every order)\n", c.vm, hwpts_text(c.planned));
  for (std::size_t w = 0; w < c.by_walk.size(); ++w) text += to_text(sim::kWalkNames[w], c.by_walk[w]);
  return text;
}

}  // namespace ioplan::cli
