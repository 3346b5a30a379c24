// Linux and the simulator, asked the same: for cases that know what the answer must be.
#pragma once

#include <memory>
#include <string>

#include "tests/kernel/guest/case.h"
#include "tests/kernel/guest/operations.h"

namespace ioplan::kernel_test {

class Twins {
 public:
  explicit Twins(const Guest& guest);

  // Both must answer with this errno, and alike; prints what they say otherwise. Linux's reply.
  Reply expect(int errno_value, const Operation& operation);
  // A claim about a reply that was got.
  void expect_that(bool holds, const std::string& claim);

  bool agree() const { return agree_; }
  Subject& simulator() { return *simulator_; }
  Subject& linux_kernel() { return *linux_; }

 private:
  const Guest& guest_;
  std::unique_ptr<Subject> linux_, simulator_;
  bool agree_ = true;
};

// Operations, to be read aloud.
Operation bind(unsigned device);
Operation ioas_alloc();
Operation iova_ranges(unsigned ioas);
Operation map(unsigned ioas, std::uint64_t offset, std::uint64_t length, std::uint64_t iova);
Operation unmap(unsigned ioas, std::uint64_t iova, std::uint64_t length);
Operation fault_queue_alloc();
Operation hwpt_alloc(unsigned device, unsigned ioas, std::uint32_t flags = 0, unsigned fault_queue = 0);
Operation attach_ioas(unsigned device, unsigned ioas);
Operation attach_hwpt(unsigned device, unsigned hwpt, std::uint32_t pasid = 0);
Operation detach(unsigned device, std::uint32_t pasid = 0);
Operation set_dirty_tracking(unsigned hwpt);
Operation write_page(unsigned hwpt, std::uint64_t iova);
Operation get_dirty_bitmap(unsigned hwpt, std::uint64_t iova, std::uint64_t length);
// The device writes where the buffer's bytes at `offset` are mapped: 0, or EFAULT when nothing arrives.
Operation dma_write(unsigned device, std::uint64_t offset, std::uint64_t iova);

inline constexpr std::uint32_t kDirtyTracking = 2, kFaultIdValid = 4;

}  // namespace ioplan::kernel_test
