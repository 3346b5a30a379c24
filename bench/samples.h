// Timing samples of one contestant within a run: what a row of a benchmark reports.
#pragma once

#include <algorithm>
#include <chrono>
#include <vector>

namespace ioplan::bench {

class Samples {
 public:
  // Runs `work` once and keeps how long it took; gives its result back.
  template <class Work>
  auto time(const Work& work) {
    const auto start = std::chrono::steady_clock::now();
    auto result = work();
    add(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    return result;
  }

  void add(double value) { values_.push_back(value); }
  double last() const { return values_.back(); }
  double least() const { return *std::ranges::min_element(values_); }
  double most() const { return *std::ranges::max_element(values_); }
  double median() const {
    std::vector<double> sorted = values_;
    std::ranges::sort(sorted);
    return sorted[sorted.size() / 2];
  }

 private:
  std::vector<double> values_;
};

}  // namespace ioplan::bench
