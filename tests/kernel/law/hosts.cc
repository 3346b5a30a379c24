#include "tests/kernel/law/hosts.h"

#include <fmt/format.h>

#include "engine/document/load.h"
#include "tests/support/corpus.h"

namespace ioplan::judged {

std::uint64_t Draw::flip(std::uint64_t value, std::uint64_t which, unsigned most) {
  for (std::uint64_t left = below(most + 1); left > 0; --left) {
    std::uint64_t rest = which;
    for (std::uint64_t skip = below(static_cast<std::uint64_t>(std::popcount(which))); skip > 0; --skip)
      rest &= rest - 1;
    value ^= rest & -rest;
  }
  return value;
}

std::unique_ptr<Hosts> hosts_of(std::string_view driver, std::span<const Unit> real) {
  if (driver == "intel") return intel_hosts(real);
  if (driver == "amd") return amd_hosts(real);
  if (driver == "smmuv3") return smmuv3_hosts(real);
  if (driver == "virtio") return virtio_hosts();
  return nullptr;
}

std::vector<Unit> real_units() {
  std::vector<Unit> units;
  const auto root = corpus::root();
  if (!root) return units;
  for (const corpus::Machine& machine : corpus::read(*root)) {
    auto loaded = load_text(machine.id, machine.host);
    if (!loaded) continue;
    for (Unit& unit : loaded->request.host.units) units.push_back(std::move(unit));
  }
  return units;
}

Host host_of_two(Arch arch, Driver driver, const judge_host& kernel) {
  Host host;
  host.kernel.arch = arch;
  for (unsigned i = 0; i < JUDGE_UNITS + 1; ++i) {
    const bool foreign = i == JUDGE_UNITS;
    host.units.push_back({.id = fmt::format("u{}", i), .driver = foreign ? Driver::mock : driver, .facts = {}});
    Device device;
    device.id = fmt::format("d{}", i);
    device.unit = UnitIndex(i == 1 && kernel.one_unit != 0 ? 0 : i);
    device.group = i;
    host.devices.push_back(std::move(device));
  }
  return host;
}

std::string describe_host(std::string_view driver, const judge_host& host) {
  std::string text;
  const auto unit_text = [&](const judge_unit& u) {
    if (driver == "intel") return fmt::format("cap {:#x} ecap {:#x}", u.cap, u.ecap);
    if (driver == "amd") return fmt::format("efr {:#x} efr2 {:#x}", u.efr, u.efr2);
    if (driver == "virtio") {
      return fmt::format("page_mask {:#x} input {:#x}..{:#x}", u.page_sizes, u.input_start, u.input_last);
    }
    return fmt::format("idr0 {:#x} idr1 {:#x} idr3 {:#x} idr5 {:#x} iidr {:#x} coherent {} httu {} dt {} canwbs {}",
                       u.idr0, u.idr1, u.idr3, u.idr5, u.iidr, u.coherent, u.firmware_updates, u.device_tree, u.canwbs);
  };
  for (unsigned i = 0; i < JUDGE_UNITS; ++i) text += fmt::format("unit {} {}, ", i, unit_text(host.units[i]));
  if (host.one_unit != 0) text += "both devices behind unit 0, ";
  if (driver == "intel") {
    return text +
           fmt::format("sm {} sp_off {} rwbf_quirk {}", host.scalable_mode, host.superpages_off, host.rwbf_quirk);
  }
  if (driver == "amd") {
    return text + fmt::format("v2 {} nohugepages {} v2_pgsizes {} snp {} la57 {} ivinfo {:#x}", host.v2_tables,
                              host.nohugepages, host.v2_page_sizes_only, host.wants_snp, host.la57, host.ivinfo);
  }
  return text +
         fmt::format("page size {:#x} va_bits {} boot log {}", host.page_size, host.va_bits, host.known_by_boot_log);
}

}  // namespace ioplan::judged
