#include "cli/host_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "constraints/kernel_law.h"
#include "engine/base/text.h"
#include "engine/document/host_document.h"

namespace ioplan::cli {

namespace {

using Json = nlohmann::ordered_json;

// ---------------------------------------------------------------- one host

std::vector<UnitKind> kinds_of(const Host& host, Driver driver) {
  std::vector<UnitKind> kinds;
  for (std::size_t u = 0; u < host.units.size(); ++u) {
    const Unit& unit = host.units[u];
    if (unit.driver != driver) continue;
    const auto same = std::ranges::find_if(kinds, [&](const UnitKind& k) { return k.example->facts == unit.facts; });
    UnitKind& kind = same == kinds.end() ? kinds.emplace_back(UnitKind{{}, &unit}) : *same;
    kind.units.emplace_back(u);
  }
  return kinds;
}

FieldRow row_of(const drivers::Field& field, const std::vector<UnitKind>& kinds) {
  FieldRow row{&field, {}, false};
  for (const UnitKind& kind : kinds) {
    const auto word = kind.example->facts[field.word];
    row.values.push_back(word ? std::optional(drivers::value_of(field, *word)) : std::nullopt);
    row.differs = row.differs || row.values.back() != row.values.front();
  }
  return row;
}

UnitTable table_of(const Host& host, Driver driver) {
  UnitTable table{driver, kinds_of(host, driver), {}};
  for (const drivers::Field& field : drivers::fields_of(driver)) {
    FieldRow row = row_of(field, table.kinds);
    const bool known = std::ranges::any_of(row.values, [](const auto& v) { return v.has_value(); });
    if (known && (row.differs || !field.meaning.empty())) table.rows.push_back(std::move(row));
  }
  return table;
}

// ---------------------------------------------------------------- two hosts

// Facts by path, in the order of the document; a list counts as one value.
using FlatHost = std::map<std::pair<std::string, std::string>, std::map<std::string, std::string>>;  // section, id -> key -> value

void add_facts(std::map<std::string, std::string>& facts, const Json& entry) {
  for (const auto& [key, value] : entry.items()) {
    if (key == "id") continue;
    facts[key] = value.is_string() ? value.get<std::string>() : value.dump();
  }
}

FlatHost flatten(const Host& host) {
  const Json document = Json::parse(to_json(host));
  FlatHost flat;
  if (document.contains("kernel")) add_facts(flat[{"kernel", ""}], document["kernel"]);
  for (const char* section : {"iommus", "devices"}) {
    for (const Json& entry : document[section]) add_facts(flat[{section, entry["id"].get<std::string>()}], entry);
  }
  return flat;
}

// Which fields of a register changed.
std::vector<std::string> changed_fields(std::string_view key, const HostDifference& d) {
  const auto first = parse_integer(d.first.value_or("")), second = parse_integer(d.second.value_or(""));
  std::vector<std::string> changed;
  if (!first || !second) return changed;
  for (const Driver driver : {Driver::intel, Driver::amd}) {
    for (const drivers::Field& field : drivers::fields_of(driver)) {
      const std::uint64_t before = drivers::value_of(field, *first), after = drivers::value_of(field, *second);
      if (ioplan::row_of(field.word).key == key && before != after) changed.push_back(fmt::format("{} {} -> {}", field.name, before, after));
    }
  }
  return changed;
}

std::optional<std::string> find(const std::map<std::string, std::string>* facts, const std::string& key) {
  if (facts == nullptr) return std::nullopt;
  const auto it = facts->find(key);
  return it == facts->end() ? std::nullopt : std::optional(it->second);
}

}  // namespace

HostReport report_on(const Host& host) {
  HostReport report;
  std::map<std::uint32_t, GroupRow> groups;
  std::map<ReservedRegion, RegionRow> regions;
  for (std::size_t d = 0; d < host.devices.size(); ++d) {
    const Device& device = host.devices[d];
    if (device.group) groups.try_emplace(*device.group, GroupRow{*device.group, {}}).first->second.devices.emplace_back(d);
    if (!device.group) report.ungrouped.emplace_back(d);
    if (!device.reserved) continue;
    for (const ReservedRegion& r : *device.reserved) regions.try_emplace(r, RegionRow{r, {}}).first->second.devices.emplace_back(d);
  }
  for (auto& [number, group] : groups) report.groups.push_back(std::move(group));
  for (auto& [region, row] : regions) report.regions.push_back(std::move(row));
  for (std::size_t driver = 0; driver < kDriverNames.size(); ++driver) {
    UnitTable table = table_of(host, static_cast<Driver>(driver));
    if (!table.kinds.empty()) report.tables.push_back(std::move(table));
  }
  report.unusable = unusable_devices(host, kernel_law());
  return report;
}

std::vector<HostDifference> differences(const Host& first, const Host& second) {
  const FlatHost a = flatten(first), b = flatten(second);
  std::map<std::pair<std::string, std::string>, bool> subjects;  // in both
  for (const auto& [subject, facts] : a) subjects[subject] = b.contains(subject);
  for (const auto& [subject, facts] : b) subjects.try_emplace(subject, false);
  std::vector<HostDifference> found;
  for (const auto& [subject, in_both] : subjects) {
    const auto mine = a.find(subject), theirs = b.find(subject);
    const std::string path = subject.first + (subject.second.empty() ? "" : "." + subject.second);
    if (!in_both && !subject.second.empty()) {
      const auto there = [](bool is) { return is ? std::optional<std::string>("present") : std::nullopt; };
      found.push_back({path, there(mine != a.end()), there(theirs != b.end()), {}});
      continue;
    }
    std::map<std::string, std::string> keys;
    if (mine != a.end()) keys.insert(mine->second.begin(), mine->second.end());
    if (theirs != b.end()) keys.insert(theirs->second.begin(), theirs->second.end());
    for (const auto& [key, value] : keys) {
      HostDifference d{path + "." + key, find(mine == a.end() ? nullptr : &mine->second, key), find(theirs == b.end() ? nullptr : &theirs->second, key), {}};
      if (d.first == d.second) continue;
      d.fields = changed_fields(key, d);
      found.push_back(std::move(d));
    }
  }
  std::ranges::stable_sort(found, [](const auto& x, const auto& y) { return natural_less(x.fact, y.fact); });
  return found;
}

}  // namespace ioplan::cli
