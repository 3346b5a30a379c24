// Files of one line, as the kernel's attributes are, straight into facts. For the parts of scan.h.
#pragma once

#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "backends/intake/findings.h"
#include "backends/intake/machine_files.h"

namespace ioplan::intake {

class Sysfs {
 public:
  Sysfs(MachineFiles& files, Findings& findings) : files_(files), findings_(findings) {}

  // Nothing when the file cannot be read: most attributes are optional. Final newlines are cut off.
  std::optional<std::string> text(const std::string& path);
  std::optional<std::string> text(const std::string& path, std::size_t most, const Excerpt& excerpt);
  std::optional<std::string> bytes(const std::string& path, std::size_t most, const Excerpt& excerpt);  // as they are
  std::optional<std::uint64_t> decimal(const std::string& path);
  std::optional<std::string> link(const std::string& path);
  std::vector<std::string> list(const std::string& path);  // empty when there is no such directory

  // States the attribute, or misses it. An attribute that holds something else is missed with what it holds.
  std::optional<std::uint64_t> state_hex(FactName name, const std::string& path);
  void state_text(FactName name, const std::string& path);
  void state_link(FactName name, const std::string& path);

  Findings& findings() { return findings_; }

 private:
  MachineFiles& files_;
  Findings& findings_;
};

// A number that is all of `text`; base 16 also with 0x.
std::optional<std::uint64_t> number_of(std::string_view text, int base);

// The parts between blanks.
std::vector<std::string_view> words_of(std::string_view text);

// The parts of scan().
void scan_kernel(Sysfs& sysfs, DriverSet drivers);
DriverSet scan_units(Sysfs& sysfs);  // the drivers of the units that it found
void scan_groups(Sysfs& sysfs);
void scan_devices(Sysfs& sysfs);

}  // namespace ioplan::intake
