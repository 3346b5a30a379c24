// Random questions for the planner: hosts of every driver family, VMs, policies. Seeded, so a failure can be replayed.
//
// A Request that comes out satisfies what document/load guarantees: units, devices, VMs, VM devices and rules are
// sorted, references resolved, no group is split over two VMs, RAM is aligned to 4 KiB and disjoint. At most eight
// groups are assigned in all, so that the oracle (oracle.h) can try every partition. The values are chosen so that
// small differences matter (units of one host differ in a few bits) and ties are common; several sub-generators aim at
// what uniform choice would never hit: odd cycles of `separate` rules, flags that exclude each other, scarce domain
// ids, absent facts. tests/plan_random_test.cc asserts the mix.
#pragma once

#include <cstdint>
#include <string>

#include "engine/model/request.h"

namespace ioplan::generator {

// Chances are in percent of the requests.
struct GeneratorOptions {
  unsigned absent = 12;       // some facts without a stock default are left out
  unsigned odd_cycle = 9;     // `separate` rules form a cycle of five or seven
  unsigned several_vms = 14;  // two or three VMs
  unsigned scarce_ids = 5;    // few domain ids are left
  std::size_t most_groups = 8;
  bool expect_memory = false;  // some VMs expect memory; what is promised is history.h's random_expectations' subject
};

Request random_request(std::uint64_t seed, const GeneratorOptions& options = {});

// The request as YAML text that engine/document/load.h reads back: for saving and replaying a failure.
std::string to_documents(const Request& request);

}  // namespace ioplan::generator
