#include <unistd.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/host_report.h"
#include "cli/host_text.h"
#include "cli/machine.h"
#include "engine/base/text.h"
#include "engine/document/document_text.h"

namespace ioplan::cli {

namespace {

using Json = nlohmann::ordered_json;

Json ids_of(const std::vector<DeviceIndex>& devices, const Host& host) {
  Json ids = Json::array();
  for (DeviceIndex d : devices) ids.push_back(host.device(d).id);
  return ids;
}

Json fields_json(const UnitTable& table, std::size_t kind) {
  Json fields = Json::object();
  for (const FieldRow& row : table.rows) {
    if (row.values[kind]) fields[std::string(row.field->name)] = *row.values[kind];
  }
  return fields;
}

Json table_json(const UnitTable& table, const Host& host) {
  Json kinds = Json::array(), differing = Json::array();
  for (std::size_t k = 0; k < table.kinds.size(); ++k) {
    Json units = Json::array();
    for (UnitIndex u : table.kinds[k].units) units.push_back(host.unit(u).id);
    kinds.push_back({{"units", std::move(units)}, {"fields", fields_json(table, k)}});
  }
  for (const FieldRow& row : table.rows) {
    if (row.differs) differing.push_back(row.field->name);
  }
  return {{"driver", name_of(table.driver)}, {"kinds", std::move(kinds)}, {"differing", std::move(differing)}};
}

Json report_json(const Host& host) {
  const HostReport report = report_on(host);
  Json json = {{"name", host.name}, {"fingerprint", fingerprint(host)}};
  for (const char* list : {"tables", "groups", "reserved", "unusable", "unknown"}) json[list] = Json::array();
  for (const UnitTable& table : report.tables) json["tables"].push_back(table_json(table, host));
  for (const GroupRow& g : report.groups) json["groups"].push_back({{"group", g.number}, {"devices", ids_of(g.devices, host)}});
  json["ungrouped"] = ids_of(report.ungrouped, host);
  for (const RegionRow& r : report.regions) {
    json["reserved"].push_back({{"range", {format_hex(r.region.range.start), format_hex(r.region.range.last)}},
                                {"type", kReservedTypeNames[static_cast<std::size_t>(r.region.type)]},
                                {"devices", ids_of(r.devices, host)}});
  }
  for (const UnusableDevice& u : report.unusable) json["unusable"].push_back({{"device", u.device}, {"rule", u.rule}, {"because", u.because}});
  for (const Gap& g : host.unknown) json["unknown"].push_back({{"fact", g.fact}, {"why", g.why}, {"supply", g.supply}, {"subjects", g.subjects}});
  return json;
}

Json differences_json(const std::vector<HostDifference>& differences) {
  const auto value = [](const std::optional<std::string>& v) { return v ? Json(*v) : Json(); };
  Json list = Json::array();
  for (const HostDifference& d : differences) {
    list.push_back({{"fact", d.fact}, {"first", value(d.first)}, {"second", value(d.second)}, {"fields", d.fields}});
  }
  return {{"same", differences.empty()}, {"differences", std::move(list)}};
}

Colour colour_of_stdout() {
  return isatty(STDOUT_FILENO) != 0 && std::getenv("NO_COLOR") == nullptr ? Colour::on : Colour::off;
}

std::string text_of(const Json& json, Format format) {
  return format == Format::yaml ? yaml_text(json, YamlStyle::block) : json_text(json);
}

}  // namespace

Outcome host_command(const HostArguments& arguments) {
  std::vector<Host> hosts;
  for (const std::string& file : arguments.files) {
    auto host = read_machine(file);
    if (!host) return bad_input(host.error());
    hosts.push_back(std::move(*host));
  }
  if (hosts.size() == 1) {
    return {kYes, arguments.format == Format::text ? host_text(hosts[0], colour_of_stdout()) : text_of(report_json(hosts[0]), arguments.format), ""};
  }
  const auto found = differences(hosts[0], hosts[1]);
  return {found.empty() ? kYes : kNo,
          arguments.format == Format::text ? differences_text(found, colour_of_stdout()) : text_of(differences_json(found), arguments.format), ""};
}

}  // namespace ioplan::cli
