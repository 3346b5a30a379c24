// AMD's IOMMUs are PCI functions (class 0806), so boot logs and lspci both show them, and the registers that Linux prints
// hold for all of them. Held by tests/import_test.cc.
#pragma once

#include <string>
#include <vector>

#include "backends/intake/ledger.h"

namespace ioplan::intake {

// States the units as ivhd0, ivhd1, ...: functions that the driver names come first, in its order, then those that
// listings show. Returns the ids.
std::vector<std::string> state_amd_units(const PastedTexts& texts, Ledger& ledger);

}  // namespace ioplan::intake
