// The memory of a plan's address spaces, range by range, for as long as pieces of it are mapped.
//
// A range is one file, whose pieces are mapped one by one; when the last is unmapped the file goes. Not thread-safe.
// Held by tests/type1_backend_test.cc.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <utility>

#include "backends/vfio/guest_memory.h"
#include "engine/model/plan.h"

namespace ioplan::vfio {

class GuestMemories {
 public:
  // Gives the memory of one range; without it, a memfd of the plan's backing pages.
  using Source = std::function<Result<LentMemory>(const PlannedIoas&, const MemoryRange&)>;
  using Place = std::pair<std::string, Range>;  // IOAS and memory range

  GuestMemories(System& system, Source source) : system_(system), source_(std::move(source)) {}

  // The memory behind a range of the plan. It stays only if it is taken before the next call of `release`.
  Result<GuestMemory*> at(const PlannedIoas& space, const MemoryRange& range);
  bool lends() const { return static_cast<bool>(source_); }
  void take(const Place& place);     // one more piece is mapped
  void release(const Place& place);  // memory of which nothing is mapped goes back
  void drop(const Place& place);     // one piece less is mapped

 private:
  struct Backing {
    GuestMemory memory;
    unsigned pieces = 0;  // mapped
  };

  System& system_;
  Source source_;
  std::map<Place, Backing> memory_;
};

// The plan's memory range that holds the map, so that its pieces come from one file; or the map itself.
MemoryRange planned_range(const PlannedIoas& space, const Step& step);

}  // namespace ioplan::vfio
