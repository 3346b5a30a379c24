// What Linux's boot log says about IOMMUs and PCI, as plain records with line numbers. Nothing is concluded here
// (kernel_log_facts.h does); a number that the log cuts off is absent.
//
// A text may hold several boots: the last one that says something about IOMMUs counts. Messages are those of Linux 2.6.30
// to 7.2: drivers/iommu/intel/{dmar,iommu,irq_remapping}.c, drivers/iommu/amd/init.c, drivers/iommu/iommu.c,
// drivers/iommu/arm/*, drivers/iommu/virtio-iommu.c, drivers/pci/{probe,setup-bus}.c.
// Held by tests/importers_test.cc, and by tests/import_corpus_test.cc on every record of the corpus.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backends/intake/cursor.h"
#include "backends/intake/noted.h"
#include "engine/base/range.h"

namespace ioplan::intake {

// --- VT-d ---

struct DrhdLine {
  std::uint64_t base = 0, flags = 0;  // flags bit 0: INCLUDE_PCI_ALL
  std::uint32_t line = 0;
};

struct VtdUnitLine {
  std::string name;  // "dmar0"
  std::uint64_t base = 0;
  std::string version;  // "1:0"; empty when cut
  std::optional<std::uint64_t> cap, ecap;
  std::uint32_t line = 0;
};

// A reserved region; `device` is empty where the log does not say whose it is.
struct DirectRegionLine {
  std::string device;
  Range range;
  std::uint32_t line = 0;
};

struct RhsaLine {
  std::uint64_t base = 0, domain = 0;
  std::uint32_t line = 0;
};

struct IoApicLine {
  std::uint64_t id = 0, base = 0;
  std::optional<std::uint64_t> unit;
  std::uint32_t line = 0;
};

struct DmarLog {
  std::optional<Noted<std::uint64_t>> host_address_width;
  std::vector<DrhdLine> drhds;
  std::vector<VtdUnitLine> units;
  std::vector<DirectRegionLine> rmrrs;
  std::vector<Noted<std::string>> rmrr_devices;  // have an RMRR, the log does not say which
  std::vector<RhsaLine> rhsas;
  std::vector<Noted<std::uint64_t>> atsr_flags;
  std::vector<IoApicLine> ioapics;
  std::vector<Noted<std::string>> inconsistent;      // features that the units do not share
  std::vector<Noted<std::string>> unit_order;        // units in the order in which Linux sets them up
  std::optional<Noted<std::string>> irq_remapping;   // "x2apic" or "xapic"
  std::optional<Noted<bool>> irq_remapping_failed;
  std::optional<Noted<bool>> scalable_mode;  // as the command line wants it
  std::optional<Noted<bool>> no_superpages;
  std::optional<Noted<bool>> rwbf_quirk;
  std::optional<Noted<bool>> disabled;
  std::optional<std::uint32_t> set_up;  // the line after which devices join groups one by one
};

// --- AMD-Vi ---

struct AmdFeatures {
  std::string unit;  // PCI address of the IOMMU; empty: all that share
  std::optional<std::uint64_t> efr, efr2;
  std::uint32_t line = 0;
};

// A unity mapping of IVRS for a range of devices (`amd_iommu_dump`).
struct IvmdLine {
  std::string first_device, last_device;
  Range range;
  std::uint32_t line = 0;
};

struct AmdViLog {
  std::vector<AmdFeatures> features;
  std::optional<AmdFeatures> ivhd_features;
  std::vector<Noted<std::string>> functions;   // IOMMU functions in the log's order, each once
  std::optional<Noted<std::uint64_t>> last_index;  // the highest `AMD IOMMU #N`
  std::vector<IvmdLine> ivmds;
  std::optional<Noted<bool>> irq_remapping, virtual_apic, snp, v2_tables, only_4k, v2_page_sizes;
};

// --- Arm, virtio ---

struct Smmuv3Lines {
  std::string name;
  std::uint32_t line = 0;
  std::optional<Noted<std::uint64_t>> features, oas;
  std::optional<Noted<std::uint64_t>> httu;  // where firmware overrides: 0 none, 1 access, 2 access and dirty
};

struct Smmuv2Lines {
  std::string name;
  std::uint32_t line = 0;
  bool stage1 = false, stage2 = false;
  std::optional<Noted<bool>> coherent;  // absent: it says nothing about table walks
  std::optional<Noted<std::uint64_t>> page_sizes, input_bits, ipa_bits, context_banks;
};

struct VirtioIommuLines {
  std::string name;
  std::optional<Noted<std::uint64_t>> input_bits, page_mask;
};

struct SmmuLog {
  std::vector<Smmuv3Lines> v3;
  std::vector<Smmuv2Lines> v2;
  std::vector<VirtioIommuLines> virtio;
};

// --- devices ---

struct PciFunctionLine {
  std::string device;
  PciIds ids;
  std::uint64_t header_type = 0, device_class = 0;
  std::uint32_t line = 0;
};

struct BridgeLine {
  std::string device;
  std::uint64_t secondary = 0, subordinate = 0;
  std::uint32_t line = 0;
};

struct BarLine {
  std::string device;
  unsigned index = 0;
  std::uint64_t size = 0;
  std::uint32_t line = 0;
};

struct NumaLine {
  std::string bus;  // "0000:80"
  std::uint64_t node = 0;
  std::uint32_t line = 0;
};

struct GroupLine {
  std::string device;  // PCI address or any other name
  std::uint64_t group = 0;
  std::uint32_t line = 0;
};

struct DeviceLog {
  std::vector<PciFunctionLine> functions;  // in the order of enumeration
  std::vector<BridgeLine> bridges;
  std::vector<BarLine> bars;
  std::vector<NumaLine> nodes;
  std::vector<GroupLine> groups;  // in the order of joining
  std::vector<Noted<std::string>> refused;  // need a 1:1 mapping, and user space may not have them
};

struct KernelLog {
  std::optional<Noted<std::string>> release, command_line, machine;
  std::optional<Noted<std::string>> arch;        // "x86_64" or "aarch64"
  std::optional<Noted<std::string>> cpu_vendor;  // as /proc/cpuinfo has it
  std::size_t boots = 0;                   // in the whole text
  std::uint32_t first_line = 1;            // of the boot that counts
  DmarLog dmar;
  AmdViLog amd;
  SmmuLog smmu;
  DeviceLog devices;

  bool about_iommus() const;  // says something about units or groups
  bool empty() const { return !about_iommus() && devices.functions.empty(); }
};

KernelLog read_kernel_log(std::string_view text);

// One for each family of messages; false when the message is none of theirs.
bool read_dmar_message(const LogLine& line, DmarLog& log);
bool read_amd_vi_message(const LogLine& line, AmdViLog& log);
bool read_smmu_message(const LogLine& line, SmmuLog& log);
bool read_device_message(const LogLine& line, DeviceLog& log);

}  // namespace ioplan::intake
