// A sum of weighted literals as outputs: output s is implied when the weights of true inputs reach s, and it implies
// every smaller output, so that one assumption bounds the sum. Sums above `cap` share one output. (Generalised
// totalizer, Joshi, Martins and Manquinho 2015.)
#pragma once

#include <cadical.hpp>
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

namespace ioplan::cover {

using Literal = int;

void add_clause(CaDiCaL::Solver& solver, std::initializer_list<Literal> literals);

// Outputs by sum; empty when no weight is above 0. `next`: the next unused variable, advanced.
std::map<std::uint64_t, Literal> weighted_sum(CaDiCaL::Solver& solver, int& next,
                                              const std::vector<std::pair<Literal, std::uint64_t>>& inputs,
                                              std::uint64_t cap);

}  // namespace ioplan::cover
