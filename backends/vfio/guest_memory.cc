#include "backends/vfio/guest_memory.h"

#include <fmt/format.h>

#include <algorithm>

#include "backends/vfio/refusal.h"
#include "engine/base/text.h"

namespace ioplan::vfio {

namespace {

constexpr std::uint64_t kLargestFile = ~std::uint64_t{0} >> 1;  // off_t

std::uint64_t round_down(std::uint64_t value, std::uint64_t page) { return value / page * page; }

}  // namespace

std::optional<std::uint64_t> file_bytes(const Range& gpa, std::uint64_t page) {
  const std::uint64_t extent = round_down(gpa.last, page) - round_down(gpa.start, page);
  if (extent > kLargestFile - page) return std::nullopt;
  return extent + page;
}

Range file_range(const Plan& plan, const PlannedIoas& space, const Range& range) {
  Range all = range;
  for (bool grown = true; grown;) {
    const Range before = all;
    for (const PlannedIoas& other : plan.ioas) {
      if (other.vm != space.vm) continue;
      for (const MemoryRange& m : other.memory) {
        if (m.gpa.overlaps(all)) all = {std::min(all.start, m.gpa.start), std::max(all.last, m.gpa.last)};
      }
    }
    grown = all != before;
  }
  return all;
}

Result<GuestMemory> GuestMemory::allocate(System& system, const Range& gpa, std::uint64_t page) {
  const auto bytes = file_bytes(gpa, page);
  const std::string what = fmt::format("memory for {:#x}-{:#x} in pages of {}", gpa.start, gpa.last, format_size(page));
  if (!bytes) return failure(what + ": no file is that large");
  const auto fd = system.memfd_create("ioplan-guest", page);
  if (!fd) return refused(Call::memory, what, fd.error().value);
  GuestMemory memory(system, Descriptor::owned(system, *fd), gpa, page, gpa.start % page);
  if (const auto sized = system.ftruncate(*fd, *bytes); !sized) return refused(Call::memory, what, sized.error().value);
  return memory;
}

GuestMemory GuestMemory::lent(System& system, const Range& gpa, std::uint64_t page, const LentMemory& memory) {
  return GuestMemory(system, Descriptor::lent(memory.fd), gpa, page, memory.offset);
}

GuestMemory::~GuestMemory() {
  if (view_) system_.munmap(view_->address, view_->bytes);
}

Reply<std::uint64_t> GuestMemory::address_of(std::uint64_t gpa) {
  if (!view_) {
    const std::uint64_t offset = round_down(offset_, page_);
    const std::uint64_t bytes = round_down(offset_ + gpa_.extent(), page_) + page_ - offset;
    const auto address = system_.mmap(file_.get(), offset, bytes);
    if (!address) return tl::make_unexpected(address.error());
    view_ = View{*address, offset, bytes};
  }
  return view_->address + offset_of(gpa) - view_->offset;
}

}  // namespace ioplan::vfio
