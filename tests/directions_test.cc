// The arrows between the rooms, read from the #include lines.
//
// Every arrow points at `engine`; inside it base <- {law, model} <- {document, solve, check}, and none of these three
// knows another; explain looks at solve's answers, and the planner asks both. Solvers and file formats stay where they
// are used, the operating system outside the engine. A new folder or an unknown library fails here first: decide where
// it belongs, then add its line.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "tests/support/paths.h"

namespace ioplan {
namespace {

namespace fs = std::filesystem;

struct Include {
  std::string file;    // "engine/solve/cover.cc"
  std::string target;  // "engine/base/log2.h" or "z3++.h"
  bool ours = false;   // in quotes
};

std::vector<Include> all_includes() {
  std::vector<Include> found;
  const fs::path root = source_folder();
  for (const char* room : {"engine", "constraints", "backends", "cli"}) {
    if (!fs::exists(root / room)) continue;
    for (const auto& entry : fs::recursive_directory_iterator(root / room)) {
      const std::string extension = entry.path().extension().string();
      if (extension != ".h" && extension != ".cc") continue;
      std::ifstream in(entry.path());
      for (std::string line; std::getline(in, line);) {
        if (!line.starts_with("#include ") || line.size() < 12) continue;
        const char close = line[9] == '<' ? '>' : '"';
        const std::size_t end = line.find(close, 10);
        found.push_back(
            {entry.path().lexically_relative(root).generic_string(), line.substr(10, end - 10), line[9] == '"'});
      }
    }
  }
  return found;
}

// "engine/solve/cover.cc" -> "engine/solve", "constraints/rules/core/owner.h" -> "constraints"
std::string room_of(const std::string& file) {
  const std::size_t first = file.find('/');
  if (file.substr(0, first) != "engine" && file.substr(0, first) != "backends") return file.substr(0, first);
  return file.substr(0, file.find('/', first + 1));
}

// Which rooms a room may look into, besides itself.
const std::map<std::string, std::set<std::string>>& allowed() {
  static const std::map<std::string, std::set<std::string>> kAllowed = {
      {"engine/base", {}},
      {"engine/model", {"engine/base"}},
      {"engine/law", {"engine/base", "engine/model"}},
      {"engine/document", {"engine/base", "engine/model"}},
      {"engine/solve", {"engine/base", "engine/law", "engine/model"}},
      {"engine/check", {"engine/base", "engine/law", "engine/model"}},
      {"engine/explain", {"engine/base", "engine/law", "engine/model", "engine/solve"}},
      {"engine/planner", {"engine/base", "engine/law", "engine/model", "engine/solve", "engine/explain"}},
      {"engine/apply", {"engine/base", "engine/model"}},
      {"engine/lifecycle",
       {"engine/base", "engine/law", "engine/model", "engine/solve", "engine/explain", "engine/planner"}},
      {"constraints", {"engine/base", "engine/law", "engine/model"}},
      {"backends/sim", {"engine/base", "engine/law", "engine/model", "engine/apply"}},
      {"backends/vfio", {"engine/base", "engine/model"}},
      {"backends/iommufd", {"engine/base", "engine/model", "engine/apply", "backends/vfio"}},
      {"backends/type1", {"engine/base", "engine/model", "engine/apply", "backends/vfio"}},
      {"backends/intake", {"engine/base", "engine/model", "backends/vfio", "backends/iommufd"}},
      {"cli",
       {"engine/base", "engine/law", "engine/model", "engine/document", "engine/solve", "engine/check",
        "engine/explain", "engine/planner", "engine/apply", "engine/lifecycle", "constraints", "backends/sim", "backends/vfio", "backends/iommufd", "backends/type1", "backends/intake"}},
  };
  return kAllowed;
}

TEST(Directions, EveryArrowPointsTheRightWay) {
  std::size_t seen = 0;
  for (const Include& i : all_includes()) {
    if (!i.ours) continue;
    ++seen;
    EXPECT_TRUE(fs::exists(source_folder() / i.target))
        << i.file << " includes " << i.target << ", by no full path";
    const std::string from = room_of(i.file), to = room_of(i.target);
    if (from == to) continue;
    const auto rule = allowed().find(from);
    if (rule == allowed().end()) {
      ADD_FAILURE() << "no direction is written down for " << from;
      continue;
    }
    EXPECT_TRUE(rule->second.contains(to)) << i.file << " may not include " << i.target;
  }
  EXPECT_GE(seen, 200U);
}

// Where a library may be named. `headers`: in headers too.
struct Library {
  const char* prefix;
  std::vector<std::string> rooms;
  bool headers;
};

const std::vector<Library>& libraries() {
  static const std::vector<Library> kLibraries = {
      {"z3", {"engine/solve", "constraints"}, false},
      {"cadical", {"engine/solve"}, true},
      {"yaml-cpp/", {"engine/document"}, false},
      {"nlohmann/json_fwd.hpp", {"engine/document"}, true},
      {"nlohmann/", {"engine/document", "cli"}, false},
      {"boost/graph/", {"engine/solve"}, false},
      {"boost/dynamic_bitset.hpp", {"engine/solve", "engine/explain", "engine/check"}, true},
      {"boost/uuid/", {"engine/model"}, false},
      {"fmt/",
       {"engine/base", "engine/model", "engine/document", "engine/solve", "engine/explain", "engine/planner",
        "engine/check", "engine/apply", "engine/lifecycle", "backends/sim", "backends/vfio", "backends/iommufd", "backends/type1", "backends/intake", "cli"},
       true},
      {"tl/expected.hpp", {"engine/base", "backends/sim"}, true},
      {"pugixml.hpp", {"backends/intake"}, false},
      {"CLI/", {"cli"}, false},
  };
  return kLibraries;
}

const Library* library_of(const std::string& target) {
  const auto& all = libraries();
  const auto it = std::ranges::find_if(all, [&](const Library& l) { return target.starts_with(l.prefix); });
  return it == all.end() ? nullptr : &*it;
}

bool operating_system(const std::string& target) {
  if (target.starts_with("sys/") || target.starts_with("linux/")) return true;
  static const std::set<std::string> kHeaders = {"unistd.h",  "fcntl.h",    "dirent.h", "poll.h",
                                                 "pthread.h", "filesystem", "thread"};
  return kHeaders.contains(target);
}

// C++ headers have no dot and no slash; C's are <c...>.
bool standard(const std::string& target) { return target.find_first_of("./") == std::string::npos; }

TEST(Directions, LibrariesStayWhereTheyAreUsed) {
  for (const Include& i : all_includes()) {
    if (i.ours || operating_system(i.target) || standard(i.target)) continue;
    const Library* library = library_of(i.target);
    if (library == nullptr) {
      ADD_FAILURE() << i.file << " includes <" << i.target << ">, which has no place yet";
      continue;
    }
    EXPECT_TRUE(std::ranges::find(library->rooms, room_of(i.file)) != library->rooms.end())
        << i.file << " may not name " << i.target;
    EXPECT_TRUE(library->headers || i.file.ends_with(".cc")) << i.target << " in the header " << i.file;
  }
}

// The engine and the law know no operating system; reading documents is the one exception.
TEST(Directions, TheSystemStaysOutside) {
  for (const Include& i : all_includes()) {
    if (i.ours || !operating_system(i.target) || i.file == "engine/document/load.cc") continue;
    const std::string room = room_of(i.file);
    EXPECT_TRUE(room == "cli" || room.starts_with("backends/")) << i.file << " may not include <" << i.target << ">";
  }
}

TEST(Directions, TestsAreLinkedNowhereElse) {
  for (const Include& i : all_includes()) {
    EXPECT_FALSE(i.target.starts_with("tests/") || i.target.starts_with("bench/") || i.target.starts_with("gtest/"))
        << i.file;
  }
}

}  // namespace
}  // namespace ioplan
