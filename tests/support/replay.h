// Which mutants of a plan are really wrong? A second judge for the tests of the first.
//
// Some faults are no faults: another allocator of the same class, independent steps in another order. The replay
// decides, and shares no code with engine/check: it carries the steps out on a little iommufd, derives every other
// field of the plan again from the decisions alone (who is where, by which allocator, with which flags), and compares.
// Address arithmetic is by sampling between boundaries, page tables are counted by walking down the tree, and what is
// optimal it asks of the oracle. Slow, and only for complete requests of at most eight groups.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "engine/law/law.h"
#include "engine/model/plan.h"
#include "engine/model/request.h"
#include "tests/support/oracle.h"

namespace ioplan::replay {

class Replay {
 public:
  // Requires: a complete request. `truth` is a plan whose list of assumptions is believed.
  Replay(const Request& request, const Law& law, const Plan& truth);

  // Everything that is wrong with the plan; empty when it is right.
  std::vector<std::string> faults(const Plan& plan) const;

  // The plan with every field derived anew from its decisions: VMs, IOASes by VM, and each HWPT's IOAS, allocator,
  // flags and devices. The proof is kept as it is. Requires: the decisions refer to things that exist.
  Plan derived(Plan decisions) const;

 private:
  Request request_;
  const Law& law_;
  Plan truth_;
  oracle::Answer best_;
  mutable std::map<std::pair<std::string, std::string>, bool> exclusive_;

  bool exclusive(const std::string& a, const std::string& b) const;
  void check_proof(const Plan& plan, std::vector<std::string>& faults) const;
  void check_answer(const Plan& plan, std::vector<std::string>& faults) const;
};

// Bytes of the page tables that map `memory`, counted from the root down.
std::uint64_t count_table_bytes(const PlannedHwpt& hwpt, const std::vector<MemoryRange>& memory, std::uint64_t backing);

}  // namespace ioplan::replay
