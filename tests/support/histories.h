// Random histories of a running VM: what is plugged and unplugged, in which order. Seeded, so a failure can be
// replayed.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "engine/lifecycle/change.h"
#include "engine/model/plan.h"
#include "engine/model/request.h"

namespace ioplan::histories {

using Random = std::mt19937_64;

// A request without absent facts, as a history begins: every VM with some of its devices.
// Requires nothing of the seed; the same seed gives the same request.
Request first_request(std::uint64_t seed, std::size_t most_groups = 6);

// Plugs and unplugs of one VM that make sense for what runs: one or two devices, now and then memory or a mediated
// device.
Change random_change(Random& random, const Plan& running, const Request& request);

// "vm0 +0000:01:00.0 -0000:02:00.0 +1GiB"
std::string to_text(const Change& change);

}  // namespace ioplan::histories
