// Memory behind the maps of a simulated backend: one allocation for every range of a plan's memory, for as long as pieces of it
// are mapped. What is left goes back with the object, which must outlive whoever has it pinned.
// Held by tests/apply_sim_test.cc and tests/type1_plan_test.cc.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>

#include "backends/sim/machine.h"
#include "backends/sim/physical_memory.h"
#include "engine/base/error.h"
#include "engine/model/plan.h"

namespace ioplan::sim {

struct GuestMemory {
  Memory memory;
  std::uint64_t first = 0;  // the guest address of its first byte
  unsigned pieces = 0;      // mapped
};

class GuestMemories {
 public:
  using Place = std::pair<std::string, Range>;  // IOAS and memory range
  struct Wanted {
    Place place;
    std::uint64_t backing = 0;  // bytes a page
  };

  explicit GuestMemories(Machine& machine) : machine_(machine) {}
  GuestMemories(const GuestMemories&) = delete;
  GuestMemories& operator=(const GuestMemories&) = delete;
  ~GuestMemories();

  // The memory range of the plan that holds the map, so that its pieces come from one allocation; or the map itself.
  // Errors: no memory is that large.
  Result<Wanted> wanted(const Plan& plan, const Step& step) const;

  bool contains(const Place& place) const { return memory_.contains(place); }
  // Requires: contains(place).
  GuestMemory& at(const Place& place) { return memory_.at(place); }
  // Allocated where it is not there.
  GuestMemory& get(const Wanted& wanted);
  // Memory of which nothing is mapped goes back.
  void release(const Place& place);
  // Moves it here as it is.
  void take(GuestMemories& from, const Place& place) { memory_.insert(from.memory_.extract(place)); }

 private:
  Machine& machine_;
  std::map<Place, GuestMemory> memory_;
};

}  // namespace ioplan::sim
