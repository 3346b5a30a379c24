#include "backends/intake/amd_units.h"

#include <algorithm>

namespace ioplan::intake {

namespace {

constexpr std::uint64_t kIommuClass = 0x0806;

struct Function {
  std::string device, source;
};

bool is_amd_iommu(std::uint64_t class_code, std::uint64_t vendor) {
  return class_code == kIommuClass && (vendor == 0x1022 || vendor == 0x1002);
}

void add(std::vector<Function>& out, const std::string& device, std::string source) {
  if (std::ranges::find(out, device, &Function::device) == out.end()) out.push_back({device, std::move(source)});
}

std::vector<Function> functions_of(const PastedTexts& texts) {
  std::vector<Function> out;
  for (const auto& log : texts.logs) {
    for (const auto& f : log.content.amd.functions) add(out, f.value, log.at(f.line));
  }
  for (const auto& log : texts.logs) {
    for (const PciFunctionLine& f : log.content.devices.functions) {
      if (is_amd_iommu(f.device_class >> 8, f.ids.vendor)) add(out, f.device, log.at(f.line));
    }
  }
  for (const auto& listing : texts.listings) {
    for (const LspciFunction& f : listing.content.functions) {
      if (f.class_code && f.ids && is_amd_iommu(f.class_code->value, f.ids->vendor)) add(out, f.device, listing.at(f.line));
    }
  }
  return out;
}

// The registers that a log shows: of all units, or of one where they differ. The firmware's copy counts where the log
// does not show the registers' own.
std::vector<AmdFeatures> features_of(const AmdViLog& amd) {
  std::vector<AmdFeatures> out = amd.features;
  const bool shared = std::ranges::any_of(out, [](const AmdFeatures& f) { return f.unit.empty() && f.efr; });
  if (!shared && amd.ivhd_features && amd.ivhd_features->efr.value_or(0) != 0) out.push_back(*amd.ivhd_features);
  return out;
}

}  // namespace

std::vector<std::string> state_amd_units(const PastedTexts& texts, Ledger& ledger) {
  std::vector<Function> functions = functions_of(texts);
  for (const auto& log : texts.logs) {  // registers without a function: there is one unit at least
    const auto features = features_of(log.content.amd);
    if (functions.empty() && !features.empty()) functions.push_back({"", log.at(features[0].line)});
  }
  std::vector<std::string> ids;
  for (const Function& f : functions) {
    ids.push_back(fmt::format("ivhd{}", ids.size()));
    ledger.state_unit(ids.back(), Driver::amd, f.source);
    for (const UnitFact fact : {UnitFact::efr, UnitFact::efr2}) {
      ledger.findings.miss(unit(ids.back(), fact), "no text shows it",
                           "give a boot log with the line `AMD-Vi: Extended features (0x..., 0x...)`");
    }
    for (const auto& log : texts.logs) {
      for (const AmdFeatures& known : features_of(log.content.amd)) {
        if (!known.unit.empty() && known.unit != f.device) continue;
        if (known.efr) ledger.findings.state(unit(ids.back(), UnitFact::efr), *known.efr, log.at(known.line));
        if (known.efr2) ledger.findings.state(unit(ids.back(), UnitFact::efr2), *known.efr2, log.at(known.line));
      }
    }
  }
  return ids;
}

}  // namespace ioplan::intake
