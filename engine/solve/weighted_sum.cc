#include "engine/solve/weighted_sum.h"

#include <algorithm>

namespace ioplan::cover {

namespace {

using Outputs = std::map<std::uint64_t, Literal>;

Outputs merge(CaDiCaL::Solver& solver, int& next, const Outputs& a, const Outputs& b, std::uint64_t cap) {
  Outputs sums;
  const auto at = [&](std::uint64_t sum) {
    const auto [it, fresh] = sums.try_emplace(std::min(sum, cap + 1), 0);
    if (fresh) it->second = next++;
    return it->second;
  };
  for (const auto& [sa, la] : a) add_clause(solver, {-la, at(sa)});
  for (const auto& [sb, lb] : b) add_clause(solver, {-lb, at(sb)});
  for (const auto& [sa, la] : a) {
    for (const auto& [sb, lb] : b) add_clause(solver, {-la, -lb, at(sa + sb)});
  }
  return sums;
}

}  // namespace

void add_clause(CaDiCaL::Solver& solver, std::initializer_list<Literal> literals) {
  for (Literal l : literals) solver.add(l);
  solver.add(0);
}

std::map<std::uint64_t, Literal> weighted_sum(CaDiCaL::Solver& solver, int& next,
                                              const std::vector<std::pair<Literal, std::uint64_t>>& inputs,
                                              std::uint64_t cap) {
  std::vector<Outputs> parts;
  for (const auto& [literal, weight] : inputs) {
    if (weight != 0) parts.push_back({{std::min(weight, cap + 1), literal}});
  }
  if (parts.empty()) return {};
  while (parts.size() > 1) {
    std::vector<Outputs> merged;
    for (std::size_t i = 0; i + 1 < parts.size(); i += 2) {
      merged.push_back(merge(solver, next, parts[i], parts[i + 1], cap));
    }
    if (parts.size() % 2 == 1) merged.push_back(std::move(parts.back()));
    parts = std::move(merged);
  }
  Literal smaller = 0;
  for (const auto& [sum, literal] : parts[0]) {
    if (smaller != 0) add_clause(solver, {-literal, smaller});
    smaller = literal;
  }
  return parts[0];
}

}  // namespace ioplan::cover
