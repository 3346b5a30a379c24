// From the records of lspci, group listings, libvirt's node devices and dumps of reserved regions to facts.
// Held by tests/import_test.cc.
#pragma once

#include "backends/intake/ledger.h"

namespace ioplan::intake {

// The class with its programming interface, where the form of the listing tells it.
std::optional<std::uint64_t> whole_class(const LspciFunction& function);

void state_lspci(const Pasted<LspciListing>& listing, Ledger& ledger);
void state_groups(const Pasted<std::vector<GroupMember>>& listing, Ledger& ledger);
void state_node_devices(const Pasted<std::vector<NodeDevice>>& devices, Ledger& ledger);

// For every device that is known to be in the region's group, so after all other texts.
void state_regions(const Pasted<std::vector<RegionLine>>& dump, Ledger& ledger);

}  // namespace ioplan::intake
