// The heart: put elements into as few blocks as possible, every block under a candidate that accepts all of it.
//
// An element is a signature: groups that nothing can tell apart. A candidate is a HWPT that could be allocated. Some
// pairs of elements must stay apart. Without such pairs this is weighted set cover; with them, set cover with graph
// colouring. Objectives are lexicographic, never weighted (product contract), and ties end in one canonical partition:
// elements in order, each in the lowest block that it may join.
//
// This file knows nothing of IOMMUs, so that brute force (tests/support), baselines (bench) and the planner meet here.
//
// How it is solved: equal and dominated candidates fall away (dominance.cc), components split (components.cc), greedy
// covers and local search bound from above and cliques of mutually exclusive elements from below (bounds.cc,
// rearrange.cc). Components without apart-pairs go to a branch-and-bound over candidates (set_cover.cc); the rest, and
// what exhausts that, to slots.cc, which asks CaDiCaL (slot_model.h) only what bounds and local search leave open.
// Budgets are counted in nodes and conflicts, never in seconds, so the answer is reproducible.
#pragma once

#include <array>
#include <boost/dynamic_bitset.hpp>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "engine/model/plan.h"
#include "engine/model/policy.h"

namespace ioplan {

using ElementSet = boost::dynamic_bitset<std::uint64_t>;

struct CoverCandidate {
  ElementSet accepts;
  std::uint64_t page_table_bytes = 0;  // paid once a block
  std::uint64_t unneeded_flags = 0;    // paid once a block
  bool enforces = true;                // a block under it costs nothing in coherency
  unsigned stage = 1;                  // for pools
};

// At most `capacity` blocks under candidates of the given stage (0: any) may hold an element of the pool.
struct CoverPool {
  ElementSet elements;
  unsigned stage = 0;
  std::uint64_t capacity = 0;
};

struct CoverInstance {
  std::size_t elements = 0;
  std::vector<std::uint64_t> enforceable;  // by element: what it costs in coherency under a candidate that does not enforce
  std::vector<CoverCandidate> candidates;
  std::vector<std::pair<std::uint32_t, std::uint32_t>> apart;
  std::vector<CoverPool> pools;
  std::optional<std::uint64_t> max_blocks;
  std::array<Objective, 5> order = {Objective::ioas, Objective::hwpts, Objective::coherency, Objective::page_tables,
                                    Objective::unneeded_flags};
};

// How much work may be spent before an answer is given without proof.
struct CoverBudget {
  std::uint64_t nodes = 2'000'000;    // of our own searches, each
  std::uint64_t conflicts = 400'000;  // of CaDiCaL, each call
};

enum class CoverStatus : std::uint8_t { solved, infeasible, unproved_infeasible };

struct CoverSolution {
  CoverStatus status = CoverStatus::infeasible;
  std::vector<std::uint32_t> block_of;      // by element; blocks are numbered by their lowest element
  std::vector<std::uint32_t> candidate_of;  // by block: one candidate of least cost
  ObjectiveValues values;                   // hwpts, coherency, page_tables, unneeded_flags
  std::array<bool, 5> proved{};             // by Objective
  std::uint64_t lower_bound = 0;            // on blocks, proved
  ProofKind proof = ProofKind::none;        // of lower_bound
  std::vector<std::uint32_t> witness;       // pairwise exclusive elements; as many as lower_bound when proof is witness
};

CoverSolution solve_cover(const CoverInstance& instance, const CoverBudget& budget = {});

// Cost of a block as the objectives count it, for the candidate given.
ObjectiveValues block_cost(const CoverInstance& instance, const ElementSet& block, const CoverCandidate& candidate);

// Lexicographic comparison under the instance's order of objectives.
bool better(const ObjectiveValues& a, const ObjectiveValues& b, const std::array<Objective, 5>& order);

inline ObjectiveValues operator+(ObjectiveValues a, const ObjectiveValues& b) {
  for (std::size_t i = 0; i < a.by_objective.size(); ++i) a.by_objective[i] += b.by_objective[i];
  return a;
}

}  // namespace ioplan
