// The slow, obviously correct judge of plans over time: what the tests believe about hot-plug.
//
// Written from engine/lifecycle/README.md ("L1".."L9") and the kernel rules (oracle_kernel.h), without a line of the
// engine's planners. It tries every assignment of what is added to what may take it, every template, every matching and
// every order of plugs; it is for small VMs (seven groups). Facts must be complete.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/model/plan.h"
#include "engine/model/request.h"
#include "tests/support/oracle.h"
#include "tests/support/running_layout.h"

namespace ioplan::oracle {

struct PlugChange {
  std::string vm;
  std::vector<std::string> add;  // host device ids and UUIDs
  std::vector<std::string> remove;
  std::vector<Range> memory;
  std::uint64_t memory_size = 0;
};

// Policy noncoherent_unplug; `unplug_of` reads it where the model has it.
enum class Unplug : std::uint8_t { release, retain };
Unplug unplug_of(const Policy& policy);

enum class Outcome : std::uint8_t { bad_input, infeasible, feasible };

struct PlugAnswer {
  Outcome outcome = Outcome::infeasible;
  std::vector<std::string> why;  // when it is not feasible; the first word is the rule where README names one
  ObjectiveValues objectives;    // of the whole new layout
  Layout layout;                 // the new one
  std::size_t interrupted = 0;   // converge: the fewest devices of both layouts that change their HWPT
  std::size_t kept = 0;          // converge: HWPTs kept by the matching that interrupts the fewest
};

// L3, L4. Frozen and additive: `layout` is the canonical best one, HWPTs, allocators and flags included. Converge: the
// target of judge() (oracle.h) under the names that the matching gives.
// Requires: `running` is a layout for the host of `request`; expectations of the VMs are not looked at.
PlugAnswer plug(const Request& request, const Layout& running, const PlugChange& change, HotplugPolicy mode,
                Unplug unplug);

// The VMs as `plan` boots them, by judge() (oracle.h); nothing when that is infeasible.
std::optional<Layout> boot(const Request& request);

// L1: the documents after the change, every VM as it runs. Nothing when the change makes no sense; `why` says why.
std::optional<Request> request_after(const Request& request, const Layout& running, const PlugChange& change,
                                     std::vector<std::string>& why);

// L2, one line for each fault; empty when the layout is valid for the request, whose VMs are those of the layout.
std::vector<std::string> faults_of(const Request& request, const Layout& layout);

// What a Plan document says of a HWPT, so that all of it can be compared.
Hwpt describe(const Host& host, const Space& space, const RunningHwpt& hwpt);

// The counts of a layout under D4..D6, over all of its VMs.
ObjectiveValues objectives_of(const Request& request, const Layout& layout);

// ------------------------------------------------------------------------------------------------------ L5: matching

struct Matching {
  std::size_t interrupted = 0;
  std::size_t kept = 0;
  Layout target;  // with the names and allocators of the running objects that it keeps
};

// Over all one-to-one matchings of equal HWPTs: the fewest interrupted devices, then the most kept HWPTs, then the
// lowest running one for each target HWPT in order of their lowest device.
Matching best_matching(const Host& host, const Layout& running, const Layout& target);

// Equal ids are one object: how many devices of both layouts are in another one?
std::size_t interrupted_devices(const Layout& running, const Layout& matched_target);

// ------------------------------------------------------------------------------------------------------ L7: foresight

struct Foresight {
  bool feasible = false;             // the VM as it boots, whatever is expected
  std::optional<Range> memory;       // promised
  std::vector<std::string> devices;  // promised, ascending
  std::vector<std::string> refused;  // expected and not promised
  ObjectiveValues objectives;        // the least among the layouts that keep all promises
  std::vector<std::string> preferences;
  Layout layout;  // one of the best
};

// Requires: the request has one VM.
Foresight foresee(const Request& request);

// Devices that the VM expects, ascending: hosts by name and by class, without those that some VM has.
std::vector<std::string> expected_devices(const Request& request, const VirtualMachine& vm);

// Where +SIZE goes (L1).
std::optional<Range> place_memory(const std::vector<MemoryRange>& mapped, std::uint64_t backing, std::uint64_t size);

// Plugs every set of promises in every order in frozen mode; one line for each plug that is refused, or that lands
// elsewhere than promised. Requires: one VM.
std::vector<std::string> broken_promises(const Request& request, const Layout& booted);

}  // namespace ioplan::oracle
