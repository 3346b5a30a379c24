#include "engine/solve/cover.h"

#include <algorithm>
#include <numeric>

#include "engine/solve/cover_parts.h"

namespace ioplan {

ObjectiveValues block_cost(const CoverInstance& instance, const ElementSet& block, const CoverCandidate& candidate) {
  ObjectiveValues cost;
  cost[Objective::hwpts] = 1;
  cost[Objective::page_tables] = candidate.page_table_bytes;
  cost[Objective::unneeded_flags] = candidate.unneeded_flags;
  if (!candidate.enforces) {
    for (auto e = block.find_first(); e != ElementSet::npos; e = block.find_next(e)) {
      cost[Objective::coherency] += instance.enforceable[e];
    }
  }
  return cost;
}

bool better(const ObjectiveValues& a, const ObjectiveValues& b, const std::array<Objective, 5>& order) {
  for (Objective o : order) {
    if (a[o] != b[o]) return a[o] < b[o];
  }
  return false;
}

namespace cover {

bool count_comes_first(const std::array<Objective, 5>& order) {
  return order[0] == Objective::hwpts || (order[0] == Objective::ioas && order[1] == Objective::hwpts);
}

void number_by_lowest_element(std::vector<std::uint32_t>& block_of) {
  std::vector<std::uint32_t> name;
  std::uint32_t next = 0;
  for (std::uint32_t& b : block_of) {
    if (b >= name.size()) name.resize(b + std::size_t{1}, ~0U);
    if (name[b] == ~0U) name[b] = next++;
    b = name[b];
  }
}

Choice choose_candidates(const CoverInstance& instance, const std::vector<std::uint32_t>& block_of) {
  const std::size_t blocks = block_of.empty() ? 0 : *std::ranges::max_element(block_of) + std::size_t{1};
  std::vector<ElementSet> members(blocks, ElementSet(instance.elements));
  for (std::size_t e = 0; e < block_of.size(); ++e) members[block_of[e]].set(e);
  Choice choice;
  choice.candidate_of.assign(blocks, 0);
  for (std::size_t b = 0; b < blocks; ++b) {
    if (members[b].none()) continue;
    std::optional<ObjectiveValues> best;
    for (std::uint32_t c = 0; c < instance.candidates.size(); ++c) {
      if (!members[b].is_subset_of(instance.candidates[c].accepts)) continue;
      const ObjectiveValues cost = block_cost(instance, members[b], instance.candidates[c]);
      if (best && !better(cost, *best, instance.order)) continue;
      best = cost;
      choice.candidate_of[b] = c;
    }
    choice.values = choice.values + best.value();
  }
  return choice;
}

namespace {

CoverInstance keep_only(const CoverInstance& instance, const std::vector<std::uint32_t>& candidates) {
  CoverInstance reduced = instance;
  reduced.candidates.clear();
  for (std::uint32_t c : candidates) reduced.candidates.push_back(instance.candidates[c]);
  return reduced;
}

CoverInstance part_of(const CoverInstance& whole, const std::vector<std::uint32_t>& members) {
  CoverInstance part;
  part.elements = members.size();
  part.order = whole.order;
  std::vector<std::uint32_t> rank(whole.elements, ~0U);
  for (std::uint32_t i = 0; i < members.size(); ++i) {
    rank[members[i]] = i;
    part.enforceable.push_back(whole.enforceable[members[i]]);
  }
  for (const CoverCandidate& c : whole.candidates) {
    CoverCandidate mine = c;
    mine.accepts = ElementSet(members.size());
    for (auto e = c.accepts.find_first(); e != ElementSet::npos; e = c.accepts.find_next(e)) {
      if (rank[e] != ~0U) mine.accepts.set(rank[e]);
    }
    if (mine.accepts.any()) part.candidates.push_back(std::move(mine));
  }
  for (const auto& [a, b] : whole.apart) {
    if (rank[a] != ~0U && rank[b] != ~0U) part.apart.emplace_back(rank[a], rank[b]);
  }
  return part;
}

struct SolvedPart {
  PartSolution solution;
  std::uint64_t lower_bound = 0;
  std::vector<std::uint32_t> clique;
};

bool count_first(const CoverInstance& instance) { return count_comes_first(instance.order); }

SolvedPart solve_part(const CoverInstance& part, const CoverBudget& budget) {
  SolvedPart solved;
  const std::vector<ElementSet> exclusive = exclusion_graph(part);
  if (part.apart.empty() && part.pools.empty() && !part.max_blocks) {
    if (auto found = search_set_cover(part, budget)) {
      solved.solution = std::move(*found);
      solved.clique = large_clique(exclusive, 20'000, solved.solution.values[Objective::hwpts]);
      solved.lower_bound = count_first(part) ? solved.solution.values[Objective::hwpts] : solved.clique.size();
      return solved;
    }
  }
  Bounds bounds = bounds_of(part, exclusive);
  solved.clique = bounds.clique;
  SlotSolution slots = solve_slots(part, budget, exclusive, std::move(bounds));
  solved.solution = std::move(slots.part);
  solved.lower_bound = slots.lower_bound;
  return solved;
}

bool every_element_has_a_candidate(const CoverInstance& instance) {
  ElementSet accepted(instance.elements);
  for (const CoverCandidate& c : instance.candidates) accepted |= c.accepts;
  return accepted.count() == instance.elements;
}

}  // namespace

}  // namespace cover

CoverSolution solve_cover(const CoverInstance& instance, const CoverBudget& budget) {
  CoverSolution result;
  if (!cover::every_element_has_a_candidate(instance)) return result;
  if (instance.elements == 0) {  // nothing to cover, whatever the limit
    result.status = CoverStatus::solved;
    result.proved.fill(true);
    result.proof = ProofKind::witness;
    return result;
  }
  const std::vector<std::uint32_t> kept = cover::undominated(instance.candidates);
  const CoverInstance reduced = cover::keep_only(instance, kept);

  // Pools, and a limit when the count is not what comes first, tie components together.
  const bool whole = !instance.pools.empty() || (instance.max_blocks && !cover::count_first(instance));
  std::vector<std::vector<std::uint32_t>> parts;
  if (whole) {
    parts.emplace_back(instance.elements);
    std::iota(parts[0].begin(), parts[0].end(), 0U);
  } else {
    parts = cover::components(cover::exclusion_graph(reduced));
  }

  result.status = CoverStatus::solved;
  result.block_of.assign(instance.elements, 0);
  result.proved.fill(true);
  std::uint32_t blocks = 0;
  for (const auto& members : parts) {
    CoverInstance part = cover::part_of(reduced, members);
    if (!whole) {
      part = cover::keep_only(part, cover::undominated(part.candidates));
    } else {
      part.pools = instance.pools;
      part.max_blocks = instance.max_blocks;
    }
    const cover::SolvedPart solved = cover::solve_part(part, budget);
    result.lower_bound += solved.lower_bound;
    for (std::uint32_t e : solved.clique) result.witness.push_back(members[e]);
    if (solved.solution.status != CoverStatus::solved) {
      result.status = solved.solution.status;
      return result;
    }
    if (!instance.pools.empty()) {  // one part, whose blocks are numbered already; pools choose among candidates too
      for (std::uint32_t c : solved.solution.candidate_of) result.candidate_of.push_back(kept[c]);
      result.values = solved.solution.values;
    }
    std::uint32_t used = 0;
    for (std::size_t i = 0; i < members.size(); ++i) {
      result.block_of[members[i]] = blocks + solved.solution.block_of[i];
      used = std::max(used, solved.solution.block_of[i] + 1);
    }
    blocks += used;
    for (std::size_t o = 0; o < result.proved.size(); ++o) {
      result.proved[o] = result.proved[o] && (solved.solution.proved[o] || o == static_cast<std::size_t>(Objective::ioas));
    }
  }
  if (instance.max_blocks && blocks > *instance.max_blocks) {
    result.status = result.lower_bound > *instance.max_blocks ? CoverStatus::infeasible : CoverStatus::unproved_infeasible;
    return result;
  }
  cover::number_by_lowest_element(result.block_of);
  if (instance.pools.empty()) {
    cover::Choice choice = cover::choose_candidates(instance, result.block_of);
    result.candidate_of = std::move(choice.candidate_of);
    result.values = choice.values;
  }
  std::ranges::sort(result.witness);
  if (result.lower_bound < result.values[Objective::hwpts] && !cover::count_first(instance)) {
    // The count did not come first: bound it on its own.
    CoverInstance count_only = instance;
    count_only.order = CoverInstance{}.order;
    count_only.pools.clear();
    count_only.max_blocks.reset();
    result.lower_bound = std::max(result.lower_bound, solve_cover(count_only, budget).lower_bound);
  }
  result.proof = result.witness.size() == result.lower_bound ? ProofKind::witness : ProofKind::smt;
  if (cover::count_first(instance) && result.lower_bound < result.values[Objective::hwpts]) result.proof = ProofKind::none;
  return result;
}

}  // namespace ioplan
