#include "backends/sim/pages.h"

#include <algorithm>
#include <cerrno>

namespace ioplan::sim {

namespace {

std::uint64_t page_down(std::uint64_t address, std::uint64_t page) { return address & ~(page - 1); }

}  // namespace

Pages::Pages(const PageSupply& supply, std::uint64_t user_va, std::uint64_t length, bool writeable,
             MemlockAccount account)
    : supply_(supply),
      base_(page_down(user_va, supply.page_size)),
      whole_{user_va - base_, length},
      writeable_(writeable),
      account_(account) {}

Pages::Pages(const PageSupply& supply, const Memory& file, std::uint64_t start, std::uint64_t length, bool writeable,
             MemlockAccount account)
    : Pages(supply, start, length, writeable, account) {
  file_ = file;
  supply_.memory.pin(file);  // an open file keeps its pages
}

Pages::~Pages() {
  if (file_) supply_.memory.unpin(*file_);
}

Answer<PhysicalMemory::Place> Pages::pin(const Slice& slice) {
  if (supply_.failures.strikes()) return refuse(ENOMEM, "injected: no memory to pin with");
  PhysicalMemory::Place place;
  if (file_) {
    const std::uint64_t offset = base_ + slice.start;
    if (offset > file_->size || slice.length > file_->size - offset) return refuse(EINVAL, "past the end of the file");
    place = {*file_, offset};
  } else {
    const auto found = supply_.memory.find(base_ + slice.start, slice.length);
    if (!found) return refuse(EFAULT, "no memory at this user address");
    place = *found;
  }
  if (writeable_ && !place.memory.writeable) return refuse(EFAULT, "the memory is not writeable");
  supply_.memory.pin(place.memory);
  return place;
}

void Pages::unpin(const PhysicalMemory::Place& place) { supply_.memory.unpin(place.memory); }

Answer<void> Pages::charge(const Slice& slice) {
  const std::scoped_lock lock(mutex_);
  const std::uint64_t before = pinned_;
  held_.push_back(slice);
  settle();
  const std::uint64_t more = pinned_ - before;
  if (!supply_.failures.strikes() && supply_.memlock.charge(account_, more)) return {};
  held_.pop_back();
  pinned_ = before;
  return refuse(ENOMEM, "over the limit of locked memory");
}

void Pages::uncharge(const Slice& slice) {
  const std::scoped_lock lock(mutex_);
  const std::uint64_t before = pinned_;
  held_.erase(std::ranges::find(held_, slice));
  settle();
  supply_.memlock.uncharge(account_, before - pinned_);
}

std::uint64_t Pages::pinned_bytes() const {
  const std::scoped_lock lock(mutex_);
  return pinned_;
}

// Whole pages, counted once.
void Pages::settle() {
  RangeSet pages;
  for (const Slice& s : held_) pages.add({s.start / supply_.page_size, s.last() / supply_.page_size});
  pinned_ = 0;
  for (const Range& r : pages.ranges()) pinned_ += (r.extent() + 1) * supply_.page_size;
}

}  // namespace ioplan::sim
