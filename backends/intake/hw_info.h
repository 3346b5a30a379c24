// What only the kernel's iommufd tells: the registers behind each unit, by GET_HW_INFO on a device that vfio-pci has.
//
// One device a unit is opened, bound to a context of its own and asked; closing its descriptor unbinds it, and nothing
// else happens to it. A device that somebody uses cannot be opened, which is a gap like any other. The registers are
// stated as observed, so where sysfs shows other ones both are reported. Held by tests/hw_info_test.cc and, on Linux, by
// tests/kernel/guest/scan.cc.
#pragma once

#include "backends/intake/findings.h"
#include "backends/vfio/system.h"

namespace ioplan::intake {

// `host`: what the scan has found so far. It says which devices are behind which unit, and bound to what.
void ask_iommufd(vfio::System& system, const Host& host, Findings& findings);

}  // namespace ioplan::intake
