// Every rule of the law, in the order in which refusals are reported: what is simplest to understand comes first.
#pragma once

#include <span>
#include <string_view>

#include "engine/law/rule.h"

namespace ioplan {

std::span<const Rule* const> catalog();

// Null when no rule has this name.
const Rule* find_rule(std::string_view name);

}  // namespace ioplan
