// QEMU's `edu` device, driven through its VFIO BAR: a DMA engine with a buffer of 4 KiB of its own.
//
// Its registers (docs/specs/edu.rst of QEMU): 0x80 source, 0x88 destination, 0x90 count, 0x98 command (bit 0 starts it,
// bit 1: from the buffer to memory); the buffer is at 0x40000 of the engine's own addresses and the CPU cannot see it.
// A transfer takes a tenth of a second. QEMU ends itself when one reaches the buffer's last byte, so half of it is used.
#pragma once

#include <cstdint>
#include <optional>

#include "engine/model/host.h"

namespace ioplan::kernel_test {

class Edu {
 public:
  static constexpr std::uint64_t kBuffer = 2048;  // bytes that a transfer may have

  static bool is_edu(const Device& device);

  // `device`: a VFIO device's descriptor, bound and not closed before this. Turns memory decoding and bus mastering on;
  // nothing when the device has no such BAR.
  static std::optional<Edu> open(int device);
  Edu(Edu&& other) noexcept;
  Edu& operator=(Edu&&) = delete;
  ~Edu();

  // `bytes` from IOVA into the buffer, or from the buffer to IOVA. False when the engine did not come to an end, which
  // says nothing of whether anything arrived.
  bool read_memory(std::uint64_t iova, std::uint64_t bytes);
  bool write_memory(std::uint64_t iova, std::uint64_t bytes);

 private:
  explicit Edu(volatile std::uint64_t* registers) : registers_(registers) {}
  bool transfer(std::uint64_t from, std::uint64_t to, std::uint64_t bytes, std::uint64_t command);
  volatile std::uint64_t& at(std::uint64_t offset) { return registers_[offset / 8]; }

  volatile std::uint64_t* registers_;  // a page of BAR 0
};

}  // namespace ioplan::kernel_test
