// What a careful user could write in an afternoon instead: each finds a number of blocks for a CoverInstance without
// pools and limits, from the instance alone. They count blocks only; costs are ignored.
#pragma once

#include <cstdint>

#include "engine/solve/cover.h"

namespace ioplan::bench {

struct Counted {
  std::uint64_t blocks = 0;  // of the best partition found
  bool proved = false;       // that no fewer will do
};

// CaDiCaL with bounds: 500 greedy cliques from below, up to 200 randomised greedy starts from above (none after the two
// meet), the clique fixed into the first slots, then one slot fewer until that is impossible. One incremental solver;
// the strongest peer that we know.
Counted cadical_cover(const CoverInstance& instance);

// Z3 as the tutorial says: an integer a device (its slot), an integer a slot (its configuration), minimise the highest
// slot. `rlimit`: Z3's own count of work.
Counted z3_cover(const CoverInstance& instance, unsigned rlimit);

// The kernel's automatic attach: the first block whose candidate accepts the element, else a new block under the
// element's preferred candidate (its first).
std::uint64_t first_fit_cover(const CoverInstance& instance);

}  // namespace ioplan::bench
