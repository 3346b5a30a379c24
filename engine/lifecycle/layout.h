// A running layout as the lifecycle reads it from a Plan (README.md 1): which VM has which devices, and what every HWPT
// really is. Held by tests/lifecycle_test.cc.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/base/error.h"
#include "engine/law/law.h"
#include "engine/model/features.h"
#include "engine/model/host.h"
#include "engine/model/plan.h"

namespace ioplan {

// The VM's address space; null when no device of it is attached.
const PlannedIoas* space_of(const Plan& plan, std::string_view vm);
PlannedIoas* space_of(Plan& plan, std::string_view vm);

const PlannedIoas* find_ioas(const Plan& plan, std::string_view id);
const PlannedHwpt* find_hwpt(const Plan& plan, std::string_view id);

// Host devices attached to HWPTs of this address space, ascending.
std::vector<std::string> attached_devices(const Plan& plan, std::string_view ioas);

// Attached, mediated and retained devices of all VMs, in no order.
std::vector<std::string> bound_devices(const Plan& plan);

// What nothing may reserve in this address space: `allowed`, or the memory where that says nothing.
std::vector<Range> allowed_ranges(const PlannedIoas& ioas);

// The first memory that lies outside of what is usable; null when none does.
const MemoryRange* unusable_memory(const std::vector<MemoryRange>& memory, const std::vector<Range>& usable);

// A `map` or `unmap` of all of the range.
Step map_step(StepKind kind, const std::string& ioas, const MemoryRange& memory);

// What the HWPT is to the law. Requires: the allocator is a device of the host with complete facts.
HwptQuantities quantities_of(const PlannedHwpt& hwpt, const Host& host, const Law& law);

// The steps that lead from nothing to this layout, as a plan lists them. An allocator that is not of the VM is bound
// for its HWPTs only. `mediated`: by IOAS id, in the plan's order.
std::vector<Step> boot_steps(const Plan& plan, const std::vector<std::vector<std::string>>& mediated);

// Whether the plan can be a layout of this host, which lifecycle asks of all that it is given: it names the host's devices only,
// and the steps of a container make its HWPTs. Errors say what is wrong.
Result<void> require_layout(const Plan& plan, const Host& host, const Law& law);

// "7" of "hwpt7": orders HWPTs as people count.
std::uint64_t number_of(std::string_view id);

}  // namespace ioplan
