// What a PCI function's configuration space says of its capabilities, as far as it could be read.
//
// sysfs gives 64 bytes without root, 256 where there is no extended space, 4096 otherwise; a short file leaves unknown
// whatever lies behind its end. The lists are walked as the hardware links them, at most as many steps as there is room
// for capabilities, so a loop ends. Registers: PCI Express Base Specification 6.0, chapter 7; Linux reads the same ones
// (include/uapi/linux/pci_regs.h). Held by tests/scan_test.cc and tests/fuzz/config_space_fuzz.cc.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace ioplan::intake {

// Absent: not known. A function that is known not to have a capability has `false` or 0.
struct PciCapabilities {
  std::optional<bool> ats, pri, no_snoop;
  std::optional<std::uint64_t> pasid_bits;
  std::optional<std::uint64_t> acs, acs_enabled;
  std::size_t bytes = 0;  // that were readable

  friend bool operator==(const PciCapabilities&, const PciCapabilities&) = default;
};

PciCapabilities capabilities_of(std::string_view config);

// The same space with zeros for every byte that capabilities_of does not look at, serial numbers among them; it finds the
// same in both.
std::string config_excerpt(std::string_view config);

}  // namespace ioplan::intake
