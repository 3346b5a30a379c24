// usable, needs, policy, domain-ids: what the kernel wants of devices before they attach, what VMs need, what the
// operator allows, and what units have left.

#include <algorithm>
#include <set>

#include "engine/check/court.h"
#include "engine/check/outright.h"

namespace ioplan::check {

namespace {

void check_usable(const Court& court, const Scene& scene) {
  for (const Item& item : scene.items) {
    const Refusal refusal = unusable(court.world, scene, item);
    if (!refusal) continue;
    const std::string& id = court.world.id(refusal.device);
    court.object(obligation::usable, {scene.vm->name, id},
                 fmt::format("`{}` cannot be used by `{}` (rule `{}`)", id, scene.vm->name, refusal.rule->name));
  }
}

void check_fit(const Court& court, const Seat& seat) {
  const Rule* rule = court.world.statutes.broken(Phase::fit, {&*seat.hwpt, nullptr, &seat.scene->asks});
  if (rule == nullptr) return;
  court.object(obligation::needs, {seat.planned->id, seat.scene->vm->name},
               fmt::format("`{}` does not serve `{}` (rule `{}`)", seat.planned->id, seat.scene->vm->name, rule->name));
}

bool is_preference(const VirtualMachine& vm, const std::string& name) {
  const std::array<Need, 3> needs = {vm.needs.dirty_tracking, vm.needs.nest_parent, vm.needs.pasid};
  for (std::size_t i = 0; i < needs.size(); ++i) {
    if (needs[i] == Need::preferred && name == vm.name + "." + std::string(kNeedKeys[i])) return true;
  }
  return false;
}

void check_preferences(const Court& court) {
  std::set<std::string> seen;
  for (const std::string& name : court.plan.preferences) {
    const auto& vms = court.world.request.vms;
    const bool known = std::any_of(vms.begin(), vms.end(), [&](const auto& vm) { return is_preference(vm, name); });
    if (!known) court.object(obligation::needs, {name}, fmt::format("no VM prefers `{}`", name));
    if (!seen.insert(name).second) court.object(obligation::needs, {name}, fmt::format("`{}` is listed twice", name));
  }
}

void check_outright(const Court& court, const Scene& scene) {
  for (Outright& o : outright_refusals(court.world, scene)) {
    court.object(o.obligation, std::move(o.subjects), std::move(o.text));
  }
}

void check_seat_policy(const Court& court, const Seat& seat) {
  for (const Item* item : seat.items) {
    const Refusal refusal = refused_by_policy(court.world, *seat.scene, *item, *seat.hwpt);
    if (!refusal) continue;
    const std::string& id = court.world.id(refusal.device);
    court.object(obligation::policy, {seat.planned->id, id},
                 fmt::format("`{}` may not sit in `{}` (rule `{}`)", id, seat.planned->id, refusal.rule->name));
  }
}

void check_separate(const Court& court, const Seat& seat) {
  const Quarrel quarrel = quarrel_among(court.world, *seat.scene, seat.devices);
  if (!quarrel) return;
  const std::string& a = court.world.id(quarrel.a);
  const std::string& b = court.world.id(quarrel.b);
  court.object(obligation::policy, {seat.planned->id, a, b},
               fmt::format("policy rule `{}` keeps `{}` and `{}` apart, and both are in `{}`", quarrel.rule->name, a, b,
                           seat.planned->id));
}

// How many HWPTs the chosen devices are spread over.
std::size_t homes(const std::vector<Seat>& seats, const std::vector<std::size_t>& chosen) {
  return static_cast<std::size_t>(std::count_if(seats.begin(), seats.end(), [&](const Seat& seat) {
    return std::any_of(chosen.begin(), chosen.end(), [&](std::size_t d) { return seat.holds(d); });
  }));
}

void check_scene_rules(const Court& court, const std::vector<Seat>& seats, const Scene& scene) {
  const std::string& vm = scene.vm->name;
  for (const PolicyRule& rule : court.world.request.policy.rules) {
    if (const auto* together = std::get_if<TogetherRule>(&rule.what)) {
      if (homes(seats, selected(court.world, scene, together->which)) > 1) {
        court.object(obligation::policy, {vm, rule.name},
                     fmt::format("policy rule `{}` wants one HWPT for its devices of `{}`", rule.name, vm));
      }
    }
  }
  const auto hwpts = static_cast<std::uint64_t>(
      std::count_if(seats.begin(), seats.end(), [&](const Seat& s) { return s.scene == &scene; }));
  if (hwpts > hwpt_limit(court.world.request.policy)) {
    court.object(obligation::policy, {vm}, fmt::format("`{}` has {} HWPTs, more than the policy allows", vm, hwpts));
  }
}

void check_domain_ids(const Court& court, const std::vector<Seat>& seats) {
  std::map<std::uint64_t, std::uint64_t> drawn;
  for (const Seat& seat : seats) {
    if (!seat.hwpt) continue;
    std::set<std::uint64_t> keys;
    for (const Item* item : seat.items) {
      for (std::uint64_t key : pools_of(court.world, *item, static_cast<unsigned>((*seat.hwpt)[HwptQ::stage]))) {
        keys.insert(key);
      }
    }
    for (std::uint64_t key : keys) ++drawn[key];
  }
  const auto left = pool_capacities(court.world);
  for (const auto& [key, count] : drawn) {
    if (count > left.at(key)) {
      court.object(obligation::domain_ids, {},
                   fmt::format("the HWPTs take {} domain ids of a pool that has {} left", count, left.at(key)));
    }
  }
}

}  // namespace

void check_wishes(const Court& court, const std::vector<Seat>& seats) {
  check_preferences(court);
  for (const Scene& scene : court.world.scenes) {
    check_usable(court, scene);
    check_outright(court, scene);
    check_scene_rules(court, seats, scene);
  }
  for (const Seat& seat : seats) {
    if (seat.scene == nullptr) continue;
    check_separate(court, seat);
    if (!seat.hwpt) continue;
    check_fit(court, seat);
    check_seat_policy(court, seat);
  }
  if (court.world.request.policy.assumptions == Permission::refuse && !court.plan.assumptions.empty()) {
    court.object(obligation::policy, {court.plan.assumptions.front().fact},
                 fmt::format("the answer rests on the default of `{}`, and the policy refuses assumptions",
                             court.plan.assumptions.front().fact));
  }
  check_domain_ids(court, seats);
}

}  // namespace ioplan::check
