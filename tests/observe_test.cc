// `ioplan observe` as a shell sees it, and who is found to have VFIO's files open.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "backends/vfio/holders.h"
#include "cli/app.h"
#include "tests/support/fake_system.h"
#include "tests/support/paths.h"

namespace ioplan {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;

TEST(Holders, AreFoundByTheirDescriptors) {
  fake::FakeSystem system;
  system.add_file("/proc/meminfo", "");
  for (const char* process : {"12", "7", "900"}) {
    system.add_file(fmt::format("/proc/{}/comm", process), fmt::format("vmm{}", process));
    system.add_link(fmt::format("/proc/{}/fd/0", process), "/dev/null");
  }
  system.add_link("/proc/12/fd/5", "/dev/vfio/devices/vfio3");
  system.add_link("/proc/12/fd/6", "/dev/vfio/devices/vfio3");
  system.add_link("/proc/7/fd/9", "/dev/vfio/devices/vfio3");
  system.add_link("/proc/7/fd/10", "/dev/vfio/12");
  EXPECT_THAT(vfio::holders_of_vfio_files(system),
              ElementsAre(Pair("/dev/vfio/12", ElementsAre(vfio::Holder{"7", "vmm7"})),
                          Pair("/dev/vfio/devices/vfio3", ElementsAre(vfio::Holder{"12", "vmm12"}, vfio::Holder{"7", "vmm7"}))));
}

TEST(Holders, ProcessesThatGoMeanwhileAreNobody) {
  fake::FakeSystem system;
  system.add_file("/proc/7/comm", "vmm");
  system.add_link("/proc/7/fd/9", "/dev/vfio/devices/vfio3");
  for (const char* call : {"list /proc", "list /proc/7/fd", "read_link /proc/7/fd/9"}) {
    system.fail(call, ENOENT);
    EXPECT_TRUE(vfio::holders_of_vfio_files(system).empty()) << call;
  }
}

class Observe : public testing::Test {
 protected:
  Observe() {
    fs::create_directories(folder_);
    std::ofstream(at("host.yaml")) << R"(apiVersion: ioplan/v1
kind: Host
name: three
kernel: {arch: x86_64, release: 7.2.13, page_size: 4KiB, intel_iommu_sm: true, isolated_msi: true}
iommus:
  - {id: dmar0, driver: intel, cap: 0xd2008c40660462, ecap: 0xf050da}
devices:
  - {id: "ffff:01:00.0", iommu: dmar0, group: 1}
  - {id: "ffff:02:00.0", iommu: dmar0, group: 2}
)";
    std::ofstream(at("vm.yaml")) << vm("");
    std::ofstream(at("more.yaml")) << vm(", {host: \"ffff:02:00.0\"}");
    std::ofstream(at("plan.json")) << cli::run({"plan", at("host.yaml"), at("vm.yaml"), "-o", "json"}).out;
    std::ofstream(at("more.json")) << cli::run({"plan", at("host.yaml"), at("more.yaml"), "-o", "json"}).out;
  }
  ~Observe() override { fs::remove_all(folder_); }

  static std::string vm(const std::string& more) {
    return "apiVersion: ioplan/v1\nkind: VirtualMachine\nname: vm\nmemory: {size: 64MiB}\ndevices: [{host: \"ffff:01:00.0\"}" + more + "]\n";
  }
  std::string at(const std::string& name) const { return (folder_ / name).string(); }

  fs::path folder_ = fs::temp_directory_path() / fmt::format("ioplan-observe-test-{}", getpid());
};

TEST_F(Observe, ALayoutAgainstItselfAndAgainstAnother) {
  const cli::Outcome same = cli::run({"observe", at("plan.json"), "--backend", "sim", at("host.yaml"), at("vm.yaml")});
  EXPECT_EQ(same.code, 0) << same.err;
  EXPECT_THAT(same.out, HasSubstr("no drift"));
  const cli::Outcome other = cli::run({"observe", at("plan.json"), "--backend", "sim", "--running", at("more.json"), at("host.yaml"), at("vm.yaml"), "-o", "json"});
  EXPECT_EQ(other.code, 1) << other.err;
  const auto json = nlohmann::json::parse(other.out);
  EXPECT_EQ(json["drift"], true);
  EXPECT_THAT(other.out, HasSubstr("ffff:02:00.0"));
}

// No machine has devices of segment ffff: what is not there is drift, and what cannot be seen is said.
TEST_F(Observe, FromOutsideOnlyDevicesAreSeen) {
  const cli::Outcome seen = cli::run({"observe", at("plan.json"), "--backend", "iommufd", at("host.yaml"), at("vm.yaml")});
  EXPECT_EQ(seen.code, 1) << seen.err;
  EXPECT_THAT(seen.out, HasSubstr("ffff:01:00.0.driver: planned a VFIO driver, observed"));
  EXPECT_THAT(seen.out, HasSubstr("not seen: ioas0, hwpt0"));
  const cli::Outcome both = cli::run({"observe", at("plan.json"), "--backend", "iommufd", "--running", at("more.json"), at("host.yaml"), at("vm.yaml")});
  EXPECT_EQ(both.code, 2);
}

}  // namespace
}  // namespace ioplan
