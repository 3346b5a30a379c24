// What the importers read, with the names of the files, before facts are made of it.
#pragma once

#include <cstdint>
#include <fmt/format.h>
#include <string>
#include <vector>

#include "backends/intake/group_listing.h"
#include "backends/intake/kernel_log.h"
#include "backends/intake/lspci.h"
#include "backends/intake/nodedev_xml.h"
#include "backends/intake/reserved_regions.h"

namespace ioplan::intake {

template <class T>
struct Pasted {
  std::string file;
  T content;

  // "dmesg.txt:812"
  std::string at(std::uint32_t line) const { return fmt::format("{}:{}", file, line); }
};

struct PastedTexts {
  std::vector<Pasted<KernelLog>> logs;
  std::vector<Pasted<LspciListing>> listings;
  std::vector<Pasted<std::vector<GroupMember>>> groups;
  std::vector<Pasted<std::vector<NodeDevice>>> node_devices;
  std::vector<Pasted<std::vector<RegionLine>>> regions;
};

}  // namespace ioplan::intake
