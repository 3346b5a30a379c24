// The slow, obviously correct judge of plans: what the tests believe.
//
// It is written from the kernel rules (reference/kernel-rules.md, "KR" below; what they say of devices and HWPTs is in
// oracle_kernel.h) and from the decisions in engine/README.md ("D1".."D12"), and uses nothing of ours but the model and
// range arithmetic, so that a disagreement with the planner is a bug in one of the two. It tries every partition and
// every template; it is for small instances (eight groups a VM at most). Clarity comes before speed everywhere.
//
// Three judges live here:
//   judge()            a complete Request -> the one right plan, or that there is none
//   undecided()        a Request with absent facts -> do the candidate values of those facts give different plans
//   brute_force_cover  the abstract problem of engine/solve/cover.h
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/model/plan.h"
#include "engine/model/request.h"
#include "engine/solve/cover.h"

namespace ioplan::oracle {

// ---------------------------------------------------------------------------------------------- the abstract cover

struct CoverAnswer {
  bool feasible = false;
  ObjectiveValues values;               // of the best partition under the instance's order
  std::vector<std::uint32_t> block_of;  // the canonical one among the best
  std::size_t fewest_blocks = 0;        // of any admissible partition, whatever the order of objectives
  std::size_t clique = 0;               // largest set of elements no two of which may share a block
};

// Requires: at most 9 elements (21147 partitions).
CoverAnswer brute_force_cover(const CoverInstance& instance);

// May the two elements never share a block?
bool exclusive(const CoverInstance& instance, std::size_t a, std::size_t b);

// ------------------------------------------------------------------------------------------------------- requests

// One HWPT of the right plan, as a Plan document fixes it.
struct Hwpt {
  std::string allocator;
  std::uint8_t flags = 0;
  HwptKind kind = HwptKind::paging;
  Driver driver = Driver::intel;
  unsigned stage = 1;
  PageTableFormat format = PageTableFormat::x86_64;
  unsigned levels = 0;
  unsigned address_bits = 0;
  Range aperture;
  std::uint64_t page_sizes = 0;
  bool enforce_cache_coherency = false;
  bool automatic = false;
  std::uint64_t page_table_bytes = 0;
  std::vector<std::string> devices;

  friend bool operator==(const Hwpt&, const Hwpt&) = default;
};

// A HWPT as its allocating device makes it; bytes and devices are left out.
struct Table;  // oracle_kernel.h
Hwpt hwpt_of(const Host& host, const Table& table);

struct Ioas {
  std::string vm;
  std::vector<Range> ranges;
  std::uint64_t alignment = 1;

  friend bool operator==(const Ioas&, const Ioas&) = default;
};

struct Answer {
  bool feasible = false;
  ObjectiveValues objectives;
  std::vector<Ioas> ioas;   // by VM
  std::vector<Hwpt> hwpts;  // by lowest device
  bool noncoherent_dma = false;
  std::vector<std::string> because;
  std::uint64_t pinned_bytes = 0, page_table_bytes = 0, memlock_bytes = 0;
  std::vector<std::string> preferences;  // adopted: "vm.need"

  // Not part of a plan; for the mix of instances and for checking proofs.
  std::size_t fewest_hwpts = 0;  // of any admissible partition of all VMs
  std::size_t clique = 0;        // most groups (of all VMs) no two of which may share a HWPT
  std::vector<std::string> why;  // one line for each reason that makes a VM infeasible by itself (diagnostics only)
};

// Equal in everything that a Plan document fixes.
bool same_plan(const Answer& a, const Answer& b);

// Requires: complete(request), at most 8 items a VM.
Answer judge(const Request& request);

// May these two host devices never share a HWPT (their groups, all rules of the VM that holds them)?
bool exclusive(const Request& request, const std::string& device_a, const std::string& device_b);

// An absent fact without a stock default that stands behind a device of a VM (or of its group).
struct AbsentFact {
  enum class Of : std::uint8_t { kernel, unit, device } of = Of::kernel;
  std::size_t index = 0;  // of the unit or device
  std::size_t fact = 0;
  std::vector<std::uint64_t> candidates;
  std::string path;
};
std::vector<AbsentFact> absent_facts(const Request& request);
void set_fact(Host& host, const AbsentFact& absent, std::uint64_t value);

// Do two completions of the absent facts give different plans? Tries every combination of candidates.
bool undecided(const Request& request);

// D3: keys joined by "and", values by "or".
bool selects(const Selector& selector, const Device& device, const AssignedDevice& assigned);

// Every memory range that the VM's devices must reach.
std::vector<MemoryRange> memory_of(const VirtualMachine& vm);

}  // namespace ioplan::oracle
