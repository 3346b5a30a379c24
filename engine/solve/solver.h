// Complete facts -> Plan: problems, offers, cover, and the plan that they make. Unknown facts, preferences and
// explanations are the planner's business (planner.h).
#pragma once

#include <compare>
#include <optional>
#include <string>
#include <vector>

#include "engine/law/law.h"
#include "engine/model/plan.h"
#include "engine/model/request.h"
#include "engine/solve/cover.h"
#include "engine/solve/offers.h"

namespace ioplan {

// One VM's problem, what could be allocated for it, and the cover instance that both make.
struct VmModel {
  Problem problem;
  std::vector<Offer> offers;
  std::vector<Unusable> unusable;
  CoverInstance cover;                                  // candidate i is offers[i]
  std::vector<std::vector<std::uint32_t>> element_items;  // by element: items, ascending
};

VmModel model_vm(const Request& request, VmIndex vm, const Needs& needs, const RuleBook& rules, const Law& law);

// The cover instance of a problem and its offers. `merge`: items that nothing tells apart become one element.
enum class Merge : bool { no, yes };
void make_cover(VmModel& model, const Policy& policy, Merge merge);

// The covers of all VMs as one; elements and candidates follow one another VM by VM.
CoverInstance merge_covers(const std::vector<VmModel>& models, const Policy& policy);

// The canonical order of templates for a HWPT: attached allocators first, the lowest device, the fewest flags, the
// lowest flag bits.
struct TemplateRank {
  bool elsewhere = false;  // the allocator is not attached to the HWPT
  DeviceIndex allocator;
  int flag_count = 0;
  std::uint64_t flags = 0;
  friend auto operator<=>(const TemplateRank&, const TemplateRank&) = default;
};

// What refuses a VM as a whole: rules of Phase::cover.
struct VmRefusal {
  std::string rule;
  std::vector<std::string> subjects;
  std::string because;
};

struct SolvedHwpt {
  std::vector<std::uint32_t> items;  // ascending
  std::uint32_t offer = 0;
  DeviceIndex allocator;
  TemplateRank rank;
};

// The canonical choice among templates of least cost for items that share a HWPT. `stage`: only templates of this stage,
// where domain ids hang on it; 0 any. Requires: some offer accepts them all.
SolvedHwpt best_template(const VmModel& model, std::vector<std::uint32_t> items, const std::array<Objective, 5>& order,
                         unsigned stage);

// May the two items not share a HWPT?
bool apart(const Item& a, const Item& b);

// How the solver answered for the VMs of a request, before it is written as a Plan.
struct Solved {
  Verdict verdict = Verdict::feasible;
  bool budget_exhausted = false;  // no plan was found, and none was excluded
  std::vector<VmModel> vms;
  std::vector<std::vector<SolvedHwpt>> hwpts;  // by VM, in the order of their lowest device
  ObjectiveValues values;
  std::array<bool, 5> proved{};
  std::uint64_t lower_bound = 0;
  ProofKind proof = ProofKind::none;
  std::vector<DeviceIndex> witness;
  std::optional<CoverInstance> pooled;  // the cover with domain-id pools, when those decided
  // Under type1: by VM, groups in the order of joining (container.h); and why a container cannot hold a VM.
  std::vector<std::vector<std::uint32_t>> joining;
  std::optional<VmRefusal> refusal;
};

// Every objective but ioas, summed over the HWPTs.
ObjectiveValues values_of(const Solved& solved);

// What refuses a VM before any HWPT is thought of.
std::optional<VmRefusal> refuse_vm(const Request& request, VmIndex vm);

// Requires: every fact that matters is present. `needs` by VM, preferences decided.
Solved solve(const Request& request, const std::vector<Needs>& needs, const Law& law, const CoverBudget& budget);

// The Plan of a feasible answer, without assumptions and preferences. `bound` proves the number of HWPTs: the answer
// itself, or one under fewer needs with as many HWPTs.
Plan write_plan(const Request& request, const Solved& solved, const Solved& bound, const Law& law);

// "One fewer HWPT is impossible" as SMT-LIB 2 in cover form: a boolean a template, a clause a group, at most k-1.
std::string one_fewer_smt2(const Solved& solved, const Request& request);

}  // namespace ioplan
