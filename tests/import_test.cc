// import_host: facts of several texts together, what is concluded from them, what stays unknown, what disagrees.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "backends/intake/import.h"
#include "engine/document/host_document.h"
#include "tests/support/paths.h"

namespace ioplan::intake {
namespace {

using testing::Contains;
using testing::HasSubstr;

Imported import_all(const std::vector<ImportText>& texts) {
  auto imported = import_host(texts);
  EXPECT_TRUE(imported) << (imported ? "" : imported.error().message);
  return imported ? std::move(*imported) : Imported{};
}

Imported import_log(std::string text) { return import_all({{TextKind::dmesg, "dmesg.txt", std::move(text)}}); }

const Device& device_of(const Imported& imported, std::string_view id) {
  const Host& host = imported.settled.host;
  const auto index = host.find_device(id);
  EXPECT_TRUE(index) << id;
  static const Device kNone;
  return index ? host.device(*index) : kNone;
}

std::string unit_of(const Imported& imported, std::string_view id) {
  const Device& device = device_of(imported, id);
  return device.unit ? imported.settled.host.unit(*device.unit).id : "unknown";
}

std::string source_of(const Imported& imported, const std::string& path) {
  const auto it = imported.settled.host.sources.find(path);
  return it == imported.settled.host.sources.end() ? "" : it->second;
}

std::string reasons(const Imported& imported) {
  std::string out;
  for (const Gap& gap : imported.settled.host.unknown) out += gap.fact + ": " + gap.why + "; " + gap.supply + "\n";
  return out;
}

constexpr std::string_view kUnits =
    "Linux version 6.12.9 (b@h)\nCommand line: quiet intel_iommu=on,sm_on root=UUID=1234 iommu=pt\nDMAR: Host address width 39\n"
    "DMAR: DRHD base: 0x000000fed90000 flags: 0x0\nDMAR: dmar0: reg_base_addr fed90000 ver 4:0 cap 1c0000c40660462 ecap 29a00f0505e\n"
    "DMAR: DRHD base: 0x000000fed91000 flags: 0x1\nDMAR: dmar1: reg_base_addr fed91000 ver 5:0 cap d2008c40660462 ecap f050da\n";
constexpr std::string_view kOrder = "DMAR: dmar0: Using Queued invalidation\nDMAR: dmar1: Using Queued invalidation\n";
constexpr std::string_view kDone = "DMAR: Intel(R) Virtualization Technology for Directed I/O\n";

std::string joins(std::string_view device, int group) {
  return "pci " + std::string(device) + ": Adding to iommu group " + std::to_string(group) + "\n";
}

std::string log_of(const std::string& groups) { return std::string(kUnits) + std::string(kOrder) + groups + std::string(kDone); }

// --- facts ---

TEST(Import, EveryFactHasItsLine) {
  const Imported imported = import_log(log_of(joins("0000:00:02.0", 0) + joins("0000:00:00.0", 1)));
  const Host& host = imported.settled.host;
  EXPECT_EQ(host.kernel.release, "6.12.9");
  EXPECT_EQ(host.kernel.command_line, "intel_iommu=on,sm_on iommu=pt");
  EXPECT_EQ(host.kernel.facts[KernelFact::intel_iommu_sm], 1U);
  EXPECT_EQ(host.kernel.facts[KernelFact::intel_iommu_sp_off], 0U);
  EXPECT_EQ(source_of(imported, "kernel.release"), "dmesg.txt:1");
  EXPECT_EQ(source_of(imported, "iommus.dmar1.cap"), "dmesg.txt:7");
  EXPECT_EQ(source_of(imported, "devices.0000:00:02.0.group"), "dmesg.txt:10");
  ASSERT_EQ(host.units.size(), 2U);
  EXPECT_EQ(host.units[0].address, 0xfed90000U);
  EXPECT_EQ(host.units[1].version, "5:0");
}

// --- placement ---

TEST(Placement, ADescentInTheOrderOfFunctionsBeginsTheNextUnit) {
  const Imported imported = import_log(log_of(joins("0000:00:02.0", 0) + joins("0000:00:00.0", 1) + joins("0000:00:14.0", 2) + joins("0000:01:00.0", 3)));
  EXPECT_EQ(unit_of(imported, "0000:00:02.0"), "dmar0");
  EXPECT_EQ(unit_of(imported, "0000:00:00.0"), "dmar1");
  EXPECT_EQ(unit_of(imported, "0000:01:00.0"), "dmar1");
}

TEST(Placement, ItFollowsTheOrderOfSetUp) {
  const std::string order = "DMAR: dmar1: Using Queued invalidation\nDMAR: dmar0: Using Queued invalidation\n";
  const Imported imported =
      import_log(std::string(kUnits) + order + joins("0000:00:02.0", 0) + joins("0000:00:00.0", 1) + std::string(kDone));
  EXPECT_EQ(unit_of(imported, "0000:00:02.0"), "dmar1");
  EXPECT_EQ(unit_of(imported, "0000:00:00.0"), "dmar0");
}

TEST(Placement, NothingIsGuessed) {
  const std::string descent = joins("0000:00:02.0", 0) + joins("0000:00:00.0", 1);
  // One run for two units: one of them may serve nothing, or a boundary cannot be seen.
  EXPECT_EQ(unit_of(import_log(log_of(joins("0000:00:00.0", 0) + joins("0000:00:02.0", 1))), "0000:00:02.0"), "unknown");
  // On different buses the order is not known without the enumeration.
  EXPECT_EQ(unit_of(import_log(log_of(joins("0000:3a:00.0", 0) + joins("0000:00:00.0", 1))), "0000:00:00.0"), "unknown");
  // Three runs for two units.
  EXPECT_EQ(unit_of(import_log(log_of(descent + joins("0000:00:14.0", 2) + joins("0000:00:04.0", 3))), "0000:00:02.0"), "unknown");
  // Devices that joined after the driver was done may come in any order.
  EXPECT_EQ(unit_of(import_log(std::string(kUnits) + std::string(kOrder) + std::string(kDone) + descent), "0000:00:02.0"), "unknown");
  // The log does not show the order of units, or not the end.
  EXPECT_EQ(unit_of(import_log(std::string(kUnits) + descent + std::string(kDone)), "0000:00:02.0"), "unknown");
  EXPECT_EQ(unit_of(import_log(std::string(kUnits) + std::string(kOrder) + descent), "0000:00:02.0"), "unknown");
  // INCLUDE_PCI_ALL beside another unit says nothing of one device.
  const Imported imported = import_log(std::string(kUnits) + joins("0000:00:14.0", 0));
  EXPECT_EQ(unit_of(imported, "0000:00:14.0"), "unknown");
  EXPECT_THAT(reasons(imported), HasSubstr("no text proves which unit it is behind"));
}

TEST(Placement, TheEnumerationOrdersBuses) {
  const std::string functions =
      "pci 0000:00:00.0: [8086:0001] type 00 class 0x060000\npci 0000:80:00.0: [8086:0002] type 00 class 0x060000\n";
  const Imported imported = import_log(std::string(kUnits) + functions + std::string(kOrder) + joins("0000:80:00.0", 0) +
                                       joins("0000:00:00.0", 1) + std::string(kDone));
  EXPECT_EQ(unit_of(imported, "0000:80:00.0"), "dmar0");
  EXPECT_EQ(unit_of(imported, "0000:00:00.0"), "dmar1");
}

TEST(Placement, OneUnitServesAll) {
  const std::string one =
      "DMAR: Host address width 39\nDMAR: DRHD base: 0x000000fed91000 flags: 0x1\nDMAR: dmar0: reg_base_addr fed91000 ver 1:0 cap 1 ecap 2\n";
  const Imported both = import_all({{TextKind::dmesg, "dmesg.txt", one}, {TextKind::groups, "groups.txt", "/sys/kernel/iommu_groups/7/devices/0000:01:00.0\n"}});
  EXPECT_EQ(unit_of(both, "0000:01:00.0"), "dmar0");
  // Not when its DRHD names devices, nor when the table's beginning is missing.
  std::string named = one;
  named.replace(named.find("flags: 0x1"), 10, "flags: 0x0");
  EXPECT_EQ(unit_of(import_log(named + joins("0000:01:00.0", 1)), "0000:01:00.0"), "unknown");
  EXPECT_EQ(unit_of(import_log(one.substr(one.find('\n') + 1) + joins("0000:01:00.0", 1)), "0000:01:00.0"), "unknown");
}

TEST(Placement, AmdUnitsAnnounceTheirDevices) {
  const std::string a = "pci 0000:60:00.2: AMD-Vi: IOMMU performance counters supported\n";
  const std::string b = "pci 0000:40:00.2: AMD-Vi: IOMMU performance counters supported\n";
  const std::string end = "AMD-Vi: Extended features (0x25bf732fa2295afe, 0x1d): PPR\n";
  const Imported imported = import_log(a + joins("0000:60:01.0", 0) + b + joins("0000:40:01.0", 1) + end + joins("0000:40:09.0", 2));
  EXPECT_EQ(unit_of(imported, "0000:60:01.0"), "ivhd0");
  EXPECT_EQ(unit_of(imported, "0000:40:01.0"), "ivhd1");
  EXPECT_EQ(unit_of(imported, "0000:40:09.0"), "unknown");  // came later
  EXPECT_EQ(imported.settled.host.units[1].facts[UnitFact::efr2], 0x1dU);
  const Imported older = import_log(a + b + joins("0000:60:01.0", 0) + joins("0000:40:01.0", 1) + end);
  EXPECT_EQ(unit_of(older, "0000:60:01.0"), "unknown");
}

// --- several texts ---

TEST(Import, TextsThatDisagreeAreReportedWithBothPlaces) {
  const Imported imported = import_all({{TextKind::dmesg, "dmesg.txt", log_of(joins("0000:00:02.0", 0))},
                                        {TextKind::groups, "groups.txt", "\nIOMMU Group 3 00:02.0 VGA [0300]: X [8086:46a6]\n"}});
  ASSERT_EQ(imported.settled.contradictions.size(), 1U);
  const Contradiction& c = imported.settled.contradictions[0];
  EXPECT_EQ(c.fact, "devices.0000:00:02.0.group");
  ASSERT_EQ(c.claims.size(), 2U);
  EXPECT_EQ(c.claims[0].source, "dmesg.txt:10");
  EXPECT_EQ(c.claims[1].source, "groups.txt:2");
  EXPECT_EQ(device_of(imported, "0000:00:02.0").group, std::nullopt);
}

TEST(Import, AClassWithoutItsInterfaceAgreesWithAWholeOne) {
  const std::string function = "pci 0000:01:00.0: [144d:a80a] type 00 class 0x010802\n";
  const auto with = [&](std::string_view code) {
    return import_all({{TextKind::dmesg, "dmesg.txt", function},
                       {TextKind::groups, "groups.txt", "IOMMU Group 3 01:00.0 NVM [" + std::string(code) + "]: X [144d:a80a]\n"}});
  };
  EXPECT_TRUE(with("0108").settled.contradictions.empty());
  EXPECT_EQ(device_of(with("0108"), "0000:01:00.0").facts[DeviceFact::device_class], 0x010802U);
  EXPECT_EQ(with("0200").settled.contradictions.size(), 1U);
}

TEST(Import, TheOrderOfTextsChangesNothing) {
  const std::vector<ImportText> texts = {{TextKind::dmesg, "b.txt", log_of(joins("0000:00:02.0", 0) + joins("0000:00:00.0", 1))},
                                         {TextKind::lspci, "c.txt", "00:02.0 VGA compatible controller [0300]: X [8086:46a6]\n"},
                                         {TextKind::groups, "a.txt", "IOMMU Group 0 00:02.0 VGA [0300]: Other Name [8086:46a6]\n"}};
  const std::vector<ImportText> reversed(texts.rbegin(), texts.rend());
  EXPECT_EQ(to_yaml(import_all(texts).settled.host), to_yaml(import_all(reversed).settled.host));
  EXPECT_EQ(import_all(texts).notes, import_all(reversed).notes);
}

TEST(Import, RegionsOfAGroupAreThoseOfItsDevices) {
  const std::string groups = "/sys/kernel/iommu_groups/3/devices/0000:01:00.0\n/sys/kernel/iommu_groups/3/devices/0000:01:00.1\n";
  const std::string dump = "iommu_groups/3/reserved_regions:0x8000000 0x80fffff msi\niommu_groups/3/reserved_regions:0x0 0xffffff direct\n"
                           "iommu_groups/9/reserved_regions:0x0 0xffffff direct\n";
  const Imported imported = import_all({{TextKind::groups, "groups.txt", groups}, {TextKind::reserved, "regions.txt", dump}});
  const std::vector<ReservedRegion> expected = {{{0, 0xffffff}, ReservedType::direct}, {{0x8000000, 0x80fffff}, ReservedType::sw_msi}};
  EXPECT_EQ(device_of(imported, "0000:01:00.0").reserved, expected);
  EXPECT_EQ(device_of(imported, "0000:01:00.1").reserved, expected);
  EXPECT_THAT(imported.notes, Contains(HasSubstr("regions.txt:3: no text says which devices are in group 9")));
}

TEST(Import, OldKernelsNameTheDevicesOfRmrrs) {
  const Imported imported = import_log(
      "pci 0000:00:02.0: [8086:3e9b] type 00 class 0x030000\npci 0000:03:00.0: [103c:3306] type 00 class 0x088000\n"
      "DMAR: RMRR base: 0x0000007b000000 end: 0x0000007f7fffff\n"
      "DMAR: Setting identity map for device 0000:00:02.0 [0x7b000000 - 0x7f7fffff]\nDMAR: Setting identity map for device 0000:03:00.0 [0x1000 - 0x1fff]\n");
  const std::vector<ReservedRegion> graphics = {{{0x7b000000, 0x7f7fffff}, ReservedType::direct_relaxable}, {{0xfee00000, 0xfeefffff}, ReservedType::msi}};
  const std::vector<ReservedRegion> management = {{{0x1000, 0x1fff}, ReservedType::direct}, {{0xfee00000, 0xfeefffff}, ReservedType::msi}};
  EXPECT_EQ(device_of(imported, "0000:00:02.0").reserved, graphics);
  EXPECT_EQ(device_of(imported, "0000:03:00.0").reserved, management);
}

TEST(Import, WhatIsCutOffIsUnknown) {
  const Imported imported = import_log("DMAR: Host address width 46\nDMAR: DRHD base: 0x000000fbffc000 flags: 0x1\nDMAR: dmar0: reg_base_addr fbffc000 ver 1:0 cap 8d2078c106f0466 ec\n");
  const Facts<UnitFact>& facts = imported.settled.host.units[0].facts;
  EXPECT_EQ(facts[UnitFact::cap], 0x8d2078c106f0466U);
  EXPECT_EQ(facts[UnitFact::ecap], std::nullopt);
  EXPECT_THAT(reasons(imported), HasSubstr("iommus.dmar0.ecap: dmesg.txt:3 does not show it whole"));
}

TEST(Import, SeveralBootsAreTold) {
  const std::string boot = "[    0.000000] Linux version 6.1.0 (b@h)\n[    0.1] x\n[    0.200000] DMAR: dmar0: reg_base_addr fed90000 ver 1:0 cap 1 ecap 2\n";
  EXPECT_THAT(import_log(boot + boot).notes, Contains("dmesg.txt holds 2 boots: the one from line 4 counts"));
}

// --- the example ---

std::string slurp(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

TEST(Import, TheExamplesHostIsWhatItsTextsSay) {
  const auto text = [](TextKind kind, const std::string& file) { return ImportText{kind, file, slurp(source_folder() / file)}; };
  const Imported imported = import_all({text(TextKind::dmesg, "examples/import-dmesg/journal.txt"),
                                        text(TextKind::groups, "examples/import-dmesg/groups-mail.txt"),
                                        text(TextKind::reserved, "examples/import-dmesg/reserved.txt")});
  EXPECT_EQ(to_yaml(imported.settled.host), slurp(source_folder() / "examples/import-dmesg/host.yaml"));
  EXPECT_EQ(unit_of(imported, "0000:00:02.0"), "dmar0");
  EXPECT_EQ(unit_of(imported, "0000:3d:00.0"), "dmar1");
}

// --- errors ---

TEST(Import, ATextWithNothingSaysWhatWasLookedFor) {
  for (const TextKind kind : {TextKind::dmesg, TextKind::lspci, TextKind::groups, TextKind::reserved, TextKind::libvirt_nodedev}) {
    const std::vector<ImportText> texts = {{kind, "letter.txt", "Dear all,\n\nit does not work.\n"}};
    const auto imported = import_host(texts);
    ASSERT_FALSE(imported);
    EXPECT_EQ(imported.error().place.file, "letter.txt");
    EXPECT_THAT(imported.error().help, HasSubstr("looked for"));
  }
  EXPECT_FALSE(import_host({}));
}

}  // namespace
}  // namespace ioplan::intake
