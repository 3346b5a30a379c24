// The parts of solve_cover, shared among its files and with nobody else.
#pragma once

#include "engine/solve/cover.h"

namespace ioplan::cover {

// Row e holds the elements that can never share a block with e: no candidate accepts both, or they must stay apart.
std::vector<ElementSet> exclusion_graph(const CoverInstance& instance);

// A large set of pairwise exclusive elements, ascending: greedily, then by a search of so many nodes; it ends at `enough`
// members.
std::vector<std::uint32_t> large_clique(const std::vector<ElementSet>& exclusive, std::uint64_t nodes,
                                        std::size_t enough);

// A partition with few blocks (candidate choices still open), and a large set of pairwise exclusive elements. Where they
// are as large as each other, both are optimal. Requires: a candidate for every element.
struct Bounds {
  std::vector<std::uint32_t> block_of;
  std::vector<std::uint32_t> clique;
};
Bounds bounds_of(const CoverInstance& instance, const std::vector<ElementSet>& exclusive);

// Indices of candidates worth keeping: no other accepts at least as much at no more cost.
std::vector<std::uint32_t> undominated(const std::vector<CoverCandidate>& candidates);

// Elements that a chain of pairs that may share connects; ascending inside, components by lowest element.
std::vector<std::vector<std::uint32_t>> components(const std::vector<ElementSet>& exclusive);

// One component's answer under at most `max_blocks` blocks.
struct PartSolution {
  CoverStatus status = CoverStatus::infeasible;
  std::vector<std::uint32_t> block_of;
  ObjectiveValues values;
  std::array<bool, 5> proved{};
  std::vector<std::uint32_t> candidate_of;  // by block, within the pools; only filled when there are pools
};

// Exact when it answers; nothing when the budget ran out. Requires: no apart-pairs and no pools.
std::optional<PartSolution> search_set_cover(const CoverInstance& instance, const CoverBudget& budget);

// With apart-pairs and pools. `exclusive`: the exclusion graph.
struct SlotSolution {
  PartSolution part;
  std::uint64_t lower_bound = 0;  // on blocks, at least as large as the clique
};
SlotSolution solve_slots(const CoverInstance& instance, const CoverBudget& budget,
                         const std::vector<ElementSet>& exclusive, Bounds bounds);

// Tries to move `element` into `block` without a new block and without moving the elements before it, by moving others
// out of the way, each at most once. Nothing: not found, which proves nothing.
std::optional<std::vector<std::uint32_t>> rearranged(const CoverInstance& instance,
                                                     const std::vector<ElementSet>& exclusive,
                                                     const std::vector<std::uint32_t>& block_of, std::uint32_t element,
                                                     std::uint32_t block);

// Tries to dissolve some block in the same way.
std::optional<std::vector<std::uint32_t>> one_block_fewer(const CoverInstance& instance,
                                                          const std::vector<ElementSet>& exclusive,
                                                          const std::vector<std::uint32_t>& block_of);

// Is the number of blocks the first objective that can differ? (Every cover has the same IOAS.)
bool count_comes_first(const std::array<Objective, 5>& order);

std::size_t blocks_in(const std::vector<std::uint32_t>& block_of);

// Renumbers blocks by their lowest element.
void number_by_lowest_element(std::vector<std::uint32_t>& block_of);

// For every block the cheapest candidate and the sum of costs.
struct Choice {
  std::vector<std::uint32_t> candidate_of;
  ObjectiveValues values;
};
Choice choose_candidates(const CoverInstance& instance, const std::vector<std::uint32_t>& block_of);

}  // namespace ioplan::cover
