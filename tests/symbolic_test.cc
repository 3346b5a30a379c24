// Z3 as the second opinion: it chooses templates under the asserted rules and must reach the cover's verdict and the
// value of every objective (engine/solve/symbolic.h). A no of Z3 is checked as well: its core names rules and subjects
// that exist, and enforced together with what allocation refuses it leaves no plan (tests/support/enforce.h).
//
// Random complete questions of up to five groups. Domain ids are not asked of Z3, so every unit has plenty here.
// IOPLAN_SCALE multiplies the number of questions (200), IOPLAN_SEED asks one seed only.
#include "engine/solve/symbolic.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "constraints/catalog.h"
#include "constraints/kernel_law.h"
#include "engine/document/load.h"
#include "engine/planner/missing.h"
#include "engine/planner/planner.h"
#include "tests/support/enforce.h"
#include "tests/support/generator.h"
#include "tests/support/seeds.h"

namespace ioplan {
namespace {

// No absent fact, no preference left open, plenty of domain ids.
Request complete_request(std::uint64_t seed) {
  Request request = generator::random_request(seed, {.absent = 0, .scarce_ids = 0, .most_groups = 5});
  for (const MissingFact& f : unknown_facts(request)) f.set(request, f.candidates.at(0));
  for (VirtualMachine& vm : request.vms) {
    for (Need* need : {&vm.needs.dirty_tracking, &vm.needs.nest_parent, &vm.needs.pasid}) {
      if (*need == Need::preferred) *need = seed % 5 == 0 ? Need::required : Need::no;
    }
  }
  for (Unit& unit : request.host.units) {
    for (UnitFact f : {UnitFact::domains_used, UnitFact::context_banks, UnitFact::domain_first, UnitFact::domain_last})
      unit.facts[f].reset();
    if (unit.driver == Driver::intel) *unit.facts[UnitFact::cap] |= 6;  // ND
  }
  return request;
}

std::vector<Needs> needs_of(const Request& request) {
  std::vector<Needs> needs;
  for (const VirtualMachine& vm : request.vms) needs.push_back(vm.needs);
  return needs;
}

std::string values_text(const ObjectiveValues& values) {
  std::string text;
  for (std::size_t o = 0; o < kObjectiveNames.size(); ++o)
    text += fmt::format(" {} {}", kObjectiveNames[o], values.by_objective[o]);
  return text;
}

// The core as members of a conflict, with the frame of Z3's question: what allocation refuses, and which groups are one
// item.
std::vector<Conflict> with_frame(const Request& request, const std::vector<CoreMember>& core) {
  std::vector<Conflict> members;
  for (std::size_t v = 0; v < request.vms.size(); ++v) {
    const Problem problem = make_problem(request, VmIndex(v), request.vms[v].needs, kernel_law());
    for (const Binding& b : problem.bindings) {
      Conflict c{b.rule, {b.name}, ""};
      if (b.rule == "core.automatic") {
        c.subjects.clear();
        for (std::uint32_t g : b.groups)
          c.subjects.push_back(request.host.device(problem.groups[g].assigned.front()).id);
      }
      members.push_back(std::move(c));
    }
    for (const AssignedDevice& a : request.vms[v].devices) {
      for (const Rule* rule : catalog()) {
        if (a.host && rule->phase == Phase::allocation)
          members.push_back({std::string(rule->name), {request.host.device(*a.host).id}, ""});
      }
    }
    for (const CoreMember& m : core) {
      members.push_back({m.rule, {m.subject}, ""});
      for (const Item& item : problem.items) {  // an item stands for all its groups
        if (request.host.device(item.lowest()).id != m.subject) continue;
        for (std::uint32_t g : item.groups)
          members.push_back({m.rule, {request.host.device(problem.groups[g].assigned.front()).id}, ""});
      }
    }
  }
  return members;
}

bool names_something(const Request& request, const std::string& subject) {
  if (request.host.find_device(subject)) return true;
  return std::ranges::any_of(request.policy.rules, [&](const PolicyRule& r) { return r.name == subject; }) ||
         std::ranges::any_of(request.vms, [&](const VirtualMachine& vm) {
           return vm.name == subject ||
                  std::ranges::any_of(vm.devices, [&](const AssignedDevice& a) { return a.mdev == subject; });
         });
}

std::string core_faults(const Request& request, const std::vector<CoreMember>& core) {
  if (core.empty()) return "the core is empty";
  for (const CoreMember& m : core) {
    if (find_rule(m.rule) == nullptr) return "no rule is named " + m.rule;
    if (!names_something(request, m.subject))
      return fmt::format("{} is about `{}`, which is nothing", m.rule, m.subject);
  }
  if (enforce::Question(request).plan_exists(with_frame(request, core))) {
    std::string text = "the core leaves a plan:";
    for (const CoreMember& m : core) text += fmt::format(" {}({})", m.rule, m.subject);
    return text;
  }
  return {};
}

struct Mix {
  std::size_t feasible = 0, infeasible = 0, several = 0;
};

std::string faults(std::uint64_t seed, Mix& mix) {
  const Request request = complete_request(seed);
  const Plan plan = make_plan(request, kernel_law(), {.budget = {}, .explain_no = false});
  const SymbolicAnswer answer = solve_symbolic(request, needs_of(request), kernel_law());
  if (answer.verdict == Verdict::undecided) return "z3 gave up";
  if (answer.verdict != plan.verdict) {
    return fmt::format("cover: {}, z3: {}", kVerdictNames[static_cast<std::size_t>(plan.verdict)],
                       kVerdictNames[static_cast<std::size_t>(answer.verdict)]);
  }
  if (answer.verdict == Verdict::infeasible) {
    ++mix.infeasible;
    return core_faults(request, answer.core);
  }
  ++mix.feasible;
  mix.several += plan.hwpts.size() > request.vms.size();
  if (answer.values == plan.objectives) return {};
  return fmt::format("cover:{}\nz3:   {}", values_text(plan.objectives), values_text(answer.values));
}

TEST(Symbolic, AgreesWithTheCoverOnRandomQuestions) {
  Mix mix;
  if (std::getenv("IOPLAN_SEED") != nullptr) {
    const auto seed = static_cast<std::uint64_t>(number_from("IOPLAN_SEED", 0));
    EXPECT_EQ(faults(seed, mix), "") << generator::to_documents(complete_request(seed));
    return;
  }
  const auto questions = static_cast<std::uint64_t>(200 * number_from("IOPLAN_SCALE", 1));
  std::size_t wrong = 0;
  for (std::uint64_t seed = 0; seed < questions && wrong < 5; ++seed) {
    const std::string text = faults(seed, mix);
    if (text.empty()) continue;
    ++wrong;
    ADD_FAILURE() << "IOPLAN_SEED=" << seed << "\n" << text;
  }
  std::printf("%zu feasible (%zu of several HWPTs), %zu infeasible\n", mix.feasible, mix.several, mix.infeasible);
  if (wrong > 0 || questions < 200) return;
  EXPECT_GE(mix.feasible * 4, questions);
  EXPECT_GE(mix.several * 8, questions);
  EXPECT_GE(mix.infeasible * 8, questions);
}

}  // namespace
}  // namespace ioplan
