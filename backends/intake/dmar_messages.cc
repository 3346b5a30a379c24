// VT-d: drivers/iommu/intel/{dmar,iommu,irq_remapping}.c. Older kernels say `dmar:`, `DMAR:` without a blank, and name
// units `IOMMU 0` or by their base.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "backends/intake/kernel_log.h"

namespace ioplan::intake {

namespace {

using Read = bool (*)(Cursor at, std::uint32_t line, DmarLog& log);

bool address_width(Cursor at, std::uint32_t line, DmarLog& log) {
  if (!at.skip("Host address width ")) return false;
  if (const auto bits = at.decimal()) log.host_address_width = {*bits, line};
  return true;
}

// "DRHD base: 0x000000fed90000 flags: 0x0"; 2.6.30: "DRHD (flags: 0x00000000)base: 0x00000000fed90000"
bool drhd(Cursor at, std::uint32_t line, DmarLog& log) {
  if (!at.skip("DRHD") && !at.skip("[DRHD]")) return false;
  Cursor base = at, flags = at;
  if (!base.skip_past("base: ") || !flags.skip_past("flags: ")) return false;
  const auto address = base.hex(), bits = flags.hex();
  if (address && bits) log.drhds.push_back({*address, *bits, line});
  return true;
}

// ": 0x0000004b000000 end: 0x0000004f7fffff"
std::optional<Range> region(Cursor at) {
  if (!at.skip_past(": ")) return std::nullopt;
  const auto start = at.hex();
  if (!start || !at.skip_past("end: ")) return std::nullopt;
  const auto last = at.hex();
  if (!last || *last < *start) return std::nullopt;
  return Range{*start, *last};
}

bool rmrr(Cursor at, std::uint32_t line, DmarLog& log) {
  if (!at.skip("RMRR base") && !at.skip("[RMRR]")) return false;
  if (const auto range = region(at)) log.rmrrs.push_back({"", *range, line});
  return true;
}

// Before 5.4: "Setting identity map for device 0000:00:02.0 [0xad800000 - 0xaf9fffff]"
bool identity_map(Cursor at, std::uint32_t line, DmarLog& log) {
  if (!at.skip("Setting identity map for device ") && !at.skip("Ignoring identity map for HW passthrough device ")) return false;
  const auto device = take_pci_address(at);
  if (!device || !at.skip(" [")) return true;
  const auto start = at.hex();
  if (!start || !at.skip(" - ")) return true;
  const auto last = at.hex();
  if (last && *last >= *start) log.rmrrs.push_back({*device, {*start, *last}, line});
  return true;
}

bool rmrr_device(Cursor at, std::uint32_t line, DmarLog& log) {
  if (!at.skip_past("RMRR entry for device ")) return false;
  if (const auto device = take_pci_address(at)) log.rmrr_devices.push_back({*device, line});
  return true;
}

bool rhsa(Cursor at, std::uint32_t line, DmarLog& log) {
  if (!at.skip("RHSA base: ")) return false;
  const auto base = at.hex();
  if (!base || !at.skip(" proximity domain: ")) return true;
  if (const auto domain = at.hex()) log.rhsas.push_back({*base, *domain, line});
  return true;
}

bool atsr(Cursor at, std::uint32_t line, DmarLog& log) {
  if (!at.skip("ATSR flags: ")) return false;
  if (const auto flags = at.hex()) log.atsr_flags.push_back({*flags, line});
  return true;
}

// "dmar0: ", "IOMMU 0: ", "IOMMU fed90000: ", "IOMMU 0 0xfed90000: "
std::optional<std::string> take_unit_name(Cursor& at, std::size_t position) {
  Cursor ahead = at;
  std::string name;
  if (ahead.skip("dmar")) {
    const auto number = ahead.decimal();
    if (!number) return std::nullopt;
    name = fmt::format("dmar{}", *number);
  } else if (ahead.skip("IOMMU ")) {
    const std::string_view word = ahead.rest().substr(0, ahead.rest().find_first_of(": "));
    const auto number = Cursor(word).decimal();
    const bool sequence = number && word.size() <= 4;
    name = fmt::format("dmar{}", sequence ? *number : position);
    if (!ahead.skip(word)) return std::nullopt;
    if (ahead.skip(" ")) static_cast<void>(ahead.hex());
  } else {
    return std::nullopt;
  }
  if (!ahead.skip(":") && !ahead.skip(" ")) return std::nullopt;
  ahead.skip_blanks();
  at = ahead;
  return name;
}

std::optional<std::uint64_t> register_after(Cursor at, std::string_view name) {
  return at.skip_past(name) ? at.hex() : std::nullopt;
}

std::string version_after(Cursor at) {
  if (!at.skip_past("ver ")) return {};
  const auto major = at.decimal();
  if (!major || !at.skip(":")) return {};
  const auto minor = at.decimal();
  return minor ? fmt::format("{}:{}", *major, *minor) : std::string{};
}

// "dmar0: reg_base_addr fed90000 ver 1:0 cap 1c0000c40660462 ecap 19e2ff0505e"; "IOMMU fed90000: ver 1:0 cap ..."
bool unit_registers(Cursor at, std::uint32_t line, DmarLog& log) {
  Cursor by_base = at;
  const auto name = take_unit_name(at, log.units.size());
  if (!name) return false;
  auto base = register_after(at, "reg_base_addr ");
  if (!base && at.skip("ver ") && by_base.skip("IOMMU ")) base = by_base.hex();
  if (!base) return false;
  log.units.push_back({*name, *base, version_after(by_base), register_after(by_base, " cap "),
                       register_after(by_base, " ecap "), line});
  return true;
}

bool unit_order(Cursor at, std::uint32_t line, DmarLog& log) {
  const auto name = take_unit_name(at, 0);
  if (!name || (!at.skip("Using ") && !at.skip("using "))) return false;
  if (!at.skip_past("nvalidation")) return false;
  log.unit_order.push_back({*name, line});
  return true;
}

bool inconsistent_feature(Cursor at, std::uint32_t line, DmarLog& log) {
  if (!at.skip("IOMMU feature ")) return false;
  const std::string feature(at.word());
  if (at.skip(" inconsistent")) log.inconsistent.push_back({feature, line});
  return true;
}

bool ioapic(Cursor at, std::uint32_t line, DmarLog& log) {
  if (!at.skip("IOAPIC id ")) return false;
  const auto id = at.decimal();
  if (!id || !at.skip(" under DRHD base ")) return true;
  const auto base = at.hex();
  if (!base) return true;
  const auto unit = at.skip(" IOMMU ") ? at.decimal() : std::nullopt;
  log.ioapics.push_back({*id, *base, unit, line});
  return true;
}

bool irq_remapping(Cursor at, std::uint32_t line, DmarLog& log) {
  if (!at.skip("Enabled IRQ remapping in ")) return false;
  const std::string mode(at.word());
  if (mode == "x2apic" || mode == "xapic") log.irq_remapping = {mode, line};
  return true;
}

struct Statement {
  std::string_view text;
  std::optional<Noted<bool>> DmarLog::*fact;
  bool value;
};

bool statement(Cursor at, std::uint32_t line, DmarLog& log) {
  static constexpr std::array<Statement, 9> kStatements = {{
      {"Enable scalable mode if hardware supports", &DmarLog::scalable_mode, true},
      {"Scalable mode is disallowed", &DmarLog::scalable_mode, false},
      {"Disable supported super page", &DmarLog::no_superpages, true},
      {"Forcing write-buffer flush capability", &DmarLog::rwbf_quirk, true},
      {"Failed to enable irq remapping", &DmarLog::irq_remapping_failed, true},
      {"Not enabling interrupt remapping", &DmarLog::irq_remapping_failed, true},
      {"Not enable interrupt remapping", &DmarLog::irq_remapping_failed, true},
      {"IOMMU disabled", &DmarLog::disabled, true},
      {"IOMMU enabled", &DmarLog::disabled, false},
  }};
  const auto it = std::ranges::find_if(kStatements, [&](const Statement& s) { return at.rest().starts_with(s.text); });
  if (it == kStatements.end()) return false;
  log.*(it->fact) = Noted<bool>{it->value, line};
  return true;
}

bool set_up(Cursor at, std::uint32_t line, DmarLog& log) {
  if (!at.skip("Intel(R) Virtualization Technology for Directed I/O")) return false;
  log.set_up = line;
  return true;
}

// "DMAR: ", "DMAR:", "dmar: ", "DMAR-IR: ", "pci 0000:00:00.0: DMAR: "; 2.6.3x: "IOMMU fed90000: ver ..." alone.
bool skip_dmar(Cursor& at) {
  Cursor ahead = at;
  if (ahead.skip("pci ") && (!take_pci_address(ahead) || !ahead.skip(": "))) return false;
  for (const std::string_view name : {"DMAR:", "dmar:", "DMAR-IR:", "IOMMU:"}) {
    if (!ahead.skip(name)) continue;
    ahead.skip_blanks();
    at = ahead;
    return true;
  }
  return at.rest().starts_with("IOMMU ");
}

}  // namespace

bool read_dmar_message(const LogLine& line, DmarLog& log) {
  static constexpr std::array<Read, 14> kReads = {address_width, drhd,           rmrr,   identity_map,         rmrr_device, rhsa,          atsr,
                                                  unit_order,    unit_registers, set_up, inconsistent_feature, ioapic,      irq_remapping, statement};
  Cursor at(line);
  if (!skip_dmar(at)) return false;
  return std::ranges::any_of(kReads, [&](Read read) { return read(at, line.number, log); });
}

}  // namespace ioplan::intake
