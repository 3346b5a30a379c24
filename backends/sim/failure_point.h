// Where the simulated kernel may run out of something: every acquisition of a resource asks here first.
//
// One counter for the whole machine, so that "the n-th" names one place in a sequence of calls. Thread-safe.
// Held by tests/sim_dma_test.cc (every position of a scenario) and tests/apply_test.cc (every position of a plan).
#pragma once

#include <atomic>
#include <cstdint>

namespace ioplan::sim {

class FailurePoint {
 public:
  // The n-th question from now is answered with yes, once; 0: none is.
  void arm(std::uint64_t n) {
    struck_ = false;
    left_ = n;
  }

  bool struck() const { return struck_; }

  bool strikes() {
    std::uint64_t left = left_.load(std::memory_order_relaxed);
    do {
      if (left == 0) return false;
    } while (!left_.compare_exchange_weak(left, left - 1, std::memory_order_relaxed));
    if (left == 1) struck_ = true;
    return left == 1;
  }

 private:
  std::atomic<std::uint64_t> left_{0};
  std::atomic<bool> struck_{false};
};

}  // namespace ioplan::sim
