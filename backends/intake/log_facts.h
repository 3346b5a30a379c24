// From the records of a boot log to facts: units, kernel, devices. AMD's units are apart (amd_units.h), because listings
// show them too; which unit a device is behind is concluded last (placement.h). Held by tests/import_test.cc.
#pragma once

#include "backends/intake/ledger.h"

namespace ioplan::intake {

void state_log(const Pasted<KernelLog>& log, Ledger& ledger);

}  // namespace ioplan::intake
