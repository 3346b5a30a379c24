// The judge's own type1 container: what groups make of it when they join in a given order, and whether some order makes
// given HWPTs of it (KR 5.1).
#pragma once

#include <vector>

#include "engine/check/choices.h"

namespace ioplan::check {

// The domain that a joining group gets first.
HwptQuantities own_domain(const World& world, const Scene& scene, const Item& item);

// Does Linux attach the whole group to this HWPT?
bool attaches_in_linux(const World& world, const Scene& scene, const Item& item, const HwptQuantities& hwpt);

struct Domain {
  HwptQuantities hwpt;
  std::size_t opener = 0;          // item
  std::vector<std::size_t> items;  // in the order of joining, the opener first
};

// Domains in the order of their making. `order`: items of the scene, each at most once.
std::vector<Domain> replay_joining(const World& world, const Scene& scene, const std::vector<std::size_t>& order);

// Is there an order that makes these HWPTs, of items each, and allowed ones? Every order of openers is tried.
bool joinable(const World& world, const Scene& scene, const std::vector<std::vector<std::size_t>>& hwpts);

}  // namespace ioplan::check
