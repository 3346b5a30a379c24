// The judge's own reading of a request whose facts are complete: one Scene a VM.
//
// A World holds the host under the law; a Scene holds what one VM assigns, asks and maps. Both are plain data, read
// by every obligation and changed by none. Devices are indices into Host::devices.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "engine/check/interval.h"
#include "engine/law/law.h"
#include "engine/model/plan.h"
#include "engine/model/request.h"

namespace ioplan::check {

// The law's rules, sorted by phase.
class Statutes {
 public:
  explicit Statutes(const Law& law);

  // The first rule of this phase that does not hold; null when all do.
  const Rule* broken(Phase phase, const Values& values) const;
  // The same of the rules that Linux itself checks.
  const Rule* broken_in_linux(Phase phase, const Values& values) const;
  bool known(std::string_view name) const;

 private:
  std::array<std::vector<const Rule*>, kPhaseNames.size()> by_phase_;
};

// A group, as far as one VM uses it.
struct Item {
  std::vector<std::size_t> assigned;  // to the VM, ascending
  std::vector<std::size_t> members;   // all devices of the group, ascending
};

struct Scene {
  const VirtualMachine* vm = nullptr;
  std::vector<const AssignedDevice*> entries;  // host devices, in the order of their indices
  std::vector<std::string> mediated;
  std::vector<MemoryRange> memory;  // mapped
  std::vector<MemoryRange> reach;   // and what is expected to be
  std::uint64_t backing = 4096;
  VmQuantities asks;
  std::vector<Item> items;
  std::map<std::size_t, DeviceQuantities> quantities;  // of every member of an item

  bool assigns(std::size_t device) const;
  bool expects(std::size_t device) const;  // it is only expected: a place is kept for it
  bool has_devices() const { return !entries.empty() || !mediated.empty(); }  // else it needs no IOAS
};

// Preferred needs that count as required, by VM.
struct Adopted {
  std::array<bool, 3> need{};  // dirty_tracking, nest_parent, pasid
};
inline constexpr std::array<std::string_view, 3> kNeedKeys = {"dirty_tracking", "nest_parent", "pasid"};

struct World {
  World(const Request& complete, const Law& law_, const std::vector<std::string>& preferences);

  const Request& request;
  const Law& law;
  Statutes statutes;
  std::vector<Scene> scenes;

  const Host& host() const { return request.host; }
  const std::string& id(std::size_t device) const { return host().devices[device].id; }
  std::uint64_t kernel_page() const { return host().kernel.facts[KernelFact::page_size].value_or(4096); }
  const Scene* scene(std::string_view vm) const;
};

// Regions that a device keeps out of its IOAS: those of the document, or the driver's own; relaxable ones left out.
std::vector<ReservedRegion> binding_regions(const World& world, std::size_t device);

// The value of `vm.need` in `preferences`, by need.
Adopted adopted_by(const VirtualMachine& vm, const std::vector<std::string>& preferences);

// What a VM maps, under the stock machine where the document states none.
MachineType machine_type(const Request& request, const VirtualMachine& vm);
std::vector<MemoryRange> memory_of(const Request& request, const VirtualMachine& vm);

// Does a policy's selector choose this device of a VM?
bool selects(const Selector& selector, const Host& host, const AssignedDevice& entry);

// Host devices of the scene that a selector chooses.
std::vector<std::size_t> selected(const World& world, const Scene& scene, const Selector& selector);

std::uint64_t page_table_bytes(const Scene& scene, const HwptQuantities& hwpt);

}  // namespace ioplan::check
