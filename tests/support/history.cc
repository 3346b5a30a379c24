#include "tests/support/history.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "engine/base/log2.h"
#include "tests/support/generator.h"
#include "tests/support/layout_rules.h"

namespace ioplan::generator {

namespace {

constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;

GeneratorOptions small_and_complete() {
  GeneratorOptions options;
  options.absent = 0;
  options.most_groups = 7;
  options.scarce_ids = 14;
  return options;
}

std::string mediated_of(const std::string& vm, unsigned number) {
  return fmt::format("4b20d080-1b54-4048-85b3-a6a62d165c{}{}", number, vm.back());
}

bool has(const std::vector<std::string>& names, const std::string& name) { return std::ranges::count(names, name) > 0; }

}  // namespace

History::History(std::uint64_t seed) : dice_(seed ^ 0x5851f42d4c957f2dULL) {
  request_ = random_request(seed, small_and_complete());
  for (VirtualMachine& vm : request_.vms) vm.hotplug = {};
  mix_coherency();
  take_devices_out();
}

// VT-d units of one host that differ in what they can enforce, often in nothing else: their devices may share a HWPT
// that does not enforce. That is what unplugs are about, and chance does not have it often enough.
void History::mix_coherency() {
  if (!chance(60)) return;
  const bool alike = chance(60);
  const Unit* first = nullptr;
  for (Unit& unit : request_.host.units) {
    if (unit.driver != Driver::intel) continue;
    if (first == nullptr) first = &unit;
    if (alike) unit.facts = first->facts;
    const std::uint64_t ecap = *unit.facts[UnitFact::ecap] & ~pow2(7);
    unit.facts[UnitFact::ecap] = ecap | (chance(60) ? pow2(7) : 0);
  }
}

// What is out of the VM can be plugged.
void History::take_devices_out() {
  for (VirtualMachine& vm : request_.vms) {
    std::set<std::uint32_t> groups, out;
    for (const AssignedDevice& a : vm.devices) {
      if (a.host) groups.insert(*request_.host.device(*a.host).group);
    }
    for (std::uint32_t g : groups) {
      if (out.size() + 1 < groups.size() && chance(40)) out.insert(g);
    }
    std::erase_if(vm.devices, [&](const AssignedDevice& a) {
      return a.host && out.contains(*request_.host.device(*a.host).group);
    });
  }
}

std::vector<std::string> History::free_for(const oracle::Layout& now, const std::string& vm) const {
  std::set<std::string> own;
  std::set<std::uint32_t> of_others;
  for (const oracle::Space& s : now.spaces) {
    auto bound = oracle::attached_devices(s);
    if (s.vm == vm) own.insert(bound.begin(), bound.end());
    if (s.vm == vm) continue;
    bound.insert(bound.end(), s.retained.begin(), s.retained.end());
    for (const std::string& d : bound) {
      if (const auto index = request_.host.find_device(d)) of_others.insert(*request_.host.device(*index).group);
    }
  }
  std::vector<std::string> free;
  for (const Device& d : request_.host.devices) {
    if (!own.contains(d.id) && !of_others.contains(*d.group)) free.push_back(d.id);
  }
  return free;
}

void History::add_devices(oracle::PlugChange& change, const oracle::Layout& now) {
  auto free = free_for(now, change.vm);
  std::shuffle(free.begin(), free.end(), dice_);
  free.resize(std::min<std::size_t>(free.size(), chance(60) ? 1 : 1 + below(3)));
  std::ranges::sort(free, natural_less);
  change.add.insert(change.add.end(), free.begin(), free.end());
}

void History::remove_devices(oracle::PlugChange& change, const oracle::Layout& now) {
  const oracle::Space* space = oracle::space_of(now, change.vm);
  if (space == nullptr) return;
  auto there = oracle::attached_devices(*space);
  if (chance(25)) {  // everybody because of whom KVM is non-coherent
    std::erase_if(there, [&](const std::string& d) { return !oracle::is_non_coherent(request_.host, d); });
    there.insert(there.end(), space->mediated.begin(), space->mediated.end());
  } else {
    std::shuffle(there.begin(), there.end(), dice_);
    there.resize(std::min<std::size_t>(there.size(), chance(60) ? 1 : 1 + below(3)));
    std::ranges::sort(there, natural_less);
  }
  change.remove.insert(change.remove.end(), there.begin(), there.end());
}

void History::change_mediated(oracle::PlugChange& change, const oracle::Layout& now) {
  const oracle::Space* space = oracle::space_of(now, change.vm);
  const std::string device = mediated_of(change.vm, 1 + static_cast<unsigned>(below(2)));
  const bool there = space != nullptr && has(space->mediated, device);
  (there ? change.remove : change.add).push_back(device);
}

void History::add_memory(oracle::PlugChange& change, const oracle::Layout& now) {
  const oracle::Space* space = oracle::space_of(now, change.vm);
  if (space == nullptr) return;
  if (chance(70)) {
    change.memory_size = std::max(space->backing, kGiB * (std::uint64_t{1} << below(9)));
    return;
  }
  // Somewhere, perhaps under a reserved region.
  const std::uint64_t start = chance(50) ? 0xfe000000 / space->backing * space->backing : kGiB * (64 + below(2048));
  const Range range{start, start + std::max<std::uint64_t>(space->backing, 32 << 20) - 1};
  const bool free = std::ranges::none_of(space->memory, [&](const MemoryRange& m) { return m.gpa.overlaps(range); });
  if (free) change.memory.push_back(range);
}

oracle::PlugChange History::next(const oracle::Layout& now) {
  oracle::PlugChange change;
  change.vm = request_.vms[below(request_.vms.size())].name;
  const std::size_t roll = below(100);
  if (roll < 42 || (roll >= 74 && roll < 84)) add_devices(change, now);
  if (roll >= 42 && roll < 84) remove_devices(change, now);
  if (roll >= 84 && roll < 93) change_mediated(change, now);
  if (roll >= 93) add_memory(change, now);
  return change;
}

Change change_of(const oracle::PlugChange& c) { return {c.vm, c.add, c.remove, c.memory, c.memory_size}; }

Request for_containers(Request request) {
  for (VirtualMachine& vm : request.vms) {
    std::erase_if(vm.devices, [](const AssignedDevice& a) { return !a.host; });
    vm.needs = {};
    vm.hotplug = {};
  }
  std::erase_if(request.vms, [](const VirtualMachine& vm) { return vm.devices.empty(); });
  std::erase_if(request.policy.rules, [](const PolicyRule& r) { return std::holds_alternative<RequireRule>(r.what); });
  return request;
}

Request random_expectations(std::uint64_t seed) {
  std::mt19937_64 dice(seed ^ 0x2545f4914f6cdd1dULL);
  GeneratorOptions options = small_and_complete();
  options.several_vms = 0;
  options.most_groups = 6;
  Request request = random_request(seed, options);
  request.vms.resize(1);
  VirtualMachine& vm = request.vms.front();
  std::set<std::uint32_t> groups, out;
  for (const AssignedDevice& a : vm.devices) {
    if (a.host) groups.insert(*request.host.device(*a.host).group);
  }
  for (std::uint32_t g : groups) {
    if (out.size() + 1 < groups.size() && dice() % 100 < 50) out.insert(g);
  }
  std::erase_if(vm.devices,
                [&](const AssignedDevice& a) { return a.host && out.contains(*request.host.device(*a.host).group); });
  vm.hotplug = {};
  if (dice() % 100 < 25) vm.hotplug.classes.push_back(dice() % 2 == 0 ? "0x02" : "0x0108");
  for (const Device& d : request.host.devices) {
    const bool own = std::ranges::any_of(
        vm.devices, [&](const AssignedDevice& a) { return a.host && request.host.device(*a.host).id == d.id; });
    if (!own && vm.hotplug.hosts.size() < 4 && dice() % 100 < 60) vm.hotplug.hosts.push_back(d.id);
  }
  if (vm.hotplug.classes.size() > 0) vm.hotplug.hosts.clear();
  if (dice() % 100 < 40) vm.hotplug.memory = kGiB * (std::uint64_t{1} << dice() % 9);
  return request;
}

}  // namespace ioplan::generator
