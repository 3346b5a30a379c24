#include "tests/support/corpus_files.h"

namespace ioplan::corpus {

YAML::Node Records::groups_of(const YAML::Node& machine) const {
  const YAML::Node file = machine["groups_file"];
  const auto it = file && file.IsScalar() ? groups.find(file.Scalar()) : groups.end();
  return it == groups.end() ? YAML::Node(YAML::NodeType::Map) : it->second;
}

Records read_records(const std::filesystem::path& root) {
  Records out;
  for (const char* name : {"intel.yaml", "amd.yaml", "arm.yaml"}) {
    const YAML::Node file = YAML::LoadFile((root / name).string());
    for (const YAML::Node& machine : file["machines"]) out.machines.emplace(machine["id"].Scalar(), machine);
  }
  for (const auto& entry : std::filesystem::directory_iterator(root / "groups")) {
    out.groups.emplace("groups/" + entry.path().filename().string(), YAML::LoadFile(entry.path().string()));
  }
  out.reserved_regions = YAML::LoadFile((root / "reserved_regions.yaml").string())["listings"];
  out.capabilities = YAML::LoadFile((root / "lspci_caps.yaml").string())["devices"];
  return out;
}

}  // namespace ioplan::corpus
