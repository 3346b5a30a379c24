// infeasible, undecided: a refusal has its parts, and an undecided answer names what the documents lack.

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "engine/check/court.h"
#include "engine/check/gaps.h"

namespace ioplan::check {

namespace {

class Parts {
 public:
  Parts(const Plan& plan, std::string_view obligation, Judgement& judgement)
      : plan_(plan), obligation_(obligation), judgement_(judgement) {}

  void object(std::vector<std::string> subjects, std::string text) const {
    judgement_.objections.push_back({std::string(obligation_), std::move(subjects), std::move(text)});
  }

  // Such an answer places nothing.
  void expect_no_placement() const {
    if (!plan_.ioas.empty() || !plan_.hwpts.empty() || !plan_.steps.empty()) {
      object({}, "an answer that is not `feasible` places something");
    }
    if (plan_.optimality.hwpts != 0 || plan_.optimality.lower_bound != 0 || !plan_.optimality.witness.empty()) {
      object({}, "an answer that is not `feasible` claims an optimum");
    }
  }

 private:
  const Plan& plan_;
  std::string_view obligation_;
  Judgement& judgement_;
};

// Everything that a conflict may speak of.
std::set<std::string> known_subjects(const Request& request) {
  std::set<std::string> known;
  for (const Unit& u : request.host.units) known.insert(u.id);
  for (const Device& d : request.host.devices) known.insert({d.id, d.name});
  for (const PolicyRule& r : request.policy.rules) known.insert(r.name);
  for (const VirtualMachine& vm : request.vms) {
    known.insert(vm.name);
    for (std::string_view need : kNeedKeys) {
      known.insert(vm.name + "." + std::string(need));
      known.insert(std::string(need));
    }
    for (const AssignedDevice& entry : vm.devices) known.insert({entry.mdev, entry.name});
    for (const auto& pair : vm.needs.p2p) known.insert({pair.first, pair.second});
  }
  for (const char* field : {"coherency", "assumed_coherency", "assumptions", "p2p"}) known.insert(field);
  known.erase("");
  return known;
}

void check_member(const Parts& parts, const Conflict& c, const Statutes& statutes, const Request& request,
                  const std::set<std::string>& known) {
  if (!statutes.known(c.rule)) parts.object({c.rule}, fmt::format("the conflict names `{}`, which is no rule", c.rule));
  if (c.because.empty()) parts.object({c.rule}, fmt::format("the conflict does not say why `{}` is broken", c.rule));
  for (const std::string& subject : c.subjects) {
    if (known.contains(subject) || nameable(request, subject)) continue;
    parts.object({subject}, fmt::format("the conflict names `{}`, which does not exist", subject));
  }
}

}  // namespace

void check_conflict(const Plan& plan, const Request& request, const Law& law, Judgement& judgement) {
  const Parts parts(plan, obligation::infeasible, judgement);
  const Statutes statutes(law);
  parts.expect_no_placement();
  if (plan.conflict.empty()) parts.object({}, "the refusal names no conflict");
  if (!plan.unknown.empty()) parts.object({}, "the refusal names unknown facts");
  const std::set<std::string> known = known_subjects(request);
  for (const Conflict& c : plan.conflict) check_member(parts, c, statutes, request, known);
}

void check_undecided(const Plan& plan, const Request& request, Judgement& judgement) {
  const Parts parts(plan, obligation::undecided, judgement);
  parts.expect_no_placement();
  if (plan.unknown.empty()) parts.object({}, "the answer does not say which fact would decide it");
  for (const UnknownFact& u : plan.unknown) {
    if (!unknown(request, u.fact))
      parts.object({u.fact}, fmt::format("`{}` is no fact that the documents leave unknown", u.fact));
    if (u.first_value == u.second_value) {
      parts.object({u.fact}, fmt::format("two values of `{}` are needed, and both are `{}`", u.fact, u.first_value));
    }
    if (u.first_answer == u.second_answer) {
      parts.object({u.fact}, fmt::format("both values of `{}` give the same answer", u.fact));
    }
  }
}

}  // namespace ioplan::check
