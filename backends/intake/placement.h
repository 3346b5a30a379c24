// Which unit is a device behind? Only ACPI says so outright, and boot logs do not print ACPI's scopes. Two things always
// hold, and nothing else is concluded:
//
// 1. A host with one unit has all its grouped devices behind it: a DMAR table whose one DRHD has INCLUDE_PCI_ALL, a boot
//    whose log is there from its beginning and tells of one unit.
// 2. Since Linux 6.1 a unit's devices join their groups while that unit is registered (iommu_device_register probes the
//    bus; a driver whose unit is not registered yet answers -ENODEV: intel_iommu_probe_device, amd_iommu_probe_device).
//    So the "Adding to iommu group" lines before the driver is done fall into one run for each unit.
//    - AMD prints a line about each unit right before it registers it. Where devices join between all of these lines, they
//      are that unit's.
//    - VT-d prints none; but a run goes through the PCI functions in the order of their enumeration, so a function that
//      was enumerated before its predecessor begins another run. With as many runs seen as there are units there are no
//      others, and the units' order is that of the log's "Using Queued invalidation" lines (for_each_active_iommu, both).
//    Older kernels probe the bus once, after all units are registered: one run, from which nothing follows.
//
// Held by tests/import_test.cc, which has the cases that must stay unknown, and by tests/import_corpus_test.cc.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "backends/intake/kernel_log.h"

namespace ioplan::intake {

struct Placement {
  std::string unit;
  std::uint32_t line = 0;  // of the log, which proves it
};

// The unit that serves everything, where the log shows that there is one only.
std::optional<Placement> single_unit(const KernelLog& log, const std::vector<std::string>& units);

// By the order in which devices joined their groups; `units` are the units' ids in the order in which the log names
// them (AMD: amd.functions). Empty where the log does not prove it.
std::map<std::string, Placement> units_by_order(const KernelLog& log, const std::vector<std::string>& units);

}  // namespace ioplan::intake
