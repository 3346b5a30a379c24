// /sys/kernel/iommu_groups and /sys/bus/pci/devices: who shares a group, behind which unit, with which regions.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <string_view>

#include "backends/intake/config_space.h"
#include "backends/intake/pci_names.h"
#include "backends/intake/sysfs.h"
#include "engine/base/text.h"

namespace ioplan::intake {

namespace {

const std::string kGroups = "/sys/kernel/iommu_groups";
const std::string kPci = "/sys/bus/pci/devices";
constexpr std::size_t kConfigBytes = 4096;
constexpr std::size_t kRegionBytes = 65536;

// ---------------------------------------------------------------- groups

// Arm's and virtio's window for MSIs that iommufd places: sysfs calls it `msi` too (iommu.c
// iommu_group_resv_type_string), but no hardware one lies there (MSI_IOVA_BASE of arm-smmu.c, virtio-iommu.c).
constexpr ReservedRegion kSoftwareMsi = {{0x8000000, 0x80fffff}, ReservedType::sw_msi};

std::optional<ReservedRegion> region_of(std::string_view line) {
  const auto words = words_of(line);
  if (words.size() != 3) return std::nullopt;
  const auto start = number_of(words[0], 16), last = number_of(words[1], 16);
  const auto type = std::ranges::find(kReservedTypeNames, words[2]);
  if (!start || !last || type == kReservedTypeNames.end()) return std::nullopt;
  const ReservedRegion region{{*start, *last}, static_cast<ReservedType>(type - kReservedTypeNames.begin())};
  const bool software = region.type == ReservedType::msi && region.range == kSoftwareMsi.range;
  return software ? kSoftwareMsi : region;
}

// Nothing when a line is none.
std::optional<std::vector<ReservedRegion>> regions_of(std::string_view text) {
  std::vector<ReservedRegion> regions;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const auto region = region_of(text.substr(0, end));
    if (!region) return std::nullopt;
    regions.push_back(*region);
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return regions;
}

// What a group says goes for each of its devices. The same file by the device's own path is the source, so that one line
// names it for all.
struct Group {
  std::uint64_t number = 0;
  std::string folder;
  std::optional<std::string> type;
  std::optional<std::vector<ReservedRegion>> regions;

  std::string source(const std::string& device, const char* file) const {
    return (is_pci_address(device) ? kPci + "/" + device + "/iommu_group/" : folder + "/") + file;
  }
};

void scan_member(Sysfs& sysfs, const Group& group, const std::string& id) {
  Findings& findings = sysfs.findings();
  const std::string entry = group.folder + "/devices/" + id;
  findings.state(device(id, "group"), group.number, entry);
  if (group.type) findings.state(device(id, "group_type"), *group.type, group.source(id, "type"));
  if (group.regions) {
    findings.state(device(id, "reserved"), *group.regions, group.source(id, "reserved_regions"));
  } else {
    findings.miss(device(id, "reserved"), group.source(id, "reserved_regions") + " cannot be read, or is no list of regions", {});
  }
  if (is_pci_address(id)) return;  // its own folder says the rest
  sysfs.state_link(device(id, "iommu"), entry + "/iommu");
  sysfs.state_link(device(id, "driver"), entry + "/driver");
}

// ---------------------------------------------------------------- PCI functions

// Each line "start last flags" of the first six is a BAR; only memory can be reached by DMA (IORESOURCE_MEM).
std::string bar_lines(std::string_view text) {
  std::size_t end = 0;
  for (unsigned i = 0; i < 6 && end < text.size(); ++i) end = std::min(text.find('\n', end), text.size() - 1) + 1;
  return std::string(text.substr(0, end));
}

std::vector<Bar> bars_of(std::string_view text) {
  constexpr std::uint64_t kMemory = 0x200;
  std::vector<Bar> bars;
  const auto words = words_of(text);
  for (unsigned i = 0; i < 6 && 3 * i + 2 < words.size(); ++i) {
    const auto start = number_of(words[3 * i], 16), last = number_of(words[3 * i + 1], 16);
    const auto flags = number_of(words[3 * i + 2], 16);
    if (!start || !last || !flags || (*flags & kMemory) == 0 || *last <= *start) continue;
    bars.push_back({i, *last - *start + 1});
  }
  return bars;
}

void scan_bars(Sysfs& sysfs, const std::string& id) {
  const std::string path = kPci + "/" + id + "/resource";
  const auto text = sysfs.text(path, 4096, bar_lines);
  if (!text) return sysfs.findings().miss(device(id, "bars"), path + " cannot be read", {});
  if (auto bars = bars_of(*text); !bars.empty()) sysfs.findings().state(device(id, "bars"), std::move(bars), path);
}

// Node -1 is none.
void scan_node(Sysfs& sysfs, const std::string& id) {
  const std::string path = kPci + "/" + id + "/numa_node";
  if (const auto node = sysfs.decimal(path)) sysfs.findings().state(device(id, DeviceFact::numa), *node, path);
}

// The registers of the capabilities as facts of `id`. A virtual function shares PASID and PRI with its physical one
// (drivers/pci/ats.c), so these are read from there.
class CapabilityScan {
 public:
  CapabilityScan(Sysfs& sysfs, const std::string& id, const std::string& from)
      : findings_(sysfs.findings()), id_(id), path_(kPci + "/" + from + "/config") {
    const auto config = sysfs.bytes(path_, kConfigBytes, config_excerpt);
    capabilities_ = capabilities_of(config.value_or(""));
    why_ = config ? fmt::format("{} ends after {} bytes", path_, capabilities_.bytes) : path_ + " cannot be read";
    if (config && capabilities_.bytes == kConfigBytes) why_ = path_ + " has a broken list of capabilities";
  }

  void own() {
    state(DeviceFact::ats, capabilities_.ats);
    state(DeviceFact::no_snoop, capabilities_.no_snoop);
    state(DeviceFact::acs, capabilities_.acs);
    state(DeviceFact::acs_enabled, capabilities_.acs_enabled);
  }

  void shared() {
    state(DeviceFact::pri, capabilities_.pri);
    state(DeviceFact::pasid_bits, capabilities_.pasid_bits);
  }

 private:
  template <class T>
  void state(DeviceFact fact, const std::optional<T>& value) {
    if (value) return findings_.state(device(id_, fact), static_cast<std::uint64_t>(*value), path_);
    findings_.miss(device(id_, fact), why_, "run as root");
  }

  Findings& findings_;
  const std::string& id_;
  std::string path_;
  std::string why_;
  PciCapabilities capabilities_;
};

void scan_capabilities(Sysfs& sysfs, const std::string& id, const std::optional<std::string>& physical) {
  CapabilityScan mine(sysfs, id, id);
  mine.own();
  if (!physical) return mine.shared();
  CapabilityScan(sysfs, id, *physical).shared();
}

// A function without a group is not translated; one with a group has a unit, though some drivers do not link it.
void scan_place(Sysfs& sysfs, const std::string& id) {
  const std::string folder = kPci + "/" + id;
  const auto group = sysfs.link(folder + "/iommu_group");
  const auto number = group ? number_of(*group, 10) : std::nullopt;
  if (number) {
    sysfs.findings().state(device(id, "group"), *number, folder + "/iommu_group");
  } else {
    sysfs.findings().miss(device(id, "group"), folder + " has no iommu_group: no IOMMU translates for it", {});
  }
  if (const auto unit_id = sysfs.link(folder + "/iommu")) {
    sysfs.findings().state(device(id, "iommu"), *unit_id, folder + "/iommu");
  } else {
    sysfs.findings().miss(device(id, "iommu"), folder + " has no link to an IOMMU", {});
  }
}

std::optional<PciId> scan_function(Sysfs& sysfs, const std::string& id) {
  const std::string folder = kPci + "/" + id;
  sysfs.findings().state(device(id, ""), std::monostate{}, folder);
  sysfs.state_hex(device(id, DeviceFact::device_class), folder + "/class");
  const auto vendor = sysfs.state_hex(device(id, DeviceFact::vendor), folder + "/vendor");
  const auto model = sysfs.state_hex(device(id, DeviceFact::device), folder + "/device");
  scan_place(sysfs, id);
  scan_node(sysfs, id);
  sysfs.state_link(device(id, "driver"), folder + "/driver");
  auto physical = sysfs.link(folder + "/physfn");
  if (physical && !is_pci_address(*physical)) physical.reset();
  if (physical) sysfs.findings().state(device(id, "physical_function"), *physical, folder + "/physfn");
  const std::string virtual_functions = folder + "/sriov_totalvfs";
  if (const auto total = sysfs.decimal(virtual_functions)) {
    sysfs.findings().state(device(id, DeviceFact::sriov_total_vfs), *total, virtual_functions);
  }
  scan_bars(sysfs, id);
  scan_capabilities(sysfs, id, physical);
  return vendor && model ? std::optional(PciId{*vendor, *model}) : std::nullopt;
}

void scan_names(Sysfs& sysfs, const std::map<std::string, PciId>& ids) {
  constexpr std::size_t kMostBytes = std::size_t{16} << 20;
  std::set<PciId> wanted;
  for (const auto& [id, pci_id] : ids) wanted.insert(pci_id);
  for (const std::string path : {"/usr/share/misc/pci.ids", "/usr/share/hwdata/pci.ids"}) {
    const auto file = sysfs.text(path, kMostBytes, [&](std::string_view t) { return pci_names_excerpt(t, wanted); });
    if (!file) continue;
    const auto names = pci_names(*file, wanted);
    for (const auto& [id, pci_id] : ids) {
      const auto name = names.find(pci_id);
      if (name != names.end()) sysfs.findings().state(device(id, "name"), name->second, path, Standing::described);
    }
    return;
  }
}

}  // namespace

void scan_groups(Sysfs& sysfs) {
  for (const std::string& name : sysfs.list(kGroups)) {
    Group group;
    const auto number = number_of(name, 10);
    if (!number) continue;
    group.number = *number;
    group.folder = kGroups + "/" + name;
    const auto members = sysfs.list(group.folder + "/devices");
    if (members.empty()) {
      sysfs.findings().miss({About::host, {}, "groups." + name}, group.folder + "/devices lists no device", {});
    }
    group.type = sysfs.text(group.folder + "/type");
    const auto text = sysfs.text(group.folder + "/reserved_regions", kRegionBytes, [](std::string_view t) { return std::string(t); });
    if (text) group.regions = regions_of(*text);
    for (const std::string& id : members) scan_member(sysfs, group, id);
  }
}

void scan_devices(Sysfs& sysfs) {
  std::map<std::string, PciId> ids;
  for (const std::string& id : sysfs.list(kPci)) {
    if (const auto pci_id = scan_function(sysfs, id)) ids.emplace(id, *pci_id);
  }
  scan_names(sysfs, ids);
}

}  // namespace ioplan::intake
