// Names of PCI devices from the pci.ids file that pciutils and hwdata install.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>

namespace ioplan::intake {

using PciId = std::pair<std::uint64_t, std::uint64_t>;  // vendor, device

// The names of the devices that are asked for, as far as the file knows them.
std::map<PciId, std::string> pci_names(std::string_view file, const std::set<PciId>& wanted);

// The lines of the file that name them.
std::string pci_names_excerpt(std::string_view file, const std::set<PciId>& wanted);

}  // namespace ioplan::intake
