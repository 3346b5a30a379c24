// A rule's refusal in the user's words: the third reading of a rule (engine/law/rule.h).
#pragma once

#include <string>
#include <string_view>

#include "engine/law/rule.h"

namespace ioplan {

// What the placeholders of a refusal stand for. Empty names leave their placeholder as "it".
struct Names {
  std::string device, unit, vm, rule, other, fact;
};

// The refusal of `rule` with the failing atom's values. Requires: the rule does not hold for `values`, or it has no
// atoms and the names say everything.
std::string refusal(const Rule& rule, const Values& values, const Names& names);

// One quantity as the user reads it: page sizes, bytes, addresses, widths, flags.
std::string show_quantity(const Term& term, std::uint64_t value);

}  // namespace ioplan
