// The steps around the solver: unknown facts, preferences, assumptions, and the reasons of a no.

#include "engine/planner/planner.h"

#include <algorithm>
#include <array>
#include <map>

#include <fmt/format.h>

#include "engine/explain/explain.h"
#include "engine/planner/foresight.h"
#include "engine/planner/missing.h"
#include "engine/solve/needs.h"
#include "engine/solve/solver.h"

namespace ioplan {

namespace {

struct Answer {
  Plan plan;
  Solved solved;
  std::vector<Needs> needs;
};

// Which of kPreferableNeeds are preferred, as bits.
unsigned preferred(const Needs& needs) {
  unsigned bits = 0;
  for (std::size_t n = 0; n < kPreferableNeeds.size(); ++n) {
    if (needs.*kPreferableNeeds[n].second == Need::preferred) bits |= 1U << n;
  }
  return bits;
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
    for (const VirtualMachine& vm : request.vms) result.needs.push_back(settle_needs(vm.needs, 0));
    result.solved = solve_with(request, result.needs);
    if (result.solved.verdict == Verdict::feasible) {
      if (expects_anything(request)) {
        plan_ahead(request, result);
      } else {
        // The proof is that of the question without preferences: it has as many HWPTs and rests on the documents alone.
        const Solved bound = adopt_preferences(request, result);
        result.plan = write_plan(request, result.solved, bound.vms.empty() ? result.solved : bound, law_);
      }
    }
    result.plan.verdict = result.solved.verdict;
    for (std::size_t v = 0; v < request.vms.size(); ++v) list_preferences(request.vms[v], result.needs[v], result.plan);
    return result;
  }

 private:
  Solved solve_with(const Request& request, const std::vector<Needs>& needs) const {
    return solve(request, needs, law_, options_.budget);
  }

  // Promises come before preferences. What they cost is no part of the proof, which is that of the question without them.
  void plan_ahead(const Request& request, Answer& result) const {
    const Solved bound = std::move(result.solved);
    const Foresight foresight = foresee(request, result.needs, law_, options_.budget);
    result.solved = solve_with(foresight.request, result.needs);
    adopt_preferences(foresight.request, result);
    result.plan = write_plan(foresight.request, result.solved, bound, law_);
    result.plan.unpromised = foresight.unpromised;
    Optimality& o = result.plan.optimality;
    if (o.lower_bound < o.hwpts) o.proved[static_cast<std::size_t>(Objective::hwpts)] = false;
    sort_promises(foresight.request, result.plan);
  }

  static void sort_promises(const Request& request, Plan& plan) {
    std::vector<Promise> sorted;
    for (const VirtualMachine& vm : request.vms) {
      if (vm.expected_memory) sorted.push_back({vm.name, "", "", *vm.expected_memory});
      for (const AssignedDevice& d : vm.devices) {
        if (!d.expected) continue;
        const auto it = std::ranges::find(plan.promises, request.host.device(*d.host).id, &Promise::device);
        sorted.push_back(*it);
      }
    }
    plan.promises = std::move(sorted);
  }

  // Larger sets first, then dirty tracking before nesting before PASID. Returns the answer without preferences when some
  // were adopted.
  Solved adopt_preferences(const Request& request, Answer& result) const {
    Solved without;
    constexpr std::array<unsigned, 7> kBySize = {7, 3, 5, 6, 1, 2, 4};
    for (std::size_t v = 0; v < request.vms.size(); ++v) {
      const unsigned wanted = preferred(request.vms[v].needs);
      for (unsigned set : kBySize) {
        if (set == 0 || (set & ~wanted) != 0) continue;
        std::vector<Needs> needs = result.needs;
        needs[v] = settle_needs(request.vms[v].needs, set);
        Solved solved = solve_with(request, needs);
        if (solved.verdict != Verdict::feasible ||
            !costs_nothing(solved.values, result.solved.values, request.policy.objectives)) {
          continue;
        }
        result.needs = std::move(needs);
        if (without.vms.empty()) without = std::move(result.solved);
        result.solved = std::move(solved);
        break;
      }
    }
    return without;
  }

  static void list_preferences(const VirtualMachine& vm, const Needs& decided, Plan& plan) {
    for (const auto& [key, need] : kPreferableNeeds) {
      if (vm.needs.*need == Need::preferred && decided.*need == Need::required) {
        plan.preferences.push_back(vm.name + "." + std::string(key));
      }
    }
  }

  const Law& law_;
  const PlanOptions& options_;
};

// The order in which devices join their containers.
std::string joining_of(const Plan& p) {
  std::string text = "joining";
  for (const Step& s : p.steps) {
    if (s.kind == StepKind::attach_ioas) text += " " + s.device;
  }
  return text;
}

// What a Plan fixes, part by part, in a few words each; the parts in the order in which a reader would compare.
std::vector<std::string> parts_of(const Plan& p) {
  std::vector<std::string> parts = {std::string(kVerdictNames[static_cast<std::size_t>(p.verdict)]),
                                    fmt::format("{} HWPTs", p.hwpts.size())};
  for (const PlannedHwpt& h : p.hwpts) {
    parts.push_back(fmt::format(
        "{}: {} stage {} levels {} bits {} aperture {:#x}-{:#x} pages {:#x} {} flags {} tables {} by {} for {}", h.id,
        kPageTableFormatNames[static_cast<std::size_t>(h.format)], h.stage, h.levels, h.address_bits, h.aperture.start,
        h.aperture.last, h.page_sizes, h.enforce_cache_coherency ? "coherent" : "not coherent", h.flags,
        h.page_table_bytes, h.allocator, fmt::join(h.devices, " ")));
  }
  parts.push_back(fmt::format("kvm.noncoherent_dma {} because of {}", p.kvm.noncoherent_dma, fmt::join(p.kvm.because, " ")));
  parts.push_back(fmt::format("pinned {} memlock {}", p.resources.pinned_bytes, p.resources.memlock_bytes));
  for (const PlannedIoas& ioas : p.ioas) {
    std::string text = fmt::format("{} alignment {} usable", ioas.id, ioas.alignment);
    for (const Range& r : ioas.ranges) text += fmt::format(" {:#x}-{:#x}", r.start, r.last);
    text += " mapped";
    for (const MemoryRange& m : ioas.memory) text += fmt::format(" {:#x}-{:#x}", m.gpa.start, m.gpa.last);
    parts.push_back(std::move(text));
  }
  parts.push_back(fmt::format("preferences {}", fmt::join(p.preferences, " ")));
  std::string promises = "promises";
  for (const Promise& promise : p.promises) promises += promise.device.empty() ? " memory" : " " + promise.device;
  parts.push_back(std::move(promises));
  if (p.interface == KernelInterface::type1) parts.push_back(joining_of(p));
  return parts;
}

bool same_answer(const Plan& a, const Plan& b) {
  return a.verdict == b.verdict && (a.verdict != Verdict::feasible || parts_of(a) == parts_of(b));
}

// Where two answers part. Requires: they are not the same.
std::pair<std::string, std::string> describe_difference(const Plan& a, const Plan& b) {
  const std::vector<std::string> parts_a = parts_of(a), parts_b = parts_of(b);
  const auto [at_a, at_b] = std::ranges::mismatch(parts_a, parts_b);
  return {at_a == parts_a.end() ? "nothing more" : *at_a, at_b == parts_b.end() ? "nothing more" : *at_b};
}

// Plans for values of unknown facts until two answers differ. The first candidates are the most capable values; from
// there facts change one at a time, then all facts of one key together, then all facts. Wherever an answer differs, the
// way there is walked fact by fact, so that one fact can be named that changes it.
class UnknownSearch {
 public:
  UnknownSearch(const Request& request, const Planner& planner)
      : request_(request), planner_(planner), facts_(unknown_facts(request)) {
    if (facts_.empty()) return;
    completed_ = request;
    for (const MissingFact& f : facts_) {
      if (!f.candidates.empty()) f.set(*completed_, f.candidates[0]);
    }
  }

  bool any() const { return !facts_.empty(); }
  const Request& completed() const { return completed_ ? *completed_ : request_; }

  // Facts for which no document value could even be tried: a device behind none of the host's units.
  std::vector<UnknownFact> unanswerable() const {
    std::vector<UnknownFact> found;
    for (const MissingFact& f : facts_) {
      if (f.candidates.empty()) found.push_back({f.path, "a unit", "depends on it", "none", "infeasible"});
    }
    return found;
  }

  std::vector<UnknownFact> deciding(const Plan& base) {
    std::vector<UnknownFact> found;
    for (std::size_t f = 0; f < facts_.size() && found.size() < kMostNamed && spent_ < kMostPlans; ++f) {
      for (std::size_t c = 1; c < facts_[f].candidates.size(); ++c) {
        if (changes(base, Digits{{f, c}}, found)) break;
      }
    }
    if (found.empty()) try_together(base, found);
    return found;
  }

 private:
  static constexpr std::size_t kMostNamed = 8;
  static constexpr std::size_t kMostPlans = 400;

  // Facts that take other candidates than the first.
  using Digits = std::map<std::size_t, std::size_t>;

  Plan answer_at(const Digits& digits) {
    ++spent_;
    Request at = completed();
    for (const auto& [f, c] : digits) facts_[f].set(at, facts_[f].candidates[c]);
    return planner_.answer(at).plan;
  }

  bool changes(const Plan& base, const Digits& digits, std::vector<UnknownFact>& found) {
    if (digits.empty() || same_answer(base, answer_at(digits))) return false;
    Digits walked;
    Plan before = base;
    for (const auto& [f, c] : digits) {
      walked[f] = c;
      Plan after = answer_at(walked);
      if (!same_answer(before, after)) {
        const auto [first, second] = describe_difference(before, after);
        found.push_back({facts_[f].path, facts_[f].show(facts_[f].candidates[0]), first,
                         facts_[f].show(facts_[f].candidates[c]), second});
        return true;
      }
      before = std::move(after);
    }
    return false;
  }

  static std::string key_of(const MissingFact& f) { return f.path.substr(f.path.rfind('.') + 1); }

  void try_together(const Plan& base, std::vector<UnknownFact>& found) {
    std::map<std::string, std::vector<std::size_t>> by_key;
    std::size_t most = 0;
    for (std::size_t f = 0; f < facts_.size(); ++f) {
      by_key[key_of(facts_[f])].push_back(f);
      most = std::max(most, facts_[f].candidates.size());
    }
    for (std::size_t c = 1; c < most; ++c) {
      Digits all;
      for (const auto& [key, members] : by_key) {
        Digits same;
        for (std::size_t f : members) {
          if (c < facts_[f].candidates.size()) same[f] = all[f] = c;
        }
        if (spent_ > kMostPlans || changes(base, same, found)) return;
      }
      if (changes(base, all, found)) return;
    }
    // Few facts: every pair as well.
    for (std::size_t f = 0; f < facts_.size(); ++f) {
      for (std::size_t g = f + 1; g < facts_.size(); ++g) {
        for (std::size_t c = 1; c < facts_[f].candidates.size(); ++c) {
          for (std::size_t d = 1; d < facts_[g].candidates.size(); ++d) {
            if (spent_ > kMostPlans || changes(base, {{f, c}, {g, d}}, found)) return;
          }
        }
      }
    }
  }

  const Request& request_;
  const Planner& planner_;
  std::vector<MissingFact> facts_;
  std::optional<Request> completed_;  // absent when nothing was missing
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
  bare.interface = plan.interface;
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
  Answer answer;
  Plan& plan = answer.plan;
  plan.unknown = unknown.unanswerable();
  if (plan.unknown.empty()) answer = planner.answer(unknown.completed());
  plan.interface = law.interface();
  plan.fingerprint = fingerprint(request.host);
  plan.vms.clear();
  for (const VirtualMachine& vm : request.vms) plan.vms.push_back(vm.name);
  plan.assumptions = assumed_facts(unknown.completed());
  if (plan.unknown.empty() && unknown.any()) plan.unknown = unknown.deciding(plan);
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
    plan.fixes.push_back({"relax-policy", {"assumptions", "allow"}, "set `assumptions: allow` in the policy"});
  }
  if (plan.verdict != Verdict::feasible) return without_layout(plan);
  return std::move(answer.plan);
}

}  // namespace ioplan
