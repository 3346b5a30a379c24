// Which facts does a request rest on that nobody stated?
//
// An absent fact either has a stock value, and then it is an assumption, or it is unknown. Both are collected for the
// devices of the VMs, the other members of their groups, and the units in front of them: nothing else can matter.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "engine/law/law.h"
#include "engine/model/plan.h"
#include "engine/model/request.h"

namespace ioplan {

struct MissingFact {
  std::string path;  // "iommus.dmar0.ecap", "devices.0000:01:00.0.canwbs", "vms.vm0.machine.cpu_vendor"
  std::vector<std::uint64_t> candidates;  // the most capable first; empty when no document value could be tried
  std::function<void(Request&, std::uint64_t)> set;
  std::function<std::string(std::uint64_t)> show;  // a value as a document would write it
};

// Absent facts without a stock value.
std::vector<MissingFact> unknown_facts(const Request& request);

// Stock values that stand in for absent facts. Requires: no unknown ones (or completed).
std::vector<Assumption> assumed_facts(const Request& request);

// The request with every assumed fact stated, as someone would who checked them.
Request with_assumptions_stated(Request request, const Law& law);

}  // namespace ioplan
