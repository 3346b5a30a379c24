// When a layout is valid, and what it costs: engine/lifecycle/README.md 2 and the counts of engine/README.md (D4..D6),
// asked of layouts that have any history. The oracle of plans over time (lifecycle_oracle.h) tries layouts and asks
// here.
//
// A promised device ("ghost") is not there yet: it counts for rules, domain ids and regions, but not for KVM, memory or
// the `coherency` objective.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/model/plan.h"
#include "engine/model/request.h"
#include "tests/support/oracle_kernel.h"
#include "tests/support/running_layout.h"

namespace ioplan::oracle {

// One VM as the rules see it, wherever its devices are.
struct Scene {
  const Request* request = nullptr;
  const VirtualMachine* vm = nullptr;
  std::vector<MemoryRange> memory;  // mapped
  std::vector<MemoryRange> held;    // what HWPTs must be able to hold: mapped, and at boot what is promised
  std::vector<Range> allowed;
  std::uint64_t backing = 4096;
  std::vector<DeviceIndex> attached;  // ascending
  std::vector<DeviceIndex> ghosts;    // ascending
  bool mediated = false;
  bool kvm_non_coherent = false;
  std::uint8_t needed = 0;  // flags that required needs and adopted preferences ask for

  const Host& host() const { return request->host; }
};

// A HWPT with what is in it.
struct Placed {
  Table table;
  std::vector<DeviceIndex> devices;
  std::vector<DeviceIndex> ghosts;
};

std::vector<DeviceIndex> indices_of(const Host& host, const std::vector<std::string>& devices);
std::vector<std::string> names_of(const Host& host, const std::vector<DeviceIndex>& devices);
bool is_non_coherent(const Host& host, const std::string& device);  // a UUID always is

std::uint8_t needs_of(const VirtualMachine& vm, Need need);
std::uint8_t adopted_of(const VirtualMachine& vm, const std::vector<std::string>& preferences);

// The scene of a space as it is. Requires: the VM is of the request.
Scene scene_of(const Request& request, const Space& space, const std::vector<std::string>& preferences);
std::vector<Placed> placed_in(const Scene& scene, const Space& space);

// README 2, in pieces; one line for each fault.
std::vector<std::string> vm_faults(const Scene& scene);                                       // whatever the HWPTs
std::vector<std::string> hwpt_faults(const Scene& scene, const Placed& hwpt);                 // one HWPT by itself
std::vector<std::string> cross_faults(const Scene& scene, const std::vector<Placed>& hwpts);  // all of a VM
std::vector<std::string> pool_faults(const Host& host, const std::vector<Placed>& hwpts);     // all of all VMs

ObjectiveValues cost_of(const Scene& scene, const Placed& hwpt);
ObjectiveValues sum(ObjectiveValues a, const ObjectiveValues& b);
bool less_cost(const ObjectiveValues& a, const ObjectiveValues& b, const Policy& policy);

// README 1; all 0 for a VM without HWPTs.
struct Features {
  std::uint64_t page_sizes = 0;
  unsigned address_bits = 0;
  std::uint64_t granule = 0;
  bool dirty_tracking = false;

  friend bool operator==(const Features&, const Features&) = default;
};
Features features_of(const Host& host, const Space& space);

// KVM's verdict on the VM.
bool kvm_non_coherent(const Host& host, const Space& space);

}  // namespace ioplan::oracle
