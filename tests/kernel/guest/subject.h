// One of the two that are compared: Linux, or the simulator. Both are asked the same questions and must answer alike.
//
// Objects are named by handles, the order in which they were made, because the ids differ: the mock driver's devices
// take ids of their own. Devices are numbered as in the guest's Host (host_facts.h). Errors are errno values.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/base/range.h"

namespace ioplan::kernel_test {

// What a call said: 0 or an errno, and what else can be compared.
struct Reply {
  int errno_value = 0;
  std::uint64_t value = 0;             // an IOVA, bytes, a HWPT's handle
  std::vector<std::uint64_t> words{};  // ranges as start, last; a dirty bitmap

  friend bool operator==(const Reply&, const Reply&) = default;
};

enum class TargetKind : std::uint8_t { ioas, hwpt };

struct Target {
  TargetKind kind = TargetKind::ioas;
  unsigned handle = 0;

  friend bool operator==(const Target&, const Target&) = default;
};

class Subject {
 public:
  virtual ~Subject() = default;

  virtual Reply bind(unsigned device) = 0;
  virtual Reply unbind(unsigned device) = 0;
  virtual Reply ioas_alloc() = 0;
  virtual Reply allow_iovas(unsigned ioas, std::span<const Range> ranges) = 0;
  virtual Reply iova_ranges(unsigned ioas) = 0;
  // `offset` into the buffer of kBufferBytes that both subjects have.
  virtual Reply map(unsigned ioas, std::uint32_t flags, std::uint64_t offset, std::uint64_t length, std::uint64_t iova) = 0;
  virtual Reply copy(unsigned dst, unsigned src, std::uint32_t flags, std::uint64_t length, std::uint64_t dst_iova, std::uint64_t src_iova) = 0;
  virtual Reply unmap(unsigned ioas, std::uint64_t iova, std::uint64_t length) = 0;
  virtual Reply huge_pages(unsigned ioas, std::uint64_t value) = 0;
  virtual Reply hwpt_alloc(unsigned device, unsigned ioas, std::uint32_t flags) = 0;
  virtual Reply attach(unsigned device, Target target, std::uint32_t pasid) = 0;
  virtual Reply detach(unsigned device, std::uint32_t pasid) = 0;
  virtual Reply set_dirty_tracking(unsigned hwpt, std::uint32_t enable) = 0;
  virtual Reply get_dirty_bitmap(unsigned hwpt, std::uint64_t iova, std::uint64_t length, std::uint64_t page_size) = 0;
  virtual Reply destroy(Target target) = 0;
};

inline constexpr std::uint64_t kBufferBytes = std::uint64_t{16} << 20;  // aligned to 2 MiB in both worlds

}  // namespace ioplan::kernel_test
