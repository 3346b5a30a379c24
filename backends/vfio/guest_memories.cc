#include "backends/vfio/guest_memories.h"

#include "backends/vfio/admission.h"

namespace ioplan::vfio {

Result<GuestMemory*> GuestMemories::at(const PlannedIoas& space, const MemoryRange& range) {
  const Place place{space.id, range.gpa};
  if (const auto it = memory_.find(place); it != memory_.end()) return &it->second.memory;
  const std::uint64_t page = backing_page(system_, space);
  if (source_) {
    const auto theirs = source_(space, range);
    if (!theirs) return tl::make_unexpected(theirs.error());
    GuestMemory lent = GuestMemory::lent(system_, range.gpa, page, *theirs);
    return &memory_.emplace(place, Backing{std::move(lent)}).first->second.memory;
  }
  auto ours = GuestMemory::allocate(system_, range.gpa, page);
  if (!ours) return tl::make_unexpected(ours.error());
  return &memory_.emplace(place, Backing{std::move(*ours)}).first->second.memory;
}

void GuestMemories::take(const Place& place) { ++memory_.at(place).pieces; }

void GuestMemories::release(const Place& place) {
  const auto it = memory_.find(place);
  if (it != memory_.end() && it->second.pieces == 0) memory_.erase(it);
}

void GuestMemories::drop(const Place& place) {
  --memory_.at(place).pieces;
  release(place);
}

MemoryRange planned_range(const PlannedIoas& space, const Step& step) {
  for (const MemoryRange& m : space.memory) {
    if (m.gpa.contains(step.iova)) return m;
  }
  return {step.iova, step.writeable ? Access::read_write : Access::read_only};
}

}  // namespace ioplan::vfio
