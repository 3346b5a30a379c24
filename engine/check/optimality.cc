// optimality: are fewer HWPTs really impossible, and are the objectives that are called proved really least.
//
// A witness is a set of groups no two of which may share: accept sets are derived anew from the registers, over every
// assigned device and all eight flag sets, under the required needs alone, because an adopted preference is no reason
// why fewer would be impossible. Where a proof is not a witness, the judge searches for itself.

#include <algorithm>
#include <set>

#include "engine/check/court.h"
#include "engine/check/search.h"

namespace ioplan::check {

namespace {

using obligation::optimality;

bool claims(const Court& court, Objective objective) {
  return court.plan.optimality.proved[static_cast<std::size_t>(objective)];
}

// Where a witness stands.
struct Stand {
  const Scene* scene = nullptr;
  const Clump* clump = nullptr;
};

// Clumps of every scene, made once.
class Grounds {
 public:
  explicit Grounds(const World& world) : world_(world) {
    for (const Scene& scene : world.scenes) clumps_.push_back(clumps_of(world, scene, choices_of(world, scene)));
  }

  // The clump whose group has this device as its lowest assigned one.
  Stand stand_of(const std::string& id) const {
    for (std::size_t s = 0; s < clumps_.size(); ++s) {
      const Scene& scene = world_.scenes[s];
      for (const Clump& clump : clumps_[s]) {
        for (std::size_t item : clump.items) {
          if (world_.id(scene.items[item].assigned.front()) == id) return {&scene, &clump};
        }
      }
    }
    return {};
  }

 private:
  const World& world_;
  std::vector<std::vector<Clump>> clumps_;
};

bool may_share(const Stand& a, const Stand& b) {
  if (a.scene != b.scene) return false;
  if (a.clump == b.clump) return true;
  return a.clump->accepted.intersects(b.clump->accepted) && !a.clump->foe_of(*b.clump);
}

void check_witness(const Court& court) {
  const Optimality& o = court.plan.optimality;
  const Grounds grounds(court.unspoilt);
  std::vector<Stand> stands;
  for (const std::string& id : o.witness) {
    const Stand stand = grounds.stand_of(id);
    if (stand.clump == nullptr) {
      court.object(optimality, {id}, fmt::format("the witness `{}` is not the lowest assigned device of a group", id));
      return;
    }
    for (std::size_t i = 0; i < stands.size(); ++i) {
      if (!may_share(stands[i], stand)) continue;
      court.object(optimality, {o.witness[i], id},
                   fmt::format("the witnesses `{}` and `{}` may share a HWPT", o.witness[i], id));
      return;
    }
    stands.push_back(stand);
  }
}

// Is the number of HWPTs the first thing that plans of this policy can differ in?
bool hwpts_first(const ObjectiveOrder& order) {
  const auto* first = std::find_if(order.begin(), order.end(), [](Objective o) { return o != Objective::ioas; });
  return *first == Objective::hwpts;
}

// What the judge can say about the least number of HWPTs, given that what comes before it is as good as in the plan.
struct Bound {
  bool complete = false;
  std::uint64_t hwpts = 0;
};

Bound own_bound(const Court& court) {
  const ObjectiveOrder& order = court.unspoilt.request.policy.objectives;
  if (hwpts_first(order)) {
    const SearchResult fewest = fewest_hwpts(court.unspoilt, court.options.search_work);
    return {fewest.complete && fewest.best, fewest.best ? (*fewest.best)[Objective::hwpts] : 0};
  }
  const SearchResult least = least_objectives(court.unspoilt, order, court.options.search_work);
  if (!least.complete || !least.best) return {};
  for (Objective o : order) {
    if (o == Objective::hwpts) break;
    if ((*least.best)[o] != court.plan.objectives[o]) return {};
  }
  return {true, (*least.best)[Objective::hwpts]};
}

void check_searched_bound(const Court& court) {
  const Optimality& o = court.plan.optimality;
  if (o.lower_bound == 0) return;
  const Bound own = own_bound(court);
  if (own.complete && o.lower_bound > own.hwpts) {
    court.object(optimality, {}, fmt::format("`lower_bound` is {}, and {} HWPTs are enough", o.lower_bound, own.hwpts));
  } else if (!own.complete) {
    court.doubt(fmt::format("that {} HWPTs are needed could not be proved again within the budget", o.lower_bound));
  }
}

void check_form(const Court& court) {
  const Optimality& o = court.plan.optimality;
  if (o.hwpts != court.plan.hwpts.size()) {
    court.object(optimality, {}, fmt::format("`hwpts` is stated as {}, and is {}", o.hwpts, court.plan.hwpts.size()));
  }
  if (o.lower_bound > o.hwpts) {
    court.object(optimality, {}, fmt::format("`lower_bound` {} exceeds the {} HWPTs", o.lower_bound, o.hwpts));
  }
  if (o.proof == ProofKind::witness && o.witness.size() != o.lower_bound) {
    court.object(optimality, {},
                 fmt::format("{} witnesses do not prove a bound of {}", o.witness.size(), o.lower_bound));
  }
  if ((o.proof == ProofKind::smt) == o.smt2.empty()) {
    court.object(optimality, {}, "`smt2` and `proof` do not go together");
  }
  if (claims(court, Objective::hwpts) && hwpts_first(court.world.request.policy.objectives) &&
      (o.lower_bound != o.hwpts || o.proof == ProofKind::none)) {
    court.object(optimality, {}, "`hwpts` is called proved without a proof");
  }
}

// The first objective, in the policy's order and up to `last`, in which the judge found a better plan.
void check_against(const Court& court, const World& world, Objective last) {
  const ObjectiveOrder& order = world.request.policy.objectives;
  const SearchResult least = least_objectives(world, order, court.options.search_work);
  if (!least.best) return;
  for (Objective o : order) {
    const std::uint64_t stated = court.plan.objectives[o];
    const std::uint64_t found = (*least.best)[o];
    if (found < stated && claims(court, o)) {
      court.object(optimality, {},
                   fmt::format("`{}` is called proved at {}, and {} is possible",
                               kObjectiveNames[static_cast<std::size_t>(o)], stated, found));
    }
    if (found != stated || o == last) return;
  }
}

void check_proved(const Court& court) {
  const auto& proved = court.plan.optimality.proved;
  if (std::none_of(proved.begin(), proved.end(), [](bool p) { return p; })) return;
  const ObjectiveOrder& order = court.world.request.policy.objectives;
  check_against(court, court.world, order.back());
  const bool promised = !court.plan.promises.empty();  // what they cost is no part of the question without preferences
  if (!court.plan.preferences.empty() && !promised) check_against(court, court.unspoilt, Objective::hwpts);
}

}  // namespace

void check_optimality(const Court& court) {
  check_form(court);
  if (court.plan.optimality.proof == ProofKind::witness) {
    check_witness(court);
  } else {
    check_searched_bound(court);
  }
  check_proved(court);
}

void check_no_placement(const Court& court) {
  const SearchResult found = any_placement(court.world, court.options.search_work);
  if (found.best) {
    court.object(obligation::infeasible, {}, "a placement exists that breaks no rule");
  } else if (!found.complete) {
    court.doubt("that no placement exists could not be proved again within the budget");
  }
}

}  // namespace ioplan::check
