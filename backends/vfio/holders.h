// Who has VFIO's device files open: what somebody outside of a VMM can see of a running layout.
//
// By /proc/PID/fd, which shows other users' processes to root only. Reads, and changes nothing. Held by
// tests/observe_test.cc and, on Linux, by tests/kernel/guest/refusals.cc.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "backends/vfio/system.h"

namespace ioplan::vfio {

struct Holder {
  std::string process;  // its number
  std::string name;     // "qemu-system-x86"

  friend auto operator<=>(const Holder&, const Holder&) = default;
};

// By path below /dev/vfio: "/dev/vfio/devices/vfio3". Ascending, each once.
std::map<std::string, std::vector<Holder>> holders_of_vfio_files(System& system);

}  // namespace ioplan::vfio
