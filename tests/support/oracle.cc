#include "tests/support/oracle.h"

#include <algorithm>
#include <array>
#include <bit>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <stdexcept>
#include <tuple>

#include "engine/base/log2.h"
#include "engine/base/text.h"

namespace ioplan::oracle {

namespace {

using Order = std::array<Objective, 5>;
using Mask = std::uint32_t;  // a set of elements or items, by index

// Lexicographic under the order.
bool less_cost(const ObjectiveValues& a, const ObjectiveValues& b, const Order& order) {
  for (Objective o : order) {
    if (a[o] != b[o]) return a[o] < b[o];
  }
  return false;
}

ObjectiveValues sum(ObjectiveValues a, const ObjectiveValues& b) {
  for (std::size_t i = 0; i < a.by_objective.size(); ++i) a.by_objective[i] += b.by_objective[i];
  return a;
}

bool holds(Mask set, std::size_t i) { return (set >> i & 1) != 0; }

// Every partition of n elements, as block_of vectors whose blocks are numbered by their lowest element, in
// lexicographic order: the first best one met is therefore the canonical one (D8). `admissible(block)` is asked of
// growing blocks, so it must be false for every superset of a block that it refuses.
class Partitions {
 public:
  Partitions(std::size_t n, std::function<bool(Mask)> admissible,
             std::function<void(const std::vector<std::uint32_t>&, const std::vector<Mask>&)> visit)
      : n_(n), admissible_(std::move(admissible)), visit_(std::move(visit)) {}

  void run() { place(0); }

 private:
  void place(std::size_t i) {
    if (i == n_) return visit_(block_of_, blocks_);
    const std::size_t open = blocks_.size();
    for (std::size_t b = 0; b <= open; ++b) {
      if (b == open) blocks_.push_back(0);
      const Mask before = blocks_[b];
      blocks_[b] |= Mask{1} << i;
      if (admissible_(blocks_[b])) {
        block_of_.push_back(static_cast<std::uint32_t>(b));
        place(i + 1);
        block_of_.pop_back();
      }
      blocks_[b] = before;
    }
    blocks_.pop_back();
  }

  std::size_t n_;
  std::function<bool(Mask)> admissible_;
  std::function<void(const std::vector<std::uint32_t>&, const std::vector<Mask>&)> visit_;
  std::vector<std::uint32_t> block_of_;
  std::vector<Mask> blocks_;
};

std::size_t largest_clique(std::size_t n, const std::function<bool(std::size_t, std::size_t)>& adjacent) {
  std::vector<Mask> neighbours(n, 0);
  for (std::size_t a = 0; a < n; ++a) {
    for (std::size_t b = 0; b < n; ++b) {
      if (a != b && adjacent(a, b)) neighbours[a] |= Mask{1} << b;
    }
  }
  std::size_t largest = 0;
  for (Mask set = 0; set < Mask{1} << n; ++set) {
    bool clique = true;
    for (std::size_t a = 0; a < n && clique; ++a) {
      clique = !holds(set, a) || (set & ~neighbours[a]) == Mask{1} << a;
    }
    if (clique) largest = std::max(largest, static_cast<std::size_t>(std::popcount(set)));
  }
  return largest;
}

// ---------------------------------------------------------------------------------------------- the abstract cover

Mask mask_of(const ElementSet& set) {
  Mask mask = 0;
  for (std::size_t i = 0; i < set.size(); ++i) {
    if (set.test(i)) mask |= Mask{1} << i;
  }
  return mask;
}

ObjectiveValues cost_of(const CoverInstance& instance, Mask block, const CoverCandidate& candidate) {
  ObjectiveValues cost;
  cost[Objective::hwpts] = 1;
  for (std::size_t i = 0; i < instance.elements; ++i) {
    if (holds(block, i) && !candidate.enforces) cost[Objective::coherency] += instance.enforceable[i];
  }
  cost[Objective::page_tables] = candidate.page_table_bytes;
  cost[Objective::unneeded_flags] = candidate.unneeded_flags;
  return cost;
}

bool holds_apart_pair(const CoverInstance& instance, Mask block) {
  return std::ranges::any_of(instance.apart,
                             [&](const auto& pair) { return holds(block, pair.first) && holds(block, pair.second); });
}

// The least cost of each block, by stage of the candidate (pools ask for the stage); nothing where none accepts.
using BlockCosts = std::vector<std::map<unsigned, ObjectiveValues>>;

BlockCosts block_costs(const CoverInstance& instance) {
  BlockCosts costs(std::size_t{1} << instance.elements);
  for (Mask block = 1; block < costs.size(); ++block) {
    if (holds_apart_pair(instance, block)) continue;
    for (const CoverCandidate& c : instance.candidates) {
      if ((block & ~mask_of(c.accepts)) != 0) continue;
      const ObjectiveValues cost = cost_of(instance, block, c);
      const auto [at, is_new] = costs[block].emplace(c.stage, cost);
      if (!is_new && less_cost(cost, at->second, instance.order)) at->second = cost;
    }
  }
  return costs;
}

bool within_pools(const CoverInstance& instance, const std::vector<Mask>& blocks, const std::vector<unsigned>& stages) {
  return std::ranges::all_of(instance.pools, [&](const CoverPool& pool) {
    std::uint64_t drawn = 0;
    for (std::size_t b = 0; b < blocks.size(); ++b) {
      if (stages[b] == pool.stage && (blocks[b] & mask_of(pool.elements)) != 0) ++drawn;
    }
    return drawn <= pool.capacity;
  });
}

// The least cost of a partition over every choice of stages that the pools allow.
std::optional<ObjectiveValues> partition_cost(const CoverInstance& instance, const BlockCosts& costs,
                                              const std::vector<Mask>& blocks, std::vector<unsigned>& stages) {
  if (stages.size() == blocks.size()) {
    if (!within_pools(instance, blocks, stages)) return std::nullopt;
    ObjectiveValues total;
    for (std::size_t b = 0; b < blocks.size(); ++b) total = sum(total, costs[blocks[b]].at(stages[b]));
    return total;
  }
  std::optional<ObjectiveValues> best;
  for (const auto& [stage, cost] : costs[blocks[stages.size()]]) {
    stages.push_back(stage);
    const auto total = partition_cost(instance, costs, blocks, stages);
    stages.pop_back();
    if (total && (!best || less_cost(*total, *best, instance.order))) best = total;
  }
  return best;
}

}  // namespace

bool exclusive(const CoverInstance& instance, std::size_t a, std::size_t b) {
  const Mask pair = Mask{1} << a | Mask{1} << b;
  return holds_apart_pair(instance, pair) || std::ranges::none_of(instance.candidates, [&](const CoverCandidate& c) {
           return (pair & ~mask_of(c.accepts)) == 0;
         });
}

CoverAnswer brute_force_cover(const CoverInstance& instance) {
  const BlockCosts costs = block_costs(instance);
  CoverAnswer answer;
  answer.clique = largest_clique(instance.elements, [&](auto a, auto b) { return exclusive(instance, a, b); });
  const auto visit = [&](const std::vector<std::uint32_t>& block_of, const std::vector<Mask>& blocks) {
    if (instance.max_blocks && blocks.size() > *instance.max_blocks) return;
    std::vector<unsigned> stages;
    const auto cost = partition_cost(instance, costs, blocks, stages);
    if (!cost) return;
    answer.fewest_blocks = answer.feasible ? std::min(answer.fewest_blocks, blocks.size()) : blocks.size();
    if (answer.feasible && !less_cost(*cost, answer.values, instance.order)) return;
    answer.feasible = true;
    answer.values = *cost;
    answer.block_of = block_of;
  };
  Partitions(instance.elements, [&](Mask block) { return !costs[block].empty(); }, visit).run();
  return answer;
}

}  // namespace ioplan::oracle
