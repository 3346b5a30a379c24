// The files of a machine that describe its IOMMUs and devices, wherever they are: the running system, a directory with a
// copy of them, or a capture in an archive (archive.h). Whoever reads facts (scan.h) uses nothing else, so a capture that
// answers the same questions gives the same Host.
//
// Paths are absolute on the machine: "/sys/class/iommu/dmar0/intel-iommu/cap". A copy is not trusted: its links cannot
// lead out of it, and reading neither blocks nor grows without bounds. An Error has its errno_value and no words, for
// most files are allowed to be missing.
// Held by tests/scan_test.cc.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/error.h"

namespace ioplan::intake {

// What of a file is used: nothing else of it reaches the reader, or a capture. An excerpt of an excerpt is itself.
using Excerpt = std::function<std::string(std::string_view)>;

class MachineFiles {
 public:
  virtual ~MachineFiles() = default;

  // At most `most` bytes from the start.
  virtual Result<std::string> read(const std::string& path, std::size_t most, const Excerpt& excerpt) = 0;
  // The names in a directory, in natural order.
  virtual Result<std::vector<std::string>> list(const std::string& path) = 0;
  // The last component of what a symbolic link points to: "vfio-pci".
  virtual Result<std::string> link(const std::string& path) = 0;
};

// "/" is this machine. Errors: no such directory.
Result<std::unique_ptr<MachineFiles>> open_directory(const std::string& root);

// "/a/b/" -> "b".
std::string last_component(std::string_view path);

}  // namespace ioplan::intake
