#include "backends/intake/log_facts.h"

#include <algorithm>

#include "backends/intake/command_line.h"

namespace ioplan::intake {

namespace {

constexpr ReservedRegion kMsiWindow{{0xfee00000, 0xfeefffff}, ReservedType::msi};

std::string bus_of(std::string_view device) { return std::string(device.substr(0, device.rfind(':'))); }

// The bridge right above a bus: its secondary bus.
bool leads_to(const BridgeLine& bridge, std::string_view bus) {
  const std::string_view segment = std::string_view(bridge.device).substr(0, bridge.device.find(':'));
  return fmt::format("{}:{:02x}", segment, bridge.secondary) == bus && bus_of(bridge.device) != bus;
}

// A bus without a node of its own has that of the bridge above it (pcibus_to_node).
const NumaLine* node_above(std::string bus, const DeviceLog& log) {
  static constexpr int kDeepest = 32;
  for (int depth = 0; depth < kDeepest; ++depth) {
    const auto node = std::ranges::find(log.nodes, bus, &NumaLine::bus);
    if (node != log.nodes.end()) return &*node;
    const auto up = std::ranges::find_if(log.bridges, [&](const BridgeLine& b) { return leads_to(b, bus); });
    if (up == log.bridges.end()) return nullptr;
    bus = bus_of(up->device);
  }
  return nullptr;
}

// Display and USB controllers may lose their regions: device_rmrr_is_relaxable.
ReservedType type_for(std::uint64_t device_class) {
  const bool relaxable = device_class >> 16 == 0x03 || device_class >> 8 == 0x0c03;
  return relaxable ? ReservedType::direct_relaxable : ReservedType::direct;
}

std::string listed(const std::vector<Noted<std::string>>& names) {
  std::string out;
  for (const auto& name : names) out += (out.empty() ? "" : ", ") + name.value;
  return out;
}

class LogFacts {
 public:
  LogFacts(const Pasted<KernelLog>& text, Ledger& ledger) : text_(text), log_(text.content), ledger_(ledger) {}

  void state() {
    if (log_.boots > 1) ledger_.note("{} holds {} boots: the one from line {} counts", text_.file, log_.boots, log_.first_line);
    ledger_.state(text_, host_name(), log_.machine, Standing::described);
    ledger_.state(text_, kernel("release"), log_.release);
    ledger_.state(text_, kernel("arch"), log_.arch);
    ledger_.state(text_, kernel("cpu_vendor"), log_.cpu_vendor);
    if (const auto& line = log_.command_line) {
      state_command_line(line->value, drivers(), text_.at(line->line), ledger_.findings);
    }
    state_vtd();
    state_amd_options();
    state_smmus();
    state_devices();
    state_nodes();
    state_direct_regions();
  }

 private:
  void say(FactName name, Value value, std::uint32_t line, Standing standing = Standing::observed) {
    ledger_.findings.state(std::move(name), std::move(value), text_.at(line), standing);
  }

  DriverSet drivers() const {
    unsigned drivers = 0;
    if (!log_.dmar.drhds.empty() || !log_.dmar.units.empty()) drivers |= driver_set(Driver::intel);
    if (!log_.amd.functions.empty() || !log_.amd.features.empty()) drivers |= driver_set(Driver::amd);
    return static_cast<DriverSet>(drivers);
  }

  // --- VT-d ---

  void state_vtd() {
    const DmarLog& dmar = log_.dmar;
    for (const VtdUnitLine& u : dmar.units) state_vtd_unit(u);
    state_units_without_registers();
    if (const auto& on = dmar.irq_remapping) say(kernel(KernelFact::isolated_msi), std::uint64_t{1}, on->line);
    if (const auto& off = dmar.irq_remapping_failed) say(kernel(KernelFact::isolated_msi), std::uint64_t{0}, off->line);
    ledger_.state(text_, kernel(KernelFact::intel_iommu_sm), dmar.scalable_mode);
    ledger_.state(text_, kernel(KernelFact::intel_iommu_sp_off), dmar.no_superpages);
    if (dmar.disabled && dmar.disabled->value) ledger_.note("{}: VT-d is switched off in this boot", text_.at(dmar.disabled->line));
    if (dmar.inconsistent.empty()) return;
    ledger_.note("{}: Linux says that the units differ in {}", text_.at(dmar.inconsistent[0].line), listed(dmar.inconsistent));
  }

  void state_vtd_unit(const VtdUnitLine& u) {
    const std::string source = text_.at(u.line);
    ledger_.state_unit(u.name, Driver::intel, source);
    say(unit(u.name, "address"), u.base, u.line);
    if (!u.version.empty()) say(unit(u.name, "version"), u.version, u.line);
    ledger_.state_register(u.name, UnitFact::cap, u.cap, source);
    ledger_.state_register(u.name, UnitFact::ecap, u.ecap, source);
    if (const auto& quirk = log_.dmar.rwbf_quirk) say(unit(u.name, UnitFact::rwbf_quirk), std::uint64_t{1}, quirk->line);
  }

  // A DRHD whose registers the log does not show: Linux counts units in the table's order.
  void state_units_without_registers() {
    const DmarLog& dmar = log_.dmar;
    for (std::size_t i = 0; i < dmar.drhds.size(); ++i) {
      const DrhdLine& drhd = dmar.drhds[i];
      const std::string id = fmt::format("dmar{}", i);
      const auto is_it = [&](const VtdUnitLine& u) { return u.base == drhd.base || u.name == id; };
      if (std::ranges::any_of(dmar.units, is_it)) continue;
      ledger_.state_unit(id, Driver::intel, text_.at(drhd.line));
      say(unit(id, "address"), drhd.base, drhd.line);
      for (const UnitFact fact : {UnitFact::cap, UnitFact::ecap}) {
        ledger_.state_register(id, fact, std::nullopt, text_.at(drhd.line));
      }
    }
  }

  // Regions with their devices, as older kernels print them.
  void state_direct_regions() {
    std::map<std::string, std::vector<const DirectRegionLine*>> by_device;
    for (const DirectRegionLine& r : log_.dmar.rmrrs) {
      if (!r.device.empty()) by_device[r.device].push_back(&r);
    }
    for (const auto& [id, lines] : by_device) {
      const auto device_class = ledger_.seen[id].whole_class;
      if (!device_class) continue;
      std::vector<ReservedRegion> regions = {kMsiWindow};
      for (const DirectRegionLine* r : lines) {
        const ReservedRegion region{r->range, type_for(*device_class)};
        if (std::ranges::find(regions, region) == regions.end()) regions.push_back(region);
      }
      say(device(id, "reserved"), regions, lines[0]->line, Standing::concluded);
    }
  }

  // --- other drivers ---

  void state_amd_options() {
    const AmdViLog& amd = log_.amd;
    ledger_.state(text_, kernel(KernelFact::isolated_msi), amd.irq_remapping);
    ledger_.state(text_, kernel(KernelFact::amd_snp), amd.snp);
    ledger_.state(text_, kernel(KernelFact::amd_iommu_pgtbl_v2), amd.v2_tables);
    ledger_.state(text_, kernel(KernelFact::amd_iommu_nohugepages), amd.only_4k);
    ledger_.state(text_, kernel(KernelFact::amd_iommu_v2_pgsizes_only), amd.v2_page_sizes);
  }

  void state_smmus() {
    for (const Smmuv3Lines& u : log_.smmu.v3) state_smmuv3(u);
    for (const Smmuv2Lines& u : log_.smmu.v2) state_smmuv2(u);
    for (const VirtioIommuLines& u : log_.smmu.virtio) state_virtio(u);
  }

  void state_smmuv3(const Smmuv3Lines& u) {
    ledger_.state_unit(u.name, Driver::smmuv3, text_.at(u.line));
    ledger_.state(text_, unit(u.name, UnitFact::features), u.features);
    ledger_.state(text_, unit(u.name, UnitFact::oas), u.oas);
    ledger_.state(text_, unit(u.name, UnitFact::httu), u.httu);
    if (!u.features) ledger_.state_register(u.name, UnitFact::features, std::nullopt, text_.at(u.line));
  }

  // Stages are printed where the unit has them, coherent walks where firmware or the register says so.
  void state_smmuv2(const Smmuv2Lines& u) {
    ledger_.state_unit(u.name, Driver::smmuv2, text_.at(u.line));
    ledger_.state(text_, unit(u.name, UnitFact::page_sizes), u.page_sizes);
    ledger_.state(text_, unit(u.name, UnitFact::input_bits), u.input_bits);
    ledger_.state(text_, unit(u.name, UnitFact::ipa_bits), u.ipa_bits);
    ledger_.state(text_, unit(u.name, UnitFact::context_banks), u.context_banks);
    if (!u.stage1 && !u.stage2) return;  // an excerpt: every unit has one
    say(unit(u.name, UnitFact::stage1), std::uint64_t{u.stage1}, u.line);
    say(unit(u.name, UnitFact::stage2), std::uint64_t{u.stage2}, u.line);
    const bool coherent = u.coherent && u.coherent->value;
    say(unit(u.name, UnitFact::coherent), std::uint64_t{coherent}, u.coherent ? u.coherent->line : u.line);
  }

  void state_virtio(const VirtioIommuLines& u) {
    const auto& first = u.page_mask ? u.page_mask : u.input_bits;
    if (!first) return;
    ledger_.state_unit(u.name, Driver::virtio, text_.at(first->line));
    ledger_.state(text_, unit(u.name, UnitFact::page_sizes), u.page_mask);
    if (!u.input_bits || u.input_bits->value == 0) return;
    const std::uint64_t bits = u.input_bits->value;
    say(unit(u.name, UnitFact::input_start), std::uint64_t{0}, u.input_bits->line);
    say(unit(u.name, UnitFact::input_last), bits >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << bits) - 1, u.input_bits->line);
  }

  // --- devices ---

  void state_devices() {
    for (const PciFunctionLine& f : log_.devices.functions) {
      ledger_.state_exists(f.device, text_.at(f.line));
      say(device(f.device, DeviceFact::device_class), f.device_class, f.line);
      ledger_.state_ids(f.device, f.ids, text_.at(f.line));
    }
    for (const GroupLine& g : log_.devices.groups) ledger_.state_group(g.device, g.group, text_.at(g.line));
    std::map<std::string, std::map<unsigned, std::uint64_t>> bars;
    std::map<std::string, std::uint32_t> first_line;
    for (const BarLine& b : log_.devices.bars) {
      bars[b.device][b.index] = b.size;
      first_line.emplace(b.device, b.line);
    }
    for (const auto& [id, by_index] : bars) ledger_.state_bars(id, by_index, text_.at(first_line[id]));
    for (const auto& d : log_.devices.refused) {
      ledger_.note("{}: Linux refuses {} to user space, because firmware wants it mapped 1:1", text_.at(d.line), d.value);
    }
  }

  void state_nodes() {
    if (log_.devices.nodes.empty()) return;
    for (const PciFunctionLine& f : log_.devices.functions) {
      const NumaLine* node = node_above(bus_of(f.device), log_.devices);
      if (node != nullptr) say(device(f.device, DeviceFact::numa), node->node, node->line, Standing::concluded);
    }
  }

  const Pasted<KernelLog>& text_;
  const KernelLog& log_;
  Ledger& ledger_;
};

}  // namespace

void state_log(const Pasted<KernelLog>& log, Ledger& ledger) { LogFacts(log, ledger).state(); }

}  // namespace ioplan::intake
