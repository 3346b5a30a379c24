// A running layout as the lifecycle reads it from a Plan (README.md 1): which VM has which devices, and what every HWPT
// really is.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/law/law.h"
#include "engine/model/host.h"
#include "engine/model/plan.h"

namespace ioplan {

// The VM's address space; nothing when no device of it is attached.
const PlannedIoas* space_of(const Plan& plan, std::string_view vm);

// Host devices of the VM that are attached, ascending by host order; then mediated devices by UUID.
std::vector<std::string> attached_devices(const Plan& plan, std::string_view vm);
std::vector<std::string> mediated_devices(const Plan& plan, std::string_view vm);

// What nothing may reserve in this address space: `allowed`, or the memory where that says nothing.
std::vector<Range> allowed_ranges(const PlannedIoas& ioas);

// What the HWPT is to the law. Requires: the allocator is a device of the host with complete facts.
HwptQuantities quantities_of(const PlannedHwpt& hwpt, const Host& host, const Law& law);

}  // namespace ioplan
