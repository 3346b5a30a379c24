#include "tests/support/printed.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <vector>

#include "engine/base/text.h"

namespace ioplan::printed {

namespace {

std::string text_of(const YAML::Node& node) {
  return !node || node.IsNull() || !node.IsScalar() ? std::string{} : node.Scalar();
}

std::uint64_t number_of(const YAML::Node& node) { return parse_integer(text_of(node)).value(); }

std::string hex_digits(const YAML::Node& node) { return fmt::format("{:x}", number_of(node)); }

// Lines with a clock that ticks a microsecond a line.
class Log {
 public:
  template <class... Arguments>
  void say(fmt::format_string<Arguments...> format, Arguments&&... arguments) {
    const std::string message = fmt::format(format, std::forward<Arguments>(arguments)...);
    text_ += fmt::format("[{:5}.{:06}] {}\n", time_ / 1000000, time_ % 1000000, message);
    time_ += 137;
  }
  std::string take() { return std::move(text_); }

 private:
  std::string text_;
  std::uint64_t time_ = 0;
};

// --- the beginning of every boot ---

std::string joined(const YAML::Node& words) {
  std::string out;
  if (!words) return out;
  for (const YAML::Node& word : words) out += " " + text_of(word);
  return out;
}

void beginning(Log& log, const YAML::Node& record, bool x86) {
  if (!x86) log.say("Booting Linux on physical CPU 0x0000000000 [0x413fd0c1]");
  if (const std::string kernel = text_of(record["kernel"]); !kernel.empty()) {
    log.say("Linux version {} (builder@host) (gcc (GCC) 13.2.0, GNU ld (GNU Binutils) 2.41) #1 SMP PREEMPT_DYNAMIC", kernel);
  }
  if (x86) log.say("Command line: BOOT_IMAGE=/boot/vmlinuz root=/dev/sda1 ro{}", joined(record["iommu_cmdline"]));
  if (x86) log.say("BIOS-e820: [mem 0x0000000000000000-0x000000000009efff] usable");
  const std::string machine = text_of(record["machine"]), bios = text_of(record["bios"]);
  if (machine.empty() || machine == "unknown") return;
  if (!bios.empty()) log.say("DMI: {}, BIOS {}", machine, bios);
}

// --- devices ---

struct Bus {
  std::string device, secondary, subordinate;
};

std::string port_type(const std::string& header) { return header == "01" ? "PCIe Root Port" : "conventional PCI endpoint"; }

void enumerate_one(Log& log, const YAML::Node& device, const std::vector<Bus>& bridges) {
  const std::string bdf = text_of(device["bdf"]), header = text_of(device["header"]);
  log.say("pci {}: [{}] type {} class {} {}", bdf, text_of(device["id"]), header.empty() ? "00" : header,
          text_of(device["class"]), port_type(header));
  for (const Bus& b : bridges) {
    if (b.device != bdf) continue;
    const std::string range = b.secondary == b.subordinate ? b.secondary : b.secondary + "-" + b.subordinate;
    log.say("pci {}: PCI bridge to [bus {}]", bdf, range);
    log.say("pci {}:   bridge window [mem 0x52000000-0x530fffff]", bdf);
  }
}

std::vector<Bus> bridges_of(const YAML::Node& groups) {
  std::vector<Bus> out;
  if (!groups["bridges"]) return out;
  for (const YAML::Node& b : groups["bridges"]) {
    out.push_back({text_of(b["bdf"]), text_of(b["secondary"]), text_of(b["subordinate"])});
  }
  return out;
}

struct NaturalLess {
  bool operator()(const std::string& a, const std::string& b) const { return natural_less(a, b); }
};

// By address. (Assigning a YAML::Node changes what it stands for, so they are not sorted in place.)
std::multimap<std::string, YAML::Node, NaturalLess> all_devices(const YAML::Node& groups) {
  std::multimap<std::string, YAML::Node, NaturalLess> out;
  for (const YAML::Node& group : groups["groups"]) {
    for (const YAML::Node& device : group["devices"]) out.emplace(text_of(device["bdf"]), device);
  }
  if (groups["ungrouped"]) {
    for (const YAML::Node& device : groups["ungrouped"]) out.emplace(text_of(device["bdf"]), device);
  }
  return out;
}

void enumerate(Log& log, const YAML::Node& groups) {
  if (!groups) return;
  const std::vector<Bus> bridges = bridges_of(groups);
  for (const auto& [bdf, device] : all_devices(groups)) enumerate_one(log, device, bridges);
}

// Linux numbers groups as it probes devices: unit by unit since 6.1, in the order of enumeration. A group whose first
// device comes before that of the group before it begins another unit's run.
void join_groups(Log& log, const YAML::Node& groups) {
  std::map<std::string, std::string, NaturalLess> run;  // group by device
  const auto end_run = [&] {
    for (const auto& [device, group] : run) log.say("pci {}: Adding to iommu group {}", device, group);
    run.clear();
  };
  std::string previous;
  for (const YAML::Node& group : groups["groups"]) {
    const std::string first = text_of(group["devices"][0]["bdf"]);
    if (natural_less(first, previous)) end_run();
    previous = first;
    for (const YAML::Node& device : group["devices"]) run.emplace(text_of(device["bdf"]), text_of(group["id"]));
  }
  end_run();
}

void default_domain(Log& log, const YAML::Node& record) {
  const std::string type = text_of(record["default_domain"]);
  if (!type.empty()) log.say("iommu: Default domain type: {}", type);
}

// --- Intel ---

void dmar_table(Log& log, const YAML::Node& record) {
  log.say("DMAR: Host address width {}", text_of(record["host_address_width"]));
  for (const YAML::Node& unit : record["units"]) {
    if (const std::string flags = text_of(unit["drhd_flags"]); !flags.empty()) {
      log.say("DMAR: DRHD base: {:#016x} flags: {:#x}", number_of(unit["base"]), number_of(unit["drhd_flags"]));
    }
    std::string registers = fmt::format("DMAR: {}: reg_base_addr {} ver {} cap {}", text_of(unit["name"]), hex_digits(unit["base"]),
                                        text_of(unit["ver"]), hex_digits(unit["cap"]));
    registers += unit["ecap_truncated_in_source"] ? " ec" : " ecap " + hex_digits(unit["ecap"]);
    log.say("{}", registers);
  }
  for (const YAML::Node& r : record["rmrr"]) {
    log.say("DMAR: RMRR base: {:#016x} end: {:#016x}", number_of(r["base"]), number_of(r["end"]));
  }
  if (record["atsr_flags"]) {
    for (const YAML::Node& flags : record["atsr_flags"]) log.say("DMAR: ATSR flags: {}", text_of(flags));
  }
  if (record["rhsa"]) {
    for (const YAML::Node& r : record["rhsa"]) {
      log.say("DMAR: RHSA base: {:#016x} proximity domain: {:#x}", number_of(r["base"]), number_of(r["proximity_domain"]));
    }
  }
}

void irq_remapping(Log& log, const YAML::Node& record) {
  if (record["ioapics"]) {
    for (const YAML::Node& a : record["ioapics"]) {
      const std::string unit = text_of(a["unit"]);
      log.say("DMAR-IR: IOAPIC id {} under DRHD base  {}{}", text_of(a["id"]), text_of(a["drhd"]), unit.empty() ? "" : " IOMMU " + unit);
    }
  }
  const std::string mode = text_of(record["irq_remapping_mode"]);
  if (mode.empty()) return;
  log.say("DMAR-IR: Queued invalidation will be enabled to support x2apic and Intr-remapping.");
  log.say("DMAR-IR: Enabled IRQ remapping in {} mode", mode);
}

// dmar_register_drhd_unit: units that serve all other devices go to the end of the list, others to its head.
void set_up_units(Log& log, const YAML::Node& record) {
  if (record["kernel_inconsistent_features"]) {
    for (const YAML::Node& f : record["kernel_inconsistent_features"]) log.say("DMAR: IOMMU feature {} inconsistent", text_of(f));
  }
  std::vector<std::string> order;
  for (const YAML::Node& unit : record["units"]) {
    const bool last = text_of(unit["include_pci_all"]) == "true";
    order.insert(last ? order.end() : order.begin(), text_of(unit["name"]));
  }
  for (const std::string& name : order) log.say("DMAR: {}: Using Queued invalidation", name);
}

void intel_log(Log& log, const YAML::Node& record, const YAML::Node& groups) {
  dmar_table(log, record);
  irq_remapping(log, record);
  enumerate(log, groups);
  default_domain(log, record);
  set_up_units(log, record);
  join_groups(log, groups);
  log.say("DMAR: Intel(R) Virtualization Technology for Directed I/O");
}

// --- AMD ---

std::string feature_text(const YAML::Node& features) {
  const std::string efr2 = text_of(features["efr2"]), names = text_of(features["text"]);
  return fmt::format("Extended features ({}{}): {}", text_of(features["efr"]), efr2.empty() ? "" : ", " + efr2, names);
}

void amd_log(Log& log, const YAML::Node& record, const YAML::Node& groups) {
  const YAML::Node empty(YAML::NodeType::Sequence);
  const YAML::Node notes = record["kernel_notes"] ? record["kernel_notes"] : empty;
  for (const YAML::Node& note : notes) {
    if (text_of(note).starts_with("Using global")) log.say("AMD-Vi: {}", text_of(note));
  }
  enumerate(log, groups);
  default_domain(log, record);
  for (const YAML::Node& iommu : record["iommus"]) {
    log.say("pci {}: AMD-Vi: IOMMU performance counters supported", text_of(iommu["bdf"]));
  }
  join_groups(log, groups);
  for (const YAML::Node& iommu : record["iommus"]) {
    if (iommu["cap"]) log.say("pci {}: AMD-Vi: Found IOMMU cap {}", text_of(iommu["bdf"]), text_of(iommu["cap"]));
  }
  for (const YAML::Node& f : record["extended_features"] ? record["extended_features"] : empty) log.say("AMD-Vi: {}", feature_text(f));
  for (const YAML::Node& note : notes) {
    if (!text_of(note).starts_with("Using global")) log.say("AMD-Vi: {}", text_of(note));
  }
  for (std::size_t i = 0; i < record["iommus"].size(); ++i) {
    log.say("perf/amd_iommu: Detected AMD IOMMU #{} (2 banks, 4 counters/bank).", i);
  }
}

// --- Arm, virtio ---

void smmuv3_lines(Log& log, const YAML::Node& unit) {
  const std::string name = "arm-smmu-v3 " + text_of(unit["name"]);
  if (unit["option_mask"]) log.say("{}: option mask {}", name, text_of(unit["option_mask"]));
  if (unit["notes"]) {
    for (const YAML::Node& note : unit["notes"]) {
      if (text_of(note).find("overridden") != std::string::npos) log.say("{}: {}", name, text_of(note));
    }
  }
  const std::string features = text_of(unit["features"]);
  log.say("{}: ias {}-bit, oas {}-bit{}", name, text_of(unit["ias"]), text_of(unit["oas"]),
          features.empty() ? "" : fmt::format(" (features {})", features));
  if (unit["cmdq"]) log.say("{}: allocated {} entries for cmdq", name, text_of(unit["cmdq"]));
}

void smmuv2_lines(Log& log, const YAML::Node& unit) {
  const std::string name = "arm-smmu " + text_of(unit["name"]);
  log.say("{}: probing hardware configuration...", name);
  for (const YAML::Node& line : unit["reported"]) {
    const std::string text = text_of(line);
    if (text.ends_with(" with")) log.say("{}: {}:", name, text);
    else log.say("{}: \t{}", name, text);
  }
}

void arm_log(Log& log, const YAML::Node& record, const YAML::Node& groups) {
  const YAML::Node empty(YAML::NodeType::Sequence);
  default_domain(log, record);
  for (const YAML::Node& unit : record["smmus"] ? record["smmus"] : empty) smmuv3_lines(log, unit);
  for (const YAML::Node& unit : record["smmus_v2"] ? record["smmus_v2"] : empty) smmuv2_lines(log, unit);
  for (const YAML::Node& node : record["virtio_iommu"] ? record["virtio_iommu"] : empty) {
    std::string line = text_of(node);  // "virtio_iommu virtio0 input address: 64 bits"
    line.insert(line.find(' ', line.find(' ') + 1), ":");
    log.say("{}", line);
  }
  enumerate(log, groups);
  join_groups(log, groups);
}

}  // namespace

std::string boot_log(const YAML::Node& record, const YAML::Node& groups) {
  Log log;
  const bool intel = record["units"].IsDefined(), amd = record["iommu_count"].IsDefined();
  const std::string id = text_of(record["id"]);
  beginning(log, record, intel || amd || !id.starts_with("arm"));
  if (intel) intel_log(log, record, groups);
  else if (amd) amd_log(log, record, groups);
  else arm_log(log, record, groups);
  return log.take();
}

// --- group listings ---

namespace {

std::string short_bdf(const std::string& bdf) { return bdf.starts_with("0000:") ? bdf.substr(5) : bdf; }

// "PCI bridge [0604]: Intel Corporation ... [8086:1901]"
std::string description(const YAML::Node& device) {
  const std::string name = text_of(device["name"]), class_name = text_of(device["class_name"]);
  return fmt::format("{} [{}]: {} [{}]", class_name.empty() ? "Unclassified device" : class_name, text_of(device["class"]).substr(2, 4),
                     name.empty() ? "Device" : name, text_of(device["id"]));
}

std::string headings(const YAML::Node& group) {
  std::string out = fmt::format("IOMMU Group {}:\n", text_of(group["id"]));
  for (const YAML::Node& d : group["devices"]) out += fmt::format("\t{} {}\n", short_bdf(text_of(d["bdf"])), description(d));
  return out;
}

std::string one_line(const YAML::Node& group) {
  std::string out;
  for (const YAML::Node& d : group["devices"]) {
    out += fmt::format("IOMMU Group {} {} {} (rev 01)\n", text_of(group["id"]), short_bdf(text_of(d["bdf"])), description(d));
  }
  return out;
}

std::string ids_first(const YAML::Node& group) {
  std::string out;
  for (const YAML::Node& d : group["devices"]) {
    const std::string heading = out.empty() ? fmt::format("Group {}:", text_of(group["id"])) : "";
    out += fmt::format("{}\t[{}] {} {}  {}  {}\n", heading, text_of(d["id"]), out.empty() ? "[R]" : "   ", short_bdf(text_of(d["bdf"])),
                       text_of(d["class_name"]), text_of(d["name"]));
  }
  return out;
}

std::string found(const YAML::Node& group) {
  std::string out;
  for (const YAML::Node& d : group["devices"]) {
    out += fmt::format("/sys/kernel/iommu_groups/{}/devices/{}\n", text_of(group["id"]), text_of(d["bdf"]));
  }
  return out;
}

std::string listed(const YAML::Node& group) {
  std::string out = fmt::format("/sys/kernel/iommu_groups/{}/devices:\ntotal 0\n", text_of(group["id"]));
  for (const YAML::Node& d : group["devices"]) {
    const std::string bdf = text_of(d["bdf"]);
    out += fmt::format("lrwxrwxrwx 1 root root 0 Nov 28 02:51 {} -> ../../../../devices/pci0000:00/{}\n", bdf, bdf);
  }
  return out + "\n";
}

std::string drawn(const YAML::Node& group) {
  std::string out = fmt::format("├── {}\n│   ├── devices\n", text_of(group["id"]));
  for (const YAML::Node& d : group["devices"]) {
    const std::string bdf = text_of(d["bdf"]);
    out += fmt::format("│   │   └── {} -> ../../../../devices/pci0000:00/{}\n", bdf, bdf);
  }
  return out + "│   ├── reserved_regions\n│   └── type\n";
}

}  // namespace

std::string group_listing(const YAML::Node& groups, GroupForm form) {
  using Print = std::string (*)(const YAML::Node&);
  static constexpr std::array<Print, 6> kPrints = {headings, one_line, ids_first, found, listed, drawn};
  std::string out = form == GroupForm::tree ? "/sys/kernel/iommu_groups/\n" : "";
  for (const YAML::Node& group : groups["groups"]) out += kPrints[static_cast<std::size_t>(form)](group);
  return out;
}

// --- reserved regions ---

std::string reserved_regions(const YAML::Node& listing, RegionForm form) {
  std::vector<std::string> groups;
  if (listing["group"]) groups.push_back(text_of(listing["group"]));
  for (const YAML::Node& g : listing["groups"] ? listing["groups"] : YAML::Node(YAML::NodeType::Sequence)) groups.push_back(text_of(g));
  std::string out;
  for (const std::string& group : groups) {
    const std::string path = fmt::format("/sys/kernel/iommu_groups/{}/reserved_regions", group);
    if (form == RegionForm::headings) out += fmt::format("==> {} <==\n", path);
    if (form == RegionForm::loop) out += fmt::format("IOMMU Group {}:\n", group);
    for (const YAML::Node& r : listing["regions"]) {
      if (form == RegionForm::grep) out += path + ":";
      out += fmt::format("{:#018x} {:#018x} {}\n", number_of(r["base"]), number_of(r["end"]), text_of(r["type"]));
    }
    if (form == RegionForm::headings) out += "\n";
  }
  return out;
}

// --- lspci -vvv ---

namespace {

char sign(const YAML::Node& flag) { return text_of(flag) == "true" ? '+' : '-'; }

bool is_true(const YAML::Node& flag) { return text_of(flag) == "true"; }

std::string first_line(const YAML::Node& record) {
  const std::string class_code = text_of(record["class"]), id = text_of(record["id"]), name = text_of(record["name"]);
  std::string out = short_bdf(text_of(record["bdf"]));
  out += class_code.empty() ? " Unclassified device: " : fmt::format(" Device class [{}]: ", class_code.substr(2));
  return out + name + (id.empty() ? "" : fmt::format(" [{}]", id)) + " (rev 01)\n";
}

std::string express(const YAML::Node& record) {
  std::string out = fmt::format("\tCapabilities: [70] Express (v2) {}, MSI 00\n", text_of(record["express_type"]));
  out += "\t\tDevCap:\tMaxPayload 256 bytes, PhantFunc 0, Latency L0s <64ns, L1 <1us\n";
  out += fmt::format("\t\t\tExtTag+ AttnBtn- AttnInd- PwrInd- RBE+{} SlotPowerLimit 0W\n",
                     record["flr"] ? fmt::format(" FLReset{}", sign(record["flr"])) : "");
  out += "\t\tDevCtl:\tCorrErr- NonFatalErr- FatalErr- UnsupReq-\n";
  return out + fmt::format("\t\t\tRlxdOrd{} ExtTag+ PhantFunc- AuxPwr- NoSnoop{}\n", sign(record["relaxed_ordering"]), sign(record["no_snoop"]));
}

std::string extended(const YAML::Node& record) {
  std::string out;
  if (is_true(record["pasid"])) {
    out += fmt::format("\tCapabilities: [100 v1] Process Address Space ID (PASID)\n\t\tPASIDCap: {}\n\t\tPASIDCtl: {}\n",
                       text_of(record["pasid_cap"]), text_of(record["pasid_ctl"]));
  }
  if (is_true(record["ats"])) {
    out += fmt::format("\tCapabilities: [200 v1] Address Translation Service (ATS)\n\t\tATSCap:\t{}\n\t\tATSCtl:\t{}\n",
                       text_of(record["ats_cap"]), text_of(record["ats_ctl"]));
  }
  if (is_true(record["pri"])) {
    out += fmt::format("\tCapabilities: [300 v1] Page Request Interface (PRI)\n\t\tPRICtl: {}\n", text_of(record["pri_ctl"]));
  }
  if (is_true(record["sriov"])) {
    const YAML::Node n = record["sriov_vfs"], vf = record["vf"];
    out += "\tCapabilities: [320 v1] Single Root I/O Virtualization (SR-IOV)\n\t\tIOVSta:\tMigration-\n";
    out += fmt::format("\t\tInitial VFs: {}, Total VFs: {}, Number of VFs: {}, Function Dependency Link: 00\n", text_of(n[0]), text_of(n[1]), text_of(n[2]));
    out += fmt::format("\t\tVF offset: {}, stride: {}, Device ID: {}\n", text_of(vf["offset"]), text_of(vf["stride"]), text_of(vf["device_id"]));
    out += "\t\tRegion 0: Memory at 0000004010000000 (64-bit, non-prefetchable)\n";
  }
  if (is_true(record["acs"])) {
    out += fmt::format("\tCapabilities: [148 v1] Access Control Services\n\t\tACSCap:\t{}\n\t\tACSCtl:\t{}\n", text_of(record["acs_cap"]),
                       text_of(record["acs_ctl"]));
  }
  return out;
}

}  // namespace

std::string lspci_verbose(const YAML::Node& record) {
  std::string out = first_line(record);
  out += "\tControl: I/O- Mem+ BusMaster+ SpecCycle- MemWINV- VGASnoop- ParErr- Stepping- SERR- FastB2B- DisINTx+\n";
  if (record["iommu_group"]) out += fmt::format("\tIOMMU group: {}\n", text_of(record["iommu_group"]));
  out += "\tRegion 0: Memory at 603c000000 (64-bit, non-prefetchable) [size=16M]\n";
  out += express(record) + extended(record);
  if (record["driver"]) out += fmt::format("\tKernel driver in use: {}\n", text_of(record["driver"]));
  return out + "\n";
}

// --- dirt ---

namespace {

std::vector<std::string> lines_of(std::string_view text) {
  std::vector<std::string> out;
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    out.emplace_back(text.substr(0, end));
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  }
  return out;
}

// "[    0.078407] DMAR: ..." -> "DMAR: ..."
std::string message(const std::string& line) { return line.substr(line.find("] ") + 2); }

// As format-flowed mail and terminals' copies come: broken between words at `width`, which words wider than it exceed.
std::string wrapped(const std::string& line, std::size_t width) {
  std::string out, row;
  std::string_view rest = line;
  while (!rest.empty()) {
    const std::size_t blanks = std::min(rest.find_first_not_of(' '), rest.size());
    const std::size_t end = std::min(rest.find(' ', blanks), rest.size());
    const std::string_view piece = rest.substr(0, end);
    if (!row.empty() && row.size() + piece.size() > width) {
      out += row + "\n";
      row = piece.substr(blanks);
    } else {
      row += piece;
    }
    rest.remove_prefix(end);
  }
  return out + row;
}

std::string each_line(std::string_view log, std::string (*change)(const std::string&)) {
  std::string out;
  for (const std::string& line : lines_of(log)) out += change(line) + "\n";
  return out;
}

}  // namespace

std::string dirtied(std::string_view log, Dirt dirt) {
  switch (dirt) {
    case Dirt::none:
      return std::string(log);
    case Dirt::wall_clock:
      return each_line(log, [](const std::string& line) { return "kern  :info  : [Mon Nov 17 01:30:27 2025] " + message(line); });
    case Dirt::journal:
      return "-- Boot 4f2c --\n" + each_line(log, [](const std::string& line) { return "Nov 17 01:30:27 host kernel: " + message(line); });
    case Dirt::wrapped:
      return each_line(log, [](const std::string& line) { return wrapped(line, 72); });
    case Dirt::colours:
      return each_line(log, [](const std::string& line) {
        const std::size_t end = line.find("] ") + 1;
        return "\x1b[32m" + line.substr(0, end) + "\x1b[0m\x1b[33m" + line.substr(end) + "\x1b[0m\r";
      });
    case Dirt::quoted:
      return "Hello,\n\nOn Mon, 17 Nov 2025, somebody wrote:\n> It does not work. The log says\n>\n" +
             each_line(log, [](const std::string& line) { return "> " + line; }) + ">\n> Thanks\n\nWhich of the groups is the card in?\n-- \nme\n";
  }
  return {};
}

}  // namespace ioplan::printed
