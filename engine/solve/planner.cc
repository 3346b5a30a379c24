// The steps around the solver: unknown facts, preferences, assumptions, and the reasons of a no.

#include "engine/solve/planner.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "engine/explain/explain.h"
#include "engine/solve/missing.h"
#include "engine/solve/solver.h"

namespace ioplan {

namespace {

struct Answer {
  Plan plan;
  Solved solved;
  std::vector<Needs> needs;
};

// Preferred needs, dropped or made required.
Needs decide(const Needs& needs, unsigned adopted) {
  Needs decided = needs;
  const auto settle = [&](Need& need, unsigned bit) {
    if (need == Need::preferred) need = (adopted >> bit & 1) != 0 ? Need::required : Need::no;
  };
  settle(decided.dirty_tracking, 0);
  settle(decided.nest_parent, 1);
  settle(decided.pasid, 2);
  return decided;
}

unsigned preferred(const Needs& needs) {
  return (needs.dirty_tracking == Need::preferred ? 1U : 0U) | (needs.nest_parent == Need::preferred ? 2U : 0U) |
         (needs.pasid == Need::preferred ? 4U : 0U);
}

// No objective up to and including the number of HWPTs is worse.
bool costs_nothing(const ObjectiveValues& with, const ObjectiveValues& without, const std::array<Objective, 5>& order) {
  for (Objective o : order) {
    if (with[o] != without[o]) return with[o] < without[o];
    if (o == Objective::hwpts) break;
  }
  return true;
}

class Planner {
 public:
  Planner(const Law& law, const PlanOptions& options) : law_(law), options_(options) {}

  // Requires: complete facts.
  Answer answer(const Request& request) const {
    Answer result;
    for (const VirtualMachine& vm : request.vms) result.needs.push_back(decide(vm.needs, 0));
    result.solved = solve_with(request, result.needs);
    if (result.solved.verdict == Verdict::feasible) adopt_preferences(request, result);
    if (result.solved.verdict == Verdict::feasible) result.plan = write_plan(request, result.solved, law_);
    result.plan.verdict = result.solved.verdict;
    for (std::size_t v = 0; v < request.vms.size(); ++v) list_preferences(request.vms[v], result.needs[v], result.plan);
    return result;
  }

 private:
  Solved solve_with(const Request& request, const std::vector<Needs>& needs) const {
    return solve(request, needs, law_, options_.budget);
  }

  // Larger sets first, then dirty tracking before nesting before PASID.
  void adopt_preferences(const Request& request, Answer& result) const {
    constexpr std::array<unsigned, 7> kBySize = {7, 3, 5, 6, 1, 2, 4};
    for (std::size_t v = 0; v < request.vms.size(); ++v) {
      const unsigned wanted = preferred(request.vms[v].needs);
      for (unsigned set : kBySize) {
        if (set == 0 || (set & ~wanted) != 0) continue;
        std::vector<Needs> needs = result.needs;
        needs[v] = decide(request.vms[v].needs, set);
        Solved solved = solve_with(request, needs);
        if (solved.verdict != Verdict::feasible ||
            !costs_nothing(solved.values, result.solved.values, request.policy.objectives)) {
          continue;
        }
        result.needs = std::move(needs);
        result.solved = std::move(solved);
        break;
      }
    }
  }

  static void list_preferences(const VirtualMachine& vm, const Needs& decided, Plan& plan) {
    const auto list = [&](Need wish, Need outcome, const char* name) {
      if (wish == Need::preferred && outcome == Need::required) plan.preferences.push_back(vm.name + "." + name);
    };
    list(vm.needs.dirty_tracking, decided.dirty_tracking, "dirty_tracking");
    list(vm.needs.nest_parent, decided.nest_parent, "nest_parent");
    list(vm.needs.pasid, decided.pasid, "pasid");
  }

  const Law& law_;
  const PlanOptions& options_;
};

bool same_answer(const Plan& a, const Plan& b) {
  if (a.verdict != b.verdict) return false;
  return a.verdict != Verdict::feasible ||
         (a.ioas == b.ioas && a.hwpts == b.hwpts && a.kvm == b.kvm && a.resources == b.resources &&
          a.preferences == b.preferences);
}

// Where two answers part, each in a few words.
std::pair<std::string, std::string> describe_difference(const Plan& a, const Plan& b) {
  const auto verdict = [](const Plan& p) { return std::string(kVerdictNames[static_cast<std::size_t>(p.verdict)]); };
  if (a.verdict != b.verdict) return {verdict(a), verdict(b)};
  const auto both = [&](const auto& show) { return std::pair<std::string, std::string>(show(a), show(b)); };
  if (a.hwpts.size() != b.hwpts.size()) return both([](const Plan& p) { return fmt::format("{} HWPTs", p.hwpts.size()); });
  for (std::size_t h = 0; h < a.hwpts.size(); ++h) {
    if (a.hwpts[h] == b.hwpts[h]) continue;
    return both([&](const Plan& p) {
      const PlannedHwpt& x = p.hwpts[h];
      return fmt::format("{}: {} {} levels {} bits pages {:#x} {} by {} for {}", x.id,
                         kPageTableFormatNames[static_cast<std::size_t>(x.format)], x.levels, x.address_bits,
                         x.page_sizes, x.enforce_cache_coherency ? "coherent" : "not coherent", x.allocator,
                         fmt::join(x.devices, " "));
    });
  }
  if (a.kvm != b.kvm) {
    return both([](const Plan& p) { return fmt::format("kvm.noncoherent_dma {}", p.kvm.noncoherent_dma); });
  }
  return both([](const Plan& p) {
    std::string text = "usable";
    for (const PlannedIoas& ioas : p.ioas) {
      for (const Range& r : ioas.ranges) text += fmt::format(" {:#x}-{:#x}", r.start, r.last);
    }
    return text;
  });
}

// Plans for values of unknown facts until two answers differ.
class UnknownSearch {
 public:
  UnknownSearch(const Request& request, const Planner& planner) : planner_(planner), facts_(unknown_facts(request)) {
    completed_ = request;
    for (const MissingFact& f : facts_) f.set(completed_, f.candidates[0]);
  }

  bool any() const { return !facts_.empty(); }

  // The answer for the first candidates of all facts.
  Answer first() { return planner_.answer(completed_); }
  const Request& completed() const { return completed_; }

  std::vector<UnknownFact> deciding(const Plan& base) {
    std::vector<UnknownFact> found;
    for (const MissingFact& f : facts_) {
      if (found.size() >= kMostNamed || spent_ > kMostPlans) break;
      compare(f, completed_, base, found);
    }
    if (found.empty()) try_combinations(base, found);
    return found;
  }

 private:
  static constexpr std::size_t kMostNamed = 8;
  static constexpr std::size_t kMostPlans = 600;
  static constexpr std::size_t kMostCombinations = 256;

  // Does this fact alone change the answer that `base` gives for `at`?
  bool compare(const MissingFact& f, const Request& at, const Plan& base, std::vector<UnknownFact>& found) {
    Request changed = at;
    for (std::size_t c = 1; c < f.candidates.size(); ++c) {
      ++spent_;
      f.set(changed, f.candidates[c]);
      const Plan other = planner_.answer(changed).plan;
      if (same_answer(base, other)) continue;
      const auto [first, second] = describe_difference(base, other);
      found.push_back({f.path, f.show(f.candidates[0]), first, f.show(f.candidates[c]), second});
      return true;
    }
    return false;
  }

  // Facts may decide only together: walk through the combinations, one fact at a time, so that wherever the answer
  // changes it was one fact that changed it.
  void try_combinations(const Plan& base, std::vector<UnknownFact>& found) {
    std::vector<std::size_t> digit(facts_.size(), 0);
    Request at = completed_;
    Plan before = base;
    for (std::size_t step = 0; step < kMostCombinations && spent_ < kMostPlans; ++step) {
      // Count up in mixed radix, moving back and forth instead of wrapping (a Gray code).
      const std::size_t f = next_digit(step);
      if (f == facts_.size()) return;
      const std::size_t from = digit[f];
      digit[f] = (from + 1) % facts_[f].candidates.size();
      facts_[f].set(at, facts_[f].candidates[digit[f]]);
      ++spent_;
      const Plan after = planner_.answer(at).plan;
      if (!same_answer(before, after)) {
        const auto [first, second] = describe_difference(before, after);
        found.push_back({facts_[f].path, facts_[f].show(facts_[f].candidates[from]), first,
                         facts_[f].show(facts_[f].candidates[digit[f]]), second});
        return;
      }
      before = after;
    }
  }

  // The ruler sequence: fact 0 changes every step, fact 1 after a full round of fact 0, and so on.
  std::size_t next_digit(std::size_t step) const {
    std::size_t f = 0;
    ++step;
    while (f < facts_.size() && step % facts_[f].candidates.size() == 0) step /= facts_[f++].candidates.size();
    return f;
  }

  const Planner& planner_;
  std::vector<MissingFact> facts_;
  Request completed_;
  std::size_t spent_ = 0;
};

void refuse_assumptions(Plan& plan) {
  const Assumption& first = plan.assumptions.front();
  plan.verdict = Verdict::infeasible;
  plan.conflict = {{"policy.assumptions",
                    {first.fact},
                    fmt::format("the answer rests on the default `{}: {}`, and the policy says `assumptions: refuse`",
                                first.fact, first.value)}};
}

Plan without_layout(const Plan& plan) {
  Plan bare;
  bare.fingerprint = plan.fingerprint;
  bare.vms = plan.vms;
  bare.verdict = plan.verdict;
  bare.assumptions = plan.assumptions;
  bare.conflict = plan.conflict;
  bare.fixes = plan.fixes;
  bare.unknown = plan.unknown;
  return bare;
}

}  // namespace

Plan make_plan(const Request& request, const Law& law, const PlanOptions& options) {
  const Planner planner(law, options);
  UnknownSearch unknown(request, planner);
  Answer answer = unknown.first();
  Plan& plan = answer.plan;
  plan.fingerprint = fingerprint(request.host);
  plan.vms.clear();
  for (const VirtualMachine& vm : request.vms) plan.vms.push_back(vm.name);
  plan.assumptions = assumed_facts(unknown.completed());
  if (unknown.any()) plan.unknown = unknown.deciding(plan);
  if (!plan.unknown.empty()) plan.verdict = Verdict::undecided;
  if (plan.verdict == Verdict::undecided && plan.unknown.empty()) {
    plan.unknown.push_back({"budget", "spent", "no plan found", "larger", "unknown"});
  }
  if (plan.verdict == Verdict::infeasible && options.explain_no) {
    Explanation why = explain_no(unknown.completed(), law, options.budget);
    plan.conflict = std::move(why.conflict);
    plan.fixes = std::move(why.fixes);
  }
  if (plan.verdict == Verdict::feasible && !plan.assumptions.empty() &&
      request.policy.assumptions == Permission::refuse) {
    refuse_assumptions(plan);
    std::vector<std::string> facts;
    for (const Assumption& a : plan.assumptions) facts.push_back(a.fact);
    plan.fixes.push_back({"state-facts", facts, "state these facts in the documents, if they are so"});
    plan.fixes.push_back({"relax-policy", {"assumptions"}, "set `assumptions: allow` in the policy"});
  }
  if (plan.verdict != Verdict::feasible) return without_layout(plan);
  if (plan.optimality.proof == ProofKind::smt) plan.optimality.smt2 = one_fewer_smt2(answer.solved, request.host);
  return std::move(answer.plan);
}

}  // namespace ioplan
