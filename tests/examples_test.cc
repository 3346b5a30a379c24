// The examples do what their READMEs show.
//
// Every `console` block of README.md and of examples/*/README.md holds commands, lines that start with `$ ./dev `, `$ ioplan ` or
// `$ ./embed_sim ` (the program of examples/embed-sim) and may go on with `| ./dev `, each followed by what it prints (stdout and stderr together, as a terminal shows them). The test runs the built program
// from the root of the source tree and compares to the letter. With IOPLAN_UPDATE=1 it writes the outputs into the
// READMEs instead; read the diff before you commit it.

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "tests/support/paths.h"

namespace ioplan {
namespace {

namespace fs = std::filesystem;

const fs::path kExamples = source_folder() / "examples";

struct Ran {
  std::string output;
  int exit = -1;
};

// A shell line, run where the user would run it. The program's own messages only: no colour, no terminal.
Ran run(const std::string& line) {
  const std::string shell = "cd '" + source_folder().string() + "' && " + line + " 2>&1";
  Ran ran;
  FILE* pipe = popen(shell.c_str(), "r");
  if (pipe == nullptr) return ran;
  std::array<char, 4096> chunk{};
  while (const std::size_t n = fread(chunk.data(), 1, chunk.size(), pipe)) ran.output.append(chunk.data(), n);
  const int status = pclose(pipe);
  ran.exit = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return ran;
}

// "./dev plan X" and "ioplan plan X" -> the built program, "... | ./dev apply Y" too; nothing for any other line.
std::string program_line(std::string_view line) {
  constexpr std::string_view kPipe = "| ./dev ";
  if (const std::size_t pipe = line.find(kPipe); pipe != std::string_view::npos) {
    return program_line(line.substr(0, pipe)) + "| '" + ioplan_program() + "' " + std::string(line.substr(pipe + kPipe.size()));
  }
  if (line.starts_with("$ ./embed_sim ")) return "'" IOPLAN_EMBED_SIM "' " + std::string(line.substr(14));
  for (std::string_view prefix : {"$ ./dev ", "$ ioplan "}) {
    if (line.starts_with(prefix)) return "'" + ioplan_program() + "' " + std::string(line.substr(prefix.size()));
  }
  return {};
}

std::vector<std::string> lines_of(const fs::path& file) {
  std::ifstream in(file);
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

std::vector<std::string> split(const std::string& text) {
  std::istringstream in(text);
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

std::string joined(const std::vector<std::string>& lines) {
  std::string text;
  for (const std::string& line : lines) text += line + "\n";
  return text;
}

// Walks a README; in console blocks each command's output is replaced by what `output_of` gives for (command, shown).
std::vector<std::string> with_outputs(
    const std::vector<std::string>& readme,
    const std::function<std::vector<std::string>(const std::string&, const std::vector<std::string>&)>& output_of) {
  std::vector<std::string> out;
  for (std::size_t i = 0; i < readme.size();) {
    out.push_back(readme[i]);
    if (readme[i++] != "```console") continue;
    while (i < readme.size() && readme[i] != "```") {
      const std::string command = readme[i++];
      std::vector<std::string> shown;
      while (i < readme.size() && readme[i] != "```" && !readme[i].starts_with("$ ")) shown.push_back(readme[i++]);
      out.push_back(command);
      for (std::string& line : output_of(command, shown)) out.push_back(std::move(line));
    }
  }
  return out;
}

std::vector<fs::path> example_folders() {
  std::vector<fs::path> folders;
  for (const auto& entry : fs::directory_iterator(kExamples)) {
    if (entry.is_directory()) folders.push_back(entry.path());
  }
  std::ranges::sort(folders);
  return folders;
}

bool update() { return std::getenv("IOPLAN_UPDATE") != nullptr; }

TEST(Examples, ReadmesShowWhatTheProgramPrints) {
  std::size_t commands = 0;
  std::vector<fs::path> readmes = {source_folder() / "README.md"};
  for (const fs::path& folder : example_folders()) readmes.push_back(folder / "README.md");
  for (const fs::path& file : readmes) {
    SCOPED_TRACE(file.string());
    const std::vector<std::string> readme = lines_of(file);
    const std::vector<std::string> now = with_outputs(readme, [&](const std::string& command, const auto& shown) {
      const std::string line = program_line(command);
      if (line.empty()) {
        ADD_FAILURE() << "not a command that this test runs: " << command;
        return shown;
      }
      const Ran ran = run(line);
      EXPECT_TRUE(ran.exit == 0 || ran.exit == 1 || ran.exit == 3 || ran.exit == 4) << command << " exits " << ran.exit;
      EXPECT_FALSE(ran.output.empty()) << command;
      if (!update()) {
        EXPECT_EQ(joined(shown), ran.output) << command;
      }
      ++commands;
      return split(ran.output);
    });
    if (update() && now != readme) std::ofstream(file) << joined(now);
  }
  EXPECT_GE(commands, 15U);
}

TEST(Examples, EachIsListedAndWhole) {
  const std::string index = joined(lines_of(kExamples / "README.md"));
  for (const fs::path& folder : example_folders()) {
    const std::string name = folder.filename().string();
    SCOPED_TRACE(name);
    EXPECT_NE(index.find("(" + name + "/)"), std::string::npos);
    EXPECT_TRUE(fs::exists(folder / "host.yaml"));
    EXPECT_TRUE(fs::exists(folder / "vm.yaml"));
    // Nobody keeps a document here that no command of the README uses.
    const std::string readme = joined(lines_of(folder / "README.md"));
    for (const auto& entry : fs::directory_iterator(folder)) {
      const std::string file = entry.path().filename().string();
      if (!file.ends_with(".yaml")) continue;
      EXPECT_NE(readme.find(name + "/" + file), std::string::npos) << file;
    }
  }
}

// Files may be named in any order, and the answer is the same to the byte.
TEST(Examples, TheOrderOfFilesDoesNotMatter) {
  for (const fs::path& folder : example_folders()) {
    SCOPED_TRACE(folder.filename().string());
    const std::string base = "examples/" + folder.filename().string();
    const std::string program = "'" + ioplan_program() + "' plan -o json ";
    const Ran one = run(program + base + "/host.yaml " + base + "/vm.yaml");
    const Ran other = run(program + base + "/vm.yaml " + base + "/host.yaml");
    EXPECT_EQ(one.exit, other.exit);
    EXPECT_EQ(one.output, other.output);
  }
}

struct Expected {
  const char* example;
  const char* files;
  int exit;
  std::size_t hwpts;
};

// What the examples are there to show, in case somebody updates the outputs without reading them.
TEST(Examples, ShowWhatTheyAreFor) {
  constexpr Expected kExpected[] = {
      {"three-drhd", "host vm", 0, 1},
      {"three-drhd", "host vm policy", 0, 2},
      {"three-drhd", "host vm big-pages", 0, 2},
      {"client-igpu", "host vm", 0, 1},
      {"client-igpu", "host vm policy", 0, 2},
      {"client-first-stage", "host vm", 0, 1},
      {"client-first-stage", "host vm policy", 0, 2},
      {"xeon-many-drhd", "host vm", 0, 1},
      {"xeon-many-drhd", "host vm-migratable", 1, 0},
      {"epyc-1tib-hole", "host vm", 0, 1},
      {"epyc-1tib-hole", "host vm-intel-layout", 1, 0},
      {"ampere-altra", "host vm", 0, 3},
      {"virtio-guest", "host vm", 0, 1},
      {"virtio-guest", "host vm policy", 1, 0},
      {"rules-colouring", "host vm policy", 0, 3},
      {"rules-colouring", "host vm few", 1, 0},
      {"infeasible-rmrr", "host vm", 1, 0},
      {"infeasible-rmrr", "host vm-without-x710", 0, 1},
      {"embed-sim", "host vm policy", 0, 2},
  };
  for (const Expected& e : kExpected) {
    SCOPED_TRACE(std::string(e.example) + ": " + e.files);
    std::string line = "'" + ioplan_program() + "' plan -o json";
    std::istringstream names(e.files);
    for (std::string name; names >> name;) line += " examples/" + std::string(e.example) + "/" + name + ".yaml";
    const Ran ran = run(line);
    EXPECT_EQ(ran.exit, e.exit) << ran.output;
    std::size_t hwpts = 0;
    for (std::size_t at = 0; (at = ran.output.find("\"id\": \"hwpt", at)) != std::string::npos; ++at) ++hwpts;
    EXPECT_EQ(hwpts, e.hwpts) << ran.output;
  }
}

}  // namespace
}  // namespace ioplan
