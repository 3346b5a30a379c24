#include "backends/intake/ledger.h"

#include <algorithm>

namespace ioplan::intake {

void Ledger::state_exists(const std::string& id, const std::string& source) {
  findings.state(device(id, ""), std::monostate{}, source);
  seen[id];
}

void Ledger::state_group(const std::string& id, std::uint64_t group, const std::string& source) {
  state_exists(id, source);
  findings.state(device(id, "group"), group, source);
  seen[id].group = group;
}

void Ledger::state_ids(const std::string& id, const PciIds& ids, const std::string& source) {
  findings.state(device(id, DeviceFact::vendor), std::uint64_t{ids.vendor}, source);
  findings.state(device(id, DeviceFact::device), std::uint64_t{ids.device}, source);
}

void Ledger::state_name(const std::string& id, const std::string& name, const std::string& source) {
  if (name.empty() || seen[id].named) return;
  findings.state(device(id, "name"), name, source, Standing::described);
  seen[id].named = true;
}

void Ledger::state_class(const LspciFunction& f, const std::string& source) {
  if (!f.class_code) return;
  const FactName name = device(f.device, DeviceFact::device_class);
  const auto known = seen[f.device].whole_class;
  if (known && *known >> 8 == f.class_code->value) return findings.state(name, *known, source);
  findings.state(name, f.class_code->value << 8, source, known ? Standing::observed : Standing::concluded);
  if (!known) partial_classes.insert(f.device);
}

void Ledger::state_bars(const std::string& id, const std::map<unsigned, std::uint64_t>& bars, const std::string& source) {
  if (bars.empty()) return;
  std::vector<Bar> list;
  for (const auto& [index, size] : bars) list.push_back({index, size});
  state_exists(id, source);
  findings.state(device(id, "bars"), std::move(list), source);
}

void Ledger::state_unit(const std::string& id, Driver driver, const std::string& source) {
  findings.state(unit(id, "driver"), std::string(name_of(driver)), source);
  if (std::ranges::find(units, id) == units.end()) units.push_back(id);
}

void Ledger::state_register(const std::string& id, UnitFact fact, std::optional<std::uint64_t> value, const std::string& source) {
  if (value) return findings.state(unit(id, fact), *value, source);
  findings.miss(unit(id, fact), fmt::format("{} does not show it whole", source), "give the whole line of the boot log");
}

}  // namespace ioplan::intake
