// The corpus's records as they are written: for tests that print them and read them back (printed.h). What they mean for
// plans is corpus.h's.
#pragma once

#include <yaml-cpp/yaml.h>

#include <filesystem>
#include <map>
#include <string>

namespace ioplan::corpus {

struct Records {
  std::map<std::string, YAML::Node> machines;  // intel.yaml, amd.yaml, arm.yaml by id
  std::map<std::string, YAML::Node> groups;    // by file: "groups/...yaml"
  YAML::Node reserved_regions, capabilities;   // lists

  // The groups of a machine; an empty map where it has none.
  YAML::Node groups_of(const YAML::Node& machine) const;
};

Records read_records(const std::filesystem::path& corpus_root);

}  // namespace ioplan::corpus
