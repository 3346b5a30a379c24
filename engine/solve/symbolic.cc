#include "engine/solve/symbolic.h"

#include <map>
#include <set>
#include <optional>

#include <fmt/format.h>
#include <z3++.h>

namespace ioplan {

namespace {

constexpr unsigned kResourceLimit = 200'000'000;  // rlimit, not seconds: the same answer on every machine

// One VM: items in slots, a template for each slot.
class VmFormula {
 public:
  VmFormula(z3::context& z3, const Request& request, const VmModel& model, const Law& law)
      : z3_(z3), request_(request), model_(model), problem_(model.problem), rules_(law), name_(request.vms[problem_.vm.index()].name) {
    collect_templates(law);
    for (std::size_t h = 0; h < problem_.items.size(); ++h) add_slot(h);
  }

  // Every constraint with the rule instance that it comes from; an empty rule is the frame of the question.
  struct Constraint {
    z3::expr formula;
    std::string rule, subject;
  };
  std::vector<Constraint> constraints() {
    frame();
    for (std::size_t i = 0; i < problem_.items.size(); ++i) {
      const std::string& id = request_.host.device(problem_.items[i].lowest()).id;
      for (std::uint32_t c : problem_.items[i].member_classes) {
        usable(Phase::group, c, id);
        attached(Phase::attach, i, c, id);
      }
      for (std::uint32_t c : problem_.items[i].assigned_classes) {
        usable(Phase::usable, c, id);
        attached(Phase::placement, i, c, id);
      }
    }
    fits();
    separate();
    limit();
    return std::move(constraints_);
  }

  // Nothing could be allocated at all: allocation is evaluated, so these refusals are the core.
  std::vector<CoreMember> refused_allocations() const {
    std::vector<CoreMember> core;
    if (!templates_.empty()) return core;
    for (const auto& [rule, device] : refused_) core.push_back({std::string(rule), device});
    return core;
  }

  z3::expr objective(Objective o) {
    z3::expr sum = z3_.int_val(0);
    for (std::size_t h = 0; h < slots_.size(); ++h) {
      const Slot& s = slots_[h];
      if (o == Objective::hwpts) sum = sum + z3::ite(s.used, z3_.int_val(1), z3_.int_val(0));
      if (o == Objective::page_tables || o == Objective::unneeded_flags) {
        for (std::size_t t = 0; t < templates_.size(); ++t) {
          const std::uint64_t cost = o == Objective::page_tables ? page_table_bytes_of(templates_[t], problem_)
                                                                 : unneeded_flags_of(templates_[t], problem_);
          sum = sum + z3::ite(s.used && s.choice == z3_.int_val(static_cast<int>(t)), z3_.int_val(cost), z3_.int_val(0));
        }
      }
      if (o == Objective::coherency) {
        for (std::size_t i = 0; i < problem_.items.size(); ++i) {
          const z3::expr lost = in(i, h) && attribute(h, HwptQ::enforce_cache_coherency) == z3_.bv_val(0, 64);
          sum = sum + z3::ite(lost, z3_.int_val(problem_.items[i].enforceable), z3_.int_val(0));
        }
      }
    }
    return sum;
  }

 private:
  struct Slot {
    z3::expr choice;  // index of a template
    z3::expr used;
    std::map<HwptQ, z3::expr> attributes;
  };

  // What allocation makes, as far as it is not refused.
  void collect_templates(const Law& law) {
    std::map<HwptQuantities, bool> distinct;
    for (const DeviceClass& device : problem_.classes) {
      if (device.assigned.empty()) continue;
      for (std::uint8_t flags = 0; flags < kHwptFlagSets; ++flags) {
        const HwptQuantities hwpt = law.allocate(device.quantities, flags);
        const Values values{&hwpt, &device.quantities, &problem_.quantities};
        if (rules_.hold(Phase::allocation, values)) distinct[hwpt] = true;
        for (const Rule* rule : rules_.of(Phase::allocation)) {
          if (!holds(*rule, values)) refused_.insert({rule->name, request_.host.device(device.assigned.front()).id});
        }
      }
    }
    for (const auto& [hwpt, unused] : distinct) templates_.push_back(hwpt);
  }

  void add_slot(std::size_t h) {
    slots_.push_back({z3_.int_const(fmt::format("{}.template{}", name_, h).c_str()),
                      z3_.bool_const(fmt::format("{}.used{}", name_, h).c_str()),
                      {}});
  }

  z3::expr in(std::size_t item, std::size_t slot) {
    return z3_.bool_const(fmt::format("{}.x{}_{}", name_, item, slot).c_str());
  }

  // An attribute of the slot's HWPT: a bit vector that the choice of template determines.
  z3::expr attribute(std::size_t h, HwptQ q) {
    auto it = slots_[h].attributes.find(q);
    if (it != slots_[h].attributes.end()) return it->second;
    z3::expr a = z3_.bv_const(fmt::format("{}.{}{}", name_, std::string(name_of(q)), h).c_str(), 64);
    for (std::size_t t = 0; t < templates_.size(); ++t) {
      say(z3::implies(slots_[h].choice == z3_.int_val(static_cast<int>(t)), a == z3_.bv_val(templates_[t][q], 64)));
    }
    slots_[h].attributes.emplace(q, a);
    return a;
  }

  z3::expr term(const Term& t, std::size_t h, const DeviceQuantities* device) {
    switch (t.subject) {
      case Subject::hwpt: return attribute(h, static_cast<HwptQ>(t.index));
      case Subject::device: return z3_.bv_val(device->data()[t.index], 64);
      case Subject::vm: return z3_.bv_val(problem_.quantities.data()[t.index], 64);
      case Subject::constant: break;
    }
    return z3_.bv_val(t.constant, 64);
  }

  z3::expr atom(const Atom& a, std::size_t h, const DeviceQuantities* device) {
    const z3::expr left = term(a.left, h, device);
    const z3::expr right = term(a.right, h, device);
    switch (a.relation) {
      case Relation::within: return (left & ~right) == z3_.bv_val(0, 64);
      case Relation::at_most: return z3::ule(left, right);
      case Relation::equal: break;
    }
    return left == right;
  }

  z3::expr formula(const Rule& rule, std::size_t h, const DeviceQuantities* device) {
    z3::expr when = z3_.bool_val(true);
    z3::expr require = z3_.bool_val(true);
    for (const Atom& a : rule.when) when = when && atom(a, h, device);
    for (const Atom& a : rule.require) require = require && atom(a, h, device);
    return z3::implies(when, require);
  }

  void say(const z3::expr& e, std::string rule = {}, std::string subject = {}) {
    constraints_.push_back({e, std::move(rule), std::move(subject)});
  }

  // Every item in one slot; slots have templates; slots are ordered by their lowest item.
  void frame() {
    const std::size_t n = problem_.items.size();
    for (std::size_t i = 0; i < n; ++i) {
      z3::expr_vector places(z3_);
      for (std::size_t h = 0; h < n; ++h) {
        places.push_back(in(i, h));
        say(z3::implies(in(i, h), slots_[h].used));
        if (h > i) say(!in(i, h));
      }
      say(z3::mk_or(places));
      say(z3::atmost(places, 1));
    }
    for (std::size_t h = 0; h < n; ++h) {
      say(slots_[h].choice >= 0 && slots_[h].choice < z3_.int_val(static_cast<int>(templates_.size())));
      z3::expr_vector members(z3_);
      for (std::size_t i = 0; i < n; ++i) members.push_back(in(i, h));
      say(z3::implies(slots_[h].used, z3::mk_or(members)));
      if (h > 0) say(z3::implies(slots_[h].used, slots_[h - 1].used));
    }
  }

  void usable(Phase phase, std::uint32_t cls, const std::string& id) {
    for (const Rule* rule : rules_.of(phase)) {
      say(formula(*rule, 0, &problem_.classes[cls].quantities), std::string(rule->name), id);
    }
  }

  void attached(Phase phase, std::size_t item, std::uint32_t cls, const std::string& id) {
    for (const Rule* rule : rules_.of(phase)) {
      for (std::size_t h = 0; h <= item; ++h) {
        say(z3::implies(in(item, h), formula(*rule, h, &problem_.classes[cls].quantities)), std::string(rule->name), id);
      }
    }
  }

  void fits() {
    for (const Rule* rule : rules_.of(Phase::fit)) {
      for (std::size_t h = 0; h < slots_.size(); ++h) {
        say(z3::implies(slots_[h].used, formula(*rule, h, nullptr)), std::string(rule->name), name_);
      }
    }
  }

  void separate() {
    const auto& items = problem_.items;
    for (std::size_t r = 0; r < problem_.separate_rules.size(); ++r) {
      const std::string& rule = problem_.separate_rules[r];
      for (std::size_t i = 0; i < items.size(); ++i) {
        if (torn_apart(items[i].sides[r])) say(z3_.bool_val(false), "policy.separate", rule);
        for (std::size_t j = i + 1; j < items.size(); ++j) {
          if (!kept_apart(items[i].sides[r], items[j].sides[r])) continue;
          for (std::size_t h = 0; h <= i; ++h) say(!(in(i, h) && in(j, h)), "policy.separate", rule);
        }
      }
    }
  }

  void limit() {
    if (problem_.max_hwpts >= slots_.size()) return;
    say(!slots_[problem_.max_hwpts].used, "policy.limit", name_);
  }

  z3::context& z3_;
  const Request& request_;
  const VmModel& model_;
  const Problem& problem_;
  RuleBook rules_;
  std::string name_;
  std::vector<HwptQuantities> templates_;
  std::set<std::pair<std::string_view, std::string>> refused_;
  std::vector<Slot> slots_;
  std::vector<Constraint> constraints_;
};

// A tracked solver names the rule instances of a no.
std::vector<CoreMember> unsat_core(z3::context& z3, const std::vector<VmFormula::Constraint>& constraints) {
  z3::solver solver(z3);
  std::map<std::pair<std::string, std::string>, unsigned> index;
  std::vector<CoreMember> members;
  z3::expr_vector tracks(z3);
  for (const auto& c : constraints) {
    if (c.rule.empty()) {
      solver.add(c.formula);
      continue;
    }
    const auto [it, fresh] = index.try_emplace({c.rule, c.subject}, members.size());
    if (fresh) {
      members.push_back({c.rule, c.subject});
      tracks.push_back(z3.bool_const(fmt::format("track{}", it->second).c_str()));
    }
    solver.add(z3::implies(tracks[static_cast<int>(it->second)], c.formula));
  }
  std::vector<CoreMember> core;
  if (solver.check(tracks) != z3::unsat) return core;
  for (const z3::expr& e : solver.unsat_core()) {
    core.push_back(members[std::stoul(e.decl().name().str().substr(5))]);
  }
  return core;
}

// One objective after the other, each lowered until it cannot be lowered further. (z3::optimize of Z3 4.8.12 misses the
// least value of a late objective now and then.) Nothing when the resource limit was reached.
std::optional<std::uint64_t> least(z3::solver& solver, const z3::expr& objective, z3::model& model) {
  for (;;) {
    const std::uint64_t value = model.eval(objective, true).get_numeral_uint64();
    solver.push();
    solver.add(objective < solver.ctx().int_val(value));
    const z3::check_result result = solver.check();
    if (result == z3::sat) model = solver.get_model();
    solver.pop();
    if (result == z3::sat) continue;
    if (result == z3::unknown) return std::nullopt;
    solver.add(objective == solver.ctx().int_val(value));
    return value;
  }
}

void solve_vm(z3::context& z3, const Request& request, const VmModel& model, const Law& law, SymbolicAnswer& answer) {
  VmFormula formula(z3, request, model, law);
  std::vector<std::pair<Objective, z3::expr>> objectives;
  for (Objective o : request.policy.objectives) {
    if (o != Objective::ioas) objectives.emplace_back(o, formula.objective(o));
  }
  const auto constraints = formula.constraints();
  z3::solver solver(z3);
  z3::params params(z3);
  params.set("rlimit", kResourceLimit);
  solver.set(params);
  for (const auto& c : constraints) solver.add(c.formula);
  switch (solver.check()) {
    case z3::unsat:
      answer.verdict = Verdict::infeasible;
      answer.core = formula.refused_allocations();
      if (answer.core.empty()) answer.core = unsat_core(z3, constraints);
      return;
    case z3::unknown: answer.verdict = Verdict::undecided; return;
    case z3::sat: break;
  }
  z3::model m = solver.get_model();
  for (const auto& [o, e] : objectives) {
    const auto value = least(solver, e, m);
    if (!value) {
      answer.verdict = Verdict::undecided;
      return;
    }
    answer.values[o] += *value;
  }
}

}  // namespace

SymbolicAnswer solve_symbolic(const Request& request, const std::vector<Needs>& needs, const Law& law) {
  SymbolicAnswer answer;
  const RuleBook rules(law);
  z3::context z3;
  for (std::size_t v = 0; v < request.vms.size(); ++v) {
    if (!request.vms[v].devices.empty()) answer.values[Objective::ioas] += 1;
    if (const auto refusal = refuse_vm(request, VmIndex(v))) {
      answer.verdict = Verdict::infeasible;
      answer.core = {{refusal->rule, refusal->subjects.front()}};
      break;
    }
    const VmModel model = model_vm(request, VmIndex(v), needs[v], rules, law);
    if (!model.problem.items.empty()) solve_vm(z3, request, model, law, answer);
    if (answer.verdict != Verdict::feasible) break;
  }
  return answer;
}

}  // namespace ioplan
