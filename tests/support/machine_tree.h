// Made-up machines as the files that their kernel would show: sys and proc of an Intel, AMD or Arm server with any number
// of units and functions. Shared with the benchmarks. The facts that were put in are kept beside the files, so that a scan
// can be held against them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "backends/intake/archive.h"
#include "engine/model/host.h"

namespace ioplan::machine_tree {

struct Shape {
  Driver driver = Driver::intel;  // intel, amd or smmuv3
  unsigned units = 2;
  unsigned functions = 8;
  bool root = true;  // whether the configuration space beyond 64 bytes and the ACPI tables are there
  std::uint64_t seed = 1;
};

struct Machine {
  intake::Entries files;
  Host host;  // what a scan must find, without sources and gaps
};

Machine make(const Shape& shape);

// The files below a folder, as a copy of a machine's would lie there.
void write(const intake::Entries& files, const std::filesystem::path& folder);

// A configuration space of 4096 bytes with these capabilities, a serial number among them.
struct Capabilities {
  bool express = true;
  bool ats = false, pri = false, no_snoop = false;
  unsigned pasid_bits = 0;
  std::uint16_t acs = 0, acs_enabled = 0;
};
std::string config_space(const Capabilities& capabilities);

// What config_space() puts where a serial number is.
inline constexpr std::string_view kSerialNumber = "\xde\xad\xbe\xef\x5e\x71\xa1\x42";

}  // namespace ioplan::machine_tree
