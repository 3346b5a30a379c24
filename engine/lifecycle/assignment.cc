#include "engine/lifecycle/assignment.h"

#include <algorithm>
#include <limits>
#include <utility>

namespace ioplan {

namespace {

constexpr std::int64_t kFar = std::numeric_limits<std::int64_t>::max() / 4;

// The square matrix of costs: a pair that may not be matched costs nothing and gains nothing.
class Hungarian {
 public:
  explicit Hungarian(WeightMatrix weight) : weight_(std::move(weight)) {
    const std::size_t columns = weight_.empty() ? 0 : weight_[0].size();
    size_ = std::max(weight_.size(), columns);
    row_of_.assign(size_ + 1, 0);
    by_row_.assign(size_ + 1, 0);
    by_column_.assign(size_ + 1, 0);
    for (std::size_t row = 1; row <= size_; ++row) augment(row);
  }

  std::int64_t total() const {
    std::int64_t sum = 0;
    for (std::size_t c = 1; c <= size_; ++c) sum += gain(row_of_[c] - 1, c - 1);
    return sum;
  }

  std::vector<std::optional<std::size_t>> columns() const {
    std::vector<std::optional<std::size_t>> found(weight_.size());
    for (std::size_t c = 1; c <= size_; ++c) {
      if (gain(row_of_[c] - 1, c - 1) != 0) found[row_of_[c] - 1] = c - 1;
    }
    return found;
  }

 private:
  std::int64_t gain(std::size_t row, std::size_t column) const {
    return row < weight_.size() && column < weight_[row].size() ? weight_[row][column].value_or(0) : 0;
  }

  // Shortest augmenting path from a new row, with potentials (indices from 1; 0 is the path's start).
  void augment(std::size_t row) {
    std::vector<std::int64_t> slack(size_ + 1, kFar);
    std::vector<std::size_t> before(size_ + 1, 0);
    std::vector<bool> done(size_ + 1, false);
    row_of_[0] = row;
    std::size_t at = 0;
    do {
      done[at] = true;
      std::size_t next = 0;
      std::int64_t least = kFar;
      for (std::size_t c = 1; c <= size_; ++c) {
        if (done[c]) continue;
        const std::int64_t reduced = -gain(row_of_[at] - 1, c - 1) - by_row_[row_of_[at]] - by_column_[c];
        if (reduced < slack[c]) {
          slack[c] = reduced;
          before[c] = at;
        }
        if (slack[c] < least) {
          least = slack[c];
          next = c;
        }
      }
      for (std::size_t c = 0; c <= size_; ++c) {
        if (done[c]) {
          by_row_[row_of_[c]] += least;
          by_column_[c] -= least;
        } else {
          slack[c] -= least;
        }
      }
      at = next;
    } while (row_of_[at] != 0);
    for (; at != 0; at = before[at]) row_of_[at] = row_of_[before[at]];
  }

  WeightMatrix weight_;
  std::size_t size_ = 0;
  std::vector<std::size_t> row_of_;               // by column; 0 none
  std::vector<std::int64_t> by_row_, by_column_;  // potentials
};

// Larger ones keep the method's own choice, which depends on nothing but the matrix.
constexpr std::size_t kMostRefined = 16;

// The pair is decided: nobody else takes part in either.
WeightMatrix without(WeightMatrix weight, std::size_t row, std::optional<std::size_t> column) {
  for (auto& cell : weight[row]) cell.reset();
  for (std::size_t r = 0; column && r < weight.size(); ++r) weight[r][*column].reset();
  return weight;
}

}  // namespace

std::vector<std::optional<std::size_t>> best_matching(const WeightMatrix& weight) {
  const Hungarian best(weight);
  std::vector<std::optional<std::size_t>> chosen = best.columns();
  if (weight.size() > kMostRefined || (!weight.empty() && weight[0].size() > kMostRefined)) return chosen;
  // Row by row the lowest column that a best matching gives it.
  WeightMatrix left = weight;
  std::int64_t gained = 0;
  for (std::size_t row = 0; row < weight.size(); ++row) {
    chosen[row].reset();
    for (std::size_t column = 0; column < weight[row].size() && !chosen[row]; ++column) {
      if (!left[row][column]) continue;
      const std::int64_t rest = Hungarian(without(left, row, column)).total();
      if (gained + *left[row][column] + rest == best.total()) chosen[row] = column;
    }
    if (chosen[row]) gained += *left[row][*chosen[row]];
    left = without(std::move(left), row, chosen[row]);
  }
  return chosen;
}

}  // namespace ioplan
