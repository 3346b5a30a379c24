// What is asked of a running VM, and the documents as they are afterwards (README.md 1).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/base/error.h"
#include "engine/model/plan.h"
#include "engine/model/request.h"

namespace ioplan {

struct Change {
  std::string vm;                // empty: the request's only one
  std::vector<std::string> add;  // host device ids and mediated devices' UUIDs
  std::vector<std::string> remove;
  std::vector<Range> memory;      // to map, GPA
  std::uint64_t memory_size = 0;  // to map, bytes, where `+SIZE` puts it
};

// Which VM of the request the change is about. Errors: no such VM, or not clear which.
Result<std::size_t> vm_of(const Request& request, const Change& change);

// Every VM as it runs now: devices and memory are the layout's, names and needs the documents'.
// Requires: `running` and `request` are about the same host and VMs.
Request running_request(const Plan& running, const Request& request);

// The documents after the change. Errors: a change that makes no sense (a device that the host lacks or that some VM
// has, one that is not there to be removed, memory that overlaps or is no whole number of pages).
Result<Request> changed_request(const Plan& running, const Request& request, const Change& change);

}  // namespace ioplan
