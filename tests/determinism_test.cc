// The same bytes whatever the order.
//
// The same facts, written down differently: documents in any order and in any number of files with any names, keys,
// devices, units, VMs, rules and regions in any order, YAML or JSON. The Plan document is the same to the byte. Lists
// that are orders (objectives, a range's two ends, register words) keep theirs. The documents are those of random
// questions and of every example. IOPLAN_SCALE multiplies the number of random questions (300).
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "constraints/kernel_law.h"
#include "engine/document/load.h"
#include "engine/document/plan_document.h"
#include "engine/planner/planner.h"
#include "tests/support/generator.h"
#include "tests/support/paths.h"
#include "tests/support/seeds.h"

namespace ioplan {
namespace {

namespace fs = std::filesystem;

using Random = std::mt19937_64;

// Lists whose order means something.
bool is_an_order(const std::string& key) {
  static const std::set<std::string> kOrders = {"objectives", "viommu_fallback", "range",        "gpa",
                                                "idr",        "input_range",     "domain_range", "dma_range"};
  return kOrders.contains(key);
}

enum class Notation { yaml, json };

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (char c : text) out += (c == '"' || c == '\\') ? std::string{'\\', c} : std::string{c};
  return out + "\"";
}

bool is_decimal(const std::string& text) {
  return !text.empty() &&
         std::ranges::all_of(text, [](char c) { return std::isdigit(static_cast<unsigned char>(c)) != 0; });
}

// Writes nodes in flow style, which is JSON where the scalars are; lists and maps in a random order.
class Writer {
 public:
  Writer(Random& random, Notation notation) : random_(random), notation_(notation) {}

  std::string operator()(const YAML::Node& node, const std::string& key = {}) {
    if (node.IsMap()) return map(node);
    if (node.IsSequence()) return list(node, key);
    return scalar(node);
  }

 private:
  // yaml-cpp tags what was quoted with "!".
  std::string scalar(const YAML::Node& node) const {
    const std::string text = node.Scalar();
    if (node.Tag() == "!" || text.find_first_of(",[]{}#:\\\"") != std::string::npos) return quoted(text);
    if (notation_ == Notation::yaml) return text;
    return is_decimal(text) || text == "true" || text == "false" ? text : quoted(text);
  }

  std::string list(const YAML::Node& node, const std::string& key) {
    std::vector<std::string> items;
    for (const YAML::Node& item : node) items.push_back((*this)(item, node.size() == 2 && item.IsScalar() ? key : ""));
    if (!is_an_order(key)) std::shuffle(items.begin(), items.end(), random_);
    return "[" + joined(items) + "]";
  }

  std::string map(const YAML::Node& node) {
    std::vector<std::string> items;
    for (const auto& entry : node) {
      const auto name = entry.first.as<std::string>();
      items.push_back((notation_ == Notation::json ? quoted(name) : name) + ": " + (*this)(entry.second, name));
    }
    std::shuffle(items.begin(), items.end(), random_);
    return "{" + joined(items) + "}";
  }

  static std::string joined(const std::vector<std::string>& items) {
    std::string text;
    for (const std::string& item : items) text += (text.empty() ? "" : ", ") + item;
    return text;
  }

  Random& random_;
  Notation notation_;
};

// The documents, spread over files in a random order.
std::vector<NamedText> permuted(const std::vector<YAML::Node>& documents, Random& random) {
  std::vector<std::size_t> order(documents.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::shuffle(order.begin(), order.end(), random);
  std::vector<NamedText> files;
  bool open = false;  // may the last file take another document?
  for (std::size_t i : order) {
    const Notation notation = random() % 3 == 0 ? Notation::json : Notation::yaml;
    const std::string text = Writer(random, notation)(documents[i]);
    const std::string name = fmt::format("{:x}.{}", random() % 0xffff, notation == Notation::json ? "json" : "yaml");
    if (notation == Notation::json) {
      files.push_back({name, text});
      open = false;
    } else if (open && random() % 2 == 0) {
      files.back().text += "---\n" + text + "\n";
    } else {
      // A file that starts with `{` is read as JSON: start YAML with a comment or a separator.
      files.push_back({name, (random() % 2 == 0 ? "# a file\n" : "---\n") + text + "\n"});
      open = true;
    }
  }
  std::shuffle(files.begin(), files.end(), random);
  return files;
}

std::string planned(std::span<const NamedText> files) {
  const auto loaded = load_texts(files);
  if (!loaded) {
    std::string text = to_text(loaded.error());
    for (const NamedText& f : files) text += "\n" + f.name + ":\n" + f.text;
    return text;
  }
  return to_json(make_plan(loaded->request, kernel_law()));
}

std::vector<YAML::Node> documents_of(const std::string& text) {
  std::vector<YAML::Node> documents;
  for (const YAML::Node& node : YAML::LoadAll(text)) {
    if (!node.IsNull()) documents.push_back(node);
  }
  return documents;
}

void expect_same_bytes(const std::vector<std::string>& texts, int permutations, std::uint64_t seed,
                       const std::string& what) {
  std::vector<NamedText> files;
  std::vector<YAML::Node> documents;
  for (const std::string& text : texts) {
    files.push_back({fmt::format("{}.yaml", files.size()), text});
    for (const YAML::Node& d : documents_of(text)) documents.push_back(d);
  }
  const std::string bytes = planned(files);
  ASSERT_TRUE(bytes.starts_with("{")) << what << "\n" << bytes;
  Random random(seed);
  for (int n = 0; n < permutations; ++n) {
    const std::vector<NamedText> other = permuted(documents, random);
    const std::string again = planned(other);
    if (again == bytes) continue;
    std::string as_written;
    for (const NamedText& f : other) as_written += f.name + ":\n" + f.text + "\n";
    ADD_FAILURE() << what << ", permutation " << n << "\n" << as_written;
    EXPECT_EQ(again, bytes);
    return;
  }
}

TEST(Determinism, RandomQuestions) {
  const auto questions = static_cast<std::uint64_t>(300 * number_from("IOPLAN_SCALE", 1));
  for (std::uint64_t seed = 0; seed < questions && !HasFailure(); ++seed) {
    expect_same_bytes({generator::to_documents(generator::random_request(seed))}, 4, seed,
                      fmt::format("seed {}", seed));
  }
}

std::string read_file(const fs::path& path) {
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

// Every VM of every example under every policy that lies beside it.
TEST(Determinism, Examples) {
  std::size_t questions = 0;
  for (const auto& folder : fs::directory_iterator(source_folder() / "examples")) {
    if (!folder.is_directory()) continue;
    const std::string host = read_file(folder.path() / "host.yaml");
    std::vector<std::string> vms, policies = {""};
    for (const auto& file : fs::directory_iterator(folder)) {
      const std::string text = file.path().extension() == ".yaml" ? read_file(file) : "";
      if (text.find("kind: Host") != std::string::npos) continue;
      if (text.find("kind: VirtualMachine") != std::string::npos) vms.push_back(text);
      if (text.find("kind: Policy") != std::string::npos) policies.push_back(text);
    }
    for (const std::string& vm : vms) {
      for (const std::string& policy : policies) {
        std::vector<std::string> texts = {host, vm};
        if (!policy.empty()) texts.push_back(policy);
        expect_same_bytes(texts, 8, ++questions, folder.path().filename().string());
      }
    }
  }
  EXPECT_GE(questions, 15U);
}

// The permutations permute: they are not all alike, and both notations and several files occur.
TEST(Determinism, PermutationsDiffer) {
  const std::vector<YAML::Node> documents = documents_of(generator::to_documents(generator::random_request(3)));
  Random random(1);
  std::set<std::string> first, names;
  std::set<std::size_t> files;
  for (int n = 0; n < 40; ++n) {
    const auto texts = permuted(documents, random);
    first.insert(texts[0].text);
    files.insert(texts.size());
    for (const NamedText& t : texts) names.insert(t.name.substr(t.name.find('.')));
  }
  EXPECT_GE(first.size(), 35U);
  EXPECT_GE(files.size(), 2U);
  EXPECT_EQ(names.size(), 2U);
}

}  // namespace
}  // namespace ioplan
