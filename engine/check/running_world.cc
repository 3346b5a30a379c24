#include "engine/check/running_world.h"

#include <algorithm>

#include "engine/base/text.h"

namespace ioplan::check {

namespace {

bool is_access(const Step& s) { return s.kind == StepKind::attach_ioas && is_uuid(s.device); }

bool joins_container(const Plan& layout, const Step& s) {
  return layout.interface == KernelInterface::type1 && s.kind == StepKind::attach_ioas;
}

std::vector<Range> gpa_of(const std::vector<MemoryRange>& memory) {
  std::vector<Range> ranges;
  for (const MemoryRange& m : memory) ranges.push_back(m.gpa);
  return ranges;
}

void note_made(std::vector<std::string>& made, const std::string& hwpt) {
  if (std::find(made.begin(), made.end(), hwpt) == made.end()) made.push_back(hwpt);
}

}  // namespace

RunningWorld world_of(const Plan& layout, const Host& host, const Law& law) {
  RunningWorld world;
  for (const PlannedIoas& ioas : layout.ioas) {
    RunningSpace& space = world.spaces[ioas.id];
    space = {ioas.vm, {}, ioas.memory, {}};
    if (layout.interface == KernelInterface::iommufd) space.allowed = ioas.allowed.empty() ? gpa_of(ioas.memory) : ioas.allowed;
    world.bound.insert(ioas.retained.begin(), ioas.retained.end());
  }
  for (const PlannedHwpt& h : layout.hwpts) {
    const auto maker = host.find_device(h.allocator);
    world.hwpts[h.id] = {h.ioas, law.allocate(law.describe(host, *maker), h.flags), h.automatic, maker->index()};
    for (const std::string& d : h.devices) world.home[d] = h.id;
    world.bound.insert(h.devices.begin(), h.devices.end());
  }
  for (const Step& s : layout.steps) {
    if (joins_container(layout, s)) note_made(world.spaces[s.ioas].made, s.hwpt);
    if (!is_access(s)) continue;
    world.access[s.device] = s.ioas;
    world.bound.insert(s.device);
  }
  world.registered = world.bound;
  return world;
}

std::map<std::string, std::string> vm_of_devices(const Plan& layout) {
  std::map<std::string, std::string> vm_of_ioas, found;
  for (const PlannedIoas& ioas : layout.ioas) {
    vm_of_ioas[ioas.id] = ioas.vm;
    for (const std::string& d : ioas.retained) found[d] = ioas.vm;
  }
  for (const PlannedHwpt& h : layout.hwpts) {
    for (const std::string& d : h.devices) found[d] = vm_of_ioas[h.ioas];
  }
  for (const Step& s : layout.steps) {
    if (is_access(s)) found[s.device] = vm_of_ioas[s.ioas];
  }
  return found;
}

}  // namespace ioplan::check
