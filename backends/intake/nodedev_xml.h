// libvirt's node devices: what `virsh nodedev-dumpxml` prints, one document or many, with other text around.
//
// Source: libvirt's docs/schemas/nodedev.rng. Held by tests/importers_test.cc.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backends/intake/noted.h"
#include "engine/base/error.h"

namespace ioplan::intake {

struct NodeDevice {
  std::string device;  // PCI address
  std::uint32_t line = 0;
  std::string vendor_name, product_name, driver;
  std::optional<Noted<std::uint64_t>> device_class, vendor, product, numa, group;
  std::vector<Noted<std::string>> group_members;  // PCI addresses, this one among them
};

// PCI devices in the order of the text; other kinds are passed over. Errors: XML that does not parse, with its place.
Result<std::vector<NodeDevice>> read_node_devices(std::string_view text, std::string_view file);

}  // namespace ioplan::intake
