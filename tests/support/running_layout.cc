#include "tests/support/running_layout.h"

#include <algorithm>

namespace ioplan::oracle {

namespace {

// Fields that only plans of running layouts have; read where the model knows them.
template <class Ioas>
void read_running_fields(const Ioas& ioas, Space& space) {
  if constexpr (requires { ioas.allowed; }) space.allowed = ioas.allowed;
  if constexpr (requires { ioas.retained; }) space.retained = ioas.retained;
  if (space.allowed.empty()) space.allowed = ranges_of(space.memory);
}

template <class AnyPlan>
void read_promises(const AnyPlan& plan, Space& space) {
  if constexpr (requires { plan.promises; }) {
    for (const auto& promise : plan.promises) {
      if (promise.vm != space.vm) continue;
      if (promise.device.empty()) {
        space.promised_memory = promise.memory;
      } else {
        space.promised.push_back({promise.device, promise.hwpt});
      }
    }
  }
}

RunningHwpt hwpt_of(const PlannedHwpt& h) { return {h.id, h.allocator, h.flags, h.automatic, h.devices}; }

}  // namespace

const Space* space_of(const Layout& layout, std::string_view vm) {
  const auto it = std::ranges::find(layout.spaces, vm, &Space::vm);
  return it == layout.spaces.end() ? nullptr : &*it;
}

std::vector<std::string> attached_devices(const Space& space) {
  std::vector<std::string> devices;
  for (const RunningHwpt& h : space.hwpts) devices.insert(devices.end(), h.devices.begin(), h.devices.end());
  std::ranges::sort(devices, natural_less);
  return devices;
}

std::vector<Range> ranges_of(const std::vector<MemoryRange>& memory) {
  std::vector<Range> ranges;
  for (const MemoryRange& m : memory) ranges.push_back(m.gpa);
  return ranges;
}

Layout layout_of(const Plan& plan) {
  Layout layout;
  layout.preferences = plan.preferences;
  for (const PlannedIoas& ioas : plan.ioas) {
    Space space;
    space.id = ioas.id;
    space.vm = ioas.vm;
    space.memory = ioas.memory;
    space.backing = ioas.backing;
    for (const PlannedHwpt& h : plan.hwpts) {
      if (h.ioas == ioas.id) space.hwpts.push_back(hwpt_of(h));
    }
    for (const Step& s : plan.steps) {
      if (s.kind == StepKind::attach_ioas && s.ioas == ioas.id && is_uuid(s.device)) space.mediated.push_back(s.device);
    }
    read_running_fields(ioas, space);
    read_promises(plan, space);
    std::ranges::sort(space.memory);
    std::ranges::sort(space.mediated);
    std::ranges::sort(space.hwpts, natural_less, &RunningHwpt::id);
    std::ranges::sort(space.promised, natural_less, &PromisedDevice::device);
    layout.spaces.push_back(std::move(space));
  }
  std::ranges::sort(layout.spaces, {}, &Space::vm);
  return layout;
}

}  // namespace ioplan::oracle
