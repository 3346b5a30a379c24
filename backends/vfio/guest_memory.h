// The memory behind one range of guest addresses, as a file that iommufd pins: our own memfd, or one that was lent.
//
// Our own is aligned like the guest's addresses: byte 0 is guest address `gpa.start` rounded down to the backing page,
// so that an IOVA and its page agree modulo the page and large pages stay large. The kernel holds on to pages that it
// has pinned; destroying this only lets go of the file and of its mapping. Held by tests/iommufd_backend_test.cc.
#pragma once

#include <optional>

#include "backends/vfio/system.h"
#include "engine/base/range.h"
#include "engine/model/plan.h"

namespace ioplan::vfio {

// Somebody's file that holds a range of guest memory: the byte at `offset` is the range's first. Stays theirs.
struct LentMemory {
  int fd = -1;
  std::uint64_t offset = 0;
};

// Bytes of `page` that a file for the range takes. Nothing when no file can be that large.
std::optional<std::uint64_t> file_bytes(const Range& gpa, std::uint64_t page);

// The guest addresses that one file holds: the range, and all that overlaps it in the VM's address spaces, so that they
// share their memory.
Range file_range(const Plan& plan, const PlannedIoas& space, const Range& range);

class GuestMemory {
 public:
  // `page`: the backing page's size in bytes, at least the kernel's. Errors: what the kernel says, with errno.
  static Result<GuestMemory> allocate(System& system, const Range& gpa, std::uint64_t page);
  static GuestMemory lent(System& system, const Range& gpa, std::uint64_t page, const LentMemory& memory);

  GuestMemory(GuestMemory&& other) noexcept
      : system_(other.system_),
        file_(std::move(other.file_)),
        gpa_(other.gpa_),
        page_(other.page_),
        offset_(other.offset_),
        view_(std::exchange(other.view_, std::nullopt)) {}
  GuestMemory& operator=(GuestMemory&&) = delete;
  ~GuestMemory();

  int fd() const { return file_.get(); }
  std::uint64_t offset_of(std::uint64_t gpa) const { return gpa - gpa_.start + offset_; }
  // Where this process sees a guest address; maps all of the range at the first call.
  Reply<std::uint64_t> address_of(std::uint64_t gpa);

 private:
  struct View {
    std::uint64_t address, offset, bytes;
  };
  GuestMemory(System& system, Descriptor file, const Range& gpa, std::uint64_t page, std::uint64_t offset)
      : system_(system), file_(std::move(file)), gpa_(gpa), page_(page), offset_(offset) {}

  System& system_;
  Descriptor file_;
  Range gpa_;
  std::uint64_t page_;
  std::uint64_t offset_;  // of gpa_.start in the file
  std::optional<View> view_;
};

}  // namespace ioplan::vfio
