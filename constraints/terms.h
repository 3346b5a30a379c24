// What every rule file needs: the rule type, and drivers and policies as terms of an atom.
#pragma once

#include "engine/law/rule.h"
#include "engine/model/facts.h"
#include "engine/model/policy.h"

namespace ioplan::rules {

constexpr Term driver_term(Driver d) { return {static_cast<std::uint64_t>(d)}; }
constexpr Term policy_term(CoherencyPolicy p) { return {static_cast<std::uint64_t>(p)}; }

}  // namespace ioplan::rules
