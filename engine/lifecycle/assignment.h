// Largest total weight of a one-to-one matching between rows and columns (the Hungarian method, O(n^3)). Which HWPT of
// a target is which running object is such a question. Held by tests/lifecycle_test.cc (all permutations of small
// ones).
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace ioplan {

// weight[row][column]; nothing: never matched. All rows are as long as each other.
using WeightMatrix = std::vector<std::vector<std::optional<std::int64_t>>>;

// By row its column, or nothing. Among the best, the first in lexicographic order of columns (unmatched last).
// Requires: weights of at least 1, so that everything that can be matched without loss is.
std::vector<std::optional<std::size_t>> best_matching(const WeightMatrix& weight);

}  // namespace ioplan
