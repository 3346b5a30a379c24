#include "backends/intake/listing_facts.h"

#include <algorithm>
#include <array>

namespace ioplan::intake {

namespace {

constexpr Range kSoftwareMsi{0x8000000, 0x80fffff};  // the drivers' MSI_IOVA_BASE and MSI_IOVA_LENGTH

// The ACS registers' bits in the order in which lspci names them.
std::uint64_t acs_bits(std::string_view flags) {
  static constexpr std::array<std::string_view, 7> kNames = {"SrcValid",    "TransBlk",   "ReqRedir",   "CmpltRedir",
                                                             "UpstreamFwd", "EgressCtrl", "DirectTrans"};
  std::uint64_t bits = 0;
  for (std::size_t i = 0; i < kNames.size(); ++i) {
    if (flags.find(std::string(kNames[i]) + "+") != std::string_view::npos) bits |= std::uint64_t{1} << i;
  }
  return bits;
}

template <class T>
void state_function(const Pasted<T>& text, const LspciFunction& f, Ledger& ledger) {
  const std::string source = text.at(f.line);
  ledger.state_exists(f.device, source);
  ledger.state_class(f, source);
  if (f.ids) ledger.state_ids(f.device, *f.ids, source);
  ledger.state_name(f.device, f.name, source);
}

// Only who may read the configuration space sees Device Control; then what is not listed is not there.
void state_capabilities(const LspciFunction& f, const std::string& source, Ledger& ledger) {
  if (!f.no_snoop) return;
  const auto say = [&](DeviceFact fact, std::uint64_t value) { ledger.findings.state(device(f.device, fact), value, source); };
  say(DeviceFact::no_snoop, *f.no_snoop ? 1 : 0);
  say(DeviceFact::ats, f.ats ? 1 : 0);
  say(DeviceFact::pri, f.pri ? 1 : 0);
  if (f.pasid_bits || !f.pasid) say(DeviceFact::pasid_bits, f.pasid_bits ? f.pasid_bits->value : 0);
  if (!f.acs_capabilities.empty()) say(DeviceFact::acs, acs_bits(f.acs_capabilities));
  if (!f.acs_control.empty()) say(DeviceFact::acs_enabled, acs_bits(f.acs_control));
  if (f.sriov) say(DeviceFact::sriov_total_vfs, f.sriov->total);
}

// sysfs prints software MSI windows as `msi`.
ReservedRegion as_driver_has_it(ReservedRegion region) {
  if (region.type == ReservedType::msi && region.range == kSoftwareMsi) region.type = ReservedType::sw_msi;
  return region;
}

struct GroupRegions {
  std::vector<ReservedRegion> regions;
  std::uint32_t line = 0;  // of the first
};

std::map<std::uint64_t, GroupRegions> by_group(const std::vector<RegionLine>& lines) {
  std::map<std::uint64_t, GroupRegions> out;
  for (const RegionLine& r : lines) {
    if (!r.group) continue;
    GroupRegions& group = out.try_emplace(*r.group, GroupRegions{{}, r.line}).first->second;
    const ReservedRegion region = as_driver_has_it(r.region);
    if (std::ranges::find(group.regions, region) == group.regions.end()) group.regions.push_back(region);
  }
  return out;
}

}  // namespace

// lspci -v prints every programming interface but 0.
std::optional<std::uint64_t> whole_class(const LspciFunction& f) {
  if (!f.class_code || !(f.interface || f.verbose)) return std::nullopt;
  return f.class_code->value << 8 | (f.interface ? f.interface->value : 0);
}

void state_lspci(const Pasted<LspciListing>& listing, Ledger& ledger) {
  for (const LspciFunction& f : listing.content.functions) {
    state_function(listing, f, ledger);
    ledger.state(listing, device(f.device, DeviceFact::numa), f.numa);
    if (f.group) ledger.state_group(f.device, f.group->value, listing.at(f.group->line));
    if (!f.driver.empty()) ledger.findings.state(device(f.device, "driver"), f.driver, listing.at(f.line));
    std::map<unsigned, std::uint64_t> bars;
    for (const LspciBar& b : f.bars) bars[b.index] = b.size;
    ledger.state_bars(f.device, bars, f.bars.empty() ? "" : listing.at(f.bars[0].line));
    state_capabilities(f, listing.at(f.line), ledger);
  }
  for (const auto& d : listing.content.tree.devices) ledger.state_exists(d.value, listing.at(d.line));
}

void state_groups(const Pasted<std::vector<GroupMember>>& listing, Ledger& ledger) {
  for (const GroupMember& m : listing.content) {
    state_function(listing, m.function, ledger);
    ledger.state_group(m.function.device, m.group, listing.at(m.function.line));
  }
}

void state_node_devices(const Pasted<std::vector<NodeDevice>>& devices, Ledger& ledger) {
  for (const NodeDevice& d : devices.content) {
    ledger.state_exists(d.device, devices.at(d.line));
    ledger.state(devices, device(d.device, DeviceFact::device_class), d.device_class);
    ledger.state(devices, device(d.device, DeviceFact::vendor), d.vendor);
    ledger.state(devices, device(d.device, DeviceFact::device), d.product);
    ledger.state(devices, device(d.device, DeviceFact::numa), d.numa);
    if (!d.driver.empty()) ledger.findings.state(device(d.device, "driver"), d.driver, devices.at(d.line));
    if (!d.vendor_name.empty()) ledger.state_name(d.device, d.vendor_name + " " + d.product_name, devices.at(d.line));
    if (!d.group) continue;
    ledger.state_group(d.device, d.group->value, devices.at(d.group->line));
    for (const auto& member : d.group_members) ledger.state_group(member.value, d.group->value, devices.at(member.line));
  }
}

void state_regions(const Pasted<std::vector<RegionLine>>& dump, Ledger& ledger) {
  const auto homeless = std::ranges::count_if(dump.content, [](const RegionLine& r) { return !r.group; });
  if (homeless > 0) {
    ledger.note("{}: {} regions stand below no group and are left out; `grep . /sys/kernel/iommu_groups/*/reserved_regions` names it",
                dump.file, homeless);
  }
  for (const auto& [number, group] : by_group(dump.content)) {
    bool placed = false;
    for (const auto& [id, seen] : ledger.seen) {
      if (seen.group != number) continue;
      ledger.findings.state(device(id, "reserved"), group.regions, dump.at(group.line));
      placed = true;
    }
    if (!placed) ledger.note("{}: no text says which devices are in group {}: give `--groups`", dump.at(group.line), number);
  }
}

}  // namespace ioplan::intake
