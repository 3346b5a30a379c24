// Covers with apart-pairs and pools: the fewest blocks, then the other objectives, then the canonical partition.
//
// Bounds and local search answer what they can; CaDiCaL (slot_model.h) answers the rest, and is not even started where
// nothing is left. Everything is exact unless a budget runs out, and then `proved` says so.

#include <algorithm>

#include "engine/solve/slot_model.h"

namespace ioplan::cover {

namespace {

struct Count {
  std::vector<std::uint32_t> block_of;
  std::uint64_t lower_bound = 0;
  Answer feasible = Answer::yes;  // within max_blocks
};

// Fewest blocks, by asking for one fewer until the answer is no.
Count fewest_blocks(const CoverInstance& instance, const CoverBudget& budget, const std::vector<ElementSet>& exclusive,
                    Bounds bounds) {
  const std::vector<std::uint32_t>& clique = bounds.clique;
  const std::uint64_t lower = clique.size();
  Count count{std::move(bounds.block_of), lower, Answer::yes};
  std::uint64_t upper = blocks_in(count.block_of);
  const std::uint64_t allowed = instance.max_blocks.value_or(upper);
  if (lower > allowed) return {{}, lower, Answer::no};
  if (upper > lower) {
    std::uint64_t slots = std::min(upper - 1, allowed);
    for (SlotModel model(instance, exclusive, slots, clique, budget.conflicts);;) {
      const Answer answer = model.solve();
      if (answer == Answer::yes) {
        count.block_of = model.block_of();
        upper = blocks_in(count.block_of);
      } else if (answer == Answer::no) {
        count.lower_bound = slots + 1;
      }
      if (answer != Answer::yes || upper <= lower) break;
      for (; slots > upper - 1; --slots) model.forbid_last_slot();
    }
  }
  if (upper > allowed) return {{}, count.lower_bound, count.lower_bound > allowed ? Answer::no : Answer::unknown};
  return count;
}

// What no partition of so many blocks can undercut.
std::uint64_t least_possible(const CoverInstance& instance, Objective objective, std::uint64_t blocks) {
  const auto least = [&](auto cost) { return blocks * cost(*std::ranges::min_element(instance.candidates, {}, cost)); };
  switch (objective) {
    case Objective::ioas:
      return 0;
    case Objective::hwpts:
      return blocks;
    case Objective::page_tables:
      return least([](const CoverCandidate& c) { return c.page_table_bytes; });
    case Objective::unneeded_flags:
      return least([](const CoverCandidate& c) { return c.unneeded_flags; });
    case Objective::coherency:
      break;
  }
  ElementSet enforced(instance.elements);
  for (const CoverCandidate& c : instance.candidates) {
    if (c.enforces) enforced |= c.accepts;
  }
  std::uint64_t lost = 0;
  for (std::size_t e = 0; e < instance.elements; ++e) lost += enforced[e] ? 0 : instance.enforceable[e];
  return lost;
}

bool nothing_to_gain(const CoverInstance& instance, const std::vector<std::uint32_t>& block_of) {
  const ObjectiveValues values = choose_candidates(instance, block_of).values;
  return std::ranges::all_of(
      instance.order, [&](Objective o) { return values[o] == least_possible(instance, o, blocks_in(block_of)); });
}

// The instance in which nothing costs more than it must: its partitions are those that least_possible() allows.
CoverInstance without_costlier(CoverInstance instance) {
  const std::uint64_t bytes = least_possible(instance, Objective::page_tables, 1);
  const std::uint64_t flags = least_possible(instance, Objective::unneeded_flags, 1);
  ElementSet enforceable(instance.elements), enforced(instance.elements);
  for (std::size_t e = 0; e < instance.elements; ++e) enforceable[e] = instance.enforceable[e] != 0;
  for (const CoverCandidate& c : instance.candidates) {
    if (c.enforces) enforced |= c.accepts;
  }
  for (CoverCandidate& c : instance.candidates) {
    if (!c.enforces) c.accepts -= enforceable & enforced;
    if (c.page_table_bytes > bytes || c.unneeded_flags > flags) c.accepts.reset();
  }
  std::erase_if(instance.candidates, [](const CoverCandidate& c) { return c.accepts.none(); });
  return instance;
}

// Elements in order, each in the lowest block that leaves the objectives as they are.
class CanonicalPartition {
 public:
  CanonicalPartition(const CoverInstance& instance, const std::vector<ElementSet>& exclusive,
                     std::vector<std::uint32_t> block_of)
      : instance_(instance), exclusive_(exclusive), block_of_(std::move(block_of)) {
    values_ = choose_candidates(instance, block_of_).values;
    accepted_by_.assign(instance.elements, ElementSet(instance.candidates.size()));
    for (std::size_t c = 0; c < instance.candidates.size(); ++c) {
      for (std::size_t e = 0; e < instance.elements; ++e) accepted_by_[e][c] = instance.candidates[c].accepts[e];
    }
  }

  // `model`: gives the SlotModel with the objectives fixed; only called when it is needed.
  template <class MakeModel>
  std::vector<std::uint32_t> find(const MakeModel& make_model) && {
    for (std::uint32_t e = 0; e < instance_.elements; ++e) {
      for (std::vector<std::uint32_t> lower = lower_blocks(e); !lower.empty(); lower = lower_blocks(e)) {
        if (rearrange(e, lower.front())) break;
        if (model_ == nullptr) adopt(make_model(block_of_), e);
        std::vector<std::uint32_t> others;
        for (std::uint32_t b : lower) others.push_back(settled_[b].lowest);
        if (model_->may_join(e, others) != Answer::yes) break;
        block_of_ = model_->block_of();
      }
      settle(e);
    }
    return std::move(block_of_);
  }

 private:
  // A block as far as the elements before the current one make it.
  struct Settled {
    std::uint32_t lowest;
    ElementSet members, candidates;
  };

  // Blocks below the element's that nothing settled forbids.
  std::vector<std::uint32_t> lower_blocks(std::uint32_t e) const {
    std::vector<std::uint32_t> found;
    for (std::uint32_t b = 0; b < std::min<std::size_t>(block_of_[e], settled_.size()); ++b) {
      if (settled_[b].members.intersects(exclusive_[e])) continue;
      if (settled_[b].candidates.intersects(accepted_by_[e])) found.push_back(b);
    }
    return found;
  }

  bool rearrange(std::uint32_t e, std::uint32_t block) {
    if (!instance_.pools.empty()) return false;
    auto next = rearranged(instance_, exclusive_, block_of_, e, block);
    if (!next) return false;
    number_by_lowest_element(*next);
    if (choose_candidates(instance_, *next).values != values_) return false;
    block_of_ = std::move(*next);
    return true;
  }

  void adopt(SlotModel* model, std::uint32_t next) {
    model_ = model;
    for (std::uint32_t e = 0; e < next; ++e) tell_model(e);
  }

  // Every settled element shares the block of the block's lowest, and lowest elements are apart.
  void tell_model(std::uint32_t e) {
    const std::uint32_t lowest = settled_[block_of_[e]].lowest;
    if (lowest != e) return model_->join(e, lowest);
    for (const Settled& s : settled_) {
      if (s.lowest < e) model_->separate(e, s.lowest);
    }
  }

  void settle(std::uint32_t e) {
    if (block_of_[e] == settled_.size()) {
      settled_.push_back({e, ElementSet(instance_.elements), ElementSet(instance_.candidates.size())});
      settled_.back().candidates.set();
    }
    Settled& block = settled_[block_of_[e]];
    block.members.set(e);
    block.candidates &= accepted_by_[e];
    if (model_ != nullptr) tell_model(e);
  }

  const CoverInstance& instance_;
  const std::vector<ElementSet>& exclusive_;
  std::vector<std::uint32_t> block_of_;
  ObjectiveValues values_;
  std::vector<ElementSet> accepted_by_;
  std::vector<Settled> settled_;
  SlotModel* model_ = nullptr;
};

// All objectives by CaDiCaL, in their order. False when it has no partition.
bool minimise_all(SlotModel& model, const CoverInstance& instance, bool count_is_known, SlotSolution& solution) {
  const Answer answer = model.solve();
  if (answer != Answer::yes) {
    solution.part.status = answer == Answer::no ? CoverStatus::infeasible : CoverStatus::unproved_infeasible;
    return false;
  }
  bool proved = true;
  for (Objective objective : instance.order) {
    if (objective == Objective::hwpts && count_is_known) {
      proved = solution.lower_bound == model.choice().values[objective];
    } else if (objective != Objective::ioas) {
      proved = model.minimise(objective) && proved;
      if (objective == Objective::hwpts && proved && count_comes_first(instance.order)) {
        solution.lower_bound = std::max(solution.lower_bound, model.choice().values[objective]);
      }
    }
    solution.part.proved[static_cast<std::size_t>(objective)] = proved;
  }
  solution.part.block_of = model.block_of();
  return true;
}

}  // namespace

SlotSolution solve_slots(const CoverInstance& instance, const CoverBudget& budget,
                         const std::vector<ElementSet>& exclusive, Bounds bounds) {
  const std::vector<std::uint32_t> clique = bounds.clique;
  SlotSolution solution;
  solution.lower_bound = clique.size();
  PartSolution& part = solution.part;
  const bool count_is_known = count_comes_first(instance.order) && instance.pools.empty();
  std::size_t slots = std::min<std::uint64_t>(instance.elements, instance.max_blocks.value_or(instance.elements));
  if (count_is_known) {
    Count count = fewest_blocks(instance, budget, exclusive, std::move(bounds));
    solution.lower_bound = count.lower_bound;
    if (count.feasible != Answer::yes) {
      part.status = count.feasible == Answer::no ? CoverStatus::infeasible : CoverStatus::unproved_infeasible;
      return solution;
    }
    slots = blocks_in(count.block_of);
    part.block_of = std::move(count.block_of);
    number_by_lowest_element(part.block_of);
  }
  if (slots == 0) return solution;

  std::optional<SlotModel> model;
  if (count_is_known && nothing_to_gain(instance, part.block_of)) {
    part.proved.fill(solution.lower_bound == slots);
    part.proved[static_cast<std::size_t>(Objective::ioas)] = true;
    const CoverInstance cheapest = without_costlier(instance);
    const std::vector<ElementSet> kept_apart = exclusion_graph(cheapest);
    part.block_of = CanonicalPartition(cheapest, kept_apart, std::move(part.block_of)).find([&](const auto& start) {
      model.emplace(cheapest, kept_apart, slots, clique, budget.conflicts);
      model->hint(start);
      return &*model;
    });
  } else {
    model.emplace(instance, exclusive, slots, clique, budget.conflicts);
    model->keep_pools();
    if (count_is_known) model->hint(part.block_of);
    if (minimise_all(*model, instance, count_is_known, solution)) {
      part.block_of =
          CanonicalPartition(instance, exclusive, std::move(part.block_of)).find([&](const auto&) { return &*model; });
    } else if (!count_is_known) {
      return solution;
    }  // else a partition is known, and only the budget can have failed
  }
  part.status = CoverStatus::solved;
  if (instance.pools.empty()) {
    part.values = choose_candidates(instance, part.block_of).values;
  } else {
    part.values = model->choice().values;
    part.candidate_of = model->choice().candidate_of;
  }
  return solution;
}

}  // namespace ioplan::cover
