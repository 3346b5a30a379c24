// Timing samples of one contestant within a run: what a row of a benchmark reports. Library calls are timed by the
// thread's CPU clock, because nothing in them waits and the machine may be busy with something else.
#pragma once

#include <algorithm>
#include <ctime>
#include <vector>

namespace ioplan::bench {

class Samples {
 public:
  // Runs `work` once and keeps how long it took, in seconds; gives its result back.
  template <class Work>
  auto time(const Work& work, clockid_t clock = CLOCK_THREAD_CPUTIME_ID) {
    const double start = now(clock);
    auto result = work();
    add(now(clock) - start);
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
  static double now(clockid_t clock) {
    timespec t{};
    clock_gettime(clock, &t);
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
  }

  std::vector<double> values_;
};

}  // namespace ioplan::bench
