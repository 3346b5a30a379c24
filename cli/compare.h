// What others would make of the same devices, walked over a simulated machine (backends/sim/walks.h): the line under a
// plan, and `plan --compare`. Held by tests/baselines_test.cc, tests/cli_test.cc and the examples.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "backends/sim/walks.h"
#include "engine/base/error.h"
#include "engine/model/plan.h"
#include "engine/model/request.h"
#include "engine/solve/broken_rule.h"
#include "engine/solve/problem.h"

namespace ioplan::cli {

// One VM of a request beside a machine that holds its groups and nothing else. An outcome is held against the VM's needs,
// the policy and the strict rules.
class Contest {
 public:
  // Errors: the machine cannot be simulated (machine.h).
  static Result<Contest> create(const Request& request, VmIndex vm, const Needs& needs);

  sim::WalkStatistics orders(sim::Walk kind, std::size_t most, std::uint64_t seed);
  // `order`: indices of problem().groups.
  sim::WalkOutcome walk(sim::Walk kind, const std::vector<std::uint32_t>& order);
  // The rule that a complete outcome breaks; empty when it is good.
  std::string broken(const sim::WalkOutcome& outcome) const;

  const Problem& problem() const { return problem_; }
  sim::Machine& machine() { return *machine_; }
  const std::vector<sim::PluggedGroup>& groups() const { return groups_; }  // devices of machine().host()

 private:
  Contest(Problem problem, std::unique_ptr<sim::Machine> machine);

  Problem problem_;
  RuleBook rules_;
  std::unique_ptr<sim::Machine> machine_;
  std::vector<sim::PluggedGroup> groups_;  // by group of the problem
  std::vector<std::uint32_t> group_of_;           // by device of the machine
};

// What the kernel's automatic attach makes of the devices in the order of their ids.
Result<std::string> first_fit_line(const Request& request, const Plan& plan);

// By VM: how every walk ends in up to 1000 orders of plugging.
struct Comparison {
  std::string vm;
  std::size_t planned = 0;                                            // the plan's HWPTs for this VM
  std::array<sim::WalkStatistics, sim::kWalkNames.size()> by_walk{};  // by sim::Walk
};
Result<std::vector<Comparison>> compare(const Request& request, const Plan& plan);
std::string to_text(const Comparison& comparison);

}  // namespace ioplan::cli
