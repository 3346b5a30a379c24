// PCI functions, bridges, BARs, NUMA nodes and IOMMU groups: drivers/pci/{probe,setup-bus,setup-res}.c,
// drivers/acpi/pci_root.c, drivers/iommu/iommu.c.
#include <algorithm>
#include <array>
#include <bit>

#include "backends/intake/kernel_log.h"

namespace ioplan::intake {

namespace {

using Read = bool (*)(Cursor at, const std::string& device, std::uint32_t line, DeviceLog& log);

// "[8086:46a6] type 00 class 0x030000 PCIe Root Complex Integrated Endpoint"; before 3.x "class 0x000300"
bool function(Cursor at, const std::string& device, std::uint32_t line, DeviceLog& log) {
  if (!at.skip("[")) return false;
  const auto ids = take_pci_ids(at);
  if (!ids || !at.skip("] type ")) return false;
  const auto type = at.hex();
  if (!type || !at.skip(" class ")) return true;
  const auto device_class = at.hex();
  if (device_class && *device_class <= 0xffffff) log.functions.push_back({device, *ids, *type, *device_class, line});
  return true;
}

// "PCI bridge to [bus 02-49]", "[bus 01]"
bool bridge(Cursor at, const std::string& device, std::uint32_t line, DeviceLog& log) {
  if (!at.skip("PCI bridge to [bus ")) return false;
  const auto secondary = at.hex();
  const auto subordinate = at.skip("-") ? at.hex() : secondary;
  if (secondary && subordinate) log.bridges.push_back({device, *secondary, *subordinate, line});
  return true;
}

// "0xd2000000-0xd2ffffff" below "[mem "
std::optional<std::uint64_t> memory_size(Cursor at) {
  if (!at.skip_past("[mem ")) return std::nullopt;
  const auto start = at.hex();
  if (!start || !at.skip("-")) return std::nullopt;
  const auto last = at.hex();
  if (!last || *last <= *start || !std::has_single_bit(*last - *start + 1)) return std::nullopt;
  return *last - *start + 1;
}

// "BAR 0 [mem ...]" (6.7), "reg 0x10: [mem ...]" (3.5), "reg 10: [mem ...]"
bool bar(Cursor at, const std::string& device, std::uint32_t line, DeviceLog& log) {
  std::optional<std::uint64_t> index;
  if (at.skip("BAR ")) {
    index = at.decimal();
    if (!at.rest().starts_with(" [mem ")) return false;
  } else if (at.skip("reg ")) {
    const auto offset = at.hex();
    if (offset && *offset >= 0x10 && *offset <= 0x24) index = (*offset - 0x10) / 4;
    if (!at.rest().starts_with(": [mem ")) return false;
  }
  const auto size = memory_size(at);
  if (!index || *index > 5 || !size) return false;
  log.bars.push_back({device, static_cast<unsigned>(*index), *size, line});
  return true;
}

bool joins_group(Cursor at, const std::string& device, std::uint32_t line, DeviceLog& log) {
  if (!at.skip("Adding to iommu group ")) return false;
  const auto group = at.decimal();
  if (group && *group <= 0xffffffff) log.groups.push_back({device, *group, line});
  return true;
}

bool leaves_group(Cursor at, const std::string& device, std::uint32_t, DeviceLog& log) {
  if (!at.skip("Removing from iommu group ")) return false;
  std::erase_if(log.groups, [&](const GroupLine& g) { return g.device == device; });
  return true;
}

bool refused(Cursor at, const std::string& device, std::uint32_t line, DeviceLog& log) {
  if (!at.skip("Firmware has requested this device have a 1:1 IOMMU mapping") &&
      !at.skip_past("ineligible for IOMMU domain attach due to platform RMRR requirement")) {
    return false;
  }
  log.refused.push_back({device, line});
  return true;
}

// Before 5.3: "iommu: Adding device 0000:00:02.0 to group 1", "iommu: Removing device 0000:00:02.0 from group 1"
bool old_group_message(Cursor at, std::uint32_t line, DeviceLog& log) {
  if (!at.skip("iommu: ")) return false;
  const bool joins = at.skip("Adding device ");
  if (!joins && !at.skip("Removing device ")) return false;
  const std::string word(at.word());
  const std::string device = pci_address(word).value_or(word);
  if (device.empty()) return true;
  if (!joins) {
    std::erase_if(log.groups, [&](const GroupLine& g) { return g.device == device; });
  } else if (at.skip(" to group ")) {
    const auto group = at.decimal();
    if (group && *group <= 0xffffffff) log.groups.push_back({device, *group, line});
  }
  return true;
}

// "pci_bus 0000:80: on NUMA node 1"; newer kernels put the pxm in parentheses after it
bool node(Cursor at, std::uint32_t line, DeviceLog& log) {
  if (!at.skip("pci_bus ")) return false;
  const std::string bus(at.until(' '));
  if (bus.size() < 8 || !bus.ends_with(':') || !at.skip("on NUMA node ")) return false;
  if (const auto number = at.decimal()) log.nodes.push_back({bus.substr(0, bus.size() - 1), *number, line});
  return true;
}

// "pcieport 0000:90:00.0: " -> "0000:90:00.0"; "platform a600000.usb: " -> "a600000.usb"
std::string take_device(Cursor& at) {
  static constexpr std::size_t kLongest = 64;
  Cursor ahead = at;
  static_cast<void>(ahead.word());
  std::string device(ahead.word());
  if (device.size() < 2 || device.size() > kLongest || !device.ends_with(':')) return {};
  device.pop_back();
  ahead.skip_blanks();
  at = ahead;
  return pci_address(device).value_or(device);
}

}  // namespace

bool read_device_message(const LogLine& line, DeviceLog& log) {
  static constexpr std::array<Read, 3> kOfPci = {function, bridge, bar};
  static constexpr std::array<Read, 3> kOfAll = {joins_group, leaves_group, refused};
  Cursor at(line);
  if (node(at, line.number, log) || old_group_message(at, line.number, log)) return true;
  const std::string device = take_device(at);
  if (device.empty()) return false;
  const auto reads = [&](Read read) { return read(at, device, line.number, log); };
  return (pci_address(device) && std::ranges::any_of(kOfPci, reads)) || std::ranges::any_of(kOfAll, reads);
}

}  // namespace ioplan::intake
