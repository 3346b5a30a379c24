// backends/intake: scans of made-up machines find what was put in; a capture gives the same bytes as the machine; what a
// hostile copy holds ends in an unknown fact, never in an invented one. The shell script that captures is held here too.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>

#include "backends/intake/archive.h"
#include "backends/intake/config_space.h"
#include "backends/intake/scan.h"
#include "engine/document/host_document.h"
#include "tests/support/machine_tree.h"
#include "tests/support/paths.h"

namespace ioplan::intake {
namespace {

namespace fs = std::filesystem;
using machine_tree::Shape;
using ::testing::Contains;
using ::testing::Each;
using ::testing::Field;
using ::testing::HasSubstr;
using ::testing::Not;

Settled scanned(MachineFiles& files, HostName host_name = HostName::leave_out) {
  Findings findings;
  scan(files, host_name, findings);
  return std::move(findings).settle();
}

Settled scanned(const Entries& entries) { return scanned(*files_of(entries)); }

class Folder {
 public:
  Folder() : path_(fs::temp_directory_path() / fmt::format("ioplan-scan-test-{}", getpid())) {
    fs::remove_all(path_);
    fs::create_directories(path_);
  }
  ~Folder() { fs::remove_all(path_); }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

std::string bytes_of(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

std::vector<Shape> shapes() {
  std::vector<Shape> all;
  for (const Driver driver : {Driver::intel, Driver::amd, Driver::smmuv3}) {
    for (const bool root : {true, false}) all.push_back({driver, 3, 17, root, 7});
  }
  return all;
}

Host facts_only(Host host) {
  host.sources.clear();
  host.unknown.clear();
  return host;
}

TEST(Scan, FindsWhatWasPutIn) {
  for (const Shape& shape : shapes()) {
    const machine_tree::Machine machine = machine_tree::make(shape);
    const Settled found = scanned(machine.files);
    EXPECT_TRUE(found.contradictions.empty());
    EXPECT_EQ(to_yaml(facts_only(found.host)), to_yaml(machine.host)) << name_of(shape.driver) << shape.root;
    EXPECT_EQ(facts_only(found.host), machine.host);
  }
}

TEST(Scan, WithoutRootWhatNeedsRootIsListed) {
  const Settled found = scanned(machine_tree::make({Driver::amd, 2, 8, false, 1}).files);
  const std::string ends = "/sys/bus/pci/devices/*/config ends after 64 bytes";
  for (const char* key : {"ats", "pri", "pasid_bits", "acs", "acs_enabled", "no_snoop"}) {
    EXPECT_THAT(found.host.unknown, Contains(Gap{std::string("devices.") + key, ends, "run as root", {}}));
  }
  EXPECT_THAT(found.host.unknown,
              Contains(Gap{"iommus.va_size", "/sys/firmware/acpi/tables/IVRS cannot be read", "run as root", {}}));
}

TEST(Scan, ADirectoryAndACaptureGiveTheSameBytes) {
  for (const Shape& shape : shapes()) {
    const Folder folder;
    machine_tree::write(machine_tree::make(shape).files, folder.path());
    const auto files = open_directory(folder.path().string());
    ASSERT_TRUE(files);
    Entries recorded;
    const Settled live = scanned(*recorder(**files, recorded));
    const auto archive = write_archive(recorded);
    ASSERT_TRUE(archive);
    const auto read = read_archive(*archive, "machine.tar");
    ASSERT_TRUE(read) << to_text(read.error());
    EXPECT_EQ(*read, recorded);
    EXPECT_EQ(to_yaml(scanned(*read).host), to_yaml(live.host));
    Entries again;
    scanned(*recorder(*files_of(*read), again));
    EXPECT_EQ(again, recorded) << "an excerpt of an excerpt is itself";
  }
}

TEST(Scan, ACaptureHoldsNothingThatNamesTheMachine) {
  Entries recorded;
  const Entries files = machine_tree::make({Driver::intel, 2, 20, true, 1}).files;
  scanned(*recorder(*files_of(files), recorded));
  const std::string archive = write_archive(recorded).value();
  for (const char* secret : {"secret", "52:54:00", "0f1e2d3c", "Serial", "deadbeef", "SERIAL", "Not this one"}) {
    EXPECT_EQ(archive.find(secret), std::string::npos) << secret;
  }
  EXPECT_EQ(archive.find(machine_tree::kSerialNumber), std::string::npos);
  EXPECT_NE(files.at("/sys/bus/pci/devices/0000:00:00.0/config").content.find(machine_tree::kSerialNumber), std::string::npos);
  EXPECT_EQ(scanned(*files_of(files), HostName::read).host.name, "secret-host-7");
}

// examples/capture/capture.sh on a copy of a machine: a scan of what it wrote gives the same Host.
TEST(Scan, TheShellScriptCapturesTheSame) {
  for (const Shape& shape : shapes()) {
    const Folder folder;
    const machine_tree::Machine machine = machine_tree::make(shape);
    const fs::path root = folder.path() / "root", tar = folder.path() / "machine.tar";
    machine_tree::write(machine.files, root);
    const std::string script = (source_folder() / "examples/capture/capture.sh").string();
    ASSERT_EQ(std::system(fmt::format("sh '{}' '{}' '{}'", script, tar.string(), root.string()).c_str()), 0);
    const std::string archive = bytes_of(tar);
    const auto read = read_archive(archive, "machine.tar");
    ASSERT_TRUE(read) << to_text(read.error());
    EXPECT_EQ(to_yaml(scanned(*read).host), to_yaml(scanned(machine.files).host));
    for (const char* secret : {"secret", "52:54:00", "0f1e2d3c", "Serial", "deadbeef"}) EXPECT_EQ(archive.find(secret), std::string::npos) << secret;
    EXPECT_EQ(archive.find(machine_tree::kSerialNumber), std::string::npos);
  }
}

// ---------------------------------------------------------------- single formats

struct Kernel6 {
  const char* features;
  std::optional<std::uint64_t> efr, efr2;
};

TEST(Scan, AmdRegistersInEveryOrderThatKernelsHavePrinted) {
  const Kernel6 cases[] = {
      {"246577efa2254afa:10\n", 0x246577efa2254afa, 0x10},
      {"10:246577efa2254afa\n", 0x246577efa2254afa, 0x10},
      {"0:29d3\n", 0x29d3, 0},
      {"246577efa2254afa\n", 0x246577efa2254afa, std::nullopt},
      {"nonsense\n", std::nullopt, std::nullopt},
  };
  for (const Kernel6& c : cases) {
    Entries files = machine_tree::make({Driver::amd, 1, 1, true, 1}).files;
    files["/sys/class/iommu/ivhd0/amd-iommu/features"].content = c.features;
    const Host host = scanned(files).host;
    EXPECT_EQ(host.units.at(0).facts[UnitFact::efr], c.efr) << c.features;
    EXPECT_EQ(host.units.at(0).facts[UnitFact::efr2], c.efr2) << c.features;
  }
}

struct Ivrs {
  std::uint32_t ivinfo;
  std::uint64_t va_size;
};

TEST(Scan, AmdWidthsFromTheAcpiTable) {
  const Ivrs cases[] = {{57U << 15 | 1U, 57}, {1U, 64}, {57U << 15, 48}, {40U << 15, 40}, {0, 48}};
  for (const Ivrs& c : cases) {
    Entries files = machine_tree::make({Driver::amd, 1, 1, true, 1}).files;
    std::string& table = files["/sys/firmware/acpi/tables/IVRS"].content;
    for (unsigned i = 0; i < 4; ++i) table[36 + i] = static_cast<char>(c.ivinfo >> (8 * i));
    EXPECT_EQ(scanned(files).host.units.at(0).facts[UnitFact::va_size], c.va_size) << c.ivinfo;
  }
}

TEST(Scan, TheCommandLineDecides) {
  const std::pair<const char*, std::optional<std::uint64_t>> scalable[] = {
      {"intel_iommu=on,sm_on", 1}, {"intel_iommu=sm_on intel_iommu=sm_off", 0}, {"quiet", std::nullopt}, {"intel_iommu=xsm_on", std::nullopt}};
  for (const auto& [line, value] : scalable) {
    Entries files = machine_tree::make({}).files;
    files["/proc/cmdline"].content = line;
    const Kernel kernel = scanned(files).host.kernel;
    EXPECT_EQ(kernel.facts[KernelFact::intel_iommu_sm], value) << line;
    EXPECT_EQ(kernel.facts[KernelFact::intel_iommu_sp_off], 0U);
  }
}

TEST(Scan, VirtioUnitsAreNamedAfterTheirDevice) {
  Entries files;
  files["/sys/class/iommu/0000:00:02.0/device/driver"] = {EntryKind::link, "../../../bus/pci/drivers/virtio-pci"};
  files["/sys/class/iommu/tegra0/device/driver"] = {EntryKind::link, "tegra-smmu"};
  const Host host = scanned(files).host;
  ASSERT_EQ(host.units.size(), 1U);
  EXPECT_EQ(host.units[0].driver, Driver::virtio);
  EXPECT_THAT(host.unknown, Contains(Gap{"iommus.tegra0.driver", "it is none of the drivers that ioplan knows", "", {}}));
}

TEST(Scan, PlatformDevicesAreKept) {
  Entries files = machine_tree::make({Driver::smmuv3, 1, 1, true, 1}).files;
  const std::string folder = "/sys/kernel/iommu_groups/99/";
  files[folder + "devices/fd400000.ethernet/iommu"] = {EntryKind::link, "../../virtual/iommu/smmu3.0x000000002b400000"};
  files[folder + "devices/fd400000.ethernet/driver"] = {EntryKind::link, "../../bus/platform/drivers/xgbe"};
  files[folder + "reserved_regions"] = {EntryKind::file, ""};
  const Host host = scanned(files).host;
  const auto index = host.find_device("fd400000.ethernet");
  ASSERT_TRUE(index);
  EXPECT_EQ(host.device(*index).group, 99U);
  EXPECT_TRUE(host.device(*index).unit);
  EXPECT_EQ(host.device(*index).bound_driver, "xgbe");
  EXPECT_EQ(host.device(*index).reserved, std::vector<ReservedRegion>());
}

TEST(Scan, VirtualFunctionsTakePasidFromTheirPhysicalOne) {
  Entries files = machine_tree::make({Driver::intel, 1, 2, true, 1}).files;
  const std::string pf = "/sys/bus/pci/devices/0000:00:00.0/", vf = "/sys/bus/pci/devices/0000:00:00.1/";
  files[pf + "config"].content = machine_tree::config_space({.ats = true, .pri = true, .pasid_bits = 17});
  files[vf + "config"].content = machine_tree::config_space({.ats = false});
  files[vf + "physfn"] = {EntryKind::link, "../0000:00:00.0"};
  const Device d = scanned(files).host.devices.at(1);
  EXPECT_EQ(d.physical_function, "0000:00:00.0");
  EXPECT_EQ(d.facts[DeviceFact::pasid_bits], 17U);
  EXPECT_EQ(d.facts[DeviceFact::pri], 1U);
  EXPECT_EQ(d.facts[DeviceFact::ats], 0U);
}

// ---------------------------------------------------------------- configuration space

TEST(ConfigSpace, ShortFilesLeaveUnknownWhatLiesBehindTheirEnd) {
  const std::string whole = machine_tree::config_space({.ats = true, .pri = true, .no_snoop = true, .pasid_bits = 20, .acs = 0x5f, .acs_enabled = 0x1d});
  const PciCapabilities all = capabilities_of(whole);
  EXPECT_EQ(all.pasid_bits, 20U);
  EXPECT_EQ(all.acs, 0x5fU);
  for (std::size_t size = 0; size <= whole.size(); ++size) {
    const PciCapabilities c = capabilities_of(std::string_view(whole).substr(0, size));
    for (const auto& [part, full] : {std::pair(c.ats, all.ats), {c.pri, all.pri}, {c.no_snoop, all.no_snoop}}) {
      EXPECT_TRUE(!part || part == full) << size;
    }
    EXPECT_TRUE(!c.pasid_bits || c.pasid_bits == all.pasid_bits) << size;
    EXPECT_TRUE(!c.acs || c.acs == all.acs) << size;
    EXPECT_TRUE(!c.acs_enabled || c.acs_enabled == all.acs_enabled) << size;
  }
  EXPECT_FALSE(capabilities_of(std::string_view(whole).substr(0, 64)).no_snoop);
  EXPECT_FALSE(capabilities_of(std::string_view(whole).substr(0, 256)).ats);
}

TEST(ConfigSpace, AConventionalFunctionHasNoExtendedCapabilities) {
  const std::string config = machine_tree::config_space({.express = false, .ats = true}).substr(0, 256);
  EXPECT_EQ(capabilities_of(config).ats, false);
  EXPECT_EQ(capabilities_of(config).pasid_bits, 0U);
}

// Vendors like to have several capabilities of their own: all of them lead on to the next.
TEST(ConfigSpace, TheExcerptKeepsEveryLinkOfAList) {
  std::string config = machine_tree::config_space({.ats = true});
  config.replace(0x100, 4, std::string("\x0b\x00\x01\x12", 4));  // the serial number becomes vendor specific, as the last is
  EXPECT_EQ(capabilities_of(config_excerpt(config)).ats, true);
  EXPECT_EQ(config_excerpt(config_excerpt(config)), config_excerpt(config));
}

TEST(ConfigSpace, LoopsEnd) {
  std::string config = machine_tree::config_space({});
  config[0x71] = 0x40;  // PCI Express -> power management
  config.replace(0x120, 4, std::string("\x0b\x00\x01\x10", 4));  // back to the start
  const PciCapabilities c = capabilities_of(config);
  EXPECT_FALSE(c.ats) << "the list has no end, so nobody knows what it lacks";
  EXPECT_EQ(c.no_snoop, false);
}

TEST(ConfigSpace, RandomBytesAreWalkedWithinTheirBounds) {
  std::uint64_t state = 1;
  for (unsigned run = 0; run < 20000; ++run) {
    std::string config((run * 37) % 4097, '\0');
    for (char& c : config) c = static_cast<char>((state = state * 6364136223846793005 + 1442695040888963407) >> 56);
    if (config.size() > 6) config[6] |= 0x10;
    const std::string kept = config_excerpt(config);
    ASSERT_EQ(kept.size(), config.size());
    ASSERT_EQ(config_excerpt(kept), kept) << run;
    ASSERT_EQ(capabilities_of(kept), capabilities_of(config)) << run;
  }
}

// ---------------------------------------------------------------- hostile copies

class Hostile : public ::testing::Test {
 protected:
  Hostile() { machine_tree::write(machine_tree::make({Driver::intel, 2, 4, true, 1}).files, root()); }

  fs::path root() const { return folder_.path() / "root"; }
  fs::path device(unsigned f) const { return root() / fmt::format("sys/bus/pci/devices/0000:00:00.{}", f); }
  Host host() const { return settled().host; }
  Settled settled() const {
    const auto files = open_directory(root().string());
    EXPECT_TRUE(files);
    return scanned(**files);
  }
  static void replace(const fs::path& file, const std::string& content) {
    fs::remove_all(file);
    std::ofstream(file, std::ios::binary) << content;
  }

  Folder folder_;
};

TEST_F(Hostile, LinksThatLoop) {
  fs::remove(device(0) / "class");
  fs::create_symlink("class", device(0) / "class");
  fs::remove_all(device(1));
  fs::create_symlink("0000:00:00.1", device(1));
  const Host found = host();
  EXPECT_FALSE(found.devices.at(0).facts[DeviceFact::device_class]);
  EXPECT_FALSE(found.devices.at(1).facts[DeviceFact::device_class]);
  EXPECT_THAT(found.unknown, Contains(Field(&Gap::fact, "devices.class")));
}

TEST_F(Hostile, LinksThatLeadOutOfTheCopy) {
  std::ofstream(folder_.path() / "outside") << "0x123456\n";
  fs::remove(device(0) / "class");
  fs::create_symlink("../../../../../../outside", device(0) / "class");
  fs::remove(device(1) / "class");
  fs::create_symlink(folder_.path() / "outside", device(1) / "class");
  const Host found = host();
  EXPECT_FALSE(found.devices.at(0).facts[DeviceFact::device_class]);
  EXPECT_FALSE(found.devices.at(1).facts[DeviceFact::device_class]);
}

TEST_F(Hostile, HugeFiles) {
  replace(device(0) / "class", "0x" + std::string(1 << 20, '1'));
  fs::resize_file(device(0) / "config", std::uintmax_t{1} << 40);
  replace(root() / "sys/kernel/iommu_groups/0/reserved_regions", std::string(1 << 22, ' '));
  std::string lines;
  for (unsigned i = 0; i < 3000; ++i) lines += fmt::format("0x{:016x} 0x{:016x} reserved\n", i * 0x1000ULL, i * 0x1000ULL);
  replace(root() / "sys/kernel/iommu_groups/1/reserved_regions", lines);
  const Host found = host();
  EXPECT_FALSE(found.devices.at(0).facts[DeviceFact::device_class]);
  EXPECT_FALSE(found.devices.at(0).reserved);
  EXPECT_FALSE(found.devices.at(1).reserved);
  EXPECT_THAT(found.unknown, Contains(Field(&Gap::why, HasSubstr("class holds `0x1111"))));
}

TEST_F(Hostile, FilesThatCannotBeRead) {
  fs::remove(device(0) / "vendor");
  ASSERT_EQ(mkfifo((device(0) / "vendor").c_str(), 0600), 0);  // reading it would wait for ever
  fs::remove(device(1) / "vendor");
  fs::create_directory(device(1) / "vendor");
  fs::permissions(device(2) / "vendor", fs::perms::none);
  const Host found = host();
  EXPECT_FALSE(found.devices.at(0).facts[DeviceFact::vendor]);
  EXPECT_FALSE(found.devices.at(1).facts[DeviceFact::vendor]);
  if (geteuid() != 0) {
    EXPECT_FALSE(found.devices.at(2).facts[DeviceFact::vendor]);
  }
}

TEST_F(Hostile, NamesWithNewlines) {
  fs::create_directory(root() / "sys/bus/pci/devices/0000:01\n:00.0");
  fs::create_directory(root() / "sys/class/iommu/dmar\n7");
  fs::create_directories(root() / "sys/kernel/iommu_groups/5/devices/a\x01z");
  const Host found = host();
  EXPECT_EQ(found.devices.size(), 4U);
  EXPECT_EQ(found.units.size(), 2U);
  EXPECT_THAT(found.unknown, Contains(Field(&Gap::why, HasSubstr("0000:01\\x0a:00.0"))));
  EXPECT_THAT(found.unknown, Contains(Field(&Gap::why, HasSubstr("dmar\\x0a7"))));
  EXPECT_THAT(to_yaml(found), Not(HasSubstr("\x01")));
}

TEST_F(Hostile, GroupsWithoutDevices) {
  fs::create_directories(root() / "sys/kernel/iommu_groups/77/devices");
  fs::create_directories(root() / "sys/kernel/iommu_groups/78");
  const Host found = host();
  for (const char* group : {"77", "78"}) {
    EXPECT_THAT(found.unknown, Contains(Gap{std::string("groups.") + group,
                                            fmt::format("/sys/kernel/iommu_groups/{}/devices lists no device", group), "", {}}));
  }
}

TEST_F(Hostile, ADeviceInTwoGroups) {
  fs::create_directories(root() / "sys/kernel/iommu_groups/77/devices/0000:00:00.1");
  const Settled found = settled();
  ASSERT_EQ(found.contradictions.size(), 1U) << to_yaml(found.host);
  EXPECT_EQ(found.contradictions[0].fact, "devices.0000:00:00.1.group");
  EXPECT_FALSE(found.host.devices.at(1).group);
}

TEST_F(Hostile, NumbersThatAreNone) {
  for (const char* content : {"", "\n", "0x", "-1", "0x10de ", "10de\n20", "0x100000000000000000", "\xff\xfe"}) {
    replace(device(0) / "vendor", content);
    EXPECT_FALSE(host().devices.at(0).facts[DeviceFact::vendor]) << content;
  }
}

TEST_F(Hostile, AnEmptyCopy) {
  fs::remove_all(root());
  fs::create_directory(root());
  const Host found = host();
  EXPECT_TRUE(found.devices.empty());
  EXPECT_THAT(found.unknown, Contains(Field(&Gap::fact, "iommus")));
}

// ---------------------------------------------------------------- archives

TEST(Archive, LongNamesAreSplitOrRefused) {
  const std::string deep = "/" + std::string(150, 'a') + "/" + std::string(100, 'b');
  const Entries entries = {{deep, {EntryKind::file, "x"}}, {"/l", {EntryKind::link, std::string(100, 't')}}};
  EXPECT_EQ(read_archive(write_archive(entries).value(), "a").value(), entries);
  EXPECT_FALSE(write_archive({{"/" + std::string(101, 'c'), {}}}));
  EXPECT_FALSE(write_archive({{"/l", {EntryKind::link, std::string(101, 't')}}}));
}

TEST(Archive, ReadsWhatTarWrites) {
  const Folder folder;
  const std::string name(180, 'n');
  fs::create_directories(folder.path() / "in/sys/empty");
  std::ofstream(folder.path() / "in/sys" / name) << "content";
  fs::create_symlink(std::string(150, 't'), folder.path() / "in/sys/link");
  for (const char* format : {"gnu", "posix"}) {
    const std::string tar = (folder.path() / "x.tar").string();
    const std::string command = fmt::format("cd '{}/in' && tar --format={} -cf '{}' .", folder.path().string(), format, tar);
    ASSERT_EQ(std::system(command.c_str()), 0) << "GNU tar is needed";
    const auto read = read_archive(bytes_of(tar), "x.tar");
    ASSERT_TRUE(read) << format << to_text(read.error());
    EXPECT_EQ(read->at("/sys/empty").kind, EntryKind::directory);
    EXPECT_EQ(read->at("/sys/" + name).content, "content");
    EXPECT_EQ(read->at("/sys/link").content, std::string(150, 't'));
  }
}

TEST(Archive, BadOnesAreRefusedInWords) {
  const std::string good = write_archive({{"/a", {EntryKind::file, std::string(600, 'x')}}}).value();
  const auto message = [](const std::string& archive) {
    const auto read = read_archive(archive, "m.tar");
    return read ? std::string("accepted") : to_text(read.error());
  };
  EXPECT_EQ(message(good), "accepted");
  EXPECT_EQ(message(""), "m.tar: error: the archive is no tar archive, at byte 0\nhelp: make it with `ioplan scan --capture FILE.tar`");
  EXPECT_EQ(message("\x1f\x8b" + good), "m.tar: error: the archive is no tar archive, at byte 0\nhelp: it is compressed: unpack it first");
  EXPECT_THAT(message(good.substr(0, 700)), HasSubstr("is cut short, at byte 512"));
  EXPECT_THAT(message(good.substr(0, 1536)), HasSubstr("is cut short, at byte 1536"));
  std::string wrong = good;
  wrong[0] = 'b';
  EXPECT_THAT(message(wrong), HasSubstr("is no tar archive"));
  EXPECT_THAT(message(write_archive({{"/../etc/x", {}}}).value()), HasSubstr("climbs"));
  for (std::size_t i = 0; i < good.size(); ++i) {  // whatever byte is wrong: an answer, no crash
    std::string mutant = good;
    mutant[i] = static_cast<char>(mutant[i] ^ 0xff);
    (void)message(mutant);
  }
}

}  // namespace
}  // namespace ioplan::intake
