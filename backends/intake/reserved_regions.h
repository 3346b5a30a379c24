// Dumps of /sys/kernel/iommu_groups/*/reserved_regions, however they were made: grep ., tail with its headings, a loop
// that prints the path or "IOMMU Group 3" before each.
//
//   0x00000000fee00000 0x00000000feefffff msi
//
// Source: drivers/iommu/iommu.c iommu_group_show_resv_regions, which prints a software MSI window as `msi` too. The
// file is the group's: which of its devices a region belongs to is not in it. Held by tests/importers_test.cc.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "engine/model/host.h"

namespace ioplan::intake {

struct RegionLine {
  std::optional<std::uint64_t> group;  // absent: nothing before it says which
  ReservedRegion region;
  std::uint32_t line = 0;
};

std::vector<RegionLine> read_reserved_regions(std::string_view text);

}  // namespace ioplan::intake
