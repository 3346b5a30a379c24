// One VM's question in dense form: what the law needs to know of every device, and what is placed together.
//
// Devices that the law cannot tell apart are one class. Groups that must share a HWPT (a `together` rule, an SMMUv2
// unit) are one item; items that nothing tells apart are one signature, so the cost of planning grows with signatures
// and not with devices.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/law/law.h"
#include "engine/model/plan.h"
#include "engine/model/request.h"

namespace ioplan {

struct DeviceClass {
  DeviceQuantities quantities;
  std::vector<DeviceIndex> assigned;  // ascending; empty when only other members of groups are of this class
  DeviceIndex example;                // some device of the class
};

// How many of the assigned devices a `separate` rule's sides choose.
struct Side {
  std::uint32_t a = 0, b = 0, both = 0;
  friend auto operator<=>(const Side&, const Side&) = default;
};

// A group of the VM with the rest of its kernel group.
struct ProblemGroup {
  std::vector<DeviceIndex> assigned;           // ascending
  std::vector<std::uint32_t> assigned_classes;  // ascending, unique
  std::vector<std::uint32_t> member_classes;    // of all members, assigned or not; ascending, unique
  std::vector<Side> sides;                      // by separate rule
  std::uint64_t enforceable = 0;                // assigned devices whose IOMMU can block no-snoop
  std::vector<UnitIndex> units;                 // in front of the members; ascending, unique
};

// What is placed as one: a group, or groups that a binding joins. The sums of their parts.
struct Item : ProblemGroup {
  std::vector<std::uint32_t> groups;  // of Problem::groups, ascending

  DeviceIndex lowest() const { return assigned.front(); }
};

// A reason why groups are one item; for explanations.
struct Binding {
  std::string rule;  // "policy.together" or "core.automatic"
  std::string name;  // the policy rule's, or the unit's
  std::vector<std::uint32_t> groups;
};

struct Problem {
  VmIndex vm;
  VmQuantities quantities;
  std::vector<MemoryRange> memory;
  std::uint64_t backing = 4096;
  std::uint8_t needed_flags = 0;  // by the VM's required needs and `require` rules
  std::vector<DeviceClass> classes;
  std::vector<ProblemGroup> groups;  // by lowest assigned device
  std::vector<Binding> bindings;
  std::vector<Item> items;  // by lowest assigned device
  std::vector<std::string> separate_rules;  // names, in the order of Item::sides
  std::uint64_t max_hwpts = ~std::uint64_t{0};
};

// `needs`: the VM's needs with preferences already decided. Requires: complete facts.
Problem make_problem(const Request& request, VmIndex vm, const Needs& needs, const Law& law);

// The items that these bindings make of the problem's groups; make_problem uses all its bindings.
std::vector<Item> bind_items(const Problem& problem, const std::vector<Binding>& bindings);

// Does a separate rule keep items with these sides apart? Can an item with this side be placed at all?
bool kept_apart(const Side& a, const Side& b);
bool torn_apart(const Side& side);

// What the VM maps. Requires: its machine's facts are present (planner.cc completes them).
std::vector<MemoryRange> memory_of(const VirtualMachine& vm, const Host& host);

// The regions that an attached device reserves in an IOAS, relaxable ones left out.
std::vector<ReservedRegion> reserved_by(const Host& host, DeviceIndex device, const Law& law);

// Is the device chosen, in this VM?
bool chosen(const Selector& selector, const Host& host, const VirtualMachine& vm, const AssignedDevice& device);

}  // namespace ioplan
