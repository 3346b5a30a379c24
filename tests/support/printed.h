// What Linux, lspci and people's scripts print about a machine whose facts are known: the way back from a record of the
// corpus (../shared/corpus) to the text that it was read from.
//
// Formats are those of the programs' sources: drivers/iommu/intel/{dmar,iommu,irq_remapping}.c, drivers/iommu/amd/init.c,
// drivers/iommu/arm/*, drivers/iommu/virtio-iommu.c, drivers/iommu/iommu.c, drivers/pci/probe.c, pciutils. They are written
// here once more, and know nothing of the importers that they doubt.
#pragma once

#include <yaml-cpp/yaml.h>

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace ioplan::printed {

// The boot log of a record of intel.yaml, amd.yaml or arm.yaml, with the devices of its file in groups/ (may be null).
std::string boot_log(const YAML::Node& record, const YAML::Node& groups);

// A file of groups/ as listings print it.
enum class GroupForm : std::uint8_t { headings, one_line, ids_first, find, ls, tree };
inline constexpr std::array<std::string_view, 6> kGroupFormNames = {"headings", "one line", "ids first", "find", "ls", "tree"};
std::string group_listing(const YAML::Node& groups, GroupForm form);

// A record of reserved_regions.yaml as it would be read back.
enum class RegionForm : std::uint8_t { grep, headings, loop };
std::string reserved_regions(const YAML::Node& listing, RegionForm form);

// A record of lspci_caps.yaml, as lspci -vvv prints it.
std::string lspci_verbose(const YAML::Node& record);

// What happens to a log on its way into a bug report.
enum class Dirt : std::uint8_t { none, wall_clock, journal, wrapped, colours, quoted };
inline constexpr std::array<std::string_view, 6> kDirtNames = {"none", "wall clock", "journal", "wrapped", "colours and CRLF", "quoted mail"};
std::string dirtied(std::string_view log, Dirt dirt);

}  // namespace ioplan::printed
