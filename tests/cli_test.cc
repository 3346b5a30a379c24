// The program as a shell sees it: exit codes, which stream says what, and every bad input's exact message.
//
// The contract (README.md): 0 yes, 1 no, 2 usage or bad input, 3 undecided, 4 rolled back; stdout is the result and stays empty on 2;
// diagnostics go to stderr, one line each, the place first, advice on a `help:` line. Runs the built program in a
// folder of its own. tests/examples_test.cc holds what it prints for the examples; tests/document_test.cc every error
// of documents.
#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "constraints/catalog.h"
#include "tests/support/paths.h"

namespace ioplan {
namespace {

namespace fs = std::filesystem;

struct Ran {
  int exit = -1;
  std::string out, err;
};

std::string read_file(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

class Cli : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / fmt::format("ioplan-cli-test-{}", getpid());
    fs::create_directories(folder_);
    home_ = fs::current_path();
    fs::current_path(folder_);
  }
  void TearDown() override {
    fs::current_path(home_);
    fs::remove_all(folder_);
  }

  static void write(const std::string& name, const std::string& text) { std::ofstream(name, std::ios::binary) << text; }

  // Runs the program without a shell, so that nothing needs quoting.
  static Ran run(const std::vector<std::string>& arguments) {
    std::vector<std::string> words = {ioplan_program()};
    words.insert(words.end(), arguments.begin(), arguments.end());
    std::vector<char*> argv;
    for (std::string& w : words) argv.push_back(w.data());
    argv.push_back(nullptr);
    const pid_t child = fork();
    if (child == 0) {
      const int out = open("stdout", O_CREAT | O_TRUNC | O_WRONLY, 0644),
                err = open("stderr", O_CREAT | O_TRUNC | O_WRONLY, 0644);
      dup2(out, 1);
      dup2(err, 2);
      execv(argv[0], argv.data());
      _exit(127);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, read_file("stdout"), read_file("stderr")};
  }

  // "plan three-drhd/host three-drhd/vm": words with a slash are files of the examples.
  static Ran ran(const std::string& line) {
    std::vector<std::string> arguments;
    std::istringstream words(line);
    for (std::string word; words >> word;) {
      const bool example = word.find('/') != std::string::npos && !word.starts_with('/');
      arguments.push_back(example ? source_folder().string() + "/examples/" + word + ".yaml" : word);
    }
    return run(arguments);
  }

  static void expect_bad(const Ran& r, const std::string& message) {
    EXPECT_EQ(r.exit, 2);
    EXPECT_EQ(r.out, "");
    EXPECT_EQ(r.err, message);
  }

  fs::path folder_, home_;
};

const char* const kDrhd = " three-drhd/host three-drhd/vm";

// ------------------------------------------------------------------------------------------------------- exit codes

TEST_F(Cli, SaysYesNoAndUndecided) {
  const Ran yes = ran("plan three-drhd/host three-drhd/vm");
  EXPECT_EQ(yes.exit, 0);
  EXPECT_EQ(yes.err, "");
  EXPECT_NE(yes.out.find("1 HWPT"), std::string::npos) << yes.out;

  const Ran no = ran("plan infeasible-rmrr/host infeasible-rmrr/vm");
  EXPECT_EQ(no.exit, 1);
  EXPECT_EQ(no.err, "");
  EXPECT_NE(no.out.find("1:1 mapping"), std::string::npos) << no.out;

  write("host.yaml",
        "apiVersion: ioplan/v1\nkind: Host\niommus: [{id: u, driver: intel, cap: 0xd2008c40660462}]\n"
        "devices: [{id: d, iommu: u, group: 1}]\n");
  write("vm.yaml",
        "apiVersion: ioplan/v1\nkind: VirtualMachine\nname: v\nmemory: {size: 1GiB}\nmachine: {type: q35, cpu_vendor: "
        "intel}\n"
        "devices: [{host: d}]\n");
  const Ran undecided = run({"plan", "host.yaml", "vm.yaml", "-o", "json"});
  EXPECT_EQ(undecided.exit, 3);
  const auto plan = nlohmann::json::parse(undecided.out);
  EXPECT_EQ(plan["verdict"], "undecided");
  EXPECT_EQ(plan["unknown"][0]["fact"], "iommus.u.ecap");
}

// Nothing is mapped for whom nothing is passed through; the judge, who doubts every plan, agrees.
TEST_F(Cli, AVmWithoutDevicesNeedsNothing) {
  write("vm.yaml", "apiVersion: ioplan/v1\nkind: VirtualMachine\nname: bare\nmemory: {size: 4GiB}\n");
  const std::string host = source_folder().string() + "/examples/three-drhd/host.yaml";
  const Ran alone = run({"plan", host, "vm.yaml", "-o", "json"});
  EXPECT_EQ(alone.exit, 0) << alone.err;
  const auto plan = nlohmann::json::parse(alone.out);
  EXPECT_TRUE(plan["ioas"].empty());
  EXPECT_EQ(plan["resources"]["pinned_bytes"], 0);
  const Ran beside = run({"plan", host, "vm.yaml", source_folder().string() + "/examples/three-drhd/vm.yaml"});
  EXPECT_EQ(beside.exit, 0) << beside.err;
  EXPECT_NE(beside.out.find("1 HWPT"), std::string::npos) << beside.out;
}

TEST_F(Cli, UsageErrors) {
  expect_bad(ran(""), "error: a subcommand is required\nhelp: `ioplan --help` shows how\n");
  expect_bad(ran("paln x"), "error: no command `paln`\nhelp: did you mean `plan`?\n");
  expect_bad(ran("frobnicate"), "error: no command `frobnicate`\nhelp: `ioplan --help` lists the commands\n");
  expect_bad(ran("plan"), "error: FILE is required\nhelp: `ioplan plan --help` shows how\n");
  expect_bad(ran("plan --bogus x"),
             "error: the following argument was not expected: --bogus\nhelp: `ioplan plan --help` shows how\n");
  expect_bad(ran("plan -o xml x"),
             "error: --output: xml not in {text,json,yaml}\nhelp: `ioplan plan --help` shows how\n");
  expect_bad(ran("plan -o 1 x"), "error: --output: 1 not in {text,json,yaml}\nhelp: `ioplan plan --help` shows how\n");
  expect_bad(ran("plan --solver guess x"),
             "error: --solver: guess not in {cover,symbolic}\nhelp: `ioplan plan --help` shows how\n");
  expect_bad(ran("check"), "error: PLAN is required\nhelp: `ioplan check --help` shows how\n");
  expect_bad(ran("rules a b"),
             "error: the following argument was not expected: b\nhelp: `ioplan rules --help` shows how\n");
}

TEST_F(Cli, HelpHasAnExampleForEveryCommand) {
  const Ran all = ran("--help");
  EXPECT_EQ(all.exit, 0);
  EXPECT_EQ(all.err, "");
  for (const char* command : {"plan", "check", "apply", "explain", "rules"}) {
    EXPECT_NE(all.out.find(command), std::string::npos) << command;
    const Ran help = ran(std::string(command) + " --help");
    EXPECT_EQ(help.exit, 0);
    EXPECT_EQ(help.err, "");
    const std::size_t example = help.out.find("Example:\n");
    ASSERT_NE(example, std::string::npos) << help.out;
    EXPECT_NE(
        help.out.find("\n  ioplan " + std::string(command) + (command == std::string("rules") ? "" : " "), example),
        std::string::npos)
        << help.out;
  }
  EXPECT_TRUE(ran("--version").out.starts_with("ioplan "));
}

// ------------------------------------------------------------------------------------------------------------ rules

TEST_F(Cli, RulesListsAllAndExplainsOne) {
  const Ran list = ran("rules");
  EXPECT_EQ(list.exit, 0);
  const auto json = nlohmann::json::parse(ran("rules -o json").out);
  ASSERT_EQ(json.size(), catalog().size());
  for (std::size_t i = 0; i < catalog().size(); ++i) {
    EXPECT_EQ(json[i]["name"], catalog()[i]->name);
    EXPECT_EQ(json[i]["law"], catalog()[i]->law);
    EXPECT_NE(list.out.find("\n" + std::string(catalog()[i]->name) + " "), i == 0 ? 0 : std::string::npos);
    EXPECT_NE(list.out.find(catalog()[i]->source), std::string::npos);
  }
  const Ran one = ran("rules intel.second-stage.levels");
  EXPECT_EQ(one.exit, 0);
  for (const char* part :
       {"intel.second-stage.levels\n", "The target unit must walk exactly", "asked:  attach",
        "paging_domain_compatible_second_stage", "EINVAL", "hwpt.level_bit within device.walk_levels"}) {
    EXPECT_NE(one.out.find(part), std::string::npos) << part << "\n" << one.out;
  }
  EXPECT_NE(ran("rules intel.first-stage.width").out.find("not checked by Linux"), std::string::npos);
}

TEST_F(Cli, RulesSuggestsANearName) {
  expect_bad(ran("rules intel.second-stage.level"),
             "error: no rule is named `intel.second-stage.level`\nhelp: did you mean `intel.second-stage.levels`?\n");
  expect_bad(ran("rules zzz"), "error: no rule is named `zzz`\nhelp: `ioplan rules` lists every rule\n");
}

// ------------------------------------------------------------------------------------------------------------ check

TEST_F(Cli, CheckAcceptsAPlanAndRejectsATamperedOne) {
  const std::string plan = ran("plan -o json three-drhd/host three-drhd/vm").out;
  write("plan.json", plan);
  const Ran good = ran(std::string("check plan.json") + kDrhd);
  EXPECT_EQ(good.exit, 0);
  EXPECT_EQ(good.err, "");
  EXPECT_EQ(nlohmann::json::parse(ran(std::string("check plan.json -o json") + kDrhd).out)["accepted"], true);

  using Json = nlohmann::ordered_json;
  const std::vector<std::pair<const char*, std::function<void(Json&)>>> tampered = {
      {"cache coherency", [](Json& p) { p["hwpts"][0]["enforce_cache_coherency"] = true; }},
      {"levels", [](Json& p) { p["hwpts"][0]["levels"] = p["hwpts"][0]["levels"].get<int>() + 1; }},
      {"page sizes", [](Json& p) { p["hwpts"][0]["page_sizes"].push_back(1 << 30); }},
      {"allocator", [](Json& p) { p["hwpts"][0]["allocator"] = "0000:17:00.0"; }},
      {"a device left out", [](Json& p) { p["hwpts"][0]["devices"].erase(0); }},
      {"bound", [](Json& p) { p["optimality"]["lower_bound"] = 0; }},
      {"kvm", [](Json& p) { p["kvm"]["noncoherent_dma"] = false; }},
      {"a step left out", [](Json& p) { p["steps"].erase(p["steps"].size() - 1); }},
      {"verdict", [](Json& p) { p["verdict"] = "infeasible"; }},
  };
  for (const auto& [what, tamper] : tampered) {
    SCOPED_TRACE(what);
    Json changed = Json::parse(plan);
    tamper(changed);
    write("bad.json", changed.dump(2));
    const Ran bad = ran(std::string("check bad.json") + kDrhd);
    EXPECT_EQ(bad.exit, 1);
    EXPECT_EQ(bad.err, "");
    EXPECT_TRUE(bad.out.starts_with("objection (")) << bad.out;
    const auto json = nlohmann::json::parse(ran(std::string("check bad.json -o json") + kDrhd).out);
    EXPECT_EQ(json["accepted"], false);
    EXPECT_FALSE(json["objections"].empty());
  }
  // A plan for one request is no plan for another.
  EXPECT_EQ(ran("check plan.json three-drhd/host three-drhd/vm three-drhd/policy").exit, 1);
}

TEST_F(Cli, CheckReadsOnlyPlans) {
  const Ran host = ran("check three-drhd/host three-drhd/host three-drhd/vm");
  EXPECT_EQ(host.exit, 2);
  EXPECT_EQ(host.out, "");
  EXPECT_NE(host.err.find("error: a Host is not a Plan\nhelp: `ioplan plan -o json` prints a Plan\n"),
            std::string::npos)
      << host.err;
  expect_bad(ran(std::string("check plan.json") + kDrhd),
             "plan.json: error: cannot open `plan.json`: No such file or directory\nhelp: check the path\n");
}

// ------------------------------------------------------------------------------------------------------------ apply

TEST_F(Cli, ApplyCarriesAPlanOut) {
  write("plan.json", ran(std::string("plan -o json") + kDrhd).out);
  const Ran done = ran(std::string("apply plan.json --backend sim") + kDrhd);
  EXPECT_EQ(done.exit, 0);
  EXPECT_EQ(done.err, "");
  EXPECT_TRUE(done.out.starts_with("applied on sim: three on three-drhd\n")) << done.out;
  for (const char* part : {"  11. done    map 0x100000000-0x107fffffff rw in ioas0\n", "observed, as predicted\n",
                           "    hwpt0  vtd-ss stage 2, 5 levels, 57 bits, 4KiB 2MiB, does not block no-snoop, 268KiB of tables\n",
                           "    pinned 64GiB\n"}) {
    EXPECT_NE(done.out.find(part), std::string::npos) << part << done.out;
  }
  // The Host document is enough; the others let the judge doubt the plan first.
  EXPECT_EQ(ran("apply plan.json --backend sim three-drhd/host").out, done.out);

  const auto report = nlohmann::json::parse(ran(std::string("apply plan.json --backend sim -o json") + kDrhd).out);
  EXPECT_EQ(report["outcome"], "done");
  EXPECT_EQ(report["steps"].size(), 11U);
  for (const char* nothing : {"failed_step", "error"}) EXPECT_TRUE(report[nothing].is_null()) << nothing;
  for (const char* nothing : {"differences", "remains"}) EXPECT_TRUE(report[nothing].is_array() && report[nothing].empty()) << nothing;
  const auto plan = nlohmann::json::parse(read_file("plan.json"));
  EXPECT_EQ(report["observed"]["ioas"][0]["ranges"], plan["ioas"][0]["ranges"]);
  EXPECT_EQ(report["observed"]["pinned_bytes"], plan["resources"]["pinned_bytes"]);
  for (const char* field : {"id", "ioas", "allocator", "flags", "driver", "stage", "format", "levels", "address_bits", "aperture", "page_sizes",
                            "enforce_cache_coherency", "page_table_bytes", "devices"}) {
    EXPECT_EQ(report["observed"]["hwpts"][0][field], plan["hwpts"][0][field]) << field;
  }
}

TEST_F(Cli, ApplyCanOnlyLook) {
  write("plan.json", ran(std::string("plan -o json") + kDrhd).out);
  const Ran dry = ran(std::string("apply plan.json --backend sim --dry-run") + kDrhd);
  EXPECT_EQ(dry.exit, 0);
  EXPECT_TRUE(dry.out.starts_with("dry run on sim: three on three-drhd; nothing is touched\n\n    1. allocate ioas0\n")) << dry.out;
  EXPECT_EQ(dry.out.find("observed"), std::string::npos);
  const auto report = nlohmann::json::parse(ran("apply plan.json --backend sim --dry-run -o json three-drhd/host").out);
  EXPECT_EQ(report["outcome"], "dry-run");
  EXPECT_TRUE(report["observed"].is_null());
}

TEST_F(Cli, ApplyRollsBack) {
  write("plan.json", ran(std::string("plan -o json") + kDrhd).out);
  const Ran back = ran(std::string("apply plan.json --backend sim --fail-nth 5") + kDrhd);
  EXPECT_EQ(back.exit, 4);
  EXPECT_TRUE(back.out.starts_with("rolled back on sim: three on three-drhd; the world is as before\n\n    1. undone  allocate ioas0\n"))
      << back.out;
  EXPECT_NE(back.out.find(". failed  "), std::string::npos) << back.out;
  EXPECT_TRUE(back.err.starts_with("error: step ")) << back.err;
  EXPECT_NE(back.err.find("ENOMEM: "), std::string::npos) << back.err;
  const Ran document = ran(std::string("apply plan.json --backend sim --fail-nth 5 -o json") + kDrhd);
  EXPECT_EQ(document.exit, 4);
  const auto report = nlohmann::json::parse(document.out);
  EXPECT_EQ(report["outcome"], "rolled-back");
  EXPECT_EQ(report["error"]["errno"], "ENOMEM");
  EXPECT_NE(back.out.find(fmt::format("{:>5}. failed", report["failed_step"].get<int>())), std::string::npos) << back.out;

  const Ran none = ran(std::string("apply plan.json --backend sim --fail-nth 100000") + kDrhd);
  EXPECT_EQ(none.exit, 0);
  EXPECT_EQ(none.err, "warning: fewer than 100000 operations that can fail were needed; none failed\n");
}

TEST_F(Cli, ApplyRefusesWhatIsNotForThisHost) {
  const std::string text = ran(std::string("plan -o json") + kDrhd).out;
  write("plan.json", text);
  const auto fingerprint = [](const std::string& plan) {
    return nlohmann::json::parse(plan)["host"]["fingerprint"].get<std::string>();
  };
  const std::string other = ran("plan -o json client-igpu/host client-igpu/vm").out;
  const std::string name = YAML::LoadFile(source_folder().string() + "/examples/client-igpu/host.yaml")["name"].as<std::string>();
  expect_bad(ran("apply plan.json --backend sim client-igpu/host client-igpu/vm"),
             "error: the plan was made for a host with fingerprint `" + fingerprint(text) + "`, and `" + name + "` has `" +
                 fingerprint(other) + "`\nhelp: name the host document that the plan was made from, or plan again for this host\n");

  write("no.json", ran("plan -o json infeasible-rmrr/host infeasible-rmrr/vm").out);
  const Ran no = ran("apply no.json --backend sim infeasible-rmrr/host");
  EXPECT_EQ(no.exit, 1);
  EXPECT_EQ(no.out, "");
  EXPECT_EQ(no.err, "error: the plan is infeasible: there is nothing to apply\n");

  auto undecided = nlohmann::ordered_json::parse(text);
  undecided["verdict"] = "undecided";
  write("undecided.json", undecided.dump());
  EXPECT_EQ(ran("apply undecided.json --backend sim three-drhd/host").exit, 3);

  auto wrong = nlohmann::ordered_json::parse(text);
  wrong["steps"].erase(wrong["steps"].size() - 1);
  write("wrong.json", wrong.dump());
  const Ran doubted = ran(std::string("apply wrong.json --backend sim") + kDrhd);
  EXPECT_EQ(doubted.exit, 1);
  EXPECT_EQ(doubted.out, "");
  EXPECT_TRUE(doubted.err.starts_with("error: the judge objects (steps): ")) << doubted.err;
  // Without the VM nobody doubts it, and the world shows what is wrong.
  const Ran shown = ran("apply wrong.json --backend sim three-drhd/host");
  EXPECT_EQ(shown.exit, 4);
  EXPECT_TRUE(shown.err.starts_with("error: ioas0.memory: predicted 0x0-0x7fffffff 0x100000000-0x107fffffff, observed 0x0-0x7fffffff")) << shown.err;
  EXPECT_NE(shown.out.find("  resources.pinned_bytes: predicted 64GiB, observed 2GiB\n"), std::string::npos) << shown.out;
}

TEST_F(Cli, ApplyKnowsItsBackends) {
  write("plan.json", ran(std::string("plan -o json") + kDrhd).out);
  expect_bad(ran("apply plan.json --backend type1 three-drhd/host"),
             "error: the plan is for iommufd: VFIO type1 makes other page tables of the same devices\nhelp: plan again with `ioplan plan "
             "--backend type1`\n");
  expect_bad(ran("apply plan.json three-drhd/host"), "error: --backend is required\nhelp: `ioplan apply --help` shows how\n");
  expect_bad(ran("apply plan.json --backend qemu three-drhd/host"),
             "error: --backend: qemu not in {sim,iommufd,type1}\nhelp: `ioplan apply --help` shows how\n");
}

TEST_F(Cli, ApplyLooksAtPassedDescriptors) {
  write("plan.json", ran(std::string("plan -o json") + kDrhd).out);
  const std::string apply = "apply plan.json --backend iommufd three-drhd/host ";
  expect_bad(ran(apply + "--iommu-fd 999"),
             "error: descriptor 999, passed as /dev/iommu, is not open\nhelp: a parent must leave it open across exec: without "
             "FD_CLOEXEC\n");
  expect_bad(ran(apply + "--iommu-fd 0"), "error: descriptor 0 is not /dev/iommu\n");
  expect_bad(ran(apply + "--device-fd 7"), "error: `--device-fd 7` is no DEVICE=N\nhelp: for example `--device-fd 0000:01:00.0=7`\n");
  expect_bad(ran(apply + "--device-fd 0000:17:00.0=x"),
             "error: `--device-fd 0000:17:00.0=x` is no DEVICE=N\nhelp: for example `--device-fd 0000:01:00.0=7`\n");
  expect_bad(ran(apply + "--device-fd 0000:99:00.0=7"),
             "error: `--device-fd 0000:99:00.0=7`: the plan has no device `0000:99:00.0`\n"
             "help: it binds 0000:17:00.0, 0000:65:00.0, 0000:b2:00.0\n");
  expect_bad(ran(apply + "--device-fd 0000:17:00.0=7 --device-fd 0000:17:00.0=8"), "error: `0000:17:00.0` is passed twice\n");
  for (const char* option : {"--iommu-fd 3", "--device-fd 0000:17:00.0=3", "--accounting per-process"}) {
    expect_bad(ran(std::string("apply plan.json --backend sim three-drhd/host ") + option),
               "error: `--iommu-fd`, `--device-fd` and `--accounting` are about /dev/iommu\nhelp: give them with `--backend iommufd`\n");
  }
}

// The example's host lets all three share; type1 keeps devices whose IOMMUs can and cannot block no-snoop apart.
TEST_F(Cli, Type1PlansAreMadeCheckedAndApplied) {
  const Ran text = ran(std::string("plan --backend type1") + kDrhd);
  EXPECT_EQ(text.exit, 0) << text.err;
  EXPECT_TRUE(text.out.starts_with("feasible: three on three-drhd: ")) << text.out;
  EXPECT_NE(text.out.find(" for 3 devices, through VFIO type1\n"), std::string::npos) << text.out;
  EXPECT_NE(text.out.find(" when its group joins\n"), std::string::npos) << text.out;
  EXPECT_NE(text.out.find(" when groups join in the order of their ids\n"), std::string::npos) << text.out;
  EXPECT_EQ(text.out.find(". bind "), std::string::npos) << text.out;

  write("plan.json", ran(std::string("plan --backend type1 -o json") + kDrhd).out);
  EXPECT_EQ(nlohmann::json::parse(read_file("plan.json"))["backend"], "type1");
  EXPECT_EQ(ran(std::string("check plan.json") + kDrhd).exit, 0);
  EXPECT_EQ(ran(std::string("explain plan.json") + kDrhd).exit, 0);
  const Ran done = ran(std::string("apply plan.json --backend sim") + kDrhd);
  EXPECT_EQ(done.exit, 0) << done.err;
  EXPECT_NE(done.out.find("observed, as predicted\n"), std::string::npos) << done.out;
  expect_bad(ran("apply plan.json --backend iommufd three-drhd/host"),
             "error: the plan is for VFIO type1: its page tables are made by groups that join a container\nhelp: apply it with "
             "`--backend type1`, or plan again without `--backend type1`\n");

  auto other = nlohmann::ordered_json::parse(read_file("plan.json"));
  other.erase("backend");
  write("other.json", other.dump());
  EXPECT_EQ(ran(std::string("check other.json") + kDrhd).exit, 1);
  expect_bad(ran(std::string("plan --backend type1 --solver symbolic") + kDrhd),
             "error: `--solver symbolic` and `--emit-smt2` know iommufd only\nhelp: leave them away: `ioplan check` replays a type1 "
             "plan with code of its own\n");
}

// The device behind dmar2 is the one that cannot block no-snoop: what runs without it is another layout.
TEST_F(Cli, RunningVmsAreAskedAbout) {
  const auto on_drhd = [](const std::string& line) { return ran(line + kDrhd); };
  write("plan.json", on_drhd("plan -o json").out);
  const std::string remove = "hotplug plan.json --remove 0000:b2:00.0 ";
  const Ran no = on_drhd(remove + "--mode additive");
  EXPECT_EQ(no.exit, 1);
  EXPECT_NE(no.out.find("[lifecycle.unplug-coherency]"), std::string::npos) << no.out;
  EXPECT_NE(no.out.find("a) in converge mode: 1 new HWPT, 2 devices are interrupted"), std::string::npos) << no.out;

  const Ran yes = on_drhd(remove + "--plan-out next.json -o json");
  EXPECT_EQ(yes.exit, 0) << yes.err;
  const auto answer = nlohmann::json::parse(yes.out);
  EXPECT_EQ(answer["interrupted"], (std::vector<std::string>{"0000:17:00.0", "0000:65:00.0"}));
  EXPECT_EQ(answer["steps"].back()["do"], "unbind");
  EXPECT_EQ(answer["plan"]["kvm"]["noncoherent_dma"], false);

  const Ran differ = on_drhd("diff plan.json next.json");
  EXPECT_EQ(differ.exit, 1);
  EXPECT_NE(differ.out.find("  - hwpt0  0000:17:00.0 0000:65:00.0 0000:b2:00.0\n  + hwpt1  0000:17:00.0 0000:65:00.0\n"),
            std::string::npos)
      << differ.out;
  EXPECT_EQ(on_drhd("diff plan.json plan.json").exit, 0);
  EXPECT_NE(on_drhd("headroom next.json").out.find("0000:b2:00.0     yes, with a new HWPT; the guest notices"),
            std::string::npos);
  const Ran landing = ran("migrate plan.json --to three-drhd/host three-drhd/host three-drhd/vm");
  EXPECT_EQ(landing.exit, 0) << landing.err;
  EXPECT_TRUE(landing.out.starts_with("three-drhd: yes, but only stopped\n")) << landing.out;
  EXPECT_EQ(on_drhd("observe plan.json --backend sim").exit, 0);
  EXPECT_EQ(on_drhd("observe plan.json --backend sim --running next.json").exit, 1);

  EXPECT_EQ(on_drhd("apply plan.json --backend sim --to next.json --to plan.json").exit, 0);
  EXPECT_EQ(on_drhd("apply plan.json --backend sim --to next.json --fail-nth 2").exit, 4);
  expect_bad(on_drhd("hotplug plan.json"),
             "error: nothing is to change\nhelp: `--add DEVICE`, `--remove DEVICE` or `--memory +SIZE`\n");
  expect_bad(on_drhd("observe plan.json --backend iommufd --running next.json"),
             "error: `--running` is what a simulated host runs\nhelp: give it with `--backend sim`\n");
}

TEST_F(Cli, Type1PlansGoOnInContainers) {
  const auto on_drhd = [&](const std::string& command) { return ran(command + std::string(kDrhd)); };
  write("plan.json", on_drhd("plan --backend type1 -o json").out);
  const Ran less = on_drhd("hotplug plan.json --remove 0000:17:00.0 --mode converge --plan-out less.json");
  EXPECT_EQ(less.exit, 0) << less.err;
  const Ran more = on_drhd("hotplug less.json --add 0000:17:00.0 --mode converge --plan-out more.json");
  EXPECT_EQ(more.exit, 0) << more.err;
  EXPECT_NE(more.out.find("open 0000:17:00.0 and register its file with KVM"), std::string::npos) << more.out;
  EXPECT_EQ(more.out.find("bind"), std::string::npos) << more.out;
  EXPECT_EQ(on_drhd("diff plan.json less.json").exit, 1);
  EXPECT_TRUE(on_drhd("headroom less.json").out.find("0000:17:00.0") != std::string::npos);
  EXPECT_EQ(on_drhd("observe less.json --backend sim").exit, 0);
  EXPECT_EQ(on_drhd("observe plan.json --backend sim --running less.json").exit, 1);
  EXPECT_EQ(on_drhd("apply plan.json --backend sim --to less.json --to more.json").exit, 0);
  EXPECT_EQ(on_drhd("apply plan.json --backend sim --to less.json --to more.json --fail-nth 1").exit, 4);
  EXPECT_EQ(ran("migrate less.json --to three-drhd/host three-drhd/host three-drhd/vm").exit, 0);

  write("iommufd.json", on_drhd("plan -o json").out);
  const std::string other = "error: `iommufd.json` is a plan for iommufd, and what runs is in type1\n"
                            "help: plan it with `ioplan plan --backend type1`\n";
  expect_bad(on_drhd("diff plan.json iommufd.json"), other);
  expect_bad(on_drhd("apply plan.json --backend sim --to iommufd.json"), other);
  expect_bad(on_drhd("observe plan.json --backend sim --running iommufd.json"), other);
  // What a container makes of groups is its steps' doing; a file that says otherwise is no layout.
  std::string text = on_drhd("plan --backend type1 -o json").out;
  text.replace(text.rfind("\"hwpt\": \"hwpt1\""), 15, "\"hwpt\": \"hwpt9\"");
  write("other.json", text);
  for (const char* command : {"diff plan.json other.json", "hotplug other.json --remove 0000:17:00.0", "headroom other.json",
                              "apply plan.json --backend sim --to other.json"}) {
    expect_bad(on_drhd(command),
               "error: a step of the plan lets `0000:65:00.0` join `hwpt9`, which is not where the plan has it\n"
               "help: plan again with `ioplan plan`, or take what `hotplug --plan-out` wrote\n");
  }
  text = on_drhd("plan -o json").out;
  text.replace(text.find("0000:17:00.0", text.find("\"hwpts\"")), 12, "0000:17:00.9");
  write("nobody.json", text);
  expect_bad(on_drhd("headroom nobody.json"),
             "error: the plan names `0000:17:00.9`, and the host has no such device\n"
             "help: plan again with `ioplan plan`, or take what `hotplug --plan-out` wrote\n");
  expect_bad(on_drhd("observe plan.json --backend iommufd"),
             "error: the plan is not for iommufd\nhelp: name the interface that it was planned for\n");
}

// stderr of the program when it is a terminal.
std::string on_a_terminal(std::vector<std::string> words) {
  const int terminal = posix_openpt(O_RDWR | O_NOCTTY);
  if (terminal < 0 || grantpt(terminal) != 0 || unlockpt(terminal) != 0) return "no terminal";
  const int shown = open(ptsname(terminal), O_RDWR | O_NOCTTY);
  std::vector<char*> argv;
  for (std::string& w : words) argv.push_back(w.data());
  argv.push_back(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    dup2(open("/dev/null", O_WRONLY), 1);
    dup2(shown, 2);
    execv(argv[0], argv.data());
    _exit(127);
  }
  waitpid(child, nullptr, 0);
  std::array<char, 4096> text{};
  const ssize_t n = read(terminal, text.data(), text.size());
  close(shown);
  close(terminal);
  return n > 0 ? std::string(text.data(), static_cast<std::size_t>(n)) : "";
}

TEST_F(Cli, ProgressIsForTerminals) {
  write("plan.json", ran(std::string("plan -o json") + kDrhd).out);
  const std::string host = source_folder().string() + "/examples/three-drhd/host.yaml";
  const std::string shown = on_a_terminal({ioplan_program(), "apply", "plan.json", "--backend", "sim", host});
  EXPECT_TRUE(shown.starts_with("\r\033[Kstep 1/11")) << shown;
  EXPECT_TRUE(shown.ends_with("\r\033[K")) << "the line is wiped";
}

// ---------------------------------------------------------------------------------------------------------- explain

TEST_F(Cli, ExplainSaysWhyAndWhyNot) {
  write("plan.json", ran("plan -o json three-drhd/host three-drhd/vm three-drhd/policy").out);
  const std::string files = " three-drhd/host three-drhd/vm three-drhd/policy";
  const Ran all = ran("explain plan.json" + files);
  EXPECT_EQ(all.exit, 0) << all.err;
  EXPECT_NE(all.out.find("hwpt0: allocated for "), std::string::npos) << all.out;
  EXPECT_NE(all.out.find("cannot be merged with hwpt1: "), std::string::npos) << all.out;
  const auto plan = nlohmann::json::parse(read_file("plan.json"));
  const std::string stranger = plan["hwpts"][1]["devices"][0];
  const Ran why_not = ran("explain plan.json why-not " + stranger + " hwpt0" + files);
  EXPECT_EQ(why_not.exit, 0) << why_not.err;
  EXPECT_NE(why_not.out.find("REFUSES"), std::string::npos) << why_not.out;
  EXPECT_NE(why_not.out.find(stranger + " may not join hwpt0."), std::string::npos) << why_not.out;
  const std::string member = plan["hwpts"][0]["devices"][0];
  EXPECT_NE(ran("explain plan.json why-not " + member + " hwpt0" + files).out.find(member + " may join hwpt0."),
            std::string::npos);

  expect_bad(ran("explain plan.json why-not " + member + " hwpt9" + files),
             "error: the plan has no `hwpt9`\nhelp: it has hwpt0 hwpt1\n");
  expect_bad(ran("explain plan.json why-not nobody hwpt0" + files),
             "error: the host has no device `nobody`\nhelp: name a device of the Host document\n");
  expect_bad(ran("explain plan.json why-not " + member + " hwpt0"),
             "error: no file to read\nhelp: name the files with the Host, VirtualMachine and Policy documents\n");
  expect_bad(ran("explain plan.json client-igpu/host client-igpu/vm"),
             "plan.json: error: the plan was made for another host\nhelp: plan again with these documents\n");
}

// --------------------------------------------------------------------------------------------------- second opinions

struct Question {
  std::string files;
  int exit;
};

// Every way of planning that the examples show.
std::vector<Question> questions() {
  std::vector<Question> found;
  for (const auto& entry : fs::directory_iterator(source_folder() / "examples")) {
    if (!entry.is_directory()) continue;
    const std::string folder = entry.path().filename().string();
    std::vector<std::string> vms, policies = {""};
    for (const auto& file : fs::directory_iterator(entry.path())) {
      const std::string stem = file.path().stem().string();
      const std::string text = read_file(file.path());
      if (text.find("kind: VirtualMachine") != std::string::npos && stem != "host") vms.push_back(folder + "/" + stem);
      if (text.find("kind: Policy") != std::string::npos && stem != "host")
        policies.push_back(" " + folder + "/" + stem);
    }
    for (const std::string& vm : vms) {
      for (const std::string& policy : policies) found.push_back({folder + "/host " + vm + policy, 0});
    }
  }
  std::ranges::sort(found, {}, &Question::files);
  return found;
}

TEST_F(Cli, SymbolicSolverAgreesOnTheExamples) {
  std::size_t agreed = 0;
  for (const Question& q : questions()) {
    SCOPED_TRACE(q.files);
    const Ran cover = ran("plan -o json " + q.files);
    if (nlohmann::json::parse(cover.out)["hwpts"].size() > 6) continue;  // slow by design
    const Ran symbolic = ran("plan --solver symbolic -o json " + q.files);
    EXPECT_EQ(symbolic.exit, cover.exit) << symbolic.err;
    EXPECT_EQ(symbolic.out, cover.out);
    if (cover.exit == 3) continue;
    EXPECT_TRUE(symbolic.err.starts_with("z3 agrees: ") || symbolic.err.starts_with("warning: z3 gave up"))
        << symbolic.err;
    agreed += symbolic.err.starts_with("z3 agrees: ");
  }
  EXPECT_GE(agreed, 12U);
}

bool has_z3() { return std::system("z3 --version >/dev/null 2>&1") == 0; }

TEST_F(Cli, OneFewerIsUnsatisfiableForAnySolver) {
  std::size_t asked = 0;
  for (const Question& q : questions()) {
    SCOPED_TRACE(q.files);
    const Ran r = ran("plan -o json --emit-smt2 fewer.smt2 " + q.files);
    if (r.exit != 0) {
      EXPECT_FALSE(fs::exists("fewer.smt2"));
      continue;
    }
    const std::string text = read_file("fewer.smt2");
    EXPECT_NE(text.find("(set-info :status unsat)"), std::string::npos);
    EXPECT_NE(text.find("(check-sat)"), std::string::npos);
    if (has_z3()) {
      EXPECT_EQ(std::system("z3 fewer.smt2 > answer 2>&1"), 0);
      EXPECT_EQ(read_file("answer"), "unsat\n");
      ++asked;
    }
    fs::remove("fewer.smt2");
  }
  if (!has_z3()) GTEST_SKIP() << "the z3 program is not installed";
  EXPECT_GE(asked, 10U);
  expect_bad(ran(std::string("plan --emit-smt2 /nonexistent/q.smt2") + kDrhd),
             "error: cannot write `/nonexistent/q.smt2`\nhelp: choose a file in a directory that can be written\n");
}

// ---------------------------------------------------------------------------------------------------------- outputs

TEST_F(Cli, YamlAndJsonAreTheSamePlan) {
  for (const Question& q : questions()) {
    SCOPED_TRACE(q.files);
    const Ran json = ran("plan -o json " + q.files), yaml = ran("plan -o yaml " + q.files);
    EXPECT_EQ(json.exit, yaml.exit);
    write("plan.json", json.out);
    write("plan.yaml", yaml.out);
    const YAML::Node read = YAML::Load(yaml.out);
    EXPECT_EQ(read["verdict"].as<std::string>(), nlohmann::json::parse(json.out)["verdict"]);
    // The judge reads both.
    const Ran a = ran("check plan.json " + q.files), b = ran("check plan.yaml " + q.files);
    EXPECT_EQ(a.exit, b.exit);
    EXPECT_EQ(a.out, b.out);
    EXPECT_EQ(a.exit, 0) << a.out << a.err;
  }
}

TEST_F(Cli, CompareShowsWhatOthersWouldDo) {
  const Ran text = ran(std::string("plan --compare") + kDrhd);
  EXPECT_EQ(text.exit, 0);
  for (const char* walk : {"kernel", "qemu", "type1"}) EXPECT_NE(text.out.find(walk), std::string::npos) << text.out;
  const auto json = nlohmann::json::parse(ran(std::string("plan --compare -o json") + kDrhd).out);
  ASSERT_EQ(json["compare"].size(), 3U);
  std::size_t orders = 0;
  for (const auto& entry : json["compare"][0]["valid"]) {
    EXPECT_GE(entry["hwpts"], json["hwpts"].size());
    orders += entry["orders"].get<std::size_t>();
  }
  for (const auto& entry : json["compare"][0]["unsafe"]) orders += entry["orders"].get<std::size_t>();
  EXPECT_EQ(orders + json["compare"][0]["failed"].get<std::size_t>(), 6U);  // three groups: every order
}

TEST_F(Cli, NoColourWithoutATerminal) {
  EXPECT_EQ(ran(std::string("plan") + kDrhd).out.find('\x1b'), std::string::npos);
}

// --------------------------------------------------------------------------------------------------------- bad input

const std::string kHost = "apiVersion: ioplan/v1\nkind: Host\n";
const std::string kVm = "apiVersion: ioplan/v1\nkind: VirtualMachine\nname: v\n";
const std::string kTwoInAGroup = kHost + "devices: [{id: a, group: 1}, {id: b, group: 1}]\n";

struct Bad {
  const char* name;
  std::string text, message;
};

std::vector<Bad> bad_hosts() {
  return {
      {"unknown.yaml", kHost + "iomus: []\n",
       "unknown.yaml:3:1: error: unknown key `iomus` in `Host`\nhelp: did you mean `iommus`?\n"},
      {"duplicate.yaml", kHost + "iommus: []\niommus: []\n",
       "duplicate.yaml:4:1: error: duplicate key `iommus`; the first is at duplicate.yaml:3:1\n"},
      {"duplicate.json", R"({"apiVersion": "ioplan/v1", "kind": "Host", "kind": "Host"})",
       "duplicate.json:1:45: error: duplicate key `kind`; the first is at duplicate.json:1:29\n"},
      {"octal.yaml", kHost + "iommus: [{id: a, driver: intel, cap: 010, ecap: 0}]\n",
       "octal.yaml:3:38: error: `010` in `cap` looks octal, and readers disagree about its value\n"
       "help: write `10` for decimal, or `0x8` if octal was meant\n"},
      {"wide.yaml", kHost + "iommus: [{id: a, driver: intel, cap: 0x1d2008c4066046200, ecap: 0}]\n",
       "wide.yaml:3:38: error: `0x1d2008c4066046200` in `cap` does not fit in 64 bits\n"},
      {"unit.yaml", kHost + "devices: [{id: d, iommu: nope}]\n",
       "unit.yaml:3:26: error: device `d` is behind `nope`, which is not among the units\nhelp: list it under "
       "`iommus`\n"},
      {"twice.yaml", kHost + "devices: [{id: d}, {id: d}]\n",
       "twice.yaml:3:20: error: two devices with the id `d`; the first is at twice.yaml:3:11\n"},
      {"bomb.yaml", "a: &a [x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\n",
       "bomb.yaml:1:4: error: YAML anchors are not supported\nhelp: write the value out where it is meant\n"},
      {"junk.yaml",
       std::string("\x7f"
                   "ELF\x02\x01\x01\x00\x00",
                   9),
       "junk.yaml:1:5: error: not text: byte `0x02` is a control character\nhelp: documents are UTF-8 text, YAML or "
       "JSON\n"},
      {"latin1.yaml", kHost + "name: caf\xe9\n",
       "latin1.yaml:3:10: error: not text: byte `0xe9` is not UTF-8\nhelp: documents are UTF-8 text, YAML or JSON\n"},
      {"empty.yaml", "",
       "empty.yaml: error: the file is empty\nhelp: write a document that starts with `apiVersion: ioplan/v1`\n"},
      {"version.yaml", "apiVersion: ioplan/v2\nkind: Host\n",
       "version.yaml:1:13: error: unknown value `ioplan/v2` of `apiVersion`\nhelp: did you mean `ioplan/v1`?\n"},
      {"kind.yaml", "apiVersion: ioplan/v1\nkind: Hst\n",
       "kind.yaml:2:7: error: unknown value `Hst` of `kind`\nhelp: did you mean `Host`?\n"},
      {"scalar.yaml", "x",
       "scalar.yaml:1:1: error: a document must be a map, not a single value\n"
       "help: start it with `apiVersion: ioplan/v1` and `kind: Host`, for example\n"},
      {"cut.json", R"({"apiVersion": "ioplan/v1", "kind": "Host", "iommus": [)",
       "cut.json:1:56: error: not JSON: unexpected end of input; expected '[', '{', or a literal\n"},
  };
}

std::vector<Bad> bad_vms() {
  return {
      {"unit.yaml", kVm + "memory: {size: 512}\n",
       "unit.yaml:4:16: error: size `512` has no unit\nhelp: write `512GiB`, `512MiB`, `512KiB` or `512B`\n"},
      {"wrap.yaml", kVm + "memory: {ranges: [{gpa: [0x2000, 0x1000]}]}\n",
       "wrap.yaml:4:25: error: range `[0x2000, 0x1000]` is empty or wraps: it ends below its start\n"
       "help: ranges are `[start, last]`, both inclusive\n"},
      {"overlap.yaml", kVm + "memory: {ranges: [{gpa: [0x0, 0x1fff]}, {gpa: [0x1000, 0x2fff]}]}\n",
       "overlap.yaml:4:41: error: range `[0x1000, 0x2fff]` overlaps `[0x0, 0x1fff]` at overlap.yaml:4:19\n"},
      {"split.yaml",
       kVm + "memory: {size: 1GiB}\ndevices: [{host: a}]\n---\n" +
           "apiVersion: ioplan/v1\nkind: VirtualMachine\nname: w\n" + "memory: {size: 1GiB}\ndevices: [{host: b}]\n",
       "split.yaml:11:11: error: group 1 is split: device `b` is given to VM `w` and, at split.yaml:5:11, device `a` "
       "to VM `v`\n"
       "help: a group is the smallest thing that can be assigned: give its devices to one VM\n"},
      {"viommu.yaml", kVm + "memory: {size: 1GiB}\nviommu: {model: intel}\n",
       "viommu.yaml:5:17: error: a guest IOMMU (`intel`) cannot be planned yet\nhelp: use `viommu: {model: none}`\n"},
  };
}

TEST_F(Cli, BadHostsAreRefusedWithTheirPlace) {
  write("vm.yaml", kVm + "memory: {size: 1GiB}\n");
  for (const Bad& bad : bad_hosts()) {
    SCOPED_TRACE(bad.name);
    write(bad.name, bad.text);
    expect_bad(run({"plan", bad.name, "vm.yaml"}), bad.message);
  }
}

TEST_F(Cli, BadVmsAreRefusedWithTheirPlace) {
  write("host.yaml", kTwoInAGroup);
  for (const Bad& bad : bad_vms()) {
    SCOPED_TRACE(bad.name);
    write(bad.name, bad.text);
    expect_bad(run({"plan", "host.yaml", bad.name}), bad.message);
  }
}

TEST_F(Cli, FilesThatAreNoDocuments) {
  write("host.yaml", kHost);
  write("vm.yaml", kVm + "memory: {size: 1GiB}\n");
  fs::create_directory("folder");
  expect_bad(run({"plan", "folder"}), "folder: error: `folder` is a directory\nhelp: name the files in it\n");
  expect_bad(run({"plan", "missing.yaml"}),
             "missing.yaml: error: cannot open `missing.yaml`: No such file or directory\nhelp: check the path\n");
  // Sparse files: read nothing, and say no at once.
  for (std::uintmax_t size : {(std::uintmax_t{64} << 20) + 1, std::uintmax_t{70} << 20, std::uintmax_t{1} << 30}) {
    write("large.yaml", "");
    fs::resize_file("large.yaml", size);
    expect_bad(run({"plan", "large.yaml"}),
               "large.yaml: error: the file is larger than 64MiB\n"
               "help: split it into several files, or check that it is a document\n");
  }
  expect_bad(run({"plan", "host.yaml"}),
             "error: no VirtualMachine document in `host.yaml`\nhelp: name a file with a document of `kind: "
             "VirtualMachine`\n");
  expect_bad(run({"plan", "vm.yaml"}),
             "error: no Host document in `vm.yaml`\nhelp: name a file with a document of `kind: Host`\n");
  write("plan.json", ran("plan -o json three-drhd/host three-drhd/vm").out);
  expect_bad(
      run({"plan", "plan.json", "vm.yaml"}),
      "plan.json:1:1: error: a Plan is not an input here\nhelp: name only Host, VirtualMachine and Policy documents\n");
}

}  // namespace
}  // namespace ioplan
