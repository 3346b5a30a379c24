// The judge: doubts a written plan.
//
// It is handed the documents, the plan and the law, and re-derives everything that the plan states: what each HWPT is,
// who may join it, what stays usable of an address space, what is pinned, how many tables that takes, why fewer HWPTs
// are impossible, and whether the steps lead there. It shares no code with the planner: it has its own interval
// arithmetic (interval.h), its own page-table counting (tables.h), its own search (search.h) and its own replay of the
// steps (steps.cc). Which of several good plans is canonical is not its question.
//
// Facts that the documents lack and that have no stock default are tried out: a feasible plan must be right whatever
// their values are. An objection names the obligation that is broken. A doubt is something that could not be proved
// again within the budget; it is not held against the plan.
//
// Held by tests/check_test.cc: every single-fault mutant of valid plans is rejected, every obligation rejects one.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/law/law.h"
#include "engine/model/plan.h"
#include "engine/model/request.h"

namespace ioplan {

struct Objection {
  std::string obligation;             // one of kObligations
  std::vector<std::string> subjects;  // device, HWPT, IOAS or VM ids
  std::string text;                   // one line, lowercase, the plan's words in backticks
};

struct Judgement {
  std::vector<Objection> objections;
  std::vector<std::string> doubts;

  bool accepted() const { return objections.empty(); }
};

// Budgets are counted in work, not in time: the same plan gets the same judgement everywhere.
struct CheckOptions {
  std::uint64_t search_work = 10'000'000;  // of each exhaustive search: placements and HWPT choices looked at
  std::uint64_t completions = 64;          // combinations of values tried for unknown facts
};

// Every objection that the judge has against `plan` as an answer to `request`.
// Requires: a Request as document/load.h gives it (sorted, references resolved).
Judgement check_plan(const Plan& plan, const Request& request, const Law& law, const CheckOptions& options = {});

struct Obligation {
  std::string_view name;
  std::string_view sentence;
};

namespace obligation {
inline constexpr std::string_view interface = "interface";
inline constexpr std::string_view fingerprint = "fingerprint";
inline constexpr std::string_view vms = "vms";
inline constexpr std::string_view placement = "placement";
inline constexpr std::string_view groups = "groups";
inline constexpr std::string_view attributes = "attributes";
inline constexpr std::string_view acceptance = "acceptance";
inline constexpr std::string_view usable = "usable";
inline constexpr std::string_view needs = "needs";
inline constexpr std::string_view policy = "policy";
inline constexpr std::string_view domain_ids = "domain-ids";
inline constexpr std::string_view ioas = "ioas";
inline constexpr std::string_view kvm = "kvm";
inline constexpr std::string_view resources = "resources";
inline constexpr std::string_view objectives = "objectives";
inline constexpr std::string_view optimality = "optimality";
inline constexpr std::string_view frozen = "frozen";
inline constexpr std::string_view foresight = "foresight";
inline constexpr std::string_view assumptions = "assumptions";
inline constexpr std::string_view steps = "steps";
inline constexpr std::string_view joining = "joining";
inline constexpr std::string_view infeasible = "infeasible";
inline constexpr std::string_view undecided = "undecided";
}  // namespace obligation

// What a plan owes, in the order in which it is asked.
inline constexpr std::array<Obligation, 23> kObligations = {{
    {obligation::interface, "The plan was made for the kernel interface whose law it is held against."},
    {obligation::fingerprint, "The plan was made for the facts of this host."},
    {obligation::vms, "The plan answers for exactly the VMs that were asked about."},
    {obligation::placement, "Every assigned device is in one HWPT of its VM's only IOAS, and nothing else is in any."},
    {obligation::groups, "The devices of an IOMMU group share a HWPT, and so do those that SMMUv2 cannot tell apart."},
    {obligation::attributes, "Each HWPT can be allocated as stated and is what the law makes of allocator and flags."},
    {obligation::acceptance, "Every device of each attached group passes the driver's attach rules."},
    {obligation::usable, "Every assigned device may be bound, and no device of its group forbids it."},
    {obligation::needs, "Each HWPT fits its VM's address space and serves its required and adopted needs."},
    {obligation::policy, "The operator's coherency policy, rules, limits and stand on assumptions are kept."},
    {obligation::domain_ids, "No unit hands out more domain ids than it has left."},
    {obligation::ioas, "Each address space maps its VM's memory and states what stays usable, reserved and aligned."},
    {obligation::kvm, "KVM's verdict and the devices that cause it follow from the devices' capabilities."},
    {obligation::resources, "Pinned, page-table and locked bytes are what mapping this memory takes."},
    {obligation::objectives, "The objective values are those of this plan."},
    {obligation::optimality, "The bounds and proofs that are claimed hold."},
    {obligation::frozen, "What a guest sees of its HWPTs is stated as it is."},
    {obligation::foresight, "What is promised is expected, and this plan keeps a place for all of it."},
    {obligation::assumptions, "The stock defaults that the answer rests on are listed, and no others."},
    {obligation::steps, "Carrying out the steps in order succeeds and leads to this plan."},
    {obligation::joining, "A type1 container that groups join in the order of the steps makes exactly these HWPTs."},
    {obligation::infeasible, "A refusal has a conflict, and no placement exists."},
    {obligation::undecided, "An undecided answer names facts that the documents really lack."},
}};

}  // namespace ioplan
