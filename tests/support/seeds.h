// Seeds of random tests: IOPLAN_SCALE multiplies how many there are, IOPLAN_SEED runs one only.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>

namespace ioplan {

// Counts that a test asserts of a whole run say nothing then.
inline bool one_seed_only() { return std::getenv("IOPLAN_SEED") != nullptr; }

// Calls `one` with every seed until something fails; at least one, `at_scale_one` of them without IOPLAN_SCALE.
template <class F>
void for_seeds(double at_scale_one, F one) {
  if (one_seed_only()) return one(std::strtoull(std::getenv("IOPLAN_SEED"), nullptr, 10));
  const char* scale = std::getenv("IOPLAN_SCALE");
  const auto last = static_cast<std::uint64_t>(std::max(1.0, at_scale_one * (scale == nullptr ? 1 : std::strtod(scale, nullptr))));
  for (std::uint64_t seed = 1; seed <= last && !testing::Test::HasFailure(); ++seed) one(seed);
}

}  // namespace ioplan
