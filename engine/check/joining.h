// The judge's own type1 container: what groups make of it when they join in a given order, and whether some order makes
// given HWPTs of it (KR 5.1).
#pragma once

#include <cstdint>
#include <vector>

#include "engine/check/choices.h"

namespace ioplan::check {

// The domain that a joining group gets first.
HwptQuantities own_domain(const World& world, const Scene& scene, const Item& item);

// Does Linux attach the whole group to this HWPT?
bool attaches_in_linux(const World& world, const Scene& scene, const Item& item, const HwptQuantities& hwpt);

// The page sizes that all domains of a container have, as vfio_update_pgsize_bitmap keeps them: sizes below the kernel's
// page show as the page. 0: none. `hwpts`: at least one.
std::uint64_t common_pages(const World& world, const std::vector<HwptQuantities>& hwpts);

// Is the VM's memory aligned for the smallest of them?
bool pages_fit(const Scene& scene, std::uint64_t common);

struct Domain {
  HwptQuantities hwpt;
  std::size_t opener = 0;          // item
  std::vector<std::size_t> items;  // in the order of joining, the opener first
};

// Domains in the order of their making. `order`: items of the scene, each at most once.
std::vector<Domain> replay_joining(const World& world, const Scene& scene, const std::vector<std::size_t>& order);

// Is there an order that makes these HWPTs, of items each, and allowed ones that can map the memory? Every order of openers
// is tried.
bool joinable(const World& world, const Scene& scene, const std::vector<std::vector<std::size_t>>& hwpts);

}  // namespace ioplan::check
