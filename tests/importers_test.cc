// The importers' readers: pasted text, boot logs, lspci, group listings, reserved regions, libvirt's node devices. What they
// make of the corpus is in import_corpus_test.cc; here are the forms that it does not have.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "backends/intake/group_listing.h"
#include "backends/intake/kernel_log.h"
#include "backends/intake/lspci.h"
#include "backends/intake/nodedev_xml.h"
#include "backends/intake/reserved_regions.h"

namespace ioplan::intake {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::Pair;

// --- pasted text ---

std::vector<std::string> messages(std::string_view text) {
  std::vector<std::string> out;
  for (const LogLine& line : log_lines(text)) out.push_back(std::to_string(line.number) + " " + line.text + (line.cut ? " CUT" : ""));
  return out;
}

TEST(PastedText, EveryPrefixOfAKernelLogGoes) {
  for (const char* prefix :
       {"", "[    0.078407] ", "<6>[    0.078407] ", "[    0.078407][    T0] ", "kern  :info  : [    0.078407] ",
        "kern  :warn  : [Mon Nov 17 01:30:27 2025] ", "[Mon Nov  7 01:30:27 2025] ", "Nov 17 01:30:27 host kernel: ",
        "Nov 17 01:30:27 host kernel: [    0.078407] ", "Nov 17 01:30:27 kernel: ", "Nov 17 01:30:27.123456 host kernel: ",
        "2025-11-17T01:30:27+0100 host kernel: ", "2025-11-17T01:30:27.123456Z INFO kernel: [    0.078407] ",
        "2025-11-17 01:30:27 host kernel: ", "[    0.078407] host kernel: ", "dmesg.txt:812:[    0.078407] ", "> > [    0.078407] ",
        "[    0.078407] drivers/iommu/dmar.c parse_dmar_table ", "\x1b[32m[    0.078407]\x1b[0m "}) {
    EXPECT_THAT(messages(std::string(prefix) + "DMAR: Host address width 39\r\n"), ElementsAre("1 DMAR: Host address width 39")) << prefix;
  }
}

TEST(PastedText, MailersBreakBetweenWordsAndTerminalsAtOneColumn) {
  EXPECT_THAT(messages("[    0.000001] DMAR: dmar0: reg_base_addr fed90000 ver 1:0 cap\n1c0000c40660462 ecap 19e2ff0505e\n[    0.000002] next\n"),
              ElementsAre("1 DMAR: dmar0: reg_base_addr fed90000 ver 1:0 cap 1c0000c40660462 ecap 19e2ff0505e", "3 next"));
  const std::string terminal =
      "[    0.000001] DMAR: dmar0: reg_base_addr fed90000 ver 1:\n0 cap 1c0000c40660462\n"
      "[    0.000002] DMAR: dmar1: reg_base_addr fed91000 ver 1:\n0 cap d2008c40660462\n"
      "[    0.000003] DMAR: RMRR base: 0x0000004b000000 end: 0x0\n000004f7fffff\n";
  EXPECT_THAT(messages(terminal), ElementsAre("1 DMAR: dmar0: reg_base_addr fed90000 ver 1:0 cap 1c0000c40660462",
                                              "3 DMAR: dmar1: reg_base_addr fed91000 ver 1:0 cap d2008c40660462",
                                              "5 DMAR: RMRR base: 0x0000004b000000 end: 0x0000004f7fffff"));
}

TEST(PastedText, WithoutPrefixesMessagesAreKnownByTheirBeginnings) {
  EXPECT_THAT(messages("DMAR: dmar0: reg_base_addr fed90000 ver 1:0 cap 1c0000c40660462 ecap\n19e2ff0505e\npci 0000:00:02.0: Adding to iommu group 0\n"),
              ElementsAre("1 DMAR: dmar0: reg_base_addr fed90000 ver 1:0 cap 1c0000c40660462 ecap 19e2ff0505e",
                          "3 pci 0000:00:02.0: Adding to iommu group 0"));
}

TEST(PastedText, LinesCutAtOneColumnAreMarked) {
  EXPECT_THAT(messages("DMAR: dmar0: reg_base_addr fed90000 ver 1:0 cap 1c0000c4066\n"
                       "ACPI: RSDP 0x00000000000F05B0 000024 (v02 ALASKA) xxxxxxxxx\n"
                       "BIOS-e820: [mem 0x0000000000000000-0x000000000009efff] usab\n"
                       "DMAR: Host address width 39\n"),
              ElementsAre(testing::EndsWith(" CUT"), testing::EndsWith(" CUT"), testing::EndsWith(" CUT"), "4 DMAR: Host address width 39"));
  EXPECT_THAT(messages("Nov 17 01:30:27 host kernel: DMAR: dmar0: reg_base_addr fed9>\n"), ElementsAre("1 DMAR: dmar0: reg_base_addr fed9 CUT"));
}

// --- boot logs ---

TEST(KernelLog, NumbersThatMayLackDigitsAreAbsent) {
  const KernelLog log = read_kernel_log("Nov 17 01:30:27 host kernel: DMAR: dmar0: reg_base_addr fed90000 ver 1:0 cap 1c0000c40660462 ecap 19e2>\n");
  ASSERT_EQ(log.dmar.units.size(), 1U);
  EXPECT_EQ(log.dmar.units[0].cap, 0x1c0000c40660462U);
  EXPECT_EQ(log.dmar.units[0].ecap, std::nullopt);
}

TEST(KernelLog, OlderKernelsSayItOtherwise) {
  const KernelLog log = read_kernel_log(
      "DMAR:Host address width 36\nDMAR:DRHD (flags: 0x00000000)base: 0x00000000fed90000\n"
      "IOMMU fed90000: ver 1:0 cap c9008010e60262 ecap 1000\n"
      "dmar: DRHD base: 0x000000fed91000 flags: 0x1\ndmar: IOMMU 1: reg_base_addr fed91000 ver 1:0 cap c9008020660262 ecap 10501\n"
      "DMAR:RMRR base: 0x00000000000ed000 end: 0x00000000000effff\n"
      "IOMMU: Setting identity map for device 0000:00:1d.0 [0xed000 - 0xeffff]\n"
      "DMAR: Setting identity map for device 0000:00:1a.0 [0xed000 - 0xeffff]\n"
      "iommu: Adding device 0000:00:1d.0 to group 2\niommu: Adding device 0000:00:1a.0 to group 3\n"
      "iommu: Removing device 0000:00:1a.0 from group 3\n");
  ASSERT_EQ(log.dmar.drhds.size(), 2U);
  EXPECT_EQ(log.dmar.drhds[1].flags, 1U);
  ASSERT_EQ(log.dmar.units.size(), 2U);
  EXPECT_EQ(log.dmar.units[0].name, "dmar0");
  EXPECT_EQ(log.dmar.units[0].cap, 0xc9008010e60262U);
  EXPECT_EQ(log.dmar.units[1].name, "dmar1");
  EXPECT_EQ(log.dmar.units[1].ecap, 0x10501U);
  ASSERT_EQ(log.dmar.rmrrs.size(), 3U);
  EXPECT_EQ(log.dmar.rmrrs[1].device, "0000:00:1d.0");
  EXPECT_EQ(log.dmar.rmrrs[2].device, "0000:00:1a.0");
  ASSERT_EQ(log.devices.groups.size(), 1U);
  EXPECT_EQ(log.devices.groups[0].group, 2U);
}

TEST(KernelLog, AmdUnitsHaveTheirOwnFeaturesWhereTheLogSaysSo) {
  const KernelLog log = read_kernel_log(
      "AMD-Vi: Found IOMMU at 0000:00:00.2 cap 0x40\nAMD-Vi: Extended features (0x4f77ef22294ada):\n"
      "pci 0000:40:00.2: AMD-Vi: Found IOMMU cap 0x40\npci 0000:40:00.2: AMD-Vi: Extended features (0x58f77ef22294ade):\n"
      "AMD-Vi: [Firmware Bug]: Found inconsistent EFR/EFR2 0x1,0x2 (global 0x3,0x4) on iommu2 (0000:60:00.2).\n"
      "AMD-Vi: IVMD_TYPE\t\t\tdevid_start: 0000:00:14.0 devid_end: 0000:00:14.5 range_start: 00000000c0000000 range_end: 00000000c0100000 flags: 3\n"
      "AMD-Vi: Virtual APIC enabled\n");
  ASSERT_EQ(log.amd.functions.size(), 2U);
  ASSERT_EQ(log.amd.features.size(), 3U);
  EXPECT_EQ(log.amd.features[0].unit, "0000:00:00.2");
  EXPECT_EQ(log.amd.features[0].efr2, std::nullopt);
  EXPECT_EQ(log.amd.features[1].unit, "0000:40:00.2");
  EXPECT_EQ(log.amd.features[2].efr2, 2U);
  ASSERT_EQ(log.amd.ivmds.size(), 1U);
  EXPECT_EQ(log.amd.ivmds[0].range, (Range{0xc0000000, 0xc00fffff}));
  EXPECT_TRUE(log.amd.virtual_apic);
}

TEST(KernelLog, DevicesOfAnyBusJoinGroups) {
  const KernelLog log = read_kernel_log(
      "[    1.0] x\n[    1.000001] platform a600000.usb: Adding to iommu group 5\n[    1.000002] pcieport 0000:90:00.0: Adding to iommu group 6\n"
      "[    1.000003] pci 10000:e0:01.0: Adding to iommu group 7\n[    1.000004] pci_bus 0000:80: on NUMA node 1 (pxm 0)\n"
      "[    1.000005] pci 0000:90:00.0: [1f6c:0001] type 01 class 0x060400 PCIe Root Port\n[    1.000006] pci 0000:90:00.0: PCI bridge to [bus 91-9f]\n"
      "[    1.000007] pci 0000:91:00.0: reg 0x18: [mem 0x40000000-0x40ffffff 64bit pref]\n[    1.000008] pci 0000:91:00.0: BAR 0 [mem 0x41000000-0x41003fff]\n"
      "[    1.000009] pci 0000:91:00.0: VF BAR 0 [mem 0x48480400000-0x4848040ffff 64bit pref]\n[    1.000010] pci 0000:91:00.0: BAR 4 [io  0x7050-0x7057]\n");
  std::vector<std::pair<std::string, std::uint64_t>> groups;
  for (const GroupLine& g : log.devices.groups) groups.emplace_back(g.device, g.group);
  EXPECT_THAT(groups, ElementsAre(Pair("a600000.usb", 5), Pair("0000:90:00.0", 6), Pair("10000:e0:01.0", 7)));
  ASSERT_EQ(log.devices.bars.size(), 2U);
  EXPECT_EQ(log.devices.bars[0].index, 2U);
  EXPECT_EQ(log.devices.bars[0].size, 16U << 20U);
  EXPECT_EQ(log.devices.nodes[0].bus, "0000:80");
  EXPECT_EQ(log.devices.bridges[0].subordinate, 0x9fU);
}

TEST(KernelLog, TheLastBootThatTellsOfIommusCounts) {
  const std::string first = "[    0.000000] Linux version 6.1.0 (b@h)\n[    0.1] x\n[    0.200000] DMAR: dmar0: reg_base_addr fed90000 ver 1:0 cap 1 ecap 2\n";
  const std::string second = "[    0.000000] Linux version 6.12.0 (b@h)\n[    0.200000] DMAR: dmar0: reg_base_addr fed90000 ver 1:0 cap 3 ecap 4\n";
  const std::string third = "[    0.000000] Linux version 6.13.0 (b@h)\n[    0.000001] Command line: quiet\n";
  const KernelLog log = read_kernel_log(first + second + third + "Linux version 9.9 (from /proc/version)\n");
  EXPECT_EQ(log.boots, 3U);
  EXPECT_EQ(log.first_line, 4U);
  EXPECT_EQ(log.release->value, "6.12.0");
  ASSERT_EQ(log.dmar.units.size(), 1U);
  EXPECT_EQ(log.dmar.units[0].cap, 3U);
}

// --- lspci ---

TEST(Lspci, EveryFormSaysWhatItSays) {
  const LspciListing plain = read_lspci(
      "00:00.0 Host bridge: Example Corporation Device 9a14 (rev 01)\n"
      "0000:00:02.0 VGA compatible controller [0300]: Example Graphics [Model] [8086:9a49] (rev 01) (prog-if 00 [VGA controller])\n"
      "\tKernel driver in use: i915\n"
      "00:14.0 0c03: 8086:a0ed (rev 20) (prog-if 30)\n"
      "00:1f.0 \"ISA bridge [0601]\" \"Intel [8086]\" \"eSPI [5182]\" -r01 \"\" \"\"\n");
  ASSERT_EQ(plain.functions.size(), 4U);
  EXPECT_EQ(plain.functions[0].ids, std::nullopt);
  EXPECT_EQ(plain.functions[0].class_name, "Host bridge");
  EXPECT_EQ(plain.functions[1].ids, (PciIds{0x8086, 0x9a49}));
  EXPECT_EQ(plain.functions[1].name, "Example Graphics [Model]");
  EXPECT_EQ(plain.functions[1].class_code->value, 0x0300U);
  EXPECT_EQ(plain.functions[1].driver, "i915");
  EXPECT_EQ(plain.functions[1].line, 2U);
  EXPECT_EQ(plain.functions[2].ids, (PciIds{0x8086, 0xa0ed}));
  EXPECT_EQ(plain.functions[2].interface->value, 0x30U);
  EXPECT_EQ(plain.functions[2].class_code->value, 0x0c03U);
  EXPECT_EQ(plain.functions[3].ids, (PciIds{0x8086, 0x5182}));
  EXPECT_EQ(plain.functions[3].name, "Intel eSPI");
}

TEST(Lspci, MachineReadableRecords) {
  const LspciListing listing = read_lspci(
      "Slot:\t00:02.0\nClass:\tVGA compatible controller [0300]\nVendor:\tIntel Corporation [8086]\nDevice:\tExample [46a6]\n"
      "SDevice:\tOther [0b0b]\nProgIf:\t00\nDriver:\ti915\nNUMANode:\t1\nIOMMUGroup:\t4\n\nSlot:\t01:00.0\nClass:\t0108\nVendor:\t144d\nDevice:\ta80a\n");
  ASSERT_EQ(listing.functions.size(), 2U);
  EXPECT_EQ(listing.functions[0].ids, (PciIds{0x8086, 0x46a6}));
  EXPECT_EQ(listing.functions[0].name, "Intel Corporation Example");
  EXPECT_EQ(listing.functions[0].numa->value, 1U);
  EXPECT_EQ(listing.functions[0].group->value, 4U);
  EXPECT_EQ(listing.functions[0].group->line, 9U);
  EXPECT_EQ(listing.functions[1].ids, (PciIds{0x144d, 0xa80a}));
  EXPECT_EQ(listing.functions[1].class_code->value, 0x0108U);
}

TEST(Lspci, WrappedLinesAreReadAsPrinted) {
  const LspciListing listing = read_lspci(
      "> 00:02.0 VGA compatible controller [0300]: Example Corporation A Long Name\n> Of Graphics [8086:9a49] (rev 01)\r\n"
      ">  Control: I/O+ Mem+\n>  NUMA\n> node: 1\n>  Region 0: Memory at 603c000000 (64-bit,\n> non-prefetchable) [size=16M]\n"
      ">  Region 2: Memory at 4000000000 (64-bit, prefetchable) [size=256M]\n>  Region 4: I/O ports at 3000 [size=64]\n");
  ASSERT_EQ(listing.functions.size(), 1U);
  const LspciFunction& f = listing.functions[0];
  EXPECT_EQ(f.ids, (PciIds{0x8086, 0x9a49}));
  EXPECT_EQ(f.name, "Example Corporation A Long Name Of Graphics");
  EXPECT_EQ(f.numa->value, 1U);
  ASSERT_EQ(f.bars.size(), 2U);
  EXPECT_EQ(f.bars[0].size, 16U << 20U);
  EXPECT_EQ(f.bars[0].line, 6U);
  EXPECT_EQ(f.bars[1].size, 256U << 20U);
}

TEST(Lspci, WithoutRightsCapabilitiesAreNotDenied) {
  const LspciListing listing = read_lspci(
      "00:02.0 VGA compatible controller: Example\n\tFlags: bus master, fast devsel, latency 0, IRQ 255, NUMA node 0, IOMMU group 3\n"
      "\tCapabilities: <access denied>\n");
  ASSERT_EQ(listing.functions.size(), 1U);
  EXPECT_EQ(listing.functions[0].no_snoop, std::nullopt);
  EXPECT_EQ(listing.functions[0].group->value, 3U);
  EXPECT_EQ(listing.functions[0].numa->value, 0U);
}

TEST(Lspci, TheTreeIsFollowed) {
  const LspciListing listing = read_lspci(
      "-+-[0000:ff]-+-08.0\n"
      " |           \\-08.2\n"
      " \\-[0000:00]-+-00.0  Example Corporation Host Bridge\n"
      "             +-06.0-[01-03]----00.0-[02-03]--+-00.0-[03]----00.0\n"
      "             |                               \\-01.0  Example\n"
      "             \\-1f.0\n");
  std::vector<std::string> devices;
  for (const auto& d : listing.tree.devices) devices.push_back(d.value);
  EXPECT_THAT(devices, ElementsAre("0000:ff:08.0", "0000:ff:08.2", "0000:00:00.0", "0000:00:06.0", "0000:01:00.0", "0000:02:00.0", "0000:03:00.0",
                                   "0000:02:01.0", "0000:00:1f.0"));
  ASSERT_EQ(listing.tree.bridges.size(), 3U);
  EXPECT_EQ(listing.tree.bridges[0].device, "0000:00:06.0");
  EXPECT_EQ(listing.tree.bridges[0].subordinate, 3U);
}

// --- group listings ---

std::vector<std::pair<std::string, std::uint64_t>> groups_of(std::string_view text) {
  std::vector<std::pair<std::string, std::uint64_t>> out;
  for (const GroupMember& m : read_group_listing(text)) out.emplace_back(m.function.device, m.group);
  return out;
}

TEST(GroupListing, HeadingsAndBullets) {
  EXPECT_THAT(groups_of("IOMMU group 7\n  - 01:00.0 VGA compatible controller [0300]: X [10de:2330]\n### Group 8 ###\n0000:02:00.0 Foo [0108]: Y [144d:a80a]\n"
                        "iommu group: 9\n* 03:00.0\nGroup #10:\n\t04:00.0 Foo: Bar\nUSB: Bus 001 Device 004: ID 046d:c52b\n"),
              ElementsAre(Pair("0000:01:00.0", 7), Pair("0000:02:00.0", 8), Pair("0000:03:00.0", 9), Pair("0000:04:00.0", 10)));
}

TEST(GroupListing, PlatformDevicesHaveNames) {
  EXPECT_THAT(groups_of("/sys/kernel/iommu_groups/5/devices/a600000.usb\n/sys/bus/platform/devices/fe2c0000.sdhci/iommu_group -> "
                        "../../../kernel/iommu_groups/6\nlrwxrwxrwx 1 root root 0 x /sys/bus/pci/devices/0000:01:00.0/iommu_group -> ../../../../kernel/iommu_groups/7\n"),
              ElementsAre(Pair("a600000.usb", 5), Pair("fe2c0000.sdhci", 6), Pair("0000:01:00.0", 7)));
}

TEST(GroupListing, WrappedDescriptionsKeepTheirIds) {
  const auto members = read_group_listing(
      "IOMMU Group 1 00:01.0 PCI bridge [0604]: Example Corporation Some Root\nPort [8086:1901] (rev\n07)\nIOMMU Group 2 00:02.0 VGA [0300]: Z [8086:3e9b]\n");
  ASSERT_EQ(members.size(), 2U);
  EXPECT_EQ(members[0].function.ids, (PciIds{0x8086, 0x1901}));
  EXPECT_EQ(members[1].function.ids, (PciIds{0x8086, 0x3e9b}));
}

TEST(GroupListing, DevicesWithoutAGroupAreNone) { EXPECT_THAT(groups_of("00:01.0 PCI bridge [0604]: X [8086:1901]\nthe group is fine\n"), IsEmpty()); }

// --- reserved regions ---

TEST(ReservedRegions, WhatIsNoRegionIsNone) {
  const auto lines = read_reserved_regions(
      "0x00000000fee00000 0x00000000feefffff msi\niommu_groups/3/reserved_regions:0x0 0xffffff direct\n0x9 0x1 direct\n0x1 0x2 directly\nhello 0x1 0x2\n");
  ASSERT_EQ(lines.size(), 2U);
  EXPECT_EQ(lines[0].group, std::nullopt);
  EXPECT_EQ(lines[1].group, 3U);
  EXPECT_EQ(lines[1].region, (ReservedRegion{{0, 0xffffff}, ReservedType::direct}));
  EXPECT_EQ(lines[1].line, 2U);
}

// --- libvirt ---

constexpr std::string_view kNodeDevice = R"($ virsh nodedev-dumpxml pci_0000_81_00_0
<device>
  <name>pci_0000_81_00_0</name>
  <driver>
    <name>vfio-pci</name>
  </driver>
  <capability type='pci'>
    <class>0x030200</class>
    <domain>0</domain>
    <bus>129</bus>
    <slot>0</slot>
    <function>0</function>
    <product id='0x2330'>Example</product>
    <vendor id='0x10de'>Example Corporation</vendor>
    <iommuGroup number='12'>
      <address domain='0x0000' bus='0x81' slot='0x00' function='0x0'/>
      <address domain='0x0000' bus='0x81' slot='0x00' function='0x1'/>
    </iommuGroup>
    <numa node='1'/>
  </capability>
</device>
)";

TEST(NodeDevices, OneOrManyWithOtherTextAround) {
  const std::string other = "\n<device><name>net_eth0</name><capability type='net'/></device>\n";
  const auto devices = read_node_devices(std::string(kNodeDevice) + other + std::string(kNodeDevice), "x.xml");
  ASSERT_TRUE(devices);
  ASSERT_EQ(devices->size(), 2U);
  const NodeDevice& d = (*devices)[0];
  EXPECT_EQ(d.device, "0000:81:00.0");
  EXPECT_EQ(d.driver, "vfio-pci");
  EXPECT_EQ(d.device_class->value, 0x030200U);
  EXPECT_EQ(d.vendor->value, 0x10deU);
  EXPECT_EQ(d.product->value, 0x2330U);
  EXPECT_EQ(d.numa->value, 1U);
  EXPECT_EQ(d.group->value, 12U);
  EXPECT_EQ(d.group->line, 15U);
  ASSERT_EQ(d.group_members.size(), 2U);
  EXPECT_EQ(d.group_members[1].value, "0000:81:00.1");
  EXPECT_EQ((*devices)[1].group->line, 38U);
}

TEST(NodeDevices, BadXmlHasItsPlace) {
  const auto devices = read_node_devices("\n<device>\n<name>x</nam>\n</device>\n", "x.xml");
  ASSERT_FALSE(devices);
  EXPECT_EQ(devices.error().place.line, 3U);
}

}  // namespace
}  // namespace ioplan::intake
