// Locked memory of the one user and the one process that the simulated machine has, against RLIMIT_MEMLOCK.
//
// Linux keeps two sums (io_uring's way for the user, VFIO's way for the process) and compares each with the limit on its
// own: drivers/iommu/iommufd/pages.c incr_user_locked_vm, update_mm_locked_vm. Thread-safe. Held by tests/sim_dma_test.cc.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

namespace ioplan::sim {

enum class MemlockAccount : std::uint8_t { user, process };

class Memlock {
 public:
  explicit Memlock(std::uint64_t limit) : limit_(limit) {}

  // False, and nothing charged, when the sum would pass the limit.
  bool charge(MemlockAccount account, std::uint64_t bytes) {
    auto& sum = sum_[static_cast<std::size_t>(account)];
    std::uint64_t now = sum.load(std::memory_order_relaxed);
    do {
      if (now > limit_ || bytes > limit_ - now) return false;
    } while (!sum.compare_exchange_weak(now, now + bytes, std::memory_order_relaxed));
    return true;
  }

  void uncharge(MemlockAccount account, std::uint64_t bytes) { sum_[static_cast<std::size_t>(account)] -= bytes; }

  std::uint64_t charged(MemlockAccount account) const { return sum_[static_cast<std::size_t>(account)]; }

 private:
  std::uint64_t limit_;
  std::array<std::atomic<std::uint64_t>, 2> sum_{};
};

}  // namespace ioplan::sim
