// A running layout as the tests read it: what a feasible Plan document says about a machine that runs.
//
// engine/lifecycle/README.md 1 is the definition. The judge of traces (trace_judge.h) and the oracle of plans over time
// (lifecycle_oracle.h) know layouts in this form only, so that neither depends on how the engine keeps them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/range.h"
#include "engine/base/text.h"
#include "engine/model/plan.h"
#include "engine/model/virtual_machine.h"

namespace ioplan::oracle {

// One kernel object. It may be without devices, and its allocator may have left the VM.
struct RunningHwpt {
  std::string id;
  std::string allocator;
  std::uint8_t flags = 0;
  bool automatic = false;
  std::vector<std::string> devices;  // ascending

  friend bool operator==(const RunningHwpt&, const RunningHwpt&) = default;
};

// A device that may be plugged later, and the HWPT that waits for it.
struct PromisedDevice {
  std::string device;
  std::string hwpt;

  friend bool operator==(const PromisedDevice&, const PromisedDevice&) = default;
};

// One VM's address space.
struct Space {
  std::string id;  // of the IOAS
  std::string vm;
  std::vector<RunningHwpt> hwpts;     // by id
  std::vector<std::string> mediated;  // UUIDs
  std::vector<std::string> retained;  // at most one; host devices and UUIDs
  std::vector<MemoryRange> memory;    // mapped, by address
  std::uint64_t backing = 4096;
  std::vector<Range> allowed;
  std::vector<PromisedDevice> promised;  // by device
  std::optional<Range> promised_memory;

  friend bool operator==(const Space&, const Space&) = default;
};

struct Layout {
  std::vector<Space> spaces;             // by VM
  std::vector<std::string> preferences;  // adopted: "vm.need"

  friend bool operator==(const Layout&, const Layout&) = default;
};

const Space* space_of(const Layout& layout, std::string_view vm);
std::vector<std::string> attached_devices(const Space& space);  // host devices, ascending
std::vector<Range> ranges_of(const std::vector<MemoryRange>& memory);

// Requires: the plan is feasible.
Layout layout_of(const Plan& plan);

}  // namespace ioplan::oracle
