// What the kernel shows of a machine's IOMMUs, groups and devices in /sys and /proc, as facts.
//
// Formats are those of Linux 7.2.13: drivers/iommu/{iommu.c,iommu-sysfs.c}, intel/iommu.c and amd/init.c (registers in
// hexadecimal without 0x), drivers/pci/pci-sysfs.c, arch/x86/kernel/cpu/proc.c. Nothing is guessed: what needs root, or
// what sysfs does not show at all, is missed with what would supply it. Held by tests/scan_test.cc, and by Linux itself in
// tests/kernel/guest/scan.cc.
#pragma once

#include "backends/intake/findings.h"
#include "backends/intake/machine_files.h"

namespace ioplan::intake {

// Whether the machine's own name is among the facts: people post what they scanned.
enum class HostName : std::uint8_t { leave_out, read };

void scan(MachineFiles& files, HostName host_name, Findings& findings);

}  // namespace ioplan::intake
