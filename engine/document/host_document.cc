#include "engine/document/host_document.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cctype>
#include <nlohmann/json.hpp>
#include <unordered_map>
#include <vector>

#include "engine/base/text.h"
#include "engine/document/document_text.h"
#include "engine/document/header.h"

namespace ioplan {

namespace {

using Json = nlohmann::ordered_json;
using Keys = std::vector<std::string_view>;
constexpr UnitFact kIgnored = UnitFact::count;

// Facts that documents give together under one key. A range is checked as one; words are not.
struct GroupedKey {
  std::string_view key;
  Driver driver;
  bool is_range;
  std::array<UnitFact, 6> facts;
  std::size_t count;
};

constexpr std::array<GroupedKey, 4> kGroupedKeys = {{
    {"idr",
     Driver::smmuv3,
     false,
     {UnitFact::idr0, UnitFact::idr1, kIgnored, UnitFact::idr3, kIgnored, UnitFact::idr5},
     6},
    {"input_range", Driver::virtio, true, {UnitFact::input_start, UnitFact::input_last}, 2},
    {"domain_range", Driver::virtio, true, {UnitFact::domain_first, UnitFact::domain_last}, 2},
    {"dma_range", Driver::s390, true, {UnitFact::dma_start, UnitFact::dma_last}, 2},
}};

std::span<const UnitFact> facts_of(const GroupedKey& group) { return std::span(group.facts).first(group.count); }

bool contains(Names names, std::string_view name) { return std::ranges::find(names, name) != names.end(); }

// The grouped key that holds a fact; nothing for facts that are keys themselves.
const GroupedKey* group_of(UnitFact fact) {
  for (const GroupedKey& group : kGroupedKeys) {
    if (std::ranges::find(facts_of(group), fact) != facts_of(group).end()) return &group;
  }
  return nullptr;
}

template <class Fact, class Accept>
void add_fact_keys(Keys& keys, Accept accept) {
  for (std::size_t i = 0; i < kFactCount<Fact>; ++i) {
    if (accept(static_cast<Fact>(i))) keys.push_back(row_of(static_cast<Fact>(i)).key);
  }
}

Keys kernel_keys() {
  Keys keys = {"arch", "release", "cpu_vendor", "command_line", "hugepages"};
  add_fact_keys<KernelFact>(keys, [](KernelFact) { return true; });
  return keys;
}

Keys device_keys() {
  Keys keys = {"id", "iommu", "group", "name", "label", "reserved", "bars", "driver", "physical_function", "group_type"};
  add_fact_keys<DeviceFact>(keys, [](DeviceFact) { return true; });
  return keys;
}

Keys unit_keys(Driver driver) {
  Keys keys = {"id", "driver", "address", "version"};
  for (const GroupedKey& group : kGroupedKeys) {
    if (group.driver == driver) keys.push_back(group.key);
  }
  add_fact_keys<UnitFact>(keys, [&](UnitFact fact) {
    return group_of(fact) == nullptr && (row_of(fact).drivers & driver_set(driver)) != 0;
  });
  return keys;
}

const Keys& unit_keys_of(Driver driver) {
  static const auto by_driver = [] {
    std::array<Keys, kDriverNames.size()> all;
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = unit_keys(static_cast<Driver>(i));
    return all;
  }();
  return by_driver[static_cast<std::size_t>(driver)];
}

std::uint64_t read_fact(Reader& reader, const Field& field, const FactRow& row) {
  switch (row.kind) {
    case FactKind::boolean:
      return reader.boolean(field) ? 1 : 0;
    case FactKind::size:
      return reader.page_size(field);
    case FactKind::integer:
    case FactKind::hex:
      break;
  }
  return reader.integer(field, row.width);
}

// Every fact of the table that the map accepts and has, except those that `skip` names.
template <class Fact, class Skip>
void read_facts(Reader& reader, const MapReader& map, Facts<Fact>& facts, Skip skip) {
  for (std::size_t i = 0; i < kFactCount<Fact>; ++i) {
    const auto fact = static_cast<Fact>(i);
    if (skip(fact)) continue;
    if (const Field field = map.optional(row_of(fact).key)) facts[fact] = read_fact(reader, field, row_of(fact));
  }
}

void read_hugepages(Reader& reader, const Node& node, std::vector<HugePages>& pools) {
  static constexpr std::array<std::string_view, 3> keys = {"size", "total", "free"};
  const MapReader map(reader, node, "hugepages", keys);
  const Field size = map.required("size");
  const HugePages pool{reader.page_size(size), reader.integer(map.required("total")),
                       reader.integer(map.required("free"))};
  if (reader.ok() && std::ranges::find(pools, pool.size, &HugePages::size) != pools.end()) {
    reader.fail(size.value, fmt::format("two pools of huge pages of {}", in_backticks(size.value.text())));
  }
  pools.push_back(pool);
}

Kernel read_kernel(Reader& reader, const Field& field) {
  static const Keys keys = kernel_keys();
  Kernel kernel;
  if (!field) return kernel;
  const MapReader map(reader, field.value, "kernel", keys);
  if (const Field arch = map.optional("arch")) kernel.arch = reader.enumeration<Arch>(arch, kArchNames);
  if (const Field release = map.optional("release")) kernel.release = reader.text(release);
  kernel.cpu_vendor = reader.text(map.optional("cpu_vendor"));
  kernel.command_line = reader.text(map.optional("command_line"));
  reader.items(map.optional("hugepages"),
               [&](const Field& f) { read_hugepages(reader, f.value, kernel.hugepages); });
  std::ranges::sort(kernel.hugepages);
  read_facts(reader, map, kernel.facts, [](KernelFact) { return false; });
  return kernel;
}

// --- units ---

// A key that some driver's units have, but not this one's.
void refuse_foreign_facts(Reader& reader, const Node& node, Driver driver) {
  const Keys& own = unit_keys_of(driver);
  for (Node k = node.first(); k; k = node.after(node.after(k))) {
    if (contains(own, k.text())) continue;
    for (std::size_t other = 0; other < kDriverNames.size(); ++other) {
      if (!contains(unit_keys_of(static_cast<Driver>(other)), k.text())) continue;
      return reader.fail(
          k, fmt::format("{} says nothing about a unit of driver `{}`", in_backticks(k.text()), name_of(driver)),
          "accepted: " + list_of(own));
    }
  }
}

// A fact written under its own name where the documents group it.
void refuse_ungrouped_facts(Reader& reader, const Node& node) {
  for (Node k = node.first(); k; k = node.after(node.after(k))) {
    for (const GroupedKey& group : kGroupedKeys) {
      for (UnitFact fact : facts_of(group)) {
        if (fact == kIgnored || row_of(fact).key != k.text()) continue;
        return reader.fail(k, fmt::format("unknown key {} in `iommus`", in_backticks(k.text())),
                           fmt::format("write it as a part of `{}`", group.key));
      }
    }
  }
}

void read_group(Reader& reader, const Field& field, const GroupedKey& group, Facts<UnitFact>& facts) {
  if (group.is_range) reader.range(field, row_of(group.facts[0]).width);
  if (field && reader.ok() && (field.value.size() == 0 || field.value.size() > group.count)) {
    reader.fail(field.value, fmt::format("{} must be a list of 1 to {} words", in_backticks(group.key), group.count));
  }
  std::size_t i = 0;
  reader.items(field, [&](const Field& item) {
    const UnitFact fact = group.facts[i++];
    if (item.value.is_null() && !group.is_range) return;  // a word that is not known
    const std::uint64_t word = reader.integer(item, fact == kIgnored ? 32 : row_of(fact).width);
    if (fact != kIgnored) facts[fact] = word;
  });
}

Unit read_unit(Reader& reader, const Node& node) {
  Unit unit;
  const Node driver = node.is_map() ? node.find("driver") : Node();
  if (driver) {
    unit.driver = reader.enumeration<Driver>({driver, "driver"}, kDriverNames);
    refuse_foreign_facts(reader, node, unit.driver);
    refuse_ungrouped_facts(reader, node);
  }
  const MapReader map(reader, node, "iommus", unit_keys_of(unit.driver));
  map.required("driver");
  unit.id = reader.text(map.required("id"));
  if (const Field address = map.optional("address")) unit.address = reader.integer(address);
  unit.version = reader.text(map.optional("version"));
  read_facts(reader, map, unit.facts, [](UnitFact fact) { return group_of(fact) != nullptr; });
  for (const GroupedKey& group : kGroupedKeys) {
    if (group.driver == unit.driver) read_group(reader, map.optional(group.key), group, unit.facts);
  }
  return unit;
}

// --- devices ---

using UnitIds = std::unordered_map<std::string_view, std::size_t>;  // looked up, never iterated

UnitIndex find_unit(Reader& reader, const Field& field, std::string_view device, const UnitIds& ids,
                    const std::vector<Unit>& units) {
  const std::string id = reader.text(field);
  const auto it = ids.find(id);
  if (it != ids.end()) return UnitIndex(it->second);
  Keys names;
  for (const Unit& u : units) names.push_back(u.id);
  std::ranges::sort(names, natural_less);
  reader.fail(
      field.value,
      fmt::format("device {} is behind {}, which is not among the units", in_backticks(device), in_backticks(id)),
      names.empty() ? "list it under `iommus`" : advice_for(id, names));
  return {};
}

// lspci and sysfs write classes with four and six digits; only six say everything.
void check_class(Reader& reader, const Field& field) {
  if (!field || !reader.ok() || !field.value.is_scalar()) return;
  const std::string_view words = field.value.text();
  if (!words.starts_with("0x") || (words.size() != 4 && words.size() != 6)) return;
  reader.fail(field.value, fmt::format("class {} has {} digits of 6", in_backticks(words), words.size() - 2),
              fmt::format("write `{}{}`", words, words.size() == 4 ? "0000" : "00"));
}

// sysfs says -1 for "no node".
void check_numa(Reader& reader, const Field& field) {
  if (!field || !field.value.is_scalar() || field.value.text() != "-1") return;
  reader.fail(field.value, "`numa` must not be negative: `-1`", "leave `numa` out when the node is not known");
}

void read_dma_coherent(Reader& reader, const Field& field, Device& device) {
  static constexpr std::array<std::string_view, 2> keys = {"value", "source"};
  if (!field) return;
  device.dma_coherent_source = CoherencySource::assumed;
  if (!field.value.is_map()) {
    device.facts[DeviceFact::dma_coherent] = reader.boolean(field) ? 1 : 0;
    return;
  }
  const MapReader map(reader, field.value, "dma_coherent", keys);
  device.facts[DeviceFact::dma_coherent] = reader.boolean(map.required("value")) ? 1 : 0;
  if (const Field source = map.optional("source")) {
    device.dma_coherent_source = reader.enumeration<CoherencySource>(source, kCoherencySourceNames);
  }
}

// Regions of one type may not overlap: the kernel would have merged them. Regions of two types may.
void check_regions(Reader& reader, const std::vector<ReservedRegion>& regions, const std::vector<Node>& nodes) {
  for (std::size_t i = 0; i < regions.size() && reader.ok(); ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      if (regions[i].type != regions[j].type || !regions[i].range.overlaps(regions[j].range)) continue;
      return reader.fail(nodes[i],
                         fmt::format("reserved region `[{:#x}, {:#x}]` overlaps the one of the same type at {}",
                                     regions[i].range.start, regions[i].range.last, to_text(nodes[j].place())));
    }
  }
}

std::vector<ReservedRegion> read_reserved(Reader& reader, const Field& field) {
  static constexpr std::array<std::string_view, 2> keys = {"range", "type"};
  constexpr std::size_t kMostRegions = 256;
  std::vector<ReservedRegion> regions;
  std::vector<Node> nodes;
  if (field.value.size() > kMostRegions) reader.fail(field.value, "more than 256 reserved regions of one device");
  reader.items(field, [&](const Field& item) {
    const MapReader map(reader, item.value, "reserved", keys);
    regions.push_back({reader.range(map.required("range")),
                       reader.enumeration<ReservedType>(map.required("type"), kReservedTypeNames)});
    nodes.push_back(item.value);
  });
  check_regions(reader, regions, nodes);
  return regions;
}

void read_bar(Reader& reader, const Node& node, std::vector<Bar>& bars) {
  static constexpr std::array<std::string_view, 2> keys = {"index", "size"};
  const MapReader map(reader, node, "bars", keys);
  const Field index = map.required("index");
  const Field size = map.required("size");
  const Bar bar{static_cast<unsigned>(reader.integer(index, 32)), reader.size(size)};
  if (!reader.ok()) return;
  if (bar.index > 5) reader.fail(index.value, fmt::format("a function has BARs 0 to 5, not {}", bar.index));
  if (!std::has_single_bit(bar.size)) {
    reader.fail(size.value,
                fmt::format("the size of a BAR is a power of two, not {}", in_backticks(size.value.text())));
  }
  if (std::ranges::find(bars, bar.index, &Bar::index) != bars.end()) {
    reader.fail(index.value, fmt::format("two BARs with the index `{}`", bar.index));
  }
  bars.push_back(bar);
}

Device read_device(Reader& reader, const Node& node, const UnitIds& ids, const std::vector<Unit>& units) {
  static const Keys keys = device_keys();
  const MapReader map(reader, node, "devices", keys);
  Device device;
  device.id = reader.text(map.required("id"));
  if (const Field unit = map.optional("iommu")) device.unit = find_unit(reader, unit, device.id, ids, units);
  if (const Field group = map.optional("group")) device.group = static_cast<std::uint32_t>(reader.integer(group, 32));
  device.name = reader.text(map.optional("name"));
  reader.one_or_more(map.optional("label"), [&](const Field& f) { device.labels.push_back(reader.text(f)); });
  check_class(reader, map.optional("class"));
  check_numa(reader, map.optional("numa"));
  read_facts(reader, map, device.facts, [](DeviceFact f) { return f == DeviceFact::dma_coherent; });
  read_dma_coherent(reader, map.optional("dma_coherent"), device);
  if (const Field reserved = map.optional("reserved")) device.reserved = read_reserved(reader, reserved);
  reader.items(map.optional("bars"), [&](const Field& f) { read_bar(reader, f.value, device.bars); });
  std::ranges::sort(device.bars, {}, &Bar::index);
  device.bound_driver = reader.text(map.optional("driver"));
  device.physical_function = reader.text(map.optional("physical_function"));
  device.group_type = reader.text(map.optional("group_type"));
  return device;
}

using SeenIds = std::unordered_map<std::string, Node>;

void claim_id(Reader& reader, SeenIds& seen, std::string_view what, const std::string& id, const Node& node) {
  if (!reader.ok()) return;
  const auto [it, added] = seen.try_emplace(full_pci_address(id), node);
  if (!added) fail_duplicate(reader, what, id, it->second, node);
}

// --- where it comes from ---

std::map<std::string, std::string> read_sources(Reader& reader, const Field& field) {
  std::map<std::string, std::string> sources;
  if (!field || !reader.ok()) return sources;
  if (!field.value.is_map()) reader.fail(field.value, "`sources` must be a map of facts to places");
  for (Node k = field.value.first(); k && reader.ok(); k = field.value.after(field.value.after(k))) {
    const std::string fact = reader.text({k, "sources"});
    const std::string source = reader.text({field.value.after(k), fact});
    if (!sources.try_emplace(fact, source).second) reader.fail(k, "two sources of " + in_backticks(fact));
  }
  return sources;
}

Gap read_gap(Reader& reader, const Node& node) {
  static constexpr std::array<std::string_view, 4> keys = {"fact", "why", "supply", "subjects"};
  const MapReader map(reader, node, "unknown", keys);
  Gap gap{reader.text(map.required("fact")), reader.text(map.required("why")), reader.text(map.optional("supply")), {}};
  reader.items(map.optional("subjects"), [&](const Field& f) { gap.subjects.push_back(reader.text(f)); });
  return gap;
}

// --- Host -> tree of JSON values ---

std::string hex_digits(std::uint64_t value, unsigned digits) { return fmt::format("{:#0{}x}", value, digits + 2); }

Json fact_json(const FactRow& row, std::uint64_t value) {
  switch (row.kind) {
    case FactKind::boolean:
      return value != 0;
    case FactKind::integer:
      return value;
    case FactKind::size:
      return format_size(value);
    case FactKind::hex:
      break;
  }
  return hex_digits(value, row.width < 32 ? row.width / 4 : 1);  // a class has six digits, a register as many as it needs
}

template <class Fact, class Skip>
void add_facts(Json& json, const Facts<Fact>& facts, Skip skip) {
  for (std::size_t i = 0; i < kFactCount<Fact>; ++i) {
    const auto fact = static_cast<Fact>(i);
    if (facts[fact] && !skip(fact)) json[std::string(row_of(fact).key)] = fact_json(row_of(fact), *facts[fact]);
  }
}

void add_text(Json& json, const char* key, const std::string& text) {
  if (!text.empty()) json[key] = text;
}

template <class T, class F>
Json list_json(const std::vector<T>& items, F each) {
  Json list = Json::array();
  for (const T& item : items) list.push_back(each(item));
  return list;
}

Json kernel_json(const Kernel& kernel) {
  Json json = Json::object();
  if (kernel.arch) json["arch"] = name_of(*kernel.arch);
  if (kernel.release) json["release"] = *kernel.release;
  add_facts(json, kernel.facts, [](KernelFact) { return false; });
  add_text(json, "cpu_vendor", kernel.cpu_vendor);
  add_text(json, "command_line", kernel.command_line);
  if (!kernel.hugepages.empty()) {
    json["hugepages"] = list_json(kernel.hugepages, [](const HugePages& p) {
      return Json{{"size", format_size(p.size)}, {"total", p.total}, {"free", p.free}};
    });
  }
  return json;
}

// The words of a group up to the last that is known; null where one before it is not.
Json group_json(const GroupedKey& group, const Facts<UnitFact>& facts) {
  Json words = Json::array();
  std::size_t known = 0;
  for (UnitFact fact : facts_of(group)) {
    words.push_back(fact == kIgnored ? Json("0x0") : facts[fact] ? Json(format_hex(*facts[fact])) : Json());
    if (fact != kIgnored && facts[fact]) known = words.size();
  }
  words.erase(words.begin() + static_cast<std::ptrdiff_t>(known), words.end());
  return words;
}

Json unit_json(const Unit& unit) {
  Json json = {{"id", unit.id}, {"driver", name_of(unit.driver)}};
  add_facts(json, unit.facts, [](UnitFact f) { return group_of(f) != nullptr; });
  for (const GroupedKey& group : kGroupedKeys) {
    if (group.driver != unit.driver) continue;
    if (Json words = group_json(group, unit.facts); !words.empty()) json[std::string(group.key)] = std::move(words);
  }
  if (unit.address) json["address"] = format_hex(*unit.address);
  add_text(json, "version", unit.version);
  return json;
}

Json region_json(const ReservedRegion& r) {
  return {{"range", {format_hex(r.range.start), format_hex(r.range.last)}},
          {"type", kReservedTypeNames[static_cast<std::size_t>(r.type)]}};
}

void add_dma_coherent(Json& json, const Device& d) {
  const auto value = d.facts[DeviceFact::dma_coherent];
  if (!value) return;
  const auto source = d.dma_coherent_source.value_or(CoherencySource::assumed);
  json["dma_coherent"] = {{"value", *value != 0},
                          {"source", kCoherencySourceNames[static_cast<std::size_t>(source)]}};
}

Json device_json(const Host& host, const Device& d) {
  Json json = {{"id", d.id}};
  add_text(json, "name", d.name);
  if (d.unit) json["iommu"] = host.unit(*d.unit).id;
  if (d.group) json["group"] = *d.group;
  add_text(json, "group_type", d.group_type);
  add_facts(json, d.facts, [](DeviceFact f) { return f == DeviceFact::dma_coherent; });
  add_dma_coherent(json, d);
  add_text(json, "driver", d.bound_driver);
  add_text(json, "physical_function", d.physical_function);
  if (!d.labels.empty()) json["label"] = d.labels;
  if (d.reserved) json["reserved"] = list_json(*d.reserved, region_json);
  if (!d.bars.empty()) {
    json["bars"] = list_json(d.bars, [](const Bar& b) { return Json{{"index", b.index}, {"size", format_size(b.size)}}; });
  }
  return json;
}

Json gap_json(const Gap& gap) {
  Json json = {{"fact", gap.fact}, {"why", gap.why}};
  add_text(json, "supply", gap.supply);
  if (!gap.subjects.empty()) json["subjects"] = gap.subjects;
  return json;
}

// Without the look-up that assigning by key would do: there may be thousands.
Json sources_json(const std::map<std::string, std::string>& sources) {
  Json json = Json::object();
  std::vector<std::pair<const std::string, Json>>& entries = json.get_ref<Json::object_t&>();
  for (const auto& [fact, source] : sources) entries.emplace_back(fact, source);
  return json;
}

Json host_json(const Host& host) {
  Json json;
  json["apiVersion"] = kApiVersion;
  json["kind"] = name_of(DocumentKind::host);
  add_text(json, "name", host.name);
  if (Json kernel = kernel_json(host.kernel); !kernel.empty()) json["kernel"] = std::move(kernel);
  json["iommus"] = list_json(host.units, unit_json);
  json["devices"] = list_json(host.devices, [&](const Device& d) { return device_json(host, d); });
  if (!host.unknown.empty()) json["unknown"] = list_json(host.unknown, gap_json);
  if (!host.sources.empty()) json["sources"] = sources_json(host.sources);
  return json;
}

}  // namespace

std::string to_json(const Host& host) { return json_text(host_json(host)); }

std::string to_yaml(const Host& host) { return yaml_text(host_json(host), YamlStyle::compact); }

Host read_host(Reader& reader, const Node& root) {
  static constexpr std::array<std::string_view, 8> keys = {"apiVersion", "kind",    "name",    "kernel",
                                                           "iommus",     "devices", "sources", "unknown"};
  const MapReader map(reader, root, "Host", keys);
  Host host;
  host.name = reader.text(map.optional("name"));
  host.kernel = read_kernel(reader, map.optional("kernel"));
  SeenIds seen_units;
  reader.items(map.optional("iommus"), [&](const Field& item) {
    host.units.push_back(read_unit(reader, item.value));
    claim_id(reader, seen_units, "units with the id", host.units.back().id, item.value);
  });
  UnitIds ids;
  for (std::size_t i = 0; i < host.units.size(); ++i) ids.emplace(host.units[i].id, i);
  SeenIds seen_devices;
  if (const Field devices = map.optional("devices")) host.devices.reserve(devices.value.size());
  reader.items(map.optional("devices"), [&](const Field& item) {
    host.devices.push_back(read_device(reader, item.value, ids, host.units));
    claim_id(reader, seen_devices, "devices with the id", host.devices.back().id, item.value);
  });
  host.sources = read_sources(reader, map.optional("sources"));
  reader.items(map.optional("unknown"), [&](const Field& f) { host.unknown.push_back(read_gap(reader, f.value)); });
  std::ranges::sort(host.unknown);
  if (reader.ok()) sort_by_id(host);
  return host;
}

Node find_fact(const Node& entry, std::string_view key) {
  if (const Node direct = entry.find(key)) return direct;
  for (const GroupedKey& group : kGroupedKeys) {
    Node word;
    const Node list = entry.find(group.key);
    for (UnitFact fact : facts_of(group)) {
      if (!list) break;
      word = word ? list.after(word) : list.first();
      if (!word) break;
      if (fact != kIgnored && row_of(fact).key == key) return word;
    }
  }
  return {};
}

std::optional<DeviceIndex> find_device(Reader& reader, const Field& field, const Host& host) {
  const std::string id = reader.text(field);
  if (!field || !reader.ok()) return std::nullopt;
  if (const auto device = host.find_device(id)) return device;
  std::string help = "list it under `devices` of the Host";
  if (host.find_device(full_pci_address(id))) {
    help = "did you mean `" + full_pci_address(id) + "`?";
  } else {
    Keys ids;
    for (const Device& d : host.devices) ids.push_back(d.id);
    const std::string near = advice_for(id, ids);
    if (near.starts_with("did you mean")) help = near;
  }
  reader.fail(field.value, fmt::format("{} is not a device of the host", in_backticks(id)), std::move(help));
  return std::nullopt;
}

}  // namespace ioplan
