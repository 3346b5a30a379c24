#include "tests/support/corpus.h"

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <set>
#include <sstream>
#include <utility>

#include "engine/base/text.h"
#include "tests/support/paths.h"

// A record becomes a Draft, a Draft becomes text. One section for each file of the corpus; the part with the most
// thought in it is "which unit is a device behind", because only ACPI says so outright and the logs do not print ACPI.

namespace ioplan::corpus {

namespace {

using Fact = std::pair<std::string, std::string>;

struct DraftRegion {
  std::uint64_t start = 0;
  std::uint64_t last = 0;
  std::string type;
};

struct DraftDevice {
  std::string id;
  std::string unit;  // empty: the record does not say
  std::optional<std::int64_t> group;
  std::string device_class, vendor, device, name;
  std::string header;
  std::vector<DraftRegion> reserved;  // empty: the driver's own
};

struct DraftUnit {
  std::string id;
  std::string driver;
  std::vector<Fact> facts;
  std::uint64_t base = 0;        // Intel: register base
  bool include_pci_all = false;  // Intel
};

struct Bridge {
  std::string bdf;
  unsigned secondary = 0, subordinate = 0;
};

struct Draft {
  Machine machine;
  std::vector<Fact> kernel;
  std::vector<DraftUnit> units;
  std::vector<DraftDevice> devices;
  std::vector<Bridge> bridges;
  std::string kernel_release;

  DraftDevice* find(const std::string& id) {
    const auto at = std::ranges::find(devices, id, &DraftDevice::id);
    return at == devices.end() ? nullptr : &*at;
  }
};

// --- scalars and text ---

std::string text_of(const YAML::Node& node) {
  return !node || node.IsNull() || !node.IsScalar() ? std::string{} : node.Scalar();
}

std::uint64_t number_of(const YAML::Node& node) { return parse_integer(text_of(node)).value(); }

bool truth_of(const YAML::Node& node) { return text_of(node) == "true"; }

std::uint64_t hex_digits(std::string_view digits) { return std::stoull(std::string(digits), nullptr, 16); }

std::string in_quotes(std::string_view text) {
  std::string out = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    if (static_cast<unsigned char>(c) >= 0x20) out += c;
  }
  return out + "\"";
}

std::string source_line(const YAML::Node& source) {
  std::string line;
  for (const auto& entry : source) {
    line += fmt::format("{}{} {}", line.empty() ? "" : ", ", text_of(entry.first), text_of(entry.second));
  }
  return line;
}

std::string full_bdf(std::uint64_t segment, const std::string& bus_path) {
  return fmt::format("{:04x}:{}", segment, bus_path);
}

unsigned bus_of(std::string_view bdf) { return static_cast<unsigned>(hex_digits(bdf.substr(5, 2))); }

// "0004:03" and "0000:3a": a bus with its segment.
std::string bus_name(std::string_view bdf) { return std::string(bdf.substr(0, 7)); }

bool is_bridge(const DraftDevice& d) {
  return d.device_class.starts_with("0x06") || (!d.header.empty() && d.header != "00");
}
bool is_iommu(const DraftDevice& d) { return d.device_class.starts_with("0x0806"); }
bool is_ioapic(const DraftDevice& d) { return d.device_class == "0x080020"; }

// The kernel's device_rmrr_is_relaxable: display and USB.
bool rmrr_is_relaxable(const DraftDevice& d) {
  return d.device_class.starts_with("0x03") || d.device_class.starts_with("0x0c03");
}

// What the x86 drivers declare for every device: it has to be written beside any other region.
const DraftRegion kMsiWindow{0xfee00000, 0xfeefffff, "msi"};
const DraftRegion kHyperTransport{0xfd00000000, 0xffffffffff, "reserved"};

void add_direct_region(DraftDevice& device, std::uint64_t start, std::uint64_t last, bool relaxable) {
  if (device.reserved.empty()) device.reserved.push_back(kMsiWindow);
  device.reserved.push_back({start, last, relaxable ? "direct-relaxable" : "direct"});
}

// --- documents ---

std::string facts_text(const std::vector<Fact>& facts, std::string_view separator) {
  std::string out;
  for (const auto& [key, value] : facts) out += fmt::format("{}{}: {}", out.empty() ? "" : separator, key, value);
  return out;
}

std::string unit_text(const DraftUnit& unit) {
  std::vector<Fact> all = {Fact{"id", in_quotes(unit.id)}, Fact{"driver", unit.driver}};
  all.insert(all.end(), unit.facts.begin(), unit.facts.end());
  return fmt::format("  - {{{}}}\n", facts_text(all, ", "));
}

std::string region_text(const DraftRegion& r) {
  return fmt::format("      - {{range: [{}, {}], type: {}}}\n", format_hex(r.start), format_hex(r.last), r.type);
}

std::string device_text(const DraftDevice& d) {
  std::vector<Fact> all = {Fact{"id", in_quotes(d.id)}};
  const auto add = [&](const char* key, const std::string& value) {
    if (!value.empty()) all.emplace_back(key, value);
  };
  if (!d.unit.empty()) add("iommu", in_quotes(d.unit));
  if (d.group) add("group", fmt::format("{}", *d.group));
  add("class", d.device_class);
  add("vendor", d.vendor);
  add("device", d.device);
  if (!d.name.empty()) add("name", in_quotes(d.name));
  std::string out = fmt::format("  - {}\n", facts_text(all, "\n    "));
  if (d.reserved.empty()) return out;
  out += "    reserved:\n";
  for (const DraftRegion& r : d.reserved) out += region_text(r);
  return out;
}

std::string host_text(const Draft& draft) {
  const Machine& m = draft.machine;
  std::string out = fmt::format("# Corpus record {}\n# source: {}\n", m.record, m.source);
  if (!m.unit_evidence.empty()) out += fmt::format("# units of devices: {}\n", m.unit_evidence);
  out += fmt::format("apiVersion: ioplan/v1\nkind: Host\nname: {}\n", in_quotes(m.id));
  out += fmt::format("kernel: {{{}}}\n", facts_text(draft.kernel, ", "));
  out += draft.units.empty() ? "iommus: []\n" : "iommus:\n";
  for (const DraftUnit& unit : draft.units) out += unit_text(unit);
  out += draft.devices.empty() ? "devices: []\n" : "devices:\n";
  for (const DraftDevice& device : draft.devices) out += device_text(device);
  return out;
}

// --- what a VM may be given ---

using Groups = std::map<std::int64_t, std::vector<const DraftDevice*>>;

bool has_direct_region(const std::vector<const DraftDevice*>& group) {
  return std::ranges::any_of(group, [](const DraftDevice* d) {
    return std::ranges::any_of(d->reserved, [](const DraftRegion& r) { return r.type == "direct"; });
  });
}

std::vector<std::string> passthrough_devices(const Draft& draft) {
  Groups groups;
  for (const DraftDevice& d : draft.devices) {
    if (d.group) groups[*d.group].push_back(&d);
  }
  std::vector<std::string> ids;
  for (const auto& [number, members] : groups) {
    if (has_direct_region(members)) continue;
    for (const DraftDevice* d : members) {
      if (!is_bridge(*d) && !is_iommu(*d)) ids.push_back(d->id);
    }
  }
  return ids;
}

Machine finish(Draft draft) {
  if (draft.machine.passthrough.empty()) draft.machine.passthrough = passthrough_devices(draft);
  draft.machine.host = host_text(draft);
  return std::move(draft.machine);
}

Draft start(std::string id, std::string_view file, std::string_view vendor) {
  Draft draft;
  draft.machine.record = fmt::format("{}: {}", file, id);
  draft.machine.id = std::move(id);
  draft.machine.vendor = vendor;
  draft.machine.arch = vendor == "arm" ? "aarch64" : "x86_64";
  draft.kernel.emplace_back("arch", draft.machine.arch);
  return draft;
}

// No listing of the machine's devices: one device, alone in its group, behind each unit.
void add_synthetic_devices(Draft& draft) {
  draft.machine.synthetic_devices = true;
  draft.machine.unit_evidence = "synthetic devices, one behind each unit";
  for (std::size_t i = 0; i < draft.units.size(); ++i) {
    DraftDevice device;
    device.id = synthetic_device(i);
    device.unit = draft.units[i].id;
    device.group = static_cast<std::int64_t>(i);
    device.name = "synthetic: some device behind " + device.unit;
    draft.devices.push_back(std::move(device));
  }
}

// --- groups/*.yaml ---

std::string full_class(const std::string& text) {
  return text.size() == 6 ? text + "00" : text;  // list-*: 16 bits
}

DraftDevice device_of(const YAML::Node& node, std::optional<std::int64_t> group) {
  const std::string ids = text_of(node["id"]);  // "8086:a75d"
  DraftDevice device;
  device.id = text_of(node["bdf"]);
  device.group = group;
  device.device_class = full_class(text_of(node["class"]));
  if (ids.size() == 9) {
    device.vendor = "0x" + ids.substr(0, 4);
    device.device = "0x" + ids.substr(5, 4);
  }
  device.name = text_of(node["name"]);
  device.header = text_of(node["header"]);
  return device;
}

void add_devices(Draft& draft, const YAML::Node& list, std::optional<std::int64_t> group) {
  for (const YAML::Node& node : list) {
    DraftDevice device = device_of(node, group);
    if (draft.find(device.id) == nullptr) draft.devices.push_back(std::move(device));
  }
}

void add_groups(Draft& draft, const YAML::Node& file) {
  for (const YAML::Node& group : file["groups"]) {
    add_devices(draft, group["devices"], static_cast<std::int64_t>(number_of(group["id"])));
  }
  if (file["ungrouped"]) add_devices(draft, file["ungrouped"], std::nullopt);
  if (!file["bridges"]) return;
  for (const YAML::Node& bridge : file["bridges"]) {
    draft.bridges.push_back({text_of(bridge["bdf"]), static_cast<unsigned>(hex_digits(text_of(bridge["secondary"]))),
                             static_cast<unsigned>(hex_digits(text_of(bridge["subordinate"])))});
  }
}

// The function on a root bus above a device (a root port), or the device itself when it is on a root bus.
std::string top_function(const Draft& draft, const std::string& bdf) {
  std::string top = bdf;
  for (bool moved = true; moved;) {
    moved = false;
    for (const Bridge& b : draft.bridges) {
      if (b.bdf.substr(0, 4) != top.substr(0, 4) || b.bdf == top) continue;
      if (bus_of(top) < b.secondary || bus_of(top) > b.subordinate) continue;
      if (bus_of(b.bdf) >= bus_of(top)) continue;
      top = b.bdf;
      moved = true;
      break;
    }
  }
  return top;
}

// --- which unit is an Intel device behind ---

// One unit serves all.
bool place_behind_single_unit(Draft& draft) {
  if (draft.units.size() != 1) return false;
  for (DraftDevice& d : draft.devices) d.unit = draft.units[0].id;
  draft.machine.unit_evidence = "the machine has one unit";
  return true;
}

// Clients since Sandy Bridge: the unit at 0xfed90000 serves 00:02.0 alone (so say the DMAR tables of nearly all clients
// in acpi_dmar.yaml), and the other has INCLUDE_PCI_ALL.
bool place_by_client_layout(Draft& draft) {
  if (draft.units.size() != 2) return false;
  const DraftUnit& graphics = draft.units[0];
  const DraftUnit& rest = draft.units[1];
  if (graphics.base != 0xfed90000 || graphics.include_pci_all || !rest.include_pci_all) return false;
  for (DraftDevice& d : draft.devices) d.unit = d.id == "0000:00:02.0" ? graphics.id : rest.id;
  draft.machine.unit_evidence = "client layout: 0xfed90000 serves 00:02.0, the other unit has INCLUDE_PCI_ALL";
  return true;
}

// From 6.1 on the kernel probes the bus once for each unit that it registers, and numbers groups as it goes. Units come
// in the order of its list: those without INCLUDE_PCI_ALL last first (dmar_register_drhd_unit adds them at the head),
// then the one with. So group numbers fall into ascending runs of addresses, one for each unit.
std::vector<const DraftUnit*> kernel_order(const Draft& draft) {
  std::vector<const DraftUnit*> order;
  for (const DraftUnit& u : draft.units) {
    if (!u.include_pci_all) order.insert(order.begin(), &u);
  }
  for (const DraftUnit& u : draft.units) {
    if (u.include_pci_all) order.push_back(&u);
  }
  return order;
}

bool numbers_groups_by_unit(const std::string& release) {
  const std::size_t dot = release.find('.');
  if (dot == std::string::npos) return false;
  const int major = std::atoi(release.substr(0, dot).c_str());
  const int minor = std::atoi(release.substr(dot + 1).c_str());
  return major > 6 || (major == 6 && minor >= 1);
}

// group number -> run, by the address of the group's first device.
std::map<std::int64_t, std::size_t> runs_of_groups(const Draft& draft) {
  std::map<std::int64_t, std::string> first;
  for (const DraftDevice& d : draft.devices) {
    if (d.group) first.try_emplace(*d.group, d.id);
  }
  std::map<std::int64_t, std::size_t> runs;
  std::size_t run = 0;
  std::string previous;
  for (const auto& [group, id] : first) {
    if (!previous.empty() && !natural_less(previous, id)) ++run;
    runs[group] = run;
    previous = id;
  }
  return runs;
}

bool place_by_group_order(Draft& draft) {
  if (!numbers_groups_by_unit(draft.kernel_release)) return false;
  const std::vector<const DraftUnit*> order = kernel_order(draft);
  const auto runs = runs_of_groups(draft);
  if (runs.empty() || runs.rbegin()->second + 1 != order.size()) return false;
  for (DraftDevice& d : draft.devices) {
    if (d.group) d.unit = order[runs.at(*d.group)]->id;
  }
  draft.machine.unit_evidence = "the kernel numbered the groups unit by unit (6.1 and later)";
  return true;
}

struct IoApic {
  std::uint64_t id = 0;
  std::size_t unit = 0;
};

// Xeons: every root bus has an IOAPIC function (xx:05.4), numbered in bus order after the chipset's own, and the log
// says which DRHD has each in its scope. Root ports of that bus are in the same scope; so is what is behind them. The
// bus whose unit has INCLUDE_PCI_ALL belongs to it whole. Other functions of the other root buses are in no scope that
// the log shows: they stay without a unit.
std::map<std::string, const DraftUnit*> units_of_root_buses(const Draft& draft, std::vector<IoApic> ioapics) {
  std::vector<std::string> functions;
  for (const DraftDevice& d : draft.devices) {
    if (is_ioapic(d)) functions.push_back(d.id);
  }
  std::ranges::sort(functions);
  std::ranges::sort(ioapics, {}, &IoApic::id);
  if (functions.empty() || ioapics.size() != functions.size() + 1) return {};
  std::map<std::string, const DraftUnit*> units;
  std::set<std::size_t> used;
  for (std::size_t i = 0; i < functions.size(); ++i) {
    if (!used.insert(ioapics[i + 1].unit).second) return {};
    units[bus_name(functions[i])] = &draft.units.at(ioapics[i + 1].unit);
  }
  return used.size() == draft.units.size() ? units : decltype(units){};
}

bool place_by_ioapics(Draft& draft, const std::vector<IoApic>& ioapics) {
  const auto units = units_of_root_buses(draft, ioapics);
  if (units.empty()) return false;
  for (DraftDevice& d : draft.devices) {
    const std::string top = top_function(draft, d.id);
    const auto unit = units.find(bus_name(top));
    if (unit == units.end()) continue;
    const DraftDevice* top_device = draft.find(top);
    const bool behind_root_port = top_device != nullptr && is_bridge(*top_device);
    if (unit->second->include_pci_all || behind_root_port) d.unit = unit->second->id;
  }
  draft.machine.unit_evidence = "root buses by their IOAPIC functions, whose DRHD the log names";
  return true;
}

std::vector<IoApic> ioapics_of(const YAML::Node& record) {
  std::vector<IoApic> out;
  if (!record["ioapics"]) return out;
  for (const YAML::Node& n : record["ioapics"]) {
    if (n["unit"] && !n["unit"].IsNull()) out.push_back({number_of(n["id"]), number_of(n["unit"])});
  }
  return out;
}

void place_intel_devices(Draft& draft, const YAML::Node& record) {
  place_behind_single_unit(draft) || place_by_client_layout(draft) || place_by_group_order(draft) ||
      place_by_ioapics(draft, ioapics_of(record));
}

// --- intel.yaml ---

DraftUnit vtd_unit(const YAML::Node& node, Machine& machine) {
  DraftUnit unit{.id = text_of(node["name"]), .driver = "intel", .facts = {}};
  unit.base = number_of(node["base"]);
  unit.include_pci_all = truth_of(node["include_pci_all"]);
  const std::string cap = text_of(node["cap"]);
  const std::string ecap = node["ecap_truncated_in_source"] ? "" : text_of(node["ecap"]);
  if (!cap.empty()) unit.facts.emplace_back("cap", cap);
  if (!ecap.empty()) unit.facts.emplace_back("ecap", ecap);
  if (!cap.empty() && !ecap.empty()) machine.vtd.push_back({unit.id, number_of(node["cap"]), number_of(node["ecap"])});
  return unit;
}

std::vector<Difference> differences_of(const YAML::Node& node) {
  std::vector<Difference> out;
  if (!node) return out;
  for (const auto& entry : node) {
    Difference d{text_of(entry.first), {}};
    for (const YAML::Node& value : entry.second) d.values.push_back(number_of(value));
    out.push_back(std::move(d));
  }
  return out;
}

// "Dell Inc. XPS 15 7590/0T8KGX" and "Dell XPS 15 7590" name one product.
std::string product_of(std::string machine) {
  machine.resize(std::min(machine.size(), machine.find('/')));
  std::istringstream words(machine);
  std::string out;
  for (std::string word; words >> word;) {
    if (word == "Inc." || word == "Corporation" || word == "Corp.") continue;
    out += (out.empty() ? "" : " ") + word;
  }
  return out;
}

// RMRRs of the same product's DMAR table, which says whose they are; addresses are those of this machine's log. Used
// where both have as many regions, of the same sizes in the same order.
bool same_rmrr_shape(const YAML::Node& ours, const YAML::Node& theirs) {
  if (ours.size() != theirs.size()) return false;
  for (std::size_t i = 0; i < ours.size(); ++i) {
    const auto size = [](const YAML::Node& r) { return number_of(r["end"]) - number_of(r["base"]); };
    if (size(ours[i]) != size(theirs[i])) return false;
  }
  return true;
}

void add_rmrrs(Draft& draft, const YAML::Node& ours, const YAML::Node& theirs) {
  for (std::size_t i = 0; i < ours.size(); ++i) {
    for (const YAML::Node& scope : theirs[i]["scopes"]) {
      DraftDevice* device = draft.find(fmt::format("0000:{}:{}", text_of(scope["bus"]), text_of(scope["path"])));
      if (device == nullptr) continue;
      add_direct_region(*device, number_of(ours[i]["base"]), number_of(ours[i]["end"]), rmrr_is_relaxable(*device));
    }
  }
}

void add_rmrrs_of_same_product(Draft& draft, const YAML::Node& record, const YAML::Node& dmar_tables) {
  const std::string product = product_of(text_of(record["machine"]));
  for (const YAML::Node& table : dmar_tables) {
    if (product_of(text_of(table["machine"])) != product) continue;
    if (table["drhd"].size() == record["units"].size() && same_rmrr_shape(record["rmrr"], table["rmrr"])) {
      add_rmrrs(draft, record["rmrr"], table["rmrr"]);
    }
  }
}

Machine intel_machine(const YAML::Node& record, const YAML::Node& dmar_tables,
                      const std::map<std::string, YAML::Node>& groups) {
  Draft draft = start(text_of(record["id"]), "intel.yaml", "intel");
  draft.machine.source = source_line(record["source"]);
  draft.machine.segment = text_of(record["segment_guess"]);
  draft.kernel_release = text_of(record["kernel"]);
  if (!text_of(record["irq_remapping_mode"]).empty()) draft.kernel.emplace_back("isolated_msi", "true");
  for (const YAML::Node& unit : record["units"]) draft.units.push_back(vtd_unit(unit, draft.machine));
  draft.machine.registers_known = draft.machine.vtd.size() == draft.units.size();
  draft.machine.differences = differences_of(record["unit_differences"]);
  if (const auto file = groups.find(text_of(record["groups_file"])); file != groups.end()) {
    add_groups(draft, file->second);
    place_intel_devices(draft, record);
    add_rmrrs_of_same_product(draft, record, dmar_tables);
  } else {
    add_synthetic_devices(draft);
  }
  return finish(std::move(draft));
}

// --- amd.yaml ---

DraftUnit amd_unit(std::size_t index, const std::string& efr, const std::string& efr2) {
  DraftUnit unit{.id = fmt::format("ivhd{}", index), .driver = "amd", .facts = {}};
  if (!efr.empty()) unit.facts.emplace_back("efr", efr);
  if (!efr2.empty()) unit.facts.emplace_back("efr2", efr2);
  return unit;
}

// The IOMMU function sits on the root bus of what it serves; IVRS device ranges (acpi_ivrs.yaml) go from there to the
// next one.
void place_amd_devices(Draft& draft, std::vector<std::string> iommu_bdfs) {
  std::ranges::sort(iommu_bdfs);
  for (DraftDevice& d : draft.devices) {
    std::size_t unit = 0;
    for (std::size_t i = 0; i < iommu_bdfs.size(); ++i) {
      if (iommu_bdfs[i].substr(0, 4) == d.id.substr(0, 4) && bus_of(iommu_bdfs[i]) <= bus_of(d.id)) unit = i;
    }
    if (!iommu_bdfs.empty()) d.unit = draft.units[unit].id;
  }
  draft.machine.unit_evidence = "the AMD IOMMU at or below the device's bus";
}

Machine amd_machine(const YAML::Node& record, const std::map<std::string, YAML::Node>& groups) {
  Draft draft = start(text_of(record["id"]), "amd.yaml", "amd");
  draft.machine.source = source_line(record["source"]);
  std::string efr, efr2;
  if (record["extended_features"]) {
    efr = text_of(record["extended_features"][0]["efr"]);
    efr2 = text_of(record["extended_features"][0]["efr2"]);
  }
  draft.machine.registers_known = !efr.empty();
  for (const YAML::Node& note :
       record["kernel_notes"] ? record["kernel_notes"] : YAML::Node(YAML::NodeType::Sequence)) {
    if (text_of(note) == "Interrupt remapping enabled") draft.kernel.emplace_back("isolated_msi", "true");
  }
  std::vector<std::string> bdfs;
  for (const YAML::Node& iommu : record["iommus"]) bdfs.push_back(text_of(iommu["bdf"]));
  for (std::size_t i = 0; i < bdfs.size(); ++i) draft.units.push_back(amd_unit(i, efr, efr2));
  if (const auto file = groups.find(text_of(record["groups_file"])); file != groups.end()) {
    add_groups(draft, file->second);
    place_amd_devices(draft, bdfs);
  } else {
    add_synthetic_devices(draft);
  }
  return finish(std::move(draft));
}

// --- arm.yaml ---

DraftUnit smmuv3_unit(const YAML::Node& node) {
  DraftUnit unit{.id = text_of(node["name"]), .driver = "smmuv3", .facts = {}};
  if (const std::string mask = text_of(node["features"]); !mask.empty()) unit.facts.emplace_back("features", mask);
  if (const std::string oas = text_of(node["oas"]); !oas.empty()) unit.facts.emplace_back("oas", oas);
  if (!node["notes"]) return unit;
  for (const YAML::Node& note : node["notes"]) {
    if (text_of(note).find("overridden by FW configuration (0x0)") != std::string::npos) {
      unit.facts.emplace_back("httu", "0");
    }
  }
  return unit;
}

// The first number after `before` in a line of the driver's log.
std::optional<std::uint64_t> number_after(const std::string& line, std::string_view before) {
  const std::size_t at = line.find(before);
  if (at == std::string::npos) return std::nullopt;
  const std::string rest = line.substr(at + before.size());
  const std::size_t digits = rest.find_first_of("0123456789");
  if (digits == std::string::npos) return std::nullopt;
  return std::stoull(rest.substr(digits), nullptr, 0);
}

// arm-smmu's probe prints what it found, one property a line; "coherent table walk" is printed where firmware says so
// and "non-coherent" where only the register does; neither means neither.
DraftUnit smmuv2_unit(const YAML::Node& node) {
  DraftUnit unit{.id = text_of(node["name"]), .driver = "smmuv2", .facts = {}};
  std::string all;
  for (const YAML::Node& line : node["reported"]) all += text_of(line) + "\n";
  const auto says = [&](std::string_view words) { return all.find(words) != std::string::npos; };
  if (!says(" translation")) return unit;  // the record is an excerpt
  const auto add = [&](const char* key, std::string value) { unit.facts.emplace_back(key, std::move(value)); };
  add("stage1", says("stage 1 translation") ? "true" : "false");
  add("stage2", says("stage 2 translation") ? "true" : "false");
  add("coherent", says("coherent table walk") && !says("non-coherent") ? "true" : "false");
  if (const auto mask = number_after(all, "Supported page sizes: ")) add("page_mask", format_hex(*mask));
  if (const auto bits = number_after(all, "Stage-1: ")) add("input_bits", fmt::format("{}", *bits));
  if (const auto bits = number_after(all, "Stage-2: ")) {
    add("ipa_bits", fmt::format("{}", *bits));
  } else if (const auto output = number_after(all, "VA -> ")) {
    add("ipa_bits", fmt::format("{}", *output));
  }
  for (const YAML::Node& line : node["reported"]) {
    const std::string text = text_of(line);
    if (text.find("context banks") != std::string::npos) add("context_banks", fmt::format("{}", std::stoul(text)));
  }
  return unit;
}

DraftUnit virtio_unit(const YAML::Node& lines) {
  DraftUnit unit{.id = "viommu0", .driver = "virtio", .facts = {}};
  for (const YAML::Node& node : lines) {
    const std::string line = text_of(node);
    if (const auto mask = number_after(line, "page mask: ")) unit.facts.emplace_back("page_mask", format_hex(*mask));
    if (const auto bits = number_after(line, "input address: ")) {
      const std::uint64_t last = *bits >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << *bits) - 1;
      unit.facts.emplace_back("input_range", fmt::format("[0x0, {}]", format_hex(last)));
    }
  }
  return unit;
}

void make_unit_ids_unique(Draft& draft) {
  std::map<std::string, int> seen;
  for (DraftUnit& u : draft.units) {
    if (const int n = seen[u.id]++; n > 0) u.id += fmt::format("-{}", n);
  }
}

Machine arm_machine(const YAML::Node& record, const std::map<std::string, YAML::Node>& groups) {
  Draft draft = start(text_of(record["id"]), "arm.yaml", "arm");
  draft.machine.source = source_line(record["source"]);
  const YAML::Node empty(YAML::NodeType::Sequence);
  for (const YAML::Node& node : record["smmus"] ? record["smmus"] : empty) draft.units.push_back(smmuv3_unit(node));
  for (const YAML::Node& node : record["smmus_v2"] ? record["smmus_v2"] : empty)
    draft.units.push_back(smmuv2_unit(node));
  if (record["virtio_iommu"]) draft.units.push_back(virtio_unit(record["virtio_iommu"]));
  make_unit_ids_unique(draft);
  draft.machine.registers_known =
      std::ranges::all_of(draft.units, [](const DraftUnit& u) { return u.facts.size() > 1; });
  if (const auto file = groups.find(text_of(record["groups_file"])); file != groups.end()) {
    add_groups(draft, file->second);
    place_behind_single_unit(draft);
  } else {
    add_synthetic_devices(draft);
  }
  return finish(std::move(draft));
}

// --- acpi_dmar.yaml: scopes without registers ---

struct Scope {
  std::string id;  // "0000:00:02.0", or "0000:00:1c.4/00.0" where bus numbers below bridges are not known
  bool bridge = false;
};

std::vector<Scope> pci_scopes(const YAML::Node& entry) {
  std::vector<Scope> out;
  for (const YAML::Node& scope : entry["scopes"]) {
    const std::string type = text_of(scope["type"]);
    if (type != "endpoint" && type != "bridge") continue;
    out.push_back({full_bdf(number_of(entry["segment"]), text_of(scope["bus"]) + ":" + text_of(scope["path"])),
                   type == "bridge"});
  }
  return out;
}

// PCI classes by Intel's fixed function numbers: graphics at 00:02, USB controllers at 00:14.0, 00:1a and 00:1d.
std::string class_by_function(const std::string& id) {
  if (id.starts_with("0000:00:02.")) return "0x030000";
  const bool usb =
      id == "0000:00:14.0" || (id.size() == 12 && (id.starts_with("0000:00:1a.") || id.starts_with("0000:00:1d.")));
  return usb ? "0x0c0300" : "";
}

void add_scope_device(Draft& draft, const std::string& id, const std::string& unit, std::string name) {
  if (draft.find(id) != nullptr) return;
  DraftDevice device;
  device.id = id;
  device.unit = unit;
  device.group = static_cast<std::int64_t>(draft.devices.size());
  device.device_class = class_by_function(id);
  device.name = std::move(name);
  draft.devices.push_back(std::move(device));
}

const DraftUnit* catch_all_unit(const Draft& draft) {
  const auto at = std::ranges::find(draft.units, true, &DraftUnit::include_pci_all);
  return at == draft.units.end() ? nullptr : &*at;
}

void add_drhd(Draft& draft, const YAML::Node& drhd) {
  DraftUnit unit{.id = fmt::format("dmar{}", draft.units.size()), .driver = "intel", .facts = {}};
  unit.include_pci_all = truth_of(drhd["include_pci_all"]);
  for (const Scope& scope : pci_scopes(drhd)) {
    if (scope.bridge) {
      add_scope_device(draft, scope.id + "/below", unit.id, "synthetic: some device behind the bridge " + scope.id);
    } else {
      add_scope_device(draft, scope.id, unit.id, "in the scope of a DRHD");
    }
  }
  if (unit.include_pci_all) {
    add_scope_device(draft, synthetic_device(draft.units.size()), unit.id,
                     "synthetic: some device of the unit with INCLUDE_PCI_ALL");
  }
  draft.units.push_back(std::move(unit));
}

void add_scoped_rmrr(Draft& draft, const YAML::Node& rmrr) {
  for (const Scope& scope : pci_scopes(rmrr)) {
    const DraftUnit* rest = catch_all_unit(draft);
    add_scope_device(draft, scope.id, rest == nullptr ? "" : rest->id, "in the scope of an RMRR");
    DraftDevice& device = *draft.find(scope.id);
    add_direct_region(device, number_of(rmrr["base"]), number_of(rmrr["end"]), rmrr_is_relaxable(device));
  }
}

std::string table_source(const YAML::Node& file, const YAML::Node& record) {
  return fmt::format("{} at {}: {} (CC-BY-4.0)", text_of(file["repo"]), text_of(file["commit"]),
                     text_of(record["path"]));
}

Machine dmar_machine(const YAML::Node& file, const YAML::Node& record) {
  Draft draft = start(text_of(record["id"]), "acpi_dmar.yaml", "intel");
  draft.machine.source = table_source(file, record);
  draft.machine.unit_evidence = "DRHD device scopes";
  draft.machine.synthetic_devices = true;
  for (const YAML::Node& drhd : record["drhd"]) add_drhd(draft, drhd);
  for (const YAML::Node& rmrr : record["rmrr"]) add_scoped_rmrr(draft, rmrr);
  return finish(std::move(draft));
}

// --- acpi_ivrs.yaml ---

// IVHD 11h and 40h hold an image of the EFR; 10h does not.
Machine ivrs_machine(const YAML::Node& file, const YAML::Node& record) {
  Draft draft = start(text_of(record["id"]), "acpi_ivrs.yaml", "amd");
  draft.machine.source = table_source(file, record);
  std::map<std::string, Fact> registers;  // by IOMMU function
  for (const YAML::Node& ivhd : record["ivhd"]) {
    Fact& efr = registers[full_bdf(number_of(ivhd["segment"]), text_of(ivhd["iommu"]))];
    if (ivhd["efr"]) efr = {text_of(ivhd["efr"]), text_of(ivhd["efr2"])};
  }
  for (const auto& [bdf, efr] : registers) {
    draft.units.push_back(amd_unit(draft.units.size(), efr.first, efr.second));
    const std::string width = text_of(record["ivinfo"]["va_size"]);
    if (!width.empty()) draft.units.back().facts.emplace_back("va_size", width);
  }
  draft.machine.registers_known = std::ranges::all_of(registers, [](const auto& r) { return !r.second.first.empty(); });
  add_synthetic_devices(draft);
  for (const YAML::Node& ivmd : record["ivmd"]) {  // Linux maps exclusion ranges one to one: DIRECT
    const std::string id = full_bdf(0, text_of(ivmd["dev"]));
    add_scope_device(draft, id, draft.units.front().id, "in an IVMD block");
    const std::uint64_t base = number_of(ivmd["base"]);
    DraftDevice& device = *draft.find(id);
    if (device.reserved.empty()) device.reserved.push_back(kHyperTransport);
    device.reserved.push_back(kMsiWindow);
    add_direct_region(device, base, base + number_of(ivmd["length"]) - 1, false);
  }
  return finish(std::move(draft));
}

// --- group listings that belong to no other record ---

Machine listing_machine(const YAML::Node& file) {
  const std::string vendor = text_of(file["arch"]);
  Draft draft = start(text_of(file["id"]), "groups", vendor);
  draft.machine.source = source_line(file["source"]);
  add_groups(draft, file);
  if (vendor == "amd") {  // the listing shows the IOMMU functions themselves
    std::vector<std::string> bdfs;
    for (const DraftDevice& d : draft.devices) {
      if (is_iommu(d)) bdfs.push_back(d.id);
    }
    for (std::size_t i = 0; i < bdfs.size(); ++i) draft.units.push_back(amd_unit(i, "", ""));
    if (!bdfs.empty()) place_amd_devices(draft, bdfs);
  }
  return finish(std::move(draft));
}

// --- reserved_regions.yaml ---

// sysfs prints a software MSI window as `msi`; on Arm it is the one at 0x8000000.
std::string region_type(const std::string& arch, const YAML::Node& region) {
  const std::string type = text_of(region["type"]);
  return arch == "arm" && type == "msi" && number_of(region["base"]) == 0x8000000 ? "sw-msi" : type;
}

// The only device is in the VM whatever it is: these records are about its regions.
Machine regions_machine(const YAML::Node& listing) {
  const std::string arch = text_of(listing["arch"]);
  Draft draft = start(text_of(listing["id"]), "reserved_regions.yaml", arch);
  draft.machine.source = source_line(listing["source"]);
  draft.units.push_back({.id = "iommu0", .driver = arch == "arm" ? "smmuv3" : arch, .facts = {}});
  add_synthetic_devices(draft);
  DraftDevice& device = draft.devices.front();
  if (listing["devices"]) device.id = text_of(listing["devices"][0]["bdf"]);
  for (const YAML::Node& r : listing["regions"]) {
    device.reserved.push_back({number_of(r["base"]), number_of(r["end"]), region_type(arch, r)});
  }
  draft.machine.passthrough = {device.id};
  return finish(std::move(draft));
}

// --- the whole ---

YAML::Node load(const std::filesystem::path& file) { return YAML::LoadFile(file.string()); }

std::map<std::string, YAML::Node> load_groups(const std::filesystem::path& corpus_root) {
  std::map<std::string, YAML::Node> out;
  for (const auto& entry : std::filesystem::directory_iterator(corpus_root / "groups")) {
    out["groups/" + entry.path().filename().string()] = load(entry.path());
  }
  return out;
}

void drop_used(std::map<std::string, YAML::Node>& unused, const YAML::Node& records) {
  for (const YAML::Node& record : records) unused.erase(text_of(record["groups_file"]));
}

std::string devices_text(const std::vector<std::string>& ids) {
  std::string out = ids.empty() ? "devices: []\n" : "devices:\n";
  for (const std::string& id : ids) out += fmt::format("  - {{host: {}}}\n", in_quotes(id));
  return out;
}

// 16 GiB on the machine that people run there. An Arm guest maintains its caches: what a log does not say about a
// device's own coherency must not decide.
std::string vm_text(const Machine& machine, const std::vector<std::string>& devices, std::string_view needs) {
  std::string out =
      "---\napiVersion: ioplan/v1\nkind: VirtualMachine\nname: vm0\nmemory: {size: 16GiB, backing: 2MiB}\n";
  out += machine.vendor == "arm" ? "machine: {type: virt}\nguest_cache_maintenance: true\n"
                                 : fmt::format("machine: {{type: q35, cpu_vendor: {}}}\n", machine.vendor);
  return out + std::string(needs) + devices_text(devices);
}

}  // namespace

std::optional<std::filesystem::path> root() {
  const char* named = std::getenv("IOPLAN_CORPUS");
  const std::filesystem::path path =
      named != nullptr ? std::filesystem::path(named) : source_folder() / "../shared/corpus";
  if (!std::filesystem::exists(path / "intel.yaml")) return std::nullopt;
  return path;
}

std::string synthetic_device(std::size_t unit) { return fmt::format("0000:c{:x}:00.0", unit); }

std::vector<Machine> read(const std::filesystem::path& corpus_root) {
  const YAML::Node dmar = load(corpus_root / "acpi_dmar.yaml");
  const YAML::Node ivrs = load(corpus_root / "acpi_ivrs.yaml");
  const YAML::Node intel = load(corpus_root / "intel.yaml")["machines"];
  const YAML::Node amd = load(corpus_root / "amd.yaml")["machines"];
  const YAML::Node arm = load(corpus_root / "arm.yaml")["machines"];
  const auto groups = load_groups(corpus_root);
  std::vector<Machine> out;
  for (const YAML::Node& record : intel) out.push_back(intel_machine(record, dmar["machines"], groups));
  for (const YAML::Node& record : amd) out.push_back(amd_machine(record, groups));
  for (const YAML::Node& record : arm) out.push_back(arm_machine(record, groups));
  for (const YAML::Node& record : dmar["machines"]) out.push_back(dmar_machine(dmar, record));
  for (const YAML::Node& record : ivrs["machines"]) out.push_back(ivrs_machine(ivrs, record));
  auto unused = groups;
  for (const YAML::Node& records : {intel, amd, arm}) drop_used(unused, records);
  for (const auto& [name, file] : unused) out.push_back(listing_machine(file));
  for (const YAML::Node& listing : load(corpus_root / "reserved_regions.yaml")["listings"]) {
    out.push_back(regions_machine(listing));
  }
  std::ranges::sort(out, {}, &Machine::id);
  return out;
}

std::string vm_documents(const Machine& machine, Ask ask) {
  std::string out =
      vm_text(machine, machine.passthrough, ask == Ask::dirty_tracking ? "needs: {dirty_tracking: required}\n" : "");
  if (ask == Ask::strict) out += "---\napiVersion: ioplan/v1\nkind: Policy\nname: strict\ncoherency: strict\n";
  return out;
}

std::string one_device_per_unit(const Machine& machine) {
  Draft draft = start(machine.id, machine.record, machine.vendor);
  for (const VtdUnit& u : machine.vtd) {
    draft.units.push_back(
        {.id = u.id, .driver = "intel", .facts = {{"cap", format_hex(u.cap)}, {"ecap", format_hex(u.ecap)}}});
  }
  add_synthetic_devices(draft);
  const Machine small = finish(std::move(draft));
  return small.host + vm_text(machine, small.passthrough, "");
}

}  // namespace ioplan::corpus
