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

// What a call said: 0 or an errno, and what else can be compared. ENOTRECOVERABLE is the simulator's: Linux must not be
// asked, because it would crash, or harm whoever asks.
struct Reply {
  int errno_value = 0;
  std::uint64_t value = 0;             // an IOVA, bytes, a HWPT's handle
  std::vector<std::uint64_t> words{};  // ranges as start, last; a dirty bitmap

  friend bool operator==(const Reply&, const Reply&) = default;
};

// What a call can name. Devices by their number in the Host, the rest by handle.
enum class TargetKind : std::uint8_t { ioas, hwpt, fault_queue, device };

struct Target {
  TargetKind kind = TargetKind::ioas;
  unsigned handle = 0;

  friend bool operator==(const Target&, const Target&) = default;
};

// What a map is of. `memory` and `file` are the same buffer of kBufferBytes, in pages of 2 MiB; `read_only` is memory that
// nobody may write, `nowhere` an address without memory.
enum class Source : std::uint8_t { memory, file, read_only, nowhere };

class Subject {
 public:
  virtual ~Subject() = default;

  virtual Reply bind(unsigned device) = 0;
  virtual Reply unbind(unsigned device) = 0;
  virtual Reply ioas_alloc() = 0;
  virtual Reply allow_iovas(unsigned ioas, std::span<const Range> ranges) = 0;
  virtual Reply iova_ranges(unsigned ioas) = 0;
  virtual Reply map(unsigned ioas, std::uint32_t flags, Source source, std::uint64_t offset, std::uint64_t length, std::uint64_t iova) = 0;
  virtual Reply copy(unsigned dst, unsigned src, std::uint32_t flags, std::uint64_t length, std::uint64_t dst_iova, std::uint64_t src_iova) = 0;
  virtual Reply unmap(unsigned ioas, std::uint64_t iova, std::uint64_t length) = 0;
  virtual Reply set_huge_pages(unsigned ioas, std::uint64_t value) = 0;
  virtual Reply get_huge_pages(unsigned ioas) = 0;
  virtual Reply set_rlimit_mode(std::uint64_t value) = 0;
  // PASID bits, capabilities, and registers, save AMD's: only a kernel with CONFIG_AMD_IOMMU_IOMMUFD tells them.
  virtual Reply hw_info(unsigned device) = 0;
  virtual Reply fault_queue_alloc() = 0;
  virtual Reply hwpt_alloc(unsigned device, Target pt, std::uint32_t flags, unsigned fault_queue) = 0;
  virtual Reply attach(unsigned device, Target target, std::uint32_t pasid) = 0;
  virtual Reply detach(unsigned device, std::uint32_t pasid) = 0;
  virtual Reply set_dirty_tracking(unsigned hwpt, std::uint32_t enable) = 0;
  virtual Reply get_dirty_bitmap(unsigned hwpt, std::uint32_t flags, std::uint64_t iova, std::uint64_t length, std::uint64_t page_size) = 0;
  virtual Reply destroy(Target target) = 0;

  // What only the mock driver and iommufd's selftest can do. `reserve` lasts as long as the IOAS.
  virtual Reply reserve(unsigned ioas, std::uint64_t start, std::uint64_t length) = 0;
  virtual Reply access_create(unsigned ioas, std::uint32_t pins) = 0;
  virtual Reply access_destroy(unsigned access) = 0;
  // Is [iova, iova + length) of a mock HWPT mapped to the buffer's bytes from `offset` on? 0 or EINVAL.
  virtual Reply check_map(unsigned hwpt, std::uint64_t offset, std::uint64_t length, std::uint64_t iova) = 0;
  // A device writes to those of the 64 pages from `iova` on whose bit in `pages` is set. The value: which took it.
  virtual Reply write_pages(unsigned hwpt, std::uint64_t iova, std::uint64_t pages) = 0;

  // An `edu` device writes a few bytes to `iova`, where the buffer's bytes at `offset` should be: 0, or EFAULT when
  // nothing arrived.
  virtual Reply dma_write(unsigned device, std::uint64_t offset, std::uint64_t iova) = 0;
};

inline constexpr std::uint64_t kBufferBytes = std::uint64_t{16} << 20;  // aligned to 2 MiB in both worlds

}  // namespace ioplan::kernel_test
