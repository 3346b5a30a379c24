// The judge's own exhaustive search: every way to split the clumps of a request into HWPTs.
//
// Depth first, each clump into every HWPT that exists or a new one, cut off where the objectives so far are no better
// than the best found. It is plain and slow on purpose; what it cannot finish within its budget is a doubt.
#pragma once

#include <optional>

#include "engine/check/choices.h"

namespace ioplan::check {

using ObjectiveOrder = std::array<Objective, 5>;

struct SearchResult {
  bool complete = false;                // every placement was looked at or cut off
  std::optional<ObjectiveValues> best;  // the least in the order; nothing when no placement was found
};

// The least objective values over all valid placements of all VMs together.
SearchResult least_objectives(const World& world, const ObjectiveOrder& order, std::uint64_t work);

// Some placement, or the certainty that there is none. Its values are of no meaning but `hwpts`.
SearchResult any_placement(const World& world, std::uint64_t work);

// The fewest HWPTs.
SearchResult fewest_hwpts(const World& world, std::uint64_t work);

}  // namespace ioplan::check
