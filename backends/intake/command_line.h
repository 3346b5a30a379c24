// The kernel's command line: its options about IOMMUs, and the facts that they settle. Anything else in it (file systems,
// console, names) is nobody's business and is left out.
//
// Source: Documentation/admin-guide/kernel-parameters.txt; intel_iommu_setup, parse_amd_iommu_options; the parameters
// of vfio_iommu_type1 and iommufd. Held by tests/import_test.cc.
#pragma once

#include <string>
#include <string_view>

#include "backends/intake/findings.h"

namespace ioplan::intake {

// "intel_iommu=on,sm_on iommu=pt"; empty when there is none.
std::string iommu_options(std::string_view command_line);

// States `kernel.command_line` and what follows from the whole command line for hosts with these drivers. Without sm_on or
// sm_off the kernel's configuration decides: that is missed.
void state_command_line(std::string_view command_line, DriverSet drivers, const std::string& source, Findings& findings);

}  // namespace ioplan::intake
