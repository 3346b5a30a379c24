#include "tests/support/machine_tree.h"

#include <fmt/format.h>

#include <fstream>
#include <random>
#include <stdexcept>

namespace ioplan::machine_tree {

namespace {

namespace fs = std::filesystem;
using intake::Entry;
using intake::EntryKind;

std::string le(std::uint64_t value, unsigned bytes) {
  std::string text;
  for (unsigned i = 0; i < bytes; ++i) text += static_cast<char>(value >> (8 * i));
  return text;
}

void put(std::string& config, std::size_t at, std::uint64_t value, unsigned bytes) { config.replace(at, bytes, le(value, bytes)); }

// Registers of real units; those of one machine differ a little.
constexpr std::array<std::uint64_t, 3> kCaps = {0x19ed008c40780c66, 0xd2008c40660462, 0x1c0000c40660462};
constexpr std::array<std::uint64_t, 3> kEcaps = {0x3ef9ea6f050df, 0xf050da, 0x29a00f0505e};
constexpr std::uint64_t kEfr = 0x246577efa2254afa, kEfr2 = 0x10;

class Maker {
 public:
  explicit Maker(const Shape& shape) : shape_(shape), dice_(shape.seed) {}

  Machine make() {
    kernel();
    for (unsigned u = 0; u < shape_.units; ++u) unit(u);
    for (unsigned f = 0; f < shape_.functions; ++f) function(f);
    names();
    sort_by_id(machine_.host);
    return std::move(machine_);
  }

 private:
  void file(const std::string& path, std::string content) { machine_.files[path] = {EntryKind::file, std::move(content)}; }
  void link(const std::string& path, std::string target) { machine_.files[path] = {EntryKind::link, std::move(target)}; }
  bool intel() const { return shape_.driver == Driver::intel; }
  bool amd() const { return shape_.driver == Driver::amd; }
  bool x86() const { return intel() || amd(); }

  void kernel() {
    Kernel& k = machine_.host.kernel;
    k.arch = x86() ? Arch::x86_64 : Arch::aarch64;
    k.release = "7.2.13";
    file("/proc/sys/kernel/arch", std::string(name_of(*k.arch)) + "\n");
    file("/proc/sys/kernel/osrelease", "7.2.13\n");
    file("/proc/sys/kernel/hostname", "secret-host-7\n");
    k.command_line = intel() ? "intel_iommu=on,sm_on iommu=pt" : amd() ? "amd_iommu=pgtbl_v2,nohugepages" : "iommu.strict=1";
    file("/proc/cmdline", "BOOT_IMAGE=/vmlinuz root=UUID=0f1e2d3c-aaaa-bbbb-cccc-000000000001 " + k.command_line +
                              " ifname=eth0:52:54:00:12:34:56 systemd.hostname=secret-host-7\n");
    k.facts[KernelFact::page_size] = 4096;
    file("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size", "2097152\n");
    k.facts[KernelFact::memory_kib] = 527987452;
    file("/proc/meminfo", "MemTotal:       527987452 kB\nMemFree:        1 kB\n");
    k.hugepages = {{1U << 21, 512, 500}, {1U << 30, 16, 16}};
    for (const HugePages& p : k.hugepages) {
      const std::string folder = fmt::format("/sys/kernel/mm/hugepages/hugepages-{}kB/", p.size >> 10);
      file(folder + "nr_hugepages", fmt::format("{}\n", p.total));
      file(folder + "free_hugepages", fmt::format("{}\n", p.free));
    }
    k.facts[KernelFact::allow_unsafe_interrupts] = 0;
    file("/sys/module/iommufd/parameters/allow_unsafe_interrupts", "N\n");
    if (x86()) processor();
    if (intel()) {
      k.facts[KernelFact::intel_iommu_sm] = 1;
      k.facts[KernelFact::intel_iommu_sp_off] = 0;
    }
    if (amd()) {
      k.facts[KernelFact::amd_iommu_pgtbl_v2] = 1;
      k.facts[KernelFact::amd_iommu_nohugepages] = 1;
      k.facts[KernelFact::amd_iommu_v2_pgsizes_only] = 0;
      k.facts[KernelFact::la57] = 1;
      k.facts[KernelFact::amd_snp] = 0;
    }
  }

  void processor() {
    Kernel& k = machine_.host.kernel;
    k.cpu_vendor = intel() ? "GenuineIntel" : "AuthenticAMD";
    k.facts[KernelFact::phys_bits] = 46;
    k.facts[KernelFact::isolated_msi] = 1;
    const std::string block = "processor\t: 0\nvendor_id\t: " + k.cpu_vendor +
                              "\nflags\t\t: fpu la57 sse\naddress sizes\t: 46 bits physical, 57 bits virtual\n\n";
    file("/proc/cpuinfo", block + block + "Serial\t\t: 00000000deadbeef\n");
    file("/proc/interrupts", "            CPU0       CPU1\n   0:         36          0  IR-IO-APIC    2-edge      timer\n"
                             "  24:          0          0  IR-PCI-MSIX-0000:01:00.0    0-edge  secret-nic-0\n");
  }

  std::string unit_id(unsigned u) const {
    if (intel()) return fmt::format("dmar{}", u);
    return amd() ? fmt::format("ivhd{}", u) : fmt::format("smmu3.0x{:016x}", 0x2b400000 + 0x100000ULL * u);
  }

  void unit(unsigned u) {
    Unit& unit = machine_.host.units.emplace_back();
    unit.id = unit_id(u);
    unit.driver = shape_.driver;
    const std::string folder = "/sys/class/iommu/" + unit.id;
    if (intel()) {
      const std::size_t pick = dice_() % kCaps.size();
      unit.facts[UnitFact::cap] = kCaps[pick];
      unit.facts[UnitFact::ecap] = kEcaps[pick];
      unit.address = 0xfed90000 + 0x1000ULL * u;
      unit.version = "6:0";
      file(folder + "/intel-iommu/cap", fmt::format("{:x}\n", kCaps[pick]));
      file(folder + "/intel-iommu/ecap", fmt::format("{:x}\n", kEcaps[pick]));
      file(folder + "/intel-iommu/address", fmt::format("{:x}\n", *unit.address));
      file(folder + "/intel-iommu/version", unit.version + "\n");
    } else if (amd()) {
      unit.facts[UnitFact::efr] = kEfr;
      unit.facts[UnitFact::efr2] = kEfr2;
      if (shape_.root) unit.facts[UnitFact::va_size] = 57;
      file(folder + "/amd-iommu/features", fmt::format("{:x}:{:x}\n", kEfr, kEfr2));
      if (shape_.root) file("/sys/firmware/acpi/tables/IVRS", "IVRS" + std::string(32, '\x01') + le(57U << 15 | 1U, 4) + "OEM SERIAL");
    } else {
      unit.address = 0x2b400000 + 0x100000ULL * u;
      machine_.files[folder + "/devices"] = {EntryKind::directory, {}};
    }
  }

  // Functions in slots of eight buses a unit; every fourth shares its group with the one before.
  void function(unsigned f) {
    Device& d = machine_.host.devices.emplace_back();
    const unsigned u = f % shape_.units;
    d.id = fmt::format("{:04x}:{:02x}:{:02x}.{:x}", f >> 14, f >> 6 & 0xff, f >> 3 & 7, f & 7);
    d.unit = UnitIndex(u);
    d.group = f % 4 == 3 ? f - 1 : f;
    if (f % 4 == 3) d.unit = UnitIndex((f - 1) % shape_.units);
    const std::string folder = "/sys/bus/pci/devices/" + d.id + "/";
    d.facts[DeviceFact::device_class] = f % 3 == 0 ? 0x020000 : 0x010802;
    d.facts[DeviceFact::vendor] = 0x8086;
    d.facts[DeviceFact::device] = 0x1572 + f % 2;
    d.name = f % 2 == 0 ? "Ethernet Controller X710 for 10GbE SFP+" : "Ethernet Controller 1573";
    file(folder + "class", fmt::format("0x{:06x}\n", d.facts.at(DeviceFact::device_class)));
    file(folder + "vendor", "0x8086\n");
    file(folder + "device", fmt::format("0x{:04x}\n", d.facts.at(DeviceFact::device)));
    if (f % 2 == 0) d.facts[DeviceFact::numa] = u % 2;
    file(folder + "numa_node", f % 2 == 0 ? fmt::format("{}\n", u % 2) : "-1\n");
    d.bound_driver = f % 3 == 0 ? "i40e" : "vfio-pci";
    link(folder + "driver", "../../../../bus/pci/drivers/" + d.bound_driver);
    link(folder + "iommu", "../../../virtual/iommu/" + unit_id(d.unit->value));
    link(folder + "iommu_group", fmt::format("../../../../kernel/iommu_groups/{}", *d.group));
    bars(d, folder);
    capabilities(d, folder, f);
    group(d);
  }

  void bars(Device& d, const std::string& folder) {
    d.bars = {{0, 1U << 24}, {4, 1U << 14}};
    file(folder + "resource",
         "0x0000380000000000 0x0000380000ffffff 0x000000000014220c\n0x0 0x0 0x0\n0x0 0x0 0x0\n0x0 0x0 0x0\n"
         "0x0000000090000000 0x0000000090003fff 0x0000000000040200\n0x0000000000003000 0x000000000000301f 0x0000000000040101\n"
         "0x00000000c0000000 0x00000000c00fffff 0x0000000000046200\n");
  }

  void capabilities(Device& d, const std::string& folder, unsigned f) {
    Capabilities c;
    c.ats = f % 2 == 0;
    c.pri = f % 4 == 0;
    c.no_snoop = f % 3 == 0;
    c.pasid_bits = f % 5 == 0 ? 20 : 0;
    if (f % 7 == 0) {
      c.acs = 0x5f;
      c.acs_enabled = 0x1d;
    }
    const std::string config = config_space(c);
    file(folder + "config", shape_.root ? config : config.substr(0, 64));
    if (f % 16 == 0) {
      d.facts[DeviceFact::sriov_total_vfs] = 64;
      file(folder + "sriov_totalvfs", "64\n");
    }
    if (!shape_.root) return;
    d.facts[DeviceFact::ats] = c.ats;
    d.facts[DeviceFact::pri] = c.pri;
    d.facts[DeviceFact::no_snoop] = c.no_snoop;
    d.facts[DeviceFact::pasid_bits] = c.pasid_bits;
    d.facts[DeviceFact::acs] = c.acs;
    d.facts[DeviceFact::acs_enabled] = c.acs_enabled;
  }

  void group(Device& d) {
    const std::string folder = fmt::format("/sys/kernel/iommu_groups/{}/", *d.group);
    machine_.files[folder + "devices/" + d.id] = {EntryKind::directory, {}};
    d.group_type = "DMA-FQ";
    file(folder + "type", "DMA-FQ\n");
    d.reserved = {{{{0xfee00000, 0xfeefffff}, ReservedType::msi}}};
    std::string regions = "0x00000000fee00000 0x00000000feefffff msi\n";
    if (!x86()) {
      d.reserved = {{{{0x8000000, 0x80fffff}, ReservedType::sw_msi}}};
      regions = "0x0000000008000000 0x00000000080fffff msi\n";
    }
    if (*d.group % 8 == 0) {
      d.reserved->push_back({{0x4b000000, 0x4f7fffff}, ReservedType::direct_relaxable});
      regions = "0x000000004b000000 0x000000004f7fffff direct-relaxable\n" + regions;
    }
    file(folder + "reserved_regions", regions);
  }

  void names() {
    file("/usr/share/misc/pci.ids",
         "# list\n0001  Somebody\n\t1572  Not this one\n8086  Intel Corporation\n\t1572  Ethernet Controller X710 for 10GbE SFP+\n"
         "\t\t8086 0001  Ethernet Converged Network Adapter X710-4\n\t1573  Ethernet Controller 1573\nC 01  Mass storage\n");
  }

  Shape shape_;
  std::mt19937_64 dice_;
  Machine machine_;
};

}  // namespace

Machine make(const Shape& shape) { return Maker(shape).make(); }

void write(const intake::Entries& files, const fs::path& folder) {
  for (const auto& [path, entry] : files) {
    const fs::path at = folder / path.substr(1);
    fs::create_directories(entry.kind == EntryKind::directory ? at : at.parent_path());
    if (entry.kind == EntryKind::link) fs::create_symlink(entry.content, at);
    if (entry.kind == EntryKind::file && !(std::ofstream(at, std::ios::binary) << entry.content)) {
      throw std::runtime_error("cannot write " + at.string());
    }
  }
}

std::string config_space(const Capabilities& c) {
  std::string config(4096, '\0');
  put(config, 0x00, 0x15728086, 4);
  put(config, 0x06, 0x0010, 2);  // a list of capabilities
  put(config, 0x34, 0x40, 1);
  put(config, 0x40, c.express ? 0x7001 : 0x0001, 2);  // power management, then PCI Express
  put(config, 0x70, 0x0010, 2);
  put(config, 0x78, c.no_snoop ? 0x0800 : 0x0000, 2);
  std::size_t at = 0x100;
  const auto add = [&](unsigned id, std::string_view body, bool last) {
    put(config, at, id | 1U << 16 | (last ? 0 : at + 0x20) << 20, 4);
    config.replace(at + 4, body.size(), body);
    at += 0x20;
  };
  add(0x0003, kSerialNumber, false);
  if (c.acs != 0 || c.acs_enabled != 0) add(0x000d, le(c.acs | static_cast<std::uint64_t>(c.acs_enabled) << 16, 4), false);
  if (c.ats) add(0x000f, le(0, 4), false);
  if (c.pri) add(0x0013, le(0, 4), false);
  if (c.pasid_bits != 0) add(0x001b, le(c.pasid_bits << 8, 4), false);
  add(0x000b, "vendor specific", true);
  return config;
}

}  // namespace ioplan::machine_tree
