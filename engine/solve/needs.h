// A VM's needs with its preferences settled: the solver knows only required needs and none.
#pragma once

#include <array>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/model/request.h"

namespace ioplan {

// The needs that may be preferred, in the order in which preferences are tried.
inline constexpr std::array<std::pair<std::string_view, Need Needs::*>, 3> kPreferableNeeds = {
    {{"dirty_tracking", &Needs::dirty_tracking}, {"nest_parent", &Needs::nest_parent}, {"pasid", &Needs::pasid}}};

// Preferences whose bit (of kPreferableNeeds) is set become required, the others are dropped.
Needs settle_needs(Needs needs, unsigned adopted);

// By VM, with the preferences that a Plan lists ("vm0.dirty_tracking") adopted; none adopted when the list is empty.
std::vector<Needs> settle_needs(const Request& request, std::span<const std::string> adopted);

}  // namespace ioplan
