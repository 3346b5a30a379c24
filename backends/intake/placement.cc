#include "backends/intake/placement.h"

#include <algorithm>
#include <optional>
#include <set>

namespace ioplan::intake {

namespace {

// Positions in the order of enumeration.
std::map<std::string, std::size_t> enumeration(const DeviceLog& log) {
  std::map<std::string, std::size_t> out;
  for (const PciFunctionLine& f : log.functions) out.try_emplace(f.device, out.size());
  return out;
}

// PCI functions that joined a group between two lines, in order.
std::vector<const GroupLine*> joined_between(const DeviceLog& log, std::uint32_t from, std::uint32_t to) {
  std::vector<const GroupLine*> out;
  for (const GroupLine& g : log.groups) {
    if (g.line > from && g.line < to && pci_address(g.device)) out.push_back(&g);
  }
  return out;
}

std::string_view bus_of(std::string_view address) { return address.substr(0, address.rfind(':')); }

// Certainly enumerated before: on one bus by number, elsewhere by the log.
bool enumerated_before(const std::string& a, const std::string& b, const std::map<std::string, std::size_t>& order) {
  const auto at_a = order.find(a), at_b = order.find(b);
  if (at_a != order.end() && at_b != order.end()) return at_a->second < at_b->second;
  return bus_of(a) == bus_of(b) && a < b;
}

// --- VT-d ---

// A run for each unit, or nothing.
std::vector<std::vector<const GroupLine*>> runs(const KernelLog& log, std::size_t wanted) {
  std::vector<std::vector<const GroupLine*>> out;
  const auto order = enumeration(log.devices);
  const std::uint32_t first = log.dmar.unit_order.back().line;
  for (const GroupLine* g : joined_between(log.devices, first, *log.dmar.set_up)) {
    if (out.empty() || enumerated_before(g->device, out.back().back()->device, order)) out.emplace_back();
    out.back().push_back(g);
  }
  return out.size() == wanted ? out : std::vector<std::vector<const GroupLine*>>{};
}

std::map<std::string, Placement> vtd_units_by_order(const KernelLog& log) {
  const auto& order = log.dmar.unit_order;
  std::set<std::string> names;
  for (const auto& unit : order) names.insert(unit.value);
  const bool all = names.size() == order.size() && order.size() == log.dmar.units.size() &&
                   std::ranges::all_of(log.dmar.units, [&](const VtdUnitLine& u) { return names.contains(u.name); });
  if (!all || order.empty() || !log.dmar.set_up || *log.dmar.set_up < order.back().line) return {};
  std::map<std::string, Placement> out;
  const auto by_unit = runs(log, order.size());
  for (std::size_t i = 0; i < by_unit.size(); ++i) {
    for (const GroupLine* g : by_unit[i]) out[g->device] = {order[i].value, g->line};
  }
  return out;
}

// --- AMD-Vi ---

// The first line that print_iommu_info prints, when all units are registered.
std::optional<std::uint32_t> registered(const AmdViLog& log) {
  std::optional<std::uint32_t> line;
  const auto consider = [&](std::uint32_t l) { line = std::min(line.value_or(l), l); };
  for (const AmdFeatures& f : log.features) consider(f.line);
  if (log.irq_remapping) consider(log.irq_remapping->line);
  return line;
}

std::map<std::string, Placement> amd_units_by_order(const KernelLog& log, const std::vector<std::string>& units) {
  const auto& functions = log.amd.functions;
  const auto end = registered(log.amd);
  if (!end || functions.size() != units.size() || functions.size() < 2 || functions.back().line > *end) return {};
  std::map<std::string, Placement> out;
  for (std::size_t i = 0; i < functions.size(); ++i) {
    const std::uint32_t next = i + 1 < functions.size() ? functions[i + 1].line : *end;
    const auto joined = joined_between(log.devices, functions[i].line, next);
    if (joined.empty()) return {};
    for (const GroupLine* g : joined) out[g->device] = {units[i], functions[i].line};
  }
  return out;
}

}  // namespace

std::optional<Placement> single_unit(const KernelLog& log, const std::vector<std::string>& units) {
  if (units.size() != 1) return std::nullopt;
  const DmarLog& dmar = log.dmar;
  if (dmar.drhds.size() == 1) {
    const DrhdLine& drhd = dmar.drhds[0];
    const bool whole_table = units[0] == "dmar0" && dmar.host_address_width && dmar.host_address_width->line < drhd.line;
    if (whole_table && (drhd.flags & 1) != 0) return Placement{units[0], drhd.line};
    return std::nullopt;
  }
  // The other drivers print no table with an end: the log must begin with its boot, or count the units.
  if (log.amd.functions.size() == 1) {
    const bool counted = log.amd.last_index && log.amd.last_index->value == 0;
    if (counted || (log.release && !log.amd.last_index)) return Placement{units[0], log.amd.functions[0].line};
  }
  if (!log.release) return std::nullopt;
  if (log.smmu.v3.size() == 1 && log.smmu.v3[0].oas) return Placement{units[0], log.smmu.v3[0].oas->line};
  if (log.smmu.v2.size() == 1) return Placement{units[0], log.smmu.v2[0].line};
  if (log.smmu.virtio.size() == 1 && log.smmu.virtio[0].page_mask) {
    return Placement{units[0], log.smmu.virtio[0].page_mask->line};
  }
  return std::nullopt;
}

std::map<std::string, Placement> units_by_order(const KernelLog& log, const std::vector<std::string>& units) {
  return log.amd.functions.empty() ? vtd_units_by_order(log) : amd_units_by_order(log, units);
}

}  // namespace ioplan::intake
