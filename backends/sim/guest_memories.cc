#include "backends/sim/guest_memories.h"

#include <algorithm>

namespace ioplan::sim {

GuestMemories::~GuestMemories() {
  for (const auto& [place, guest] : memory_) machine_.memory().free(guest.memory);
}

Result<GuestMemories::Wanted> GuestMemories::wanted(const Plan& plan, const Step& step) const {
  Wanted wanted{{step.ioas, step.iova}, machine_.host().kernel.facts[KernelFact::page_size].value_or(4096)};
  if (const auto planned = std::ranges::find(plan.ioas, step.ioas, &PlannedIoas::id); planned != plan.ioas.end()) {
    wanted.backing = std::max(wanted.backing, planned->backing);
    for (const MemoryRange& m : planned->memory) {
      if (m.gpa.contains(step.iova)) wanted.place.second = m.gpa;
    }
  }
  if (wanted.place.second.last > ~std::uint64_t{0} - wanted.backing) return failure("no memory is that large");
  return wanted;
}

GuestMemory& GuestMemories::get(const Wanted& wanted) {
  const auto& [place, backing] = wanted;
  GuestMemory& guest = memory_[place];
  if (guest.memory.size != 0) return guest;
  guest.first = place.second.start / backing * backing;
  guest.memory = machine_.memory().allocate((place.second.last - guest.first) / backing * backing + backing, backing);
  return guest;
}

void GuestMemories::release(const Place& place) {
  const auto it = memory_.find(place);
  if (it->second.pieces != 0) return;
  machine_.memory().free(it->second.memory);
  memory_.erase(it);
}

}  // namespace ioplan::sim
