// Cover with apart-pairs and pools, by SAT: K slots, each a possible block.
//
//   x[e][h]  element e is in slot h            y[h][c]  slot h may be under candidate c
//   p[e][h]  some element up to e is in slot h
//
// A true y admits only what its candidate accepts, and every slot has some true y; costs hang on y, so minimising leaves
// one. Slots are ordered by their lowest element (x[e][h] needs p[e-1][h-1]), which breaks their symmetry and makes the
// canonical partition the lexicographically smallest x. The pure count is sought with a model of its own, where a clique
// of mutually exclusive elements is fixed into the first slots: that is what proves "one fewer is impossible" quickly.
//
// CaDiCaL is deterministic and is budgeted in conflicts.

#include <algorithm>
#include <cadical.hpp>
#include <map>

#include "engine/solve/cover_parts.h"

namespace ioplan::cover {

namespace {

using Literal = int;

enum class Answer : std::uint8_t { yes, no, unknown };

// A sum of weighted literals as outputs: output s is implied when the weights of true inputs reach s. Sums above `cap`
// share one output. (Generalised totalizer, Joshi et al. 2015.)
class WeightedSum {
 public:
  using Outputs = std::map<std::uint64_t, Literal>;

  static Outputs build(CaDiCaL::Solver& solver, int& next, std::vector<std::pair<Literal, std::uint64_t>> inputs,
                       std::uint64_t cap) {
    std::vector<Outputs> parts;
    for (const auto& [literal, weight] : inputs) {
      if (weight != 0) parts.push_back({{std::min(weight, cap + 1), literal}});
    }
    if (parts.empty()) return {};
    while (parts.size() > 1) {
      std::vector<Outputs> merged;
      for (std::size_t i = 0; i + 1 < parts.size(); i += 2) merged.push_back(merge(solver, next, parts[i], parts[i + 1], cap));
      if (parts.size() % 2 == 1) merged.push_back(std::move(parts.back()));
      parts = std::move(merged);
    }
    // Reaching a sum implies reaching every smaller one, so that one assumption bounds the sum.
    Literal smaller = 0;
    for (const auto& [sum, literal] : parts[0]) {
      if (smaller != 0) clause(solver, {-literal, smaller});
      smaller = literal;
    }
    return parts[0];
  }

  static void clause(CaDiCaL::Solver& solver, std::initializer_list<Literal> literals) {
    for (Literal l : literals) solver.add(l);
    solver.add(0);
  }

 private:
  static Outputs merge(CaDiCaL::Solver& solver, int& next, const Outputs& a, const Outputs& b, std::uint64_t cap) {
    Outputs sums;
    const auto at = [&](std::uint64_t sum) {
      const auto [it, fresh] = sums.try_emplace(std::min(sum, cap + 1), 0);
      if (fresh) it->second = next++;
      return it->second;
    };
    for (const auto& [sa, la] : a) clause(solver, {-la, at(sa)});
    for (const auto& [sb, lb] : b) clause(solver, {-lb, at(sb)});
    for (const auto& [sa, la] : a) {
      for (const auto& [sb, lb] : b) clause(solver, {-la, -lb, at(sa + sb)});
    }
    return sums;
  }
};

class SlotModel {
 public:
  SlotModel(const CoverInstance& instance, std::size_t slots, std::uint64_t conflicts)
      : instance_(instance), slots_(slots), conflicts_(conflicts) {
    solver_.set("quiet", 1);
    x_.assign(instance.elements, std::vector<Literal>(slots));
    y_.assign(slots, std::vector<Literal>(instance.candidates.size()));
    for (auto& row : x_) number(row);
    for (auto& row : y_) number(row);
    placed_once();
    candidates_admit();
    apart();
  }

  // Slots in the order of their lowest elements.
  void order_slots() {
    prefix_.assign(instance_.elements, std::vector<Literal>(slots_));
    for (auto& row : prefix_) number(row);
    for (std::size_t e = 0; e < instance_.elements; ++e) {
      for (std::size_t h = 0; h < slots_; ++h) {
        clause({-x_[e][h], prefix_[e][h]});
        if (e > 0) {
          clause({-prefix_[e][h], prefix_[e - 1][h], x_[e][h]});
          clause({-prefix_[e - 1][h], prefix_[e][h]});
        } else {
          clause({-prefix_[e][h], x_[e][h]});
        }
        if (h > 0) {
          if (e == 0) {
            clause({-x_[e][h]});
          } else {
            clause({-x_[e][h], prefix_[e - 1][h - 1]});
          }
        }
      }
    }
  }

  // The clique's members each in a slot of their own; the other slots in the order of their lowest other elements.
  void fix_clique(const std::vector<std::uint32_t>& clique) {
    for (std::size_t i = 0; i < clique.size() && i < slots_; ++i) clause({x_[clique[i]][i]});
    Literal none_before = 0;
    for (std::size_t h = clique.size(); h < slots_; ++h) {
      const Literal used = next_++;
      for (std::size_t e = 0; e < instance_.elements; ++e) clause({-x_[e][h], used});
      for (std::size_t e = 0; e < instance_.elements; ++e) solver_.add(x_[e][h]);
      solver_.add(-used);
      solver_.add(0);
      if (none_before != 0) clause({-used, none_before});
      none_before = used;
      tail_used_.push_back(used);
    }
  }

  void forbid_last_slot() {
    clause({-tail_used_.back()});
    tail_used_.pop_back();
  }

  void hint(const std::vector<std::uint32_t>& block_of) {
    for (std::size_t e = 0; e < instance_.elements; ++e) {
      for (std::size_t h = 0; h < slots_; ++h) solver_.phase(block_of[e] == h ? x_[e][h] : -x_[e][h]);
    }
  }

  void keep_pools() {
    for (const CoverPool& pool : instance_.pools) {
      std::vector<std::pair<Literal, std::uint64_t>> taken;
      for (std::size_t h = 0; h < slots_; ++h) {
        const Literal takes = next_++;
        taken.emplace_back(takes, 1);
        for (auto e = pool.elements.find_first(); e != ElementSet::npos; e = pool.elements.find_next(e)) {
          for (std::size_t c = 0; c < instance_.candidates.size(); ++c) {
            if (pool.stage == 0 || instance_.candidates[c].stage == pool.stage) clause({-x_[e][h], -y_[h][c], takes});
          }
        }
      }
      const auto outputs = WeightedSum::build(solver_, next_, taken, pool.capacity);
      if (const auto over = outputs.upper_bound(pool.capacity); over != outputs.end()) clause({-over->second});
    }
  }

  Answer solve(std::initializer_list<Literal> assumptions = {}) {
    solver_.limit("conflicts", static_cast<int>(conflicts_));
    for (Literal l : assumptions) solver_.assume(l);
    const int result = solver_.solve();
    if (result == 10) read_model();
    return result == 10 ? Answer::yes : result == 20 ? Answer::no : Answer::unknown;
  }

  // Drives one objective down from the last model's value and fixes it there. True when proved minimal.
  bool minimise(Objective objective) {
    const auto inputs = inputs_of(objective);
    const std::uint64_t start = value(objective);
    const auto outputs = WeightedSum::build(solver_, next_, inputs, start);
    if (const auto over = outputs.upper_bound(start); over != outputs.end()) clause({-over->second});
    Answer answer = Answer::yes;
    while (answer == Answer::yes && value(objective) > 0) {
      const auto bound = outputs.lower_bound(value(objective));
      if (bound == outputs.end()) break;
      answer = solve({-bound->second});
    }
    // `>` the value reached is forbidden from here on.
    if (const auto over = outputs.upper_bound(value(objective)); over != outputs.end()) clause({-over->second});
    return answer != Answer::unknown;
  }

  // Elements in order, each in the lowest slot that leaves the fixed objectives possible.
  void make_canonical() {
    for (std::size_t e = 0; e < instance_.elements; ++e) {
      for (std::size_t h = 0; h < block_of_[e]; ++h) {
        if (solve({x_[e][h]}) == Answer::yes) break;
      }
      clause({x_[e][block_of_[e]]});
    }
  }

  // The partition of the last model, its blocks numbered by slot.
  const std::vector<std::uint32_t>& block_of() const { return block_of_; }

  // What the last model costs, which may be less than its y literals say: without pools candidates are chosen anew,
  // with pools among the y literals that are true (these keep within the pools).
  std::uint64_t value(Objective objective) const { return choice_.values[objective]; }

  const Choice& choice() const { return choice_; }

 private:
  void number(std::vector<Literal>& row) {
    for (Literal& l : row) l = next_++;
  }

  void clause(std::initializer_list<Literal> literals) { WeightedSum::clause(solver_, literals); }

  void placed_once() {
    for (const auto& row : x_) {
      for (Literal l : row) solver_.add(l);
      solver_.add(0);
      for (std::size_t h = 0; h < slots_; ++h) {
        for (std::size_t g = h + 1; g < slots_; ++g) clause({-row[h], -row[g]});
      }
    }
  }

  void candidates_admit() {
    for (std::size_t h = 0; h < slots_; ++h) {
      for (Literal l : y_[h]) solver_.add(l);
      solver_.add(unused_allowed(h));
      solver_.add(0);
      for (std::size_t e = 0; e < instance_.elements; ++e) {
        clause({-x_[e][h], -empty_[h]});
        for (std::size_t c = 0; c < instance_.candidates.size(); ++c) {
          if (!instance_.candidates[c].accepts.test(e)) clause({-x_[e][h], -y_[h][c]});
        }
      }
    }
  }

  Literal unused_allowed(std::size_t h) {
    if (empty_.size() <= h) empty_.resize(h + 1);
    return empty_[h] = next_++;
  }

  void apart() {
    for (const auto& [a, b] : instance_.apart) {
      for (std::size_t h = 0; h < slots_; ++h) clause({-x_[a][h], -x_[b][h]});
    }
  }

  std::vector<std::pair<Literal, std::uint64_t>> inputs_of(Objective objective) {
    std::vector<std::pair<Literal, std::uint64_t>> inputs;
    for (std::size_t h = 0; h < slots_; ++h) {
      if (objective == Objective::hwpts) inputs.emplace_back(-empty_[h], 1);
      for (std::size_t c = 0; c < instance_.candidates.size(); ++c) {
        const CoverCandidate& candidate = instance_.candidates[c];
        if (objective == Objective::page_tables) inputs.emplace_back(y_[h][c], candidate.page_table_bytes);
        if (objective == Objective::unneeded_flags) inputs.emplace_back(y_[h][c], candidate.unneeded_flags);
      }
    }
    if (objective == Objective::coherency) {
      for (std::size_t e = 0; e < instance_.elements; ++e) {
        if (instance_.enforceable[e] != 0) inputs.emplace_back(not_enforced(e), instance_.enforceable[e]);
      }
    }
    return inputs;
  }

  Literal not_enforced(std::size_t e) {
    const Literal lost = next_++;
    for (std::size_t h = 0; h < slots_; ++h) {
      for (std::size_t c = 0; c < instance_.candidates.size(); ++c) {
        if (!instance_.candidates[c].enforces) clause({-x_[e][h], -y_[h][c], lost});
      }
    }
    return lost;
  }

  void read_model() {
    block_of_.assign(instance_.elements, 0);
    for (std::size_t e = 0; e < instance_.elements; ++e) {
      for (std::size_t h = 0; h < slots_; ++h) {
        if (solver_.val(x_[e][h]) > 0) block_of_[e] = static_cast<std::uint32_t>(h);
      }
    }
    choice_ = instance_.pools.empty() ? choose_candidates(instance_, block_of_) : choose_among_true();
  }

  Choice choose_among_true() {
    Choice choice;
    for (std::size_t h = 0; h < slots_; ++h) {
      ElementSet members(instance_.elements);
      for (std::size_t e = 0; e < instance_.elements; ++e) members[e] = block_of_[e] == h;
      if (members.none()) continue;  // slots are ordered, so only empty ones follow
      std::optional<std::pair<ObjectiveValues, std::uint32_t>> best;
      for (std::uint32_t c = 0; c < instance_.candidates.size(); ++c) {
        if (solver_.val(y_[h][c]) <= 0) continue;
        const ObjectiveValues cost = block_cost(instance_, members, instance_.candidates[c]);
        if (!best || better(cost, best->first, instance_.order)) best = {cost, c};
      }
      choice.values = choice.values + best.value().first;
      choice.candidate_of.push_back(best->second);
    }
    return choice;
  }

  const CoverInstance& instance_;
  std::size_t slots_;
  std::uint64_t conflicts_;
  CaDiCaL::Solver solver_;
  int next_ = 1;
  std::vector<std::vector<Literal>> x_, y_, prefix_;
  std::vector<Literal> empty_, tail_used_;
  std::vector<std::uint32_t> block_of_;
  Choice choice_;
};

std::size_t blocks_in(const std::vector<std::uint32_t>& block_of) {
  return block_of.empty() ? 0 : *std::ranges::max_element(block_of) + std::size_t{1};
}

struct Count {
  std::vector<std::uint32_t> block_of;
  std::uint64_t lower_bound = 0;
  Answer feasible = Answer::yes;  // within max_blocks
};

// Fewest blocks, by asking for one fewer until the answer is no.
Count fewest_blocks(const CoverInstance& instance, const CoverBudget& budget, std::uint64_t lower,
                    const std::vector<std::uint32_t>& clique) {
  auto greedy = greedy_partition(instance, 200, lower);
  if (!greedy) return {{}, lower, Answer::no};
  Count count{std::move(*greedy), lower, Answer::yes};
  std::uint64_t upper = blocks_in(count.block_of);
  const std::uint64_t allowed = instance.max_blocks.value_or(upper);
  if (lower > allowed) return {{}, lower, Answer::no};
  if (upper > lower) {
    SlotModel model(instance, std::min(upper - 1, allowed), budget.conflicts);
    model.fix_clique(clique);
    for (std::uint64_t slots = std::min(upper - 1, allowed);;) {
      const Answer answer = model.solve();
      if (answer == Answer::yes) {
        count.block_of = model.block_of();
        number_by_lowest_element(count.block_of);
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

}  // namespace

SlotSolution solve_slots(const CoverInstance& instance, const CoverBudget& budget, std::uint64_t lower,
                         const std::vector<std::uint32_t>& clique) {
  SlotSolution solution;
  solution.lower_bound = lower;
  const bool counts_first = count_comes_first(instance.order);
  const bool count_first = counts_first && instance.pools.empty();
  std::size_t slots = std::min<std::uint64_t>(instance.elements, instance.max_blocks.value_or(instance.elements));
  std::vector<std::uint32_t> start;
  if (count_first) {
    Count count = fewest_blocks(instance, budget, lower, clique);
    solution.lower_bound = count.lower_bound;
    if (count.feasible != Answer::yes) {
      solution.part.status =
          count.feasible == Answer::no ? CoverStatus::infeasible : CoverStatus::unproved_infeasible;
      return solution;
    }
    slots = blocks_in(count.block_of);
    start = std::move(count.block_of);
  } else if (slots == 0) {
    return solution;
  }

  SlotModel model(instance, slots, budget.conflicts);
  model.order_slots();
  model.keep_pools();
  if (!start.empty()) model.hint(start);
  const Answer answer = model.solve();
  if (answer != Answer::yes) {
    if (!start.empty()) {  // a partition is known, so only the budget can have failed
      solution.part = {CoverStatus::solved, start, choose_candidates(instance, start).values, {}, {}};
    } else {
      solution.part.status = answer == Answer::no ? CoverStatus::infeasible : CoverStatus::unproved_infeasible;
    }
    return solution;
  }
  bool proved = true;
  for (Objective objective : instance.order) {
    if (objective == Objective::ioas) {
      solution.part.proved[static_cast<std::size_t>(objective)] = true;
      continue;
    }
    if (objective == Objective::hwpts && count_first) {
      proved = solution.lower_bound == slots;
    } else {
      proved = model.minimise(objective) && proved;
      if (objective == Objective::hwpts && proved && counts_first) {
        solution.lower_bound = std::max(solution.lower_bound, model.value(objective));
      }
    }
    solution.part.proved[static_cast<std::size_t>(objective)] = proved;
  }
  model.make_canonical();
  solution.part.status = CoverStatus::solved;
  solution.part.block_of = model.block_of();
  number_by_lowest_element(solution.part.block_of);
  solution.part.values = model.choice().values;
  if (!instance.pools.empty()) solution.part.candidate_of = model.choice().candidate_of;
  return solution;
}

}  // namespace ioplan::cover
