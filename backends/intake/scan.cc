#include "backends/intake/scan.h"

#include "backends/intake/sysfs.h"

namespace ioplan::intake {

void scan(MachineFiles& files, HostName host_name_wanted, Findings& findings) {
  Sysfs sysfs(files, findings);
  if (host_name_wanted == HostName::read) sysfs.state_text(host_name(), "/proc/sys/kernel/hostname");
  const DriverSet drivers = scan_units(sysfs);
  scan_kernel(sysfs, drivers);
  scan_groups(sysfs);
  scan_devices(sysfs);
}

}  // namespace ioplan::intake
