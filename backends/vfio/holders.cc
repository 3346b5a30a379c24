#include "backends/vfio/holders.h"

#include <algorithm>
#include <set>

namespace ioplan::vfio {

namespace {

bool is_number(const std::string& name) {
  return !name.empty() && std::ranges::all_of(name, [](char c) { return c >= '0' && c <= '9'; });
}

// Empty when the process has gone, or is not ours to look at.
std::set<std::string> vfio_files_of(System& system, const std::string& folder) {
  std::set<std::string> paths;
  const auto descriptors = system.list(folder + "/fd");
  if (!descriptors) return paths;
  for (const std::string& fd : *descriptors) {
    const auto target = system.read_link(folder + "/fd/" + fd);
    if (target && target->starts_with("/dev/vfio/")) paths.insert(*target);
  }
  return paths;
}

}  // namespace

std::map<std::string, std::vector<Holder>> holders_of_vfio_files(System& system) {
  std::map<std::string, std::vector<Holder>> holders;
  const auto processes = system.list("/proc");
  if (!processes) return holders;
  for (const std::string& process : *processes) {
    if (!is_number(process)) continue;
    const std::string folder = "/proc/" + process;
    for (const std::string& path : vfio_files_of(system, folder)) {
      holders[path].push_back({process, system.read_file(folder + "/comm").value_or("?")});
    }
  }
  for (auto& [path, all] : holders) std::ranges::sort(all);
  return holders;
}

}  // namespace ioplan::vfio
