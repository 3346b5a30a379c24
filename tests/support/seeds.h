// Seeds of random tests: IOPLAN_SCALE multiplies how many there are, IOPLAN_SEED runs one only.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>

namespace ioplan {

inline double number_from(const char* variable, double otherwise) {
  const char* text = std::getenv(variable);
  return text != nullptr ? std::strtod(text, nullptr) : otherwise;
}

inline double scale() { return number_from("IOPLAN_SCALE", 1); }
inline std::uint64_t scaled(std::uint64_t count) { return static_cast<std::uint64_t>(static_cast<double>(count) * scale()); }

// Counts that a test asserts of a whole run say nothing then.
inline bool one_seed_only() { return std::getenv("IOPLAN_SEED") != nullptr; }

// Calls `one` with every seed until something fails; at least one, `at_scale_one` of them without IOPLAN_SCALE.
template <class F>
void for_seeds(double at_scale_one, F one) {
  if (one_seed_only()) return one(std::strtoull(std::getenv("IOPLAN_SEED"), nullptr, 10));
  const auto last = static_cast<std::uint64_t>(std::max(1.0, at_scale_one * scale()));
  for (std::uint64_t seed = 1; seed <= last && !testing::Test::HasFailure(); ++seed) one(seed);
}

}  // namespace ioplan
