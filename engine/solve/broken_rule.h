// The first rule that somebody else's layout breaks: what the kernel let pass, held against needs, policy and the rules
// that Linux does not check. Held by tests/baselines_test.cc.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/solve/offers.h"
#include "engine/solve/problem.h"

namespace ioplan {

struct Placement {
  HwptQuantities hwpt;
  std::vector<std::uint32_t> groups;  // of Problem::groups, in any order
};

// The rule's name; empty when none is broken. HWPTs are asked in this order, and in each its groups in theirs.
// Requires: every group of the problem is placed once, and the kernel accepted it.
std::string first_broken_rule(const Problem& problem, std::span<const Placement> placements, const RuleBook& rules);

}  // namespace ioplan
