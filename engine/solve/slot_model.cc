#include "engine/solve/slot_model.h"

#include <algorithm>

namespace ioplan::cover {

SlotModel::SlotModel(const CoverInstance& instance, const std::vector<ElementSet>& exclusive, std::size_t slots,
                     const std::vector<std::uint32_t>& clique, std::uint64_t conflicts)
    : instance_(instance), slots_(slots), clique_(clique), conflicts_(conflicts) {
  solver_.set("quiet", 1);
  number_literals(exclusive, clique);
  place_elements();
  admit_by_candidates();
  keep_apart();
  use_tail_in_order(clique.size());
}

// Members of the clique have one slot each; others cannot be where they are excluded. Members that find no slot of
// their own make the model unsatisfiable, as they should.
void SlotModel::number_literals(const std::vector<ElementSet>& exclusive, const std::vector<std::uint32_t>& clique) {
  x_.assign(instance_.elements, std::vector<Literal>(slots_, kNever));
  y_.assign(slots_, std::vector<Literal>(instance_.candidates.size(), kNever));
  ElementSet in_clique(instance_.elements);
  for (std::uint32_t e : clique) in_clique.set(e);
  for (std::size_t h = 0; h < slots_; ++h) {
    const bool taken = h < clique.size();
    for (std::size_t e = 0; e < instance_.elements; ++e) {
      const bool possible = in_clique[e] ? taken && clique[h] == e : !taken || !exclusive[e][clique[h]];
      if (possible) x_[e][h] = next_++;
    }
    for (std::size_t c = 0; c < instance_.candidates.size(); ++c) {
      if (!taken || instance_.candidates[c].accepts[clique[h]]) y_[h][c] = next_++;
    }
    empty_.push_back(next_++);
  }
}

// Not both, unless.
void SlotModel::forbid(Literal a, Literal b, Literal unless) {
  if (a == kNever || b == kNever) return;
  solver_.add(-a);
  solver_.add(-b);
  if (unless != kNever) solver_.add(unless);
  solver_.add(0);
}

void SlotModel::some_of(const std::vector<Literal>& literals, Literal unless) {
  for (Literal l : literals) {
    if (l != kNever) solver_.add(l);
  }
  if (unless != kNever) solver_.add(unless);
  solver_.add(0);
}

void SlotModel::place_elements() {
  for (const auto& row : x_) some_of(row);
}

void SlotModel::admit_by_candidates() {
  for (std::size_t h = 0; h < slots_; ++h) {
    some_of(y_[h], empty_[h]);
    for (std::size_t e = 0; e < instance_.elements; ++e) {
      forbid(x_[e][h], empty_[h]);
      for (std::size_t c = 0; c < instance_.candidates.size(); ++c) {
        if (!instance_.candidates[c].accepts.test(e)) forbid(x_[e][h], y_[h][c]);
      }
    }
  }
}

void SlotModel::keep_apart() {
  for (const auto& [a, b] : instance_.apart) separate(a, b);
}

void SlotModel::use_tail_in_order(std::size_t first) {
  for (std::size_t h = first; h < slots_; ++h) {
    const Literal used = next_++;
    std::vector<Literal> users;
    for (const auto& row : x_) {
      users.push_back(row[h]);
      if (row[h] != kNever) add_clause(solver_, {-row[h], used});
    }
    some_of(users, -used);
    if (h > first) add_clause(solver_, {-used, tail_used_.back()});
    tail_used_.push_back(used);
  }
}

void SlotModel::forbid_last_slot() {
  add_clause(solver_, {-tail_used_.back()});
  tail_used_.pop_back();
}

void SlotModel::hint(const std::vector<std::uint32_t>& block_of) {
  constexpr std::size_t kNone = ~std::size_t{0};
  std::vector<std::size_t> slot_of(*std::ranges::max_element(block_of) + std::size_t{1}, kNone);
  for (std::size_t i = 0; i < std::min(clique_.size(), slots_); ++i) slot_of[block_of[clique_[i]]] = i;
  std::size_t next = clique_.size();
  for (std::size_t& slot : slot_of) {
    if (slot == kNone) slot = next++;
  }
  for (std::size_t e = 0; e < instance_.elements; ++e) {
    for (std::size_t h = 0; h < slots_; ++h) {
      if (x_[e][h] != kNever) solver_.phase(slot_of[block_of[e]] == h ? x_[e][h] : -x_[e][h]);
    }
  }
}

void SlotModel::keep_pools() {
  for (const CoverPool& pool : instance_.pools) {
    std::vector<std::pair<Literal, std::uint64_t>> taken;
    for (std::size_t h = 0; h < slots_; ++h) {
      const Literal takes = next_++;
      taken.emplace_back(takes, 1);
      for (auto e = pool.elements.find_first(); e != ElementSet::npos; e = pool.elements.find_next(e)) {
        for (std::size_t c = 0; c < instance_.candidates.size(); ++c) {
          if (pool.stage == 0 || instance_.candidates[c].stage == pool.stage) forbid(x_[e][h], y_[h][c], takes);
        }
      }
    }
    const auto outputs = weighted_sum(solver_, next_, taken, pool.capacity);
    if (const auto over = outputs.upper_bound(pool.capacity); over != outputs.end())
      add_clause(solver_, {-over->second});
  }
}

Answer SlotModel::solve(std::initializer_list<Literal> assumptions) {
  solver_.limit("conflicts", static_cast<int>(conflicts_));
  for (Literal l : assumptions) solver_.assume(l);
  const int result = solver_.solve();
  if (result == 10) read_model();
  return result == 10 ? Answer::yes : result == 20 ? Answer::no : Answer::unknown;
}

bool SlotModel::minimise(Objective objective) {
  const auto value = [&] { return choice_.values[objective]; };
  const std::uint64_t start = value();
  const auto outputs = weighted_sum(solver_, next_, inputs_of(objective), start);
  if (const auto over = outputs.upper_bound(start); over != outputs.end()) add_clause(solver_, {-over->second});
  Answer answer = Answer::yes;
  while (answer == Answer::yes && value() > 0) {
    const auto bound = outputs.lower_bound(value());
    if (bound == outputs.end()) break;
    answer = solve({-bound->second});
  }
  if (const auto over = outputs.upper_bound(value()); over != outputs.end()) add_clause(solver_, {-over->second});
  return answer != Answer::unknown;
}

// Equal slots throughout, so the same lowest one.
void SlotModel::equal_if(Literal condition, std::uint32_t a, std::uint32_t b) {
  for (std::size_t h = 0; h < slots_; ++h) {
    for (const auto& [from, to] : {std::pair(x_[a][h], x_[b][h]), std::pair(x_[b][h], x_[a][h])}) {
      if (from == kNever) continue;
      solver_.add(-from);
      if (to != kNever) solver_.add(to);
      if (condition != kNever) solver_.add(-condition);
      solver_.add(0);
    }
  }
}

void SlotModel::join(std::uint32_t a, std::uint32_t b) { equal_if(kNever, a, b); }

void SlotModel::separate(std::uint32_t a, std::uint32_t b) {
  for (std::size_t h = 0; h < slots_; ++h) forbid(x_[a][h], x_[b][h]);
}

Answer SlotModel::may_join(std::uint32_t element, const std::vector<std::uint32_t>& others) {
  const Literal asked = next_++;
  std::vector<Literal> same;
  for (std::uint32_t other : others) {
    same.push_back(next_++);
    equal_if(same.back(), element, other);
  }
  some_of(same, -asked);
  const Answer answer = solve({asked});
  same.push_back(asked);  // none of these is asked for again
  for (Literal l : same) add_clause(solver_, {-l});
  return answer;
}

std::vector<std::pair<Literal, std::uint64_t>> SlotModel::inputs_of(Objective objective) {
  std::vector<std::pair<Literal, std::uint64_t>> inputs;
  for (std::size_t h = 0; h < slots_; ++h) {
    if (objective == Objective::hwpts) inputs.emplace_back(-empty_[h], 1);
    for (std::size_t c = 0; c < instance_.candidates.size(); ++c) {
      const CoverCandidate& candidate = instance_.candidates[c];
      if (y_[h][c] == kNever) continue;
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

Literal SlotModel::not_enforced(std::size_t element) {
  const Literal lost = next_++;
  for (std::size_t h = 0; h < slots_; ++h) {
    for (std::size_t c = 0; c < instance_.candidates.size(); ++c) {
      if (!instance_.candidates[c].enforces) forbid(x_[element][h], y_[h][c], lost);
    }
  }
  return lost;
}

void SlotModel::read_model() {
  std::vector<std::size_t> slot_of(instance_.elements, 0);
  block_of_.resize(instance_.elements);
  for (std::size_t e = 0; e < instance_.elements; ++e) {
    while (x_[e][slot_of[e]] == kNever || solver_.val(x_[e][slot_of[e]]) <= 0) ++slot_of[e];
    block_of_[e] = static_cast<std::uint32_t>(slot_of[e]);
  }
  number_by_lowest_element(block_of_);
  choice_ = instance_.pools.empty() ? choose_candidates(instance_, block_of_) : choose_among_true(slot_of);
}

Choice SlotModel::choose_among_true(const std::vector<std::size_t>& slot_of) const {
  Choice choice;
  for (std::size_t first = 0; first < instance_.elements; ++first) {
    if (block_of_[first] != choice.candidate_of.size()) continue;  // not the lowest of a new block
    const std::size_t h = slot_of[first];
    ElementSet members(instance_.elements);
    for (std::size_t e = first; e < instance_.elements; ++e) members[e] = slot_of[e] == h;
    std::optional<std::pair<ObjectiveValues, std::uint32_t>> best;
    for (std::uint32_t c = 0; c < instance_.candidates.size(); ++c) {
      if (y_[h][c] == kNever || solver_.val(y_[h][c]) <= 0) continue;
      const ObjectiveValues cost = block_cost(instance_, members, instance_.candidates[c]);
      if (!best || better(cost, best->first, instance_.order)) best = {cost, c};
    }
    choice.values = choice.values + best.value().first;
    choice.candidate_of.push_back(best->second);
  }
  return choice;
}

}  // namespace ioplan::cover
