#include "engine/check/check.h"

#include <algorithm>

#include "engine/check/court.h"
#include "engine/check/gaps.h"
#include "engine/check/outright.h"

namespace ioplan {

namespace check {

void check_identity(const Plan& plan, const Request& request, const Law& law, Judgement& judgement) {
  if (plan.interface != law.interface()) {
    const auto name = [](KernelInterface i) { return kKernelInterfaceNames[static_cast<std::size_t>(i)]; };
    judgement.objections.push_back(
        {std::string(obligation::interface),
         {},
         fmt::format("the plan is for {}, and is held against the law of {}", name(plan.interface),
                     name(law.interface()))});
  }
  const std::string real = fingerprint(request.host);
  if (plan.fingerprint != real) {
    judgement.objections.push_back(
        {std::string(obligation::fingerprint),
         {},
         fmt::format("the plan is for the host `{}`, and this is `{}`", plan.fingerprint, real)});
  }
  std::vector<std::string> names;
  for (const VirtualMachine& vm : request.vms) names.push_back(vm.name);
  if (plan.vms != names) {
    judgement.objections.push_back(
        {std::string(obligation::vms), plan.vms, "the plan is not about the VMs of the request"});
  }
}

namespace {

void check_feasible(const Court& court) {
  const std::vector<Seat> seats = check_placement(court);
  check_attributes(court, seats);
  check_wishes(court, seats);
  check_ioas(court, seats);
  check_kvm(court);
  check_resources(court, seats);
  check_frozen(court);
  check_steps(court);
  if (court.in_containers()) check_joining(court, seats);
}

// The places that are kept are taken in thought, and everything that a device in its place must not break is asked again.
void check_ahead(const Court& now, const Request& request, const Law& law) {
  check_promises(now);
  const Request expected = looking_ahead(request, now.plan);
  const Plan plugged = looking_ahead(now.plan);
  const World world(expected, law, now.plan.preferences);
  const World unspoilt(expected, law, {});
  Judgement doubts;
  const Court ahead{plugged, world, unspoilt, now.options, doubts};
  const std::vector<Seat> seats = check_placement(ahead);
  check_attributes(ahead, seats);
  check_wishes(ahead, seats);
  for (const Objection& o : doubts.objections) {
    now.object(obligation::foresight, o.subjects, "with all promises plugged: " + o.text);
  }
  const Court least{now.plan, world, now.unspoilt, now.options, now.judgement};
  check_optimality(least);
}

// What no search over placements would notice.
bool refused_outright(const Court& court) {
  const bool no_defaults = court.world.request.policy.assumptions == Permission::refuse;
  if (no_defaults && !court.plan.assumptions.empty()) return true;
  return std::any_of(court.world.scenes.begin(), court.world.scenes.end(),
                     [&](const Scene& scene) { return !outright_refusals(court.world, scene).empty(); });
}

void check_in_world(const Plan& plan, const Completion& completion, const Law& law, const CheckOptions& options,
                    Judgement& judgement) {
  const World world(completion.request, law, plan.preferences);
  const World unspoilt(completion.request, law, {});
  const Court court{plan, world, unspoilt, options, judgement};
  if (plan.verdict == Verdict::feasible) {
    check_feasible(court);
    return plan.promises.empty() ? check_optimality(court) : check_ahead(court, completion.request, law);
  }
  if (!refused_outright(court)) check_no_placement(court);
}

// Says under which values an objection arose.
void append(Judgement& to, Judgement&& from, const std::string& values) {
  for (Objection& o : from.objections) {
    if (!values.empty()) o.text += " (with " + values + ")";
    to.objections.push_back(std::move(o));
  }
  for (std::string& d : from.doubts) {
    if (std::find(to.doubts.begin(), to.doubts.end(), d) == to.doubts.end()) to.doubts.push_back(std::move(d));
  }
}

// One set of values under which the answer is wrong is enough.
void check_in_every_world(const Plan& plan, const Request& request, const Law& law, const CheckOptions& options,
                          Judgement& judgement) {
  const Completions completions = completions_of(request, options.completions);
  if (!completions.exhaustive) judgement.doubts.emplace_back("not every combination of unknown facts was tried");
  if (completions.all.empty()) judgement.doubts.emplace_back("an unknown fact has no value to try");
  for (const Completion& completion : completions.all) {
    Judgement here;
    check_in_world(plan, completion, law, options, here);
    const bool wrong = !here.accepted();
    append(judgement, std::move(here), completion.text);
    if (wrong) return;
  }
}

// A feasible answer owes no reasons.
void check_no_excuses(const Plan& plan, Judgement& judgement) {
  if (plan.conflict.empty() && plan.unknown.empty()) return;
  judgement.objections.push_back(
      {std::string(obligation::infeasible), {}, "a `feasible` answer names a conflict or an unknown fact"});
}

}  // namespace
}  // namespace check

Judgement check_plan(const Plan& plan, const Request& request, const Law& law, const CheckOptions& options) {
  Judgement judgement;
  check::check_identity(plan, request, law, judgement);
  if (!judgement.accepted()) return judgement;
  check::check_assumptions(plan, request, law, judgement);
  switch (plan.verdict) {
    case Verdict::undecided:
      check::check_undecided(plan, request, judgement);
      return judgement;
    case Verdict::infeasible:
      check::check_conflict(plan, request, law, judgement);
      break;
    case Verdict::feasible:
      check::check_no_excuses(plan, judgement);
      break;
  }
  check::check_in_every_world(plan, request, law, options, judgement);
  return judgement;
}

}  // namespace ioplan
