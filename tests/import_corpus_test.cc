// Every record of the corpus, printed as kernels and scripts print it (support/printed.h), is imported to the facts that
// the record states: registers, groups, regions, capabilities. So are the posted logs themselves. And a log imports to
// the same bytes in every dirty form.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <set>
#include <sstream>

#include "backends/intake/import.h"
#include "backends/intake/kernel_log.h"
#include "backends/intake/lspci.h"
#include "engine/base/text.h"
#include "engine/document/host_document.h"
#include "tests/support/corpus.h"
#include "tests/support/corpus_files.h"
#include "tests/support/printed.h"

namespace ioplan {
namespace {

using intake::Imported;
using intake::ImportText;
using intake::TextKind;

std::string text_of(const YAML::Node& node) { return node && node.IsScalar() ? node.Scalar() : std::string{}; }
std::uint64_t number_of(const YAML::Node& node) { return parse_integer(text_of(node)).value(); }

class ImportCorpus : public testing::Test {
 protected:
  void SetUp() override {
    const auto root = corpus::root();
    if (!root) GTEST_SKIP() << "no corpus beside the project (../shared/corpus, or IOPLAN_CORPUS)";
    root_ = *root;
    static const corpus::Records kRecords = corpus::read_records(root_);
    records_ = &kRecords;
  }

  std::filesystem::path root_;
  const corpus::Records* records_ = nullptr;
};

Imported import_one(TextKind kind, std::string text) {
  const std::vector<ImportText> texts = {{kind, "pasted.txt", std::move(text)}};
  auto imported = intake::import_host(texts);
  EXPECT_TRUE(imported) << (imported ? "" : imported.error().message);
  return imported ? std::move(*imported) : Imported{};
}

// --- what a record states ---

using Registers = std::map<std::string, std::string>;  // "dmar0 cap" -> "0x..."

void add(Registers& out, const std::string& unit, const char* key, const YAML::Node& value) {
  if (!text_of(value).empty()) out[unit + " " + key] = fmt::format("{:#x}", number_of(value));
}

Registers smmuv2_registers(const YAML::Node& unit) {
  Registers out;
  const std::string name = text_of(unit["name"]);
  bool stage1 = false, stage2 = false, coherent = false;
  for (const YAML::Node& line : unit["reported"]) {
    const std::string text = text_of(line);
    stage1 |= text == "stage 1 translation";
    stage2 |= text == "stage 2 translation";
    coherent |= text == "coherent table walk";
    if (text.starts_with("Supported page sizes: ")) out[name + " page_mask"] = fmt::format("{:#x}", *parse_integer(text.substr(22)));
    if (text.starts_with("Stage-1: ")) out[name + " input_bits"] = fmt::format("{:#x}", std::stoul(text.substr(9)));
  }
  if (!stage1 && !stage2) return out;
  out[name + " stage1"] = fmt::format("{:#x}", int{stage1});
  out[name + " stage2"] = fmt::format("{:#x}", int{stage2});
  out[name + " coherent"] = fmt::format("{:#x}", int{coherent});
  return out;
}

Registers arm_registers(const YAML::Node& record) {
  Registers out;
  const YAML::Node empty(YAML::NodeType::Sequence);
  for (const YAML::Node& unit : record["smmus"] ? record["smmus"] : empty) {
    add(out, text_of(unit["name"]), "features", unit["features"]);
    add(out, text_of(unit["name"]), "oas", unit["oas"]);
  }
  for (const YAML::Node& unit : record["smmus_v2"] ? record["smmus_v2"] : empty) out.merge(smmuv2_registers(unit));
  if (record["virtio_iommu"]) out["virtio0 page_mask"] = "0xfffffffffffff000";
  return out;
}

Registers stated_registers(const YAML::Node& record) {
  if (record["units"]) {
    Registers out;
    for (const YAML::Node& unit : record["units"]) {
      add(out, text_of(unit["name"]), "cap", unit["cap"]);
      add(out, text_of(unit["name"]), "ecap", unit["ecap"]);
    }
    return out;
  }
  if (!record["iommu_count"]) return arm_registers(record);
  Registers out;
  for (std::size_t i = 0; record["extended_features"] && i < record["iommus"].size(); ++i) {
    add(out, fmt::format("ivhd{}", i), "efr", record["extended_features"][0]["efr"]);
    add(out, fmt::format("ivhd{}", i), "efr2", record["extended_features"][0]["efr2"]);
  }
  return out;
}

std::set<std::string> stated_units(const YAML::Node& record) {
  std::set<std::string> out;
  for (const char* key : {"units", "smmus", "smmus_v2"}) {
    if (!record[key]) continue;
    for (const YAML::Node& unit : record[key]) out.insert(text_of(unit["name"]));
  }
  for (std::size_t i = 0; record["iommus"] && i < record["iommus"].size(); ++i) out.insert(fmt::format("ivhd{}", i));
  if (record["virtio_iommu"]) out.insert("virtio0");
  return out;
}

// Group, class (`class_digits` of it), vendor and device by address.
using Devices = std::map<std::string, std::string>;

void add(Devices& out, const YAML::Node& devices, const std::string& group, std::size_t class_digits) {
  for (const YAML::Node& d : devices) {
    const std::string id = text_of(d["id"]);
    out[text_of(d["bdf"])] = fmt::format("group {} class {} {}", group, text_of(d["class"]).substr(0, 2 + class_digits), id);
  }
}

Devices stated_devices(const YAML::Node& groups, std::size_t class_digits) {
  Devices out;
  for (const YAML::Node& group : groups["groups"]) add(out, group["devices"], text_of(group["id"]), class_digits);
  if (groups["ungrouped"]) add(out, groups["ungrouped"], "-", class_digits);
  return out;
}

// --- the same of an imported host ---

template <class Fact>
void add(Registers& out, const std::string& unit, const Facts<UnitFact>& facts, std::initializer_list<Fact> wanted) {
  for (const Fact fact : wanted) {
    if (facts[fact]) out[fmt::format("{} {}", unit, row_of(fact).key)] = fmt::format("{:#x}", *facts[fact]);
  }
}

Registers imported_registers(const Host& host) {
  Registers out;
  for (const Unit& unit : host.units) {
    add(out, unit.id, unit.facts,
        {UnitFact::cap, UnitFact::ecap, UnitFact::efr, UnitFact::efr2, UnitFact::features, UnitFact::oas, UnitFact::page_sizes,
         UnitFact::stage1, UnitFact::stage2, UnitFact::coherent, UnitFact::input_bits});
  }
  return out;
}

std::set<std::string> imported_units(const Host& host) {
  std::set<std::string> out;
  for (const Unit& unit : host.units) out.insert(unit.id);
  return out;
}

Devices imported_devices(const Host& host, std::size_t class_digits) {
  Devices out;
  for (const Device& d : host.devices) {
    const auto& facts = d.facts;
    if (!facts[DeviceFact::vendor]) continue;
    out[d.id] = fmt::format("group {} class {} {:04x}:{:04x}", d.group ? std::to_string(*d.group) : "-",
                            fmt::format("{:#08x}", facts.at(DeviceFact::device_class)).substr(0, 2 + class_digits),
                            facts.at(DeviceFact::vendor), facts.at(DeviceFact::device));
  }
  return out;
}

// --- boot logs ---

void expect_same(const YAML::Node& record, const YAML::Node& groups, const Host& host) {
  EXPECT_EQ(imported_units(host), stated_units(record));
  EXPECT_EQ(imported_registers(host), stated_registers(record));
  if (groups["groups"]) {
    EXPECT_EQ(imported_devices(host, 6), stated_devices(groups, 6));
  }
  if (const std::string kernel = text_of(record["kernel"]); !kernel.empty()) {
    EXPECT_EQ(host.kernel.release, kernel);
  }
}

// The regions that no device is named for are listed as unknown, whole.
void expect_regions(const YAML::Node& record, const Host& host) {
  std::string listed;
  for (const Gap& gap : host.unknown) listed += gap.why + "\n";
  for (const YAML::Node& r : record["rmrr"]) {
    const std::string range = fmt::format("{:#x}-{:#x} (", number_of(r["base"]), number_of(r["end"]));
    EXPECT_NE(listed.find(range), std::string::npos) << range << " is not in\n" << listed;
  }
}

TEST_F(ImportCorpus, EveryBootLogImportsToTheFactsOfItsRecord) {
  std::size_t seen = 0;
  for (const auto& [id, record] : records_->machines) {
    SCOPED_TRACE(id);
    const YAML::Node groups = records_->groups_of(record);
    const Imported imported = import_one(TextKind::dmesg, printed::boot_log(record, groups));
    EXPECT_TRUE(imported.settled.contradictions.empty());
    expect_same(record, groups, imported.settled.host);
    if (record["rmrr"] && groups["groups"]) expect_regions(record, imported.settled.host);
    ++seen;
  }
  EXPECT_EQ(seen, 202U);
}

std::string facts_of(Host host) {
  host.sources.clear();  // lines have other numbers
  host.unknown.clear();  // reasons name lines
  return to_yaml(host);
}

TEST_F(ImportCorpus, DirtChangesNothing) {
  for (const auto& [id, record] : records_->machines) {
    const std::string log = printed::boot_log(record, records_->groups_of(record));
    const std::string clean = facts_of(import_one(TextKind::dmesg, log).settled.host);
    for (std::size_t d = 1; d < printed::kDirtNames.size(); ++d) {
      SCOPED_TRACE(fmt::format("{}, {}", id, printed::kDirtNames[d]));
      EXPECT_EQ(facts_of(import_one(TextKind::dmesg, printed::dirtied(log, static_cast<printed::Dirt>(d))).settled.host), clean);
    }
  }
}

// --- posted logs ---

std::string slurp(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

// What the record does not have is not compared: devices of other PCI segments than 0, for example Intel VMD's.
Devices of_known_segments(Devices devices, const Devices& stated) {
  std::set<std::string> segments;
  for (const auto& [address, facts] : stated) segments.insert(address.substr(0, address.find(':')));
  std::erase_if(devices, [&](const auto& d) { return !segments.contains(d.first.substr(0, d.first.find(':'))); });
  return devices;
}

TEST_F(ImportCorpus, PostedLogsImportToTheFactsOfTheirRecords) {
  const auto folder = root_ / "logs";
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << folder << " does not exist";
  std::size_t seen = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    SCOPED_TRACE(entry.path().filename().string());
    const YAML::Node record = records_->machines.at(entry.path().stem().string());
    const YAML::Node groups = records_->groups_of(record);
    const std::vector<ImportText> texts = {{TextKind::dmesg, "dmesg.txt", slurp(entry.path())}};
    const auto imported = intake::import_host(texts);
    ASSERT_TRUE(imported) << imported.error().message;
    const Host& host = imported->settled.host;
    EXPECT_TRUE(imported->settled.contradictions.empty());
    EXPECT_EQ(imported_units(host), stated_units(record));
    EXPECT_EQ(imported_registers(host), stated_registers(record));
    if (groups["groups"]) {
      const Devices stated = stated_devices(groups, 6);
      EXPECT_EQ(of_known_segments(imported_devices(host, 6), stated), stated);
    }
    ++seen;
  }
  EXPECT_EQ(seen, 17U);
}

// --- group listings ---

// Paths have no descriptions; ids first have no class.
Devices without_description(const Devices& devices) {
  Devices out;
  for (const auto& [id, facts] : devices) out[id] = facts.substr(0, facts.find(" class"));
  return out;
}

Devices imported_groups(const Host& host) {
  Devices out;
  for (const Device& d : host.devices) {
    if (d.group) out[d.id] = fmt::format("group {}", *d.group);
  }
  return out;
}

TEST_F(ImportCorpus, EveryGroupListingImportsToItsGroups) {
  for (const auto& [file, groups] : records_->groups) {
    YAML::Node listed = YAML::Clone(groups);
    listed.remove("ungrouped");
    const Devices stated = stated_devices(listed, 4);
    for (std::size_t f = 0; f < printed::kGroupFormNames.size(); ++f) {
      const auto form = static_cast<printed::GroupForm>(f);
      SCOPED_TRACE(fmt::format("{}, {}", file, printed::kGroupFormNames[f]));
      const Host host = import_one(TextKind::groups, printed::group_listing(listed, form)).settled.host;
      EXPECT_EQ(imported_groups(host), without_description(stated));
      if (form == printed::GroupForm::headings || form == printed::GroupForm::one_line) {
        EXPECT_EQ(imported_devices(host, 4), stated);
      }
    }
  }
  EXPECT_EQ(records_->groups.size(), 119U);
}

// --- reserved regions ---

std::string region_text(const ReservedRegion& r) {
  return fmt::format("{:#x}-{:#x} {}", r.range.start, r.range.last, kReservedTypeNames[static_cast<std::size_t>(r.type)]);
}

std::multiset<std::string> stated_regions(const YAML::Node& listing) {
  std::multiset<std::string> out;
  for (const YAML::Node& r : listing["regions"]) {
    const bool software = text_of(listing["arch"]) == "arm" && text_of(r["base"]) == "0x8000000";
    out.insert(fmt::format("{:#x}-{:#x} {}", number_of(r["base"]), number_of(r["end"]), software ? "sw-msi" : text_of(r["type"])));
  }
  return out;
}

// A device in each group of a listing: sysfs has no group without one.
std::string a_device_each(const YAML::Node& listing) {
  std::string out;
  std::size_t bus = 1;
  const auto add = [&](const YAML::Node& group) {
    out += fmt::format("/sys/kernel/iommu_groups/{}/devices/0000:{:02x}:00.0\n", text_of(group), bus++);
  };
  if (listing["group"]) add(listing["group"]);
  if (listing["groups"]) {
    for (const YAML::Node& group : listing["groups"]) add(group);
  }
  return out;
}

TEST_F(ImportCorpus, EveryDumpOfReservedRegionsImportsToItsRegions) {
  std::size_t placed = 0;
  for (const YAML::Node& listing : records_->reserved_regions) {
    const std::string devices = a_device_each(listing);
    if (devices.empty()) continue;  // a union over all groups
    for (const auto form : {printed::RegionForm::grep, printed::RegionForm::headings, printed::RegionForm::loop}) {
      SCOPED_TRACE(fmt::format("{}, form {}", text_of(listing["id"]), static_cast<int>(form)));
      const std::vector<ImportText> texts = {{TextKind::groups, "groups.txt", devices},
                                             {TextKind::reserved, "regions.txt", printed::reserved_regions(listing, form)}};
      const auto imported = intake::import_host(texts);
      ASSERT_TRUE(imported);
      for (const Device& d : imported->settled.host.devices) {
        std::multiset<std::string> regions;
        for (const ReservedRegion& r : d.reserved.value()) regions.insert(region_text(r));
        EXPECT_EQ(regions, stated_regions(listing));
        ++placed;
      }
    }
  }
  EXPECT_EQ(placed, 15U);
}

// --- capabilities ---

bool is_true(const YAML::Node& node) { return text_of(node) == "true"; }

void expect_capabilities(const YAML::Node& record, const intake::LspciFunction& f) {
  EXPECT_EQ(f.device, text_of(record["bdf"]));
  EXPECT_EQ(f.express_type, text_of(record["express_type"]));
  EXPECT_EQ(f.no_snoop, is_true(record["no_snoop"]));
  EXPECT_EQ(f.relaxed_ordering, is_true(record["relaxed_ordering"]));
  if (record["flr"]) {
    EXPECT_EQ(f.flr, is_true(record["flr"]));
  }
  EXPECT_EQ(f.ats, is_true(record["ats"]));
  EXPECT_EQ(f.pri, is_true(record["pri"]));
  EXPECT_EQ(f.pasid, is_true(record["pasid"]));
  EXPECT_EQ(f.acs_capabilities, text_of(record["acs_cap"]));
  EXPECT_EQ(f.acs_control, text_of(record["acs_ctl"]));
  EXPECT_EQ(f.driver, text_of(record["driver"]));
  EXPECT_EQ(f.group ? std::to_string(f.group->value) : "", text_of(record["iommu_group"]));
  ASSERT_EQ(f.sriov.has_value(), is_true(record["sriov"]));
  if (f.sriov) {
    EXPECT_EQ(std::to_string(f.sriov->total), text_of(record["sriov_vfs"][1]));
  }
  const std::string width = "Max PASID Width: ", pasid = text_of(record["pasid_cap"]);
  ASSERT_EQ(f.pasid_bits.has_value(), !pasid.empty());
  if (f.pasid_bits) {
    EXPECT_EQ(f.pasid_bits->value, std::stoul(pasid.substr(pasid.find(width) + width.size()), nullptr, 16));
  }
  ASSERT_EQ(f.bars.size(), 1U);  // those of virtual functions are not the function's own
  EXPECT_EQ(f.bars[0].size, 16U << 20U);
}

TEST_F(ImportCorpus, EveryFunctionsCapabilitiesAreRead) {
  for (const YAML::Node& record : records_->capabilities) {
    SCOPED_TRACE(text_of(record["name"]) + " " + text_of(record["bdf"]));
    const intake::LspciListing listing = intake::read_lspci(printed::lspci_verbose(record));
    ASSERT_EQ(listing.functions.size(), 1U);
    expect_capabilities(record, listing.functions[0]);
  }
  EXPECT_EQ(records_->capabilities.size(), 211U);
}

}  // namespace
}  // namespace ioplan
