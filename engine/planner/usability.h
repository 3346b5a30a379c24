// What of a host can be given to a VM at all, whatever the VM: the rules of the phases `usable` and `group`, asked for a
// VM that wants nothing. Unknown facts take their most capable values, so what is refused here is refused for good.
// Held by tests/host_command_test.cc.
#pragma once

#include <string>
#include <vector>

#include "engine/law/law.h"
#include "engine/model/host.h"

namespace ioplan {

struct UnusableDevice {
  std::string device;
  std::string rule;  // empty: the device has no unit or no group
  std::string because;
};

// Bridges are not asked: they are never given to a VM. In the order of the host's devices.
std::vector<UnusableDevice> unusable_devices(const Host& host, const Law& law);

}  // namespace ioplan
