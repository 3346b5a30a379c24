#include "bench/synthetic_host.h"

#include <fmt/format.h>

#include <algorithm>

namespace ioplan::bench {

namespace {

constexpr std::uint64_t kCap = 0x19ed008c40780c66, kEcap = 0x3ef9ea6f050df;  // Sapphire Rapids

constexpr unsigned kSecondStage = 46, kFirstStage = 47;  // ECAP

// Bits of capability that tell variants apart: a unit lacks those whose bit is set in its variant's number. The lowest
// bit of the number chooses between units with only a first and only a second stage, which never share a HWPT.
struct Bit {
  bool ecap;
  unsigned position;
};
constexpr std::array<Bit, 5> kBits = {{
    {true, 7},    // snoop control
    {false, 35},  // 1G pages, second stage
    {false, 56},  // 1G pages, first stage
    {true, 26},   // nesting
    {true, 45},   // dirty tracking
}};

Unit unit(std::size_t number, std::size_t variant) {
  Unit u;
  u.id = fmt::format("dmar{}", number);
  std::uint64_t cap = kCap, ecap = kEcap & ~(std::uint64_t{1} << (variant % 2 == 0 ? kSecondStage : kFirstStage));
  for (std::size_t b = 0; b < kBits.size(); ++b) {
    if ((variant >> (b + 1) & 1) != 0) (kBits[b].ecap ? ecap : cap) &= ~(std::uint64_t{1} << kBits[b].position);
  }
  u.facts[UnitFact::cap] = cap;
  u.facts[UnitFact::ecap] = ecap;
  return u;
}

Device function(std::size_t number, std::size_t units) {
  Device d;
  d.id = fmt::format("0000:{:02x}:{:02x}.{}", number / 256, number / 8 % 32, number % 8);
  d.unit = UnitIndex(number % units);
  d.group = static_cast<std::uint32_t>(number + 1);
  d.name = "Ethernet Adaptive Virtual Function";
  d.facts[DeviceFact::device_class] = 0x020000;
  d.facts[DeviceFact::vendor] = 0x8086;
  d.facts[DeviceFact::device] = 0x1889;
  d.facts[DeviceFact::numa] = number % units * 2 / units;
  d.reserved = {{{0xfee00000, 0xfeefffff}, ReservedType::msi}};
  return d;
}

}  // namespace

Request synthetic_request(const HostShape& shape) {
  Request request;
  Host& host = request.host;
  host.name = "synthetic";
  host.kernel.arch = Arch::x86_64;
  host.kernel.release = "7.2.13";
  host.kernel.facts[KernelFact::page_size] = 4096;
  host.kernel.facts[KernelFact::intel_iommu_sm] = 1;
  host.kernel.facts[KernelFact::isolated_msi] = 1;
  const std::size_t units = std::min(shape.units, shape.functions);
  for (std::size_t u = 0; u < units; ++u) host.units.push_back(unit(u, u % shape.signatures));
  for (std::size_t f = 0; f < shape.functions; ++f) host.devices.push_back(function(f, units));
  VirtualMachine vm;
  vm.name = "vm0";
  vm.memory.size = std::uint64_t{64} << 30;
  vm.memory.backing = 4096;
  vm.machine.type = MachineType::q35;
  vm.machine.cpu_vendor = CpuVendor::intel;
  for (std::size_t f = 0; f < shape.functions; ++f)
    vm.devices.push_back({DeviceIndex(f), "", fmt::format("vf{}", f), {}});
  request.vms.push_back(std::move(vm));
  return request;
}

std::string to_yaml(const Request& request) {
  const Host& host = request.host;
  std::string text =
      "apiVersion: ioplan/v1\nkind: Host\nname: synthetic\n"
      "kernel: {arch: x86_64, release: 7.2.13, page_size: 4KiB, intel_iommu_sm: true, isolated_msi: true}\niommus:\n";
  const auto out = std::back_inserter(text);
  for (const Unit& u : host.units) {
    fmt::format_to(out, "  - {{id: {}, driver: intel, cap: {:#x}, ecap: {:#x}}}\n", u.id, u.facts.at(UnitFact::cap),
                   u.facts.at(UnitFact::ecap));
  }
  text += "devices:\n";
  for (const Device& d : host.devices) {
    fmt::format_to(out,
                   "  - id: \"{}\"\n    iommu: {}\n    group: {}\n    class: {:#08x}\n    vendor: {:#x}\n"
                   "    device: {:#x}\n    name: {}\n    numa: {}\n    reserved:\n",
                   d.id, host.unit(*d.unit).id, *d.group, d.facts.at(DeviceFact::device_class),
                   d.facts.at(DeviceFact::vendor), d.facts.at(DeviceFact::device), d.name,
                   d.facts.at(DeviceFact::numa));
    for (const ReservedRegion& r : *d.reserved) {
      fmt::format_to(out, "      - {{range: [{:#x}, {:#x}], type: msi}}\n", r.range.start, r.range.last);
    }
  }
  text +=
      "---\napiVersion: ioplan/v1\nkind: VirtualMachine\nname: vm0\nmemory: {size: 64GiB, backing: 4KiB}\n"
      "machine: {type: q35, cpu_vendor: intel}\ndevices:\n";
  for (const AssignedDevice& a : request.vms[0].devices) {
    fmt::format_to(out, "  - {{host: \"{}\", name: {}}}\n", host.device(*a.host).id, a.name);
  }
  return text;
}

std::string to_json(const Request& request) {
  const Host& host = request.host;
  std::string units, devices, assigned;
  const auto item = [](std::string& list, const std::string& text) {
    list += (list.empty() ? "\n    " : ",\n    ") + text;
  };
  for (const Unit& u : host.units) {
    item(units, fmt::format(R"({{"id": "{}", "driver": "intel", "cap": "{:#x}", "ecap": "{:#x}"}})", u.id,
                            u.facts.at(UnitFact::cap), u.facts.at(UnitFact::ecap)));
  }
  for (const Device& d : host.devices) {
    std::string reserved;
    for (const ReservedRegion& r : *d.reserved) {
      reserved += fmt::format(R"({{"range": ["{:#x}", "{:#x}"], "type": "msi"}})", r.range.start, r.range.last);
    }
    item(devices, fmt::format(R"({{"id": "{}", "iommu": "{}", "group": {}, "class": "{:#08x}", "vendor": "{:#x}", )"
                              R"("device": "{:#x}", "name": "{}", "numa": {}, "reserved": [{}]}})",
                              d.id, host.unit(*d.unit).id, *d.group, d.facts.at(DeviceFact::device_class),
                              d.facts.at(DeviceFact::vendor), d.facts.at(DeviceFact::device), d.name,
                              d.facts.at(DeviceFact::numa), reserved));
  }
  for (const AssignedDevice& a : request.vms[0].devices) {
    item(assigned, fmt::format(R"({{"host": "{}", "name": "{}"}})", host.device(*a.host).id, a.name));
  }
  return fmt::format(
      R"({{"apiVersion": "ioplan/v1", "kind": "Host", "name": "synthetic",
  "kernel": {{"arch": "x86_64", "release": "7.2.13", "page_size": "4KiB",
             "intel_iommu_sm": true, "isolated_msi": true}},
  "iommus": [{}],
  "devices": [{}]}}
---
{{"apiVersion": "ioplan/v1", "kind": "VirtualMachine", "name": "vm0",
  "memory": {{"size": "64GiB", "backing": "4KiB"}}, "machine": {{"type": "q35", "cpu_vendor": "intel"}},
  "devices": [{}]}}
)",
      units, devices, assigned);
}

}  // namespace ioplan::bench
