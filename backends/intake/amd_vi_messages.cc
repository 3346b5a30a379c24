// AMD-Vi: drivers/iommu/amd/init.c, and the performance counters of arch/x86/events/amd/iommu.c, which number the units.
#include <algorithm>
#include <array>

#include "backends/intake/kernel_log.h"

namespace ioplan::intake {

namespace {

void note_function(const std::string& device, std::uint32_t line, AmdViLog& log) {
  const bool known = std::ranges::find(log.functions, device, &Noted<std::string>::value) != log.functions.end();
  if (!known) log.functions.push_back({device, line});
}

// "0x246577efa2254afa, 0x0" in any of the forms that kernels print.
AmdFeatures take_features(Cursor& at, std::string unit, std::string_view between, std::uint32_t line) {
  AmdFeatures out{std::move(unit), at.hex(), std::nullopt, line};
  if (out.efr && at.skip(between)) out.efr2 = at.hex();
  return out;
}

// "Extended features (0x..., 0x...): PPR NX", before 6.0 "Extended features (0x...):", before 5.9 without parentheses in
// some releases.
bool extended_features(Cursor at, const std::string& unit, std::uint32_t line, AmdViLog& log) {
  if (!at.skip("Extended features")) return false;
  if (!at.skip(" (") && !at.skip(": ") && !at.skip(" ")) return true;
  AmdFeatures features = take_features(at, unit, ", ", line);
  if (features.unit.empty() && !log.functions.empty() && log.functions.back().line + 1 == line && !features.efr2) {
    features.unit = log.functions.back().value;  // before 5.2: printed right below "Found IOMMU at"
  }
  log.features.push_back(std::move(features));
  return true;
}

bool ivhd_features(Cursor at, const std::string&, std::uint32_t line, AmdViLog& log) {
  if (!at.skip("Using global IVHD EFR:")) return false;
  log.ivhd_features = take_features(at, "", ", EFR2:", line);
  return true;
}

// "Found inconsistent EFR/EFR2 0x1,0x2 (global 0x3,0x4) on iommu1 (0000:20:00.2)."
bool inconsistent_features(Cursor at, const std::string&, std::uint32_t line, AmdViLog& log) {
  if (!at.skip_past("Found inconsistent EFR/EFR2 ")) return false;
  AmdFeatures features = take_features(at, "", ",", line);
  if (!at.skip_past(" on iommu") || !at.decimal() || !at.skip(" (")) return true;
  if (const auto device = take_pci_address(at)) {
    features.unit = *device;
    log.features.push_back(std::move(features));
  }
  return true;
}

// "pci 0000:00:00.2: AMD-Vi: Found IOMMU cap 0x40", "AMD-Vi: Found IOMMU at 0000:00:00.2 cap 0x40"
bool function(Cursor at, const std::string& unit, std::uint32_t line, AmdViLog& log) {
  if (at.skip("Found IOMMU at ")) {
    if (const auto device = take_pci_address(at)) note_function(*device, line, log);
    return true;
  }
  if (unit.empty() || !(at.skip("Found IOMMU ") || at.skip("IOMMU performance counters supported"))) return false;
  note_function(unit, line, log);
  return true;
}

// "IVMD_TYPE_ALL   devid_start: 0000:00:00.0 devid_end: 0000:ff:1f.7 range_start: 00... range_end: 00... flags: 3"
bool ivmd(Cursor at, const std::string&, std::uint32_t line, AmdViLog& log) {
  if (!at.skip("IVMD_TYPE") || !at.skip_past("devid_start: ")) return false;
  const auto first = take_pci_address(at);
  if (!first || !at.skip_past("devid_end: ")) return true;
  const auto last = take_pci_address(at);
  if (!last || !at.skip(" range_start: ")) return true;
  const auto start = at.hex();
  if (!start || !at.skip(" range_end: ")) return true;
  const auto end = at.hex();
  if (end && *end > *start) log.ivmds.push_back({*first, *last, {*start, *end - 1}, line});
  return true;
}

struct Statement {
  std::string_view text;
  std::optional<Noted<bool>> AmdViLog::*fact;
};

bool statement(Cursor at, const std::string&, std::uint32_t line, AmdViLog& log) {
  static constexpr std::array<Statement, 6> kStatements = {{
      {"Interrupt remapping enabled", &AmdViLog::irq_remapping},
      {"Virtual APIC enabled", &AmdViLog::virtual_apic},
      {"IOMMU SNP support enabled", &AmdViLog::snp},
      {"V2 page table enabled", &AmdViLog::v2_tables},
      {"Restricting V1 page-sizes to 4KiB/2MiB/1GiB", &AmdViLog::v2_page_sizes},
      {"Restricting V1 page-sizes to 4KiB", &AmdViLog::only_4k},
  }};
  const auto it = std::ranges::find_if(kStatements, [&](const Statement& s) { return at.rest().starts_with(s.text); });
  if (it == kStatements.end()) return false;
  log.*(it->fact) = Noted<bool>{true, line};
  return true;
}

// "perf/amd_iommu: Detected AMD IOMMU #7 (2 banks, 4 counters/bank)."; older: "perf: AMD IOMMU detected (2 banks"
bool counted(Cursor at, std::uint32_t line, AmdViLog& log) {
  if (!at.skip("perf/amd_iommu: Detected AMD IOMMU #")) return false;
  const auto index = at.decimal();
  if (index && (!log.last_index || log.last_index->value < *index)) log.last_index = {*index, line};
  return true;
}

}  // namespace

bool read_amd_vi_message(const LogLine& line, AmdViLog& log) {
  using Read = bool (*)(Cursor, const std::string&, std::uint32_t, AmdViLog&);
  static constexpr std::array<Read, 6> kReads = {extended_features, ivhd_features, inconsistent_features,
                                                 function,          ivmd,          statement};
  Cursor at(line);
  if (counted(at, line.number, log)) return true;
  std::string unit;
  if (at.skip("pci ")) {
    unit = take_pci_address(at).value_or("");
    if (!at.skip(": ")) return false;
  }
  if (!at.skip("AMD-Vi: ")) return false;
  return std::ranges::any_of(kReads, [&](Read read) { return read(at, unit, line.number, log); });
}

}  // namespace ioplan::intake
