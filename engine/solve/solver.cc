#include "engine/solve/solver.h"

#include <algorithm>
#include <bit>
#include <map>
#include <set>
#include <span>
#include <tuple>

#include "engine/solve/container.h"

namespace ioplan {

namespace {

// What tells two items apart in the cover.
using Signature = std::tuple<std::vector<std::uint32_t>, std::vector<std::uint32_t>, std::vector<Side>>;

Signature signature_of(const Item& item) { return {item.assigned_classes, item.member_classes, item.sides}; }

}  // namespace

bool apart(const Item& a, const Item& b) {
  for (std::size_t r = 0; r < a.sides.size(); ++r) {
    if (kept_apart(a.sides[r], b.sides[r])) return true;
  }
  return false;
}

VmModel model_vm(const Request& request, VmIndex vm, const Needs& needs, const RuleBook& rules, const Law& law) {
  VmModel model;
  model.problem = make_problem(request, vm, needs, law);
  model.offers = make_offers(model.problem, rules, law);
  model.unusable = unusable_groups(model.problem, rules);
  make_cover(model, request.policy, Merge::yes);
  return model;
}

void make_cover(VmModel& model, const Policy& policy, Merge merge) {
  const std::vector<Item>& items = model.problem.items;
  model.element_items.clear();
  std::map<Signature, std::uint32_t> element_of;
  for (std::uint32_t i = 0; i < items.size(); ++i) {
    // Items that may not even meet their own kind stay elements of their own.
    if (merge == Merge::no || apart(items[i], items[i])) {
      model.element_items.push_back({i});
      continue;
    }
    const auto [it, fresh] =
        element_of.try_emplace(signature_of(items[i]), static_cast<std::uint32_t>(model.element_items.size()));
    if (fresh) model.element_items.emplace_back();
    model.element_items[it->second].push_back(i);
  }

  CoverInstance& cover = model.cover;
  cover = {};
  cover.elements = model.element_items.size();
  cover.order = policy.objectives;
  if (model.problem.max_hwpts != ~std::uint64_t{0}) cover.max_blocks = model.problem.max_hwpts;
  for (const auto& members : model.element_items) {
    std::uint64_t weight = 0;
    for (std::uint32_t i : members) weight += items[i].enforceable;
    cover.enforceable.push_back(weight);
  }
  for (const Offer& offer : model.offers) {
    CoverCandidate candidate{ElementSet(cover.elements), offer.page_table_bytes, offer.unneeded_flags,
                             offer.hwpt[HwptQ::enforce_cache_coherency] != 0,
                             static_cast<unsigned>(offer.hwpt[HwptQ::stage])};
    for (std::size_t e = 0; e < cover.elements; ++e) {
      const Item& item = items[model.element_items[e][0]];
      candidate.accepts[e] = offer.accepts(item) && std::ranges::none_of(item.sides, torn_apart);
    }
    cover.candidates.push_back(std::move(candidate));
  }
  if (model.problem.separate_rules.empty()) return;
  for (std::uint32_t a = 0; a < cover.elements; ++a) {
    for (std::uint32_t b = a + 1; b < cover.elements; ++b) {
      if (apart(items[model.element_items[a][0]], items[model.element_items[b][0]])) cover.apart.emplace_back(a, b);
    }
  }
}

CoverInstance merge_covers(const std::vector<VmModel>& models, const Policy& policy) {
  CoverInstance merged;
  merged.order = policy.objectives;
  for (const VmModel& m : models) merged.elements += m.cover.elements;
  std::size_t offset = 0;
  for (const VmModel& m : models) {
    merged.enforceable.insert(merged.enforceable.end(), m.cover.enforceable.begin(), m.cover.enforceable.end());
    for (CoverCandidate candidate : m.cover.candidates) {
      candidate.accepts.resize(merged.elements);
      candidate.accepts <<= offset;
      merged.candidates.push_back(std::move(candidate));
    }
    for (const auto& [a, b] : m.cover.apart) {
      merged.apart.emplace_back(static_cast<std::uint32_t>(offset + a), static_cast<std::uint32_t>(offset + b));
    }
    offset += m.cover.elements;
  }
  return merged;
}

// Attached allocators first, the lowest device, the fewest flags, the lowest flag bits.
SolvedHwpt best_template(const VmModel& model, std::vector<std::uint32_t> items,
                         const std::array<Objective, 5>& order, unsigned stage) {
  const Problem& problem = model.problem;
  std::vector<DeviceIndex> attached;
  std::uint64_t enforceable = 0;
  for (std::uint32_t i : items) {
    attached.insert(attached.end(), problem.items[i].assigned.begin(), problem.items[i].assigned.end());
    enforceable += problem.items[i].enforceable;
  }
  std::ranges::sort(attached);

  std::vector<std::uint32_t> cheapest;
  std::optional<ObjectiveValues> least;
  for (std::uint32_t o = 0; o < model.offers.size(); ++o) {
    const Offer& offer = model.offers[o];
    if (stage != 0 && offer.hwpt[HwptQ::stage] != stage) continue;
    if (!std::ranges::all_of(items, [&](auto i) { return offer.accepts(problem.items[i]); })) continue;
    ObjectiveValues cost;
    cost[Objective::coherency] = offer.hwpt[HwptQ::enforce_cache_coherency] != 0 ? 0 : enforceable;
    cost[Objective::page_tables] = offer.page_table_bytes;
    cost[Objective::unneeded_flags] = offer.unneeded_flags;
    if (least && better(*least, cost, order)) continue;
    if (!least || better(cost, *least, order)) cheapest.clear();
    least = cost;
    cheapest.push_back(o);
  }

  std::optional<TemplateRank> best;
  SolvedHwpt chosen{std::move(items), 0, {}, {}};
  for (std::uint32_t o : cheapest) {
    const std::uint64_t flags = model.offers[o].hwpt[HwptQ::flags];
    for (std::uint32_t cls : model.offers[o].allocator_classes) {
      const std::vector<DeviceIndex>& devices = problem.classes[cls].assigned;
      const auto inside = std::ranges::find_if(
          devices, [&](DeviceIndex d) { return std::ranges::binary_search(attached, d); });
      const DeviceIndex device = inside == devices.end() ? devices.front() : *inside;
      const TemplateRank rank{inside == devices.end(), device, std::popcount(flags), flags};
      if (best && *best <= rank) continue;
      best = chosen.rank = rank;
      chosen.offer = o;
      chosen.allocator = device;
    }
  }
  return chosen;
}

ObjectiveValues values_of(const Solved& solved) {
  ObjectiveValues values;
  for (std::size_t v = 0; v < solved.vms.size(); ++v) {
    const VmModel& model = solved.vms[v];
    for (const SolvedHwpt& hwpt : solved.hwpts[v]) {
      const Offer& offer = model.offers[hwpt.offer];
      values[Objective::hwpts] += 1;
      values[Objective::page_tables] += offer.page_table_bytes;
      values[Objective::unneeded_flags] += offer.unneeded_flags;
      if (offer.hwpt[HwptQ::enforce_cache_coherency] != 0) continue;
      for (std::uint32_t i : hwpt.items) values[Objective::coherency] += model.problem.items[i].enforceable;
    }
  }
  return values;
}

namespace {

// Domain ids that each pool would lose to these HWPTs: one for every HWPT with a member behind one of its units.
class PoolUse {
 public:
  PoolUse(const Host& host, const Law& law) : host_(host), law_(law) {}

  void take(const std::set<UnitIndex>& units, unsigned stage) {
    std::set<std::uint64_t> keys;
    for (UnitIndex u : units) {
      if (const auto pool = law_.domain_pool(host_, u, stage)) {
        keys.insert(pool->key);
        const auto [it, fresh] = left_.try_emplace(pool->key, pool->capacity);
        if (!fresh) it->second = std::min(it->second, pool->capacity);
      }
    }
    for (std::uint64_t key : keys) ++used_[key];
  }

  bool overdrawn() const {
    return std::ranges::any_of(used_, [&](const auto& u) { return u.second > left_.at(u.first); });
  }

 private:
  const Host& host_;
  const Law& law_;
  std::map<std::uint64_t, std::uint64_t> used_, left_;
};

bool pools_overdrawn(const Request& request, const Solved& solved, const Law& law) {
  PoolUse use(request.host, law);
  for (std::size_t v = 0; v < solved.vms.size(); ++v) {
    const VmModel& model = solved.vms[v];
    for (const SolvedHwpt& hwpt : solved.hwpts[v]) {
      std::set<UnitIndex> units;
      for (std::uint32_t i : hwpt.items) units.insert(model.problem.items[i].units.begin(), model.problem.items[i].units.end());
      use.take(units, static_cast<unsigned>(model.offers[hwpt.offer].hwpt[HwptQ::stage]));
    }
  }
  return use.overdrawn();
}

// Pools and limits as constraints on the merged cover.
void add_pools(CoverInstance& joint, const Request& request, const std::vector<VmModel>& models, const Law& law) {
  std::size_t offset = 0;
  std::map<std::pair<std::uint64_t, unsigned>, CoverPool> pools;
  for (const VmModel& m : models) {
    if (m.cover.max_blocks) {
      CoverPool limit{ElementSet(joint.elements), 0, *m.cover.max_blocks};
      limit.elements.set(offset, m.cover.elements, true);
      joint.pools.push_back(std::move(limit));
    }
    for (std::size_t e = 0; e < m.cover.elements; ++e) {
      for (UnitIndex unit : m.problem.items[m.element_items[e][0]].units) {
        const auto first = law.domain_pool(request.host, unit, 1);
        const auto second = law.domain_pool(request.host, unit, 2);
        const bool one_pool = first && second && first->key == second->key;
        for (unsigned stage : {1U, 2U}) {
          const auto& pool = stage == 1 ? first : second;
          if (!pool || (one_pool && stage == 2)) continue;
          auto [it, fresh] = pools.try_emplace({pool->key, one_pool ? 0 : stage});
          if (fresh) it->second = {ElementSet(joint.elements), one_pool ? 0 : stage, pool->capacity};
          it->second.capacity = std::min(it->second.capacity, pool->capacity);
          it->second.elements.set(offset + e);
        }
      }
    }
    offset += m.cover.elements;
  }
  for (auto& [key, pool] : pools) joint.pools.push_back(std::move(pool));
}

// Adds a VM's HWPTs, given the block of each of its elements.
void take_blocks(Solved& solved, std::size_t v, std::span<const std::uint32_t> block_of, const Policy& policy) {
  const VmModel& model = solved.vms[v];
  std::map<std::uint32_t, std::vector<std::uint32_t>> blocks;
  for (std::size_t e = 0; e < block_of.size(); ++e) {
    auto& items = blocks[block_of[e]];
    items.insert(items.end(), model.element_items[e].begin(), model.element_items[e].end());
  }
  for (auto& [block, items] : blocks) {
    std::ranges::sort(items);
    solved.hwpts[v].push_back(best_template(model, std::move(items), policy.objectives, 0));
  }
  std::ranges::sort(solved.hwpts[v], {}, [](const SolvedHwpt& h) { return h.items.front(); });
}

void take_bounds(Solved& solved, const CoverSolution& cover) {
  solved.lower_bound += cover.lower_bound;
  for (std::size_t o = 0; o < solved.proved.size(); ++o) solved.proved[o] = solved.proved[o] && cover.proved[o];
  // A proof is as strong as its weakest part: witness, then smt, then none.
  solved.proof = std::max(solved.proof, cover.proof);
}

void take_witness(Solved& solved, std::size_t v, std::uint32_t element) {
  const VmModel& model = solved.vms[v];
  solved.witness.push_back(model.problem.items[model.element_items[element][0]].lowest());
}

bool refuse(Solved& solved, CoverStatus status) {
  if (status == CoverStatus::solved) return false;
  solved.verdict = status == CoverStatus::infeasible ? Verdict::infeasible : Verdict::undecided;
  solved.budget_exhausted = status == CoverStatus::unproved_infeasible;
  return true;
}

void solve_apart(const Request& request, Solved& solved, const CoverBudget& budget) {
  for (std::size_t v = 0; v < solved.vms.size(); ++v) {
    const CoverSolution cover = solve_cover(solved.vms[v].cover, budget);
    if (refuse(solved, cover.status)) return;
    take_blocks(solved, v, cover.block_of, request.policy);
    take_bounds(solved, cover);
    for (std::uint32_t e : cover.witness) take_witness(solved, v, e);
  }
}

// Pools may hang on the stage of a HWPT. Of every HWPT the best template of each stage, HWPT by HWPT in canonical order:
// the first choice that keeps within the pools at the cost that the cover reached. The cover found one, so this does.
class StageChooser {
 public:
  StageChooser(const Request& request, Solved& solved, const Law& law, const ObjectiveValues& cost)
      : request_(request), solved_(solved), law_(law), cost_(cost) {}

  bool choose(std::size_t v = 0, std::size_t h = 0) {
    if (v == solved_.vms.size()) return affordable();
    if (h == solved_.hwpts[v].size()) return choose(v + 1, 0);
    for (const SolvedHwpt& option : options(solved_.vms[v], solved_.hwpts[v][h].items)) {
      solved_.hwpts[v][h] = option;
      if (choose(v, h + 1)) return true;
    }
    return false;
  }

 private:
  std::vector<SolvedHwpt> options(const VmModel& model, const std::vector<std::uint32_t>& items) const {
    std::vector<SolvedHwpt> found;
    for (unsigned stage : {1U, 2U}) {
      const bool offered = std::ranges::any_of(model.offers, [&](const Offer& o) {
        return o.hwpt[HwptQ::stage] == stage &&
               std::ranges::all_of(items, [&](auto i) { return o.accepts(model.problem.items[i]); });
      });
      if (offered) found.push_back(best_template(model, items, request_.policy.objectives, stage));
    }
    std::ranges::sort(found, {}, [](const SolvedHwpt& h) { return h.rank; });
    return found;
  }

  bool affordable() const {
    ObjectiveValues values = values_of(solved_);
    values[Objective::ioas] = cost_[Objective::ioas];
    return values == cost_ && !pools_overdrawn(request_, solved_, law_);
  }

  const Request& request_;
  Solved& solved_;
  const Law& law_;
  const ObjectiveValues& cost_;
};

// Domain ids tie the VMs together.
void solve_joint(const Request& request, Solved& solved, const Law& law, const CoverBudget& budget) {
  for (VmModel& model : solved.vms) make_cover(model, request.policy, Merge::no);
  CoverInstance joint = merge_covers(solved.vms, request.policy);
  add_pools(joint, request, solved.vms, law);
  const CoverSolution cover = solve_cover(joint, budget);
  solved.hwpts.assign(solved.vms.size(), {});
  solved.witness.clear();
  solved.lower_bound = 0;
  solved.proof = ProofKind::witness;
  solved.proved.fill(true);
  if (refuse(solved, cover.status)) return;
  take_bounds(solved, cover);
  std::size_t offset = 0;
  for (std::size_t v = 0; v < solved.vms.size(); ++v) {
    const std::size_t elements = solved.vms[v].cover.elements;
    take_blocks(solved, v, std::span(cover.block_of).subspan(offset, elements), request.policy);
    for (std::uint32_t e : cover.witness) {
      if (e >= offset && e < offset + elements) take_witness(solved, v, static_cast<std::uint32_t>(e - offset));
    }
    offset += elements;
  }
  if (pools_overdrawn(request, solved, law)) StageChooser(request, solved, law, cover.values).choose();
  solved.pooled = std::move(joint);
}

constexpr std::uint64_t kPartitions = 30'000;  // and choices of templates looked at, of a VM whose cover no container reaches

// Openers and an order of joining for every VM's HWPTs. What is proved of the cover stays proved where it is reached.
void join_containers(const Request& request, Solved& solved, const RuleBook& rules, const Law& law) {
  solved.joining.resize(solved.vms.size());
  const auto* first = std::ranges::find_if(request.policy.objectives, [](Objective o) { return o != Objective::ioas; });
  const bool least = *first == Objective::hwpts && solved.proved[static_cast<std::size_t>(Objective::hwpts)] && !solved.pooled;
  for (std::size_t v = 0; v < solved.vms.size(); ++v) {
    const ContainerPlanner planner(request, solved.vms[v], rules, law);
    Joining joined = planner.join(solved.hwpts[v], least ? solved.hwpts[v].size() : 0, kPartitions);
    if (joined.answer == Joinable::yes) {
      solved.hwpts[v] = std::move(joined.container.hwpts);
      solved.joining[v] = std::move(joined.container.joining);
      if (!joined.as_covered) solved.proved.fill(false);
      continue;
    }
    solved.verdict = joined.answer == Joinable::no ? Verdict::infeasible : Verdict::undecided;
    solved.budget_exhausted = joined.answer == Joinable::unknown;
    if (joined.answer == Joinable::no) solved.refusal = planner.no_order(kPartitions);
    return;
  }
  if (pools_overdrawn(request, solved, law)) {
    solved.verdict = Verdict::undecided;
    solved.budget_exhausted = true;
  }
}

void refuse_containers(const Request& request, Solved& solved, const RuleBook& rules, const Law& law) {
  for (const VmModel& model : solved.vms) {
    if (solved.verdict == Verdict::infeasible) return;
    solved.refusal = ContainerPlanner(request, model, rules, law).refusal();
    if (solved.refusal) solved.verdict = Verdict::infeasible;
  }
}

}  // namespace

Solved solve(const Request& request, const std::vector<Needs>& needs, const Law& law, const CoverBudget& budget) {
  const RuleBook rules(law);
  Solved solved;
  solved.proof = ProofKind::witness;
  solved.proved.fill(true);
  for (std::size_t v = 0; v < request.vms.size(); ++v) {
    solved.vms.push_back(model_vm(request, VmIndex(v), needs[v], rules, law));
    if (!solved.vms.back().unusable.empty() || refuse_vm(request, VmIndex(v))) solved.verdict = Verdict::infeasible;
    if (!request.vms[v].devices.empty()) solved.values[Objective::ioas] += 1;
  }
  solved.hwpts.resize(request.vms.size());
  const bool in_containers = law.interface() == KernelInterface::type1;
  if (in_containers) refuse_containers(request, solved, rules, law);
  if (solved.verdict == Verdict::infeasible) return solved;
  solve_apart(request, solved, budget);
  if (solved.verdict != Verdict::feasible) return solved;
  if (pools_overdrawn(request, solved, law)) solve_joint(request, solved, law, budget);
  if (solved.verdict == Verdict::feasible && in_containers) join_containers(request, solved, rules, law);
  if (solved.verdict != Verdict::feasible) return solved;
  solved.values = solved.values + values_of(solved);
  std::ranges::sort(solved.witness);
  return solved;
}

}  // namespace ioplan
