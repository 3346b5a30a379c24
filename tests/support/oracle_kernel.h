// The kernel, as the oracles believe it: what HWPT_ALLOC makes, what a driver accepts, what can be bound, what is
// reserved, how large tables are and where domain ids come from.
//
// Written from the kernel rules (reference/kernel-rules.md, "KR") and the decisions of engine/README.md ("D1".."D12"),
// without a line of the law that it judges (constraints/). Read by the oracle of plans (oracle.h), by the oracle of
// plans over time (lifecycle_oracle.h) and by the judge of traces (trace_judge.h). All facts that a driver reads must
// be there.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/model/plan.h"
#include "engine/model/request.h"

namespace ioplan::oracle {

// A HWPT as HWPT_ALLOC makes it. Fixed by the allocating device and the flags, never changed later (KR 0).
struct Table {
  DeviceIndex allocator;
  std::uint8_t flags = 0;
  Driver driver = Driver::intel;
  UnitIndex unit;
  unsigned stage = 1;
  PageTableFormat format = PageTableFormat::x86_64;
  unsigned levels = 0;
  unsigned address_bits = 0;
  Range aperture;
  std::uint64_t page_sizes = 0;
  bool enforces = false;
  // How the format lays out its tables (D5).
  unsigned leaf_lg2 = 12;  // what the lowest level's entries map
  unsigned bits_a_level = 9;
  bool grows = false;             // starts with `levels` and grows until the last address fits
  std::uint64_t root_tables = 1;  // concatenated
  // Intel only.
  bool incoherent = false, sync_map = false;
};

// What HWPT_ALLOC on this device with these flags makes; nothing when it is refused (KR 1.4, 3).
std::optional<Table> allocate(const Host& host, DeviceIndex allocator, std::uint8_t flags);

// The driver's attach check (KR 3); a HWPT of another driver is refused by the core (KR 2.2).
bool attaches(const Host& host, const Table& table, const Device& device);

// May a replace move the device from a HWPT to this one at all (KR 2.4 H3)? Owners: drivers, and s390's variants.
bool same_owner(const Host& host, const Table& table, const Device& device);

// Are the two HWPTs of the same kind (engine/lifecycle/README.md 1: everything but the allocator)?
bool equal_attributes(const Host& host, const Table& a, const Table& b);

const Unit& unit_of(const Host& host, const Device& device);
std::uint64_t page_size(const Host& host);
std::vector<DeviceIndex> group_of(const Host& host, DeviceIndex device);  // assigned or not, the device among them

bool has_cache_coherency(const Host& host, const Device& device);
bool can_enforce(const Host& host, const Device& device);
bool can_attach_pasid(const Host& host, const Device& device);

// Why VFIO and iommufd would not bind it, one line for each reason (KR 2.1): those that any device of a group brings
// upon all of it, and those of a device that is to be used itself (KR 2.5, 5.1; coherency's provenance is the
// policy's).
std::vector<std::string> group_refusals(const Host& host, const Device& device);
std::vector<std::string> usable_refusals(const Host& host, const Device& device, const VirtualMachine& vm,
                                         const Policy& policy);

// The document's, else those that the driver itself declares.
std::vector<ReservedRegion> regions_of(const Host& host, const Device& device);
// Of them, what an attached device takes from its IOAS (KR 2.5).
std::vector<Range> reserved_by(const Host& host, const Device& device);

// Every start and every end is a multiple.
bool aligned(const std::vector<MemoryRange>& memory, std::uint64_t alignment);

// What the IOAS asks of a HWPT (KR 2.6, KR 10.8).
bool can_hold(const Host& host, const Table& table, const std::vector<MemoryRange>& memory);

// Intel's nesting parents cannot (KR 3.1).
bool takes_read_only(const Table& table);

// D5.
std::uint64_t page_table_bytes(const Table& table, const std::vector<MemoryRange>& memory, std::uint64_t backing);

// KR 10.10, D9: where a HWPT of the stage takes domain ids when it is attached to a device behind the unit.
struct Pool {
  std::string key;
  std::uint64_t capacity = 0;
};
std::optional<Pool> pool_of(const Host& host, UnitIndex unit, unsigned stage);

}  // namespace ioplan::oracle
