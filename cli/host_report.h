// What `ioplan host` says of one machine, before it is text or JSON.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "constraints/drivers/fields.h"
#include "engine/model/host.h"
#include "engine/planner/usability.h"

namespace ioplan::cli {

// Units of one driver whose registers are equal.
struct UnitKind {
  std::vector<UnitIndex> units;  // ascending
  const Unit* example = nullptr;
};

// One register field, over the kinds of units of one driver. A value is absent where the register is unknown.
struct FieldRow {
  const drivers::Field* field = nullptr;
  std::vector<std::optional<std::uint64_t>> values;  // by kind
  bool differs = false;
};

struct UnitTable {
  Driver driver = Driver::intel;
  std::vector<UnitKind> kinds;  // by lowest unit
  std::vector<FieldRow> rows;   // fields that plans depend on, or that differ
};

// A reserved region with all devices that have it.
struct RegionRow {
  ReservedRegion region;
  std::vector<DeviceIndex> devices;  // ascending
};

struct GroupRow {
  std::uint32_t number = 0;
  std::vector<DeviceIndex> devices;  // ascending
};

struct HostReport {
  std::vector<UnitTable> tables;  // by driver
  std::vector<GroupRow> groups;
  std::vector<DeviceIndex> ungrouped;
  std::vector<RegionRow> regions;
  std::vector<UnusableDevice> unusable;
};

HostReport report_on(const Host& host);

// A fact that two hosts have differently. Absent: the host does not know it.
struct HostDifference {
  std::string fact;  // "iommus.dmar0.cap"
  std::optional<std::string> first, second;
  std::vector<std::string> fields;  // of a register: "SLLPS 3 -> 1"
};

// Every fact of the two, ids first in natural order; sources and gaps are not compared.
std::vector<HostDifference> differences(const Host& first, const Host& second);

}  // namespace ioplan::cli
