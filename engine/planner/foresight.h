// What a VM expects to be plugged, planned for at boot (engine/lifecycle/README.md 7).
//
// A promise is a place that is kept: expected devices take part in the cover like the VM's own, but allocate nothing
// and cost nothing themselves; expected memory is what nothing may stand in the way of. Memory comes first, then
// devices in ascending order; each is promised when there is a plan that keeps it with those promised before. Held by
// tests/foresight_test.cc.
#pragma once

#include <vector>

#include "engine/law/law.h"
#include "engine/model/plan.h"
#include "engine/model/request.h"
#include "engine/solve/cover.h"

namespace ioplan {

struct Foresight {
  Request request;  // with what is promised marked (AssignedDevice::expected, VirtualMachine::expected_memory)
  std::vector<Unpromised> unpromised;
};

bool expects_anything(const Request& request);

// Requires: complete facts of the VMs' own devices; needs settled, by VM; a plan without promises.
Foresight foresee(const Request& request, const std::vector<Needs>& needs, const Law& law, const CoverBudget& budget);

// Devices that a VM expects, ascending: those named, and those of the classes named that no VM of the request has.
std::vector<DeviceIndex> expected_devices(const Request& request, const VirtualMachine& vm);

}  // namespace ioplan
