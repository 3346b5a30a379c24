// `ioplan scan` and `ioplan host` as a shell sees them: what is printed where, exit codes, bad input in words.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "cli/app.h"
#include "constraints/kernel_law.h"
#include "engine/document/host_document.h"
#include "engine/planner/usability.h"
#include "tests/support/machine_tree.h"
#include "tests/support/paths.h"

namespace ioplan {
namespace {

namespace fs = std::filesystem;
using cli::Outcome;
using ::testing::HasSubstr;
using ::testing::Not;

std::string bytes_of(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

class HostCommand : public ::testing::Test {
 protected:
  HostCommand() {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    machine_tree::write(machine_.files, at("machine"));
  }
  ~HostCommand() override { fs::remove_all(folder_); }

  std::string at(const std::string& name) const { return (folder_ / name).string(); }

  fs::path folder_ = fs::temp_directory_path() / fmt::format("ioplan-host-test-{}", getpid());
  machine_tree::Machine machine_ = machine_tree::make({Driver::intel, 3, 12, false, 5});
};

TEST_F(HostCommand, ACaptureIsAsGoodAsTheMachine) {
  const Outcome live = cli::run({"scan", "--root", at("machine")});
  EXPECT_EQ(live.code, 0);
  EXPECT_THAT(live.err, HasSubstr("facts are unknown"));
  const Outcome captured = cli::run({"scan", "--root", at("machine"), "--capture", at("m.tar")});
  EXPECT_EQ(captured.code, 0);
  EXPECT_EQ(captured.out, "");
  EXPECT_EQ(cli::run({"scan", "--root", at("m.tar")}).out, live.out);
  EXPECT_EQ(cli::run({"host", at("m.tar"), at("m.tar")}).out, "no difference\n");
}

TEST_F(HostCommand, OutputGoesWhereItIsSent) {
  const std::string yaml = cli::run({"scan", "--root", at("machine")}).out;
  EXPECT_EQ(cli::run({"scan", "--root", at("machine"), "-o", at("host.yaml")}).out, "");
  EXPECT_EQ(bytes_of(at("host.yaml")), yaml);
  cli::run({"scan", "--root", at("machine"), "-o", at("host.json")});
  EXPECT_EQ(bytes_of(at("host.json")), cli::run({"scan", "--root", at("machine"), "-o", "json"}).out);
  EXPECT_EQ(cli::run({"scan", "--root", at("machine"), "-o", "text"}).out, cli::run({"host", at("host.yaml")}).out);
  EXPECT_EQ(cli::run({"host", at("host.yaml"), at("host.json")}).code, 0);
}

TEST_F(HostCommand, BadInputIsToldInWords) {
  EXPECT_EQ(cli::run({"scan", "--root", at("nowhere")}).code, 2);
  EXPECT_THAT(cli::run({"scan", "--root", at("nowhere")}).err, HasSubstr("cannot read the capture: No such file or directory"));
  EXPECT_THAT(cli::run({"scan", "-o", "host.txt.gz"}).err, HasSubstr("`host.txt.gz` is no format"));
  EXPECT_EQ(cli::run({"scan", "--root", at("machine"), "-o", at("no/host.yaml")}).code, 2);
  EXPECT_EQ(cli::run({"scan", "--root", at("machine"), "--iommufd"}).code, 2);
  EXPECT_EQ(cli::run({"host"}).code, 2);
  EXPECT_EQ(cli::run({"host", at("nowhere.yaml")}).code, 2);
}

TEST_F(HostCommand, TwoHostsAreComparedByTheirFacts) {
  Host a = machine_.host, b = machine_.host;
  b.name = "other";  // no fact
  b.sources = {{"kernel.release", "x"}};
  b.kernel.release = "6.6";
  b.units[1].facts[UnitFact::ecap] = *b.units[1].facts[UnitFact::ecap] ^ 0x80;
  b.devices.pop_back();
  std::ofstream(at("a.yaml")) << to_yaml(a);
  std::ofstream(at("b.yaml")) << to_yaml(b);
  const Outcome differ = cli::run({"host", at("a.yaml"), at("b.yaml"), "-o", "json"});
  EXPECT_EQ(differ.code, 1);
  const auto json = nlohmann::json::parse(differ.out);
  EXPECT_EQ(json["same"], false);
  ASSERT_EQ(json["differences"].size(), 3U) << differ.out;
  EXPECT_EQ(json["differences"][0]["fact"], "devices." + a.devices.back().id);
  EXPECT_EQ(json["differences"][0]["second"], nullptr);
  EXPECT_EQ(json["differences"][1]["fact"], "iommus.dmar1.ecap");
  ASSERT_EQ(json["differences"][1]["fields"].size(), 1U);
  EXPECT_THAT(json["differences"][1]["fields"][0].get<std::string>(), HasSubstr("SC "));
  EXPECT_EQ(json["differences"][2]["fact"], "kernel.release");
}

// What the law refuses is refused here with the rule's name; bridges are not asked.
TEST_F(HostCommand, WhatCannotBeUsedIsToldWithItsRule) {
  Host host = machine_.host;
  host.devices[0].reserved = {{{0x1000, 0x1fff}, ReservedType::direct}};
  host.devices[1].unit.reset();
  host.devices[2].facts[DeviceFact::device_class] = 0x060400;
  host.devices[2].group.reset();
  const auto unusable = unusable_devices(host, kernel_law());
  ASSERT_EQ(unusable.size(), 2U);
  EXPECT_EQ(unusable[0].device, host.devices[0].id);
  EXPECT_EQ(unusable[0].rule, "usable.direct-region");
  EXPECT_EQ(unusable[1].because, host.devices[1].id + " has no known IOMMU");
}

TEST_F(HostCommand, ADocumentMayComeThroughAPipe) {
  int ends[2] = {-1, -1};
  ASSERT_EQ(pipe(ends), 0);
  const std::string text = "apiVersion: ioplan/v1\nkind: Host\nname: piped\nkernel: {release: 7.2.13}\n";
  ASSERT_EQ(write(ends[1], text.data(), text.size()), static_cast<ssize_t>(text.size()));
  close(ends[1]);
  std::ofstream(at("same.yaml")) << text;
  EXPECT_EQ(cli::run({"host", at("same.yaml"), fmt::format("/dev/fd/{}", ends[0])}).out, "no difference\n");
  close(ends[0]);
}

TEST_F(HostCommand, AHostWithoutAnythingCanBeShown) {
  std::ofstream(at("empty.yaml")) << "apiVersion: ioplan/v1\nkind: Host\n";
  EXPECT_EQ(cli::run({"host", at("empty.yaml")}).code, 0);
  EXPECT_EQ(cli::run({"host", at("empty.yaml"), "-o", "json"}).code, 0);
}

// The example's document is what a scan of its machine gives.
TEST(HostExample, IsAScan) {
  const fs::path example = source_folder() / "examples/capture";
  EXPECT_EQ(bytes_of(example / "host.yaml"), cli::run({"scan", "--root", (example / "machine").string()}).out);
}

}  // namespace
}  // namespace ioplan
