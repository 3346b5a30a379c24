#include "backends/sim/sim_type1_backend.h"

#include <fmt/format.h>

#include <algorithm>

#include "backends/sim/sim_action.h"
#include "engine/base/log2.h"
#include "engine/base/text.h"

namespace ioplan::sim {

Result<void> SimType1Backend::admit(const Plan& plan) {
  for (const Step& s : plan.steps) {
    if (s.kind == StepKind::attach_ioas && !machine_.host().find_device(s.device)) {
      return failure(fmt::format("the simulated host has no device `{}`", s.device));
    }
  }
  return {};
}

// ------------------------------------------------------------------------------------------------- steps

Result<std::unique_ptr<Action>> SimType1Backend::prepare(const Plan& plan, const Step& step) {
  if (step.kind == StepKind::ioas_alloc) {
    if (spaces_.contains(step.ioas)) return failure(fmt::format("`{}` is there already", step.ioas));
    return std::make_unique<StepAction>(
        step.ioas,
        [this, name = step.ioas]() -> Result<void> {
          spaces_[name].container = Type1Container::open(machine_);
          return {};
        },
        [this, name = step.ioas]() -> Result<void> {
          spaces_.erase(name);
          return {};
        });
  }
  if (step.kind != StepKind::attach_ioas && step.kind != StepKind::map) {
    return failure(fmt::format("a container cannot `{}`", kStepKindNames[static_cast<std::size_t>(step.kind)]));
  }
  if (!spaces_.contains(step.ioas)) return failure(fmt::format("`{}` is not allocated", step.ioas));
  if (step.kind == StepKind::map) return prepare_map(plan, step);
  const auto device = machine_.host().find_device(step.device);
  if (!device) return failure(fmt::format("the simulated host has no device `{}`", step.device));
  if (attached_.contains(step.device)) return failure(fmt::format("`{}` is attached already", step.device));
  const std::uint32_t group = machine_.host().device(*device).group.value();
  return std::make_unique<StepAction>(
      step.device + " (attached)", [this, step, group] { return attach(step, group); },
      [this, id = step.device] { return detach(id); });
}

bool SimType1Backend::in_use(std::uint32_t group) const {
  return std::ranges::any_of(attached_, [&](const auto& a) { return a.second.group == group; });
}

// The first device of a group brings it into the container.
Result<void> SimType1Backend::attach(const Step& step, std::uint32_t group) {
  if (!in_use(group)) {
    if (auto joined = join(spaces_.at(step.ioas), group); !joined) return joined;
  }
  attached_[step.device] = {step.ioas, step.hwpt, group};
  return {};
}

Result<void> SimType1Backend::join(Space& space, std::uint32_t group) {
  if (const auto joined = space.container->attach_group(group); !joined) return failed(joined.error());
  if (space.started) return {};
  const auto set = space.container->set_iommu();
  if (!set) {
    (void)space.container->detach_group(group);
    return failed(set.error());
  }
  space.started = true;
  return {};
}

Result<void> SimType1Backend::detach(const std::string& device) {
  const Attached was = attached_.at(device);
  attached_.erase(device);
  if (in_use(was.group)) return {};
  Space& space = spaces_.at(was.ioas);
  const auto left = space.container->detach_group(was.group);
  if (!left) return failed(left.error());
  space.started = std::ranges::any_of(attached_, [&](const auto& a) { return a.second.ioas == was.ioas; });
  return {};
}

// ------------------------------------------------------------------------------------------------- memory

Result<std::unique_ptr<Action>> SimType1Backend::prepare_map(const Plan& plan, const Step& step) {
  const auto wanted = memory_.wanted(plan, step);
  if (!wanted) return tl::make_unexpected(wanted.error());
  return std::make_unique<StepAction>(
      fmt::format("{} ({:#x}-{:#x} mapped)", step.ioas, step.iova.start, step.iova.last),
      [this, step, wanted = *wanted] { return map(step, wanted); },
      [this, step, place = wanted->place] { return unmap(step, place); });
}

Result<void> SimType1Backend::map(const Step& step, const GuestMemories::Wanted& wanted) {
  GuestMemory& guest = memory_.get(wanted);
  const std::uint32_t flags = kVfioMapRead | (step.writeable ? kVfioMapWrite : 0);
  const auto mapped = spaces_.at(step.ioas).container->map_dma(
      step.iova.start, guest.memory.user_va + (step.iova.start - guest.first), step.iova.extent() + 1, flags);
  if (mapped) ++guest.pieces;
  memory_.release(wanted.place);
  return done(mapped);
}

Result<void> SimType1Backend::unmap(const Step& step, const GuestMemories::Place& place) {
  const auto unmapped = spaces_.at(step.ioas).container->unmap_dma(step.iova.start, step.iova.extent() + 1);
  if (!unmapped) return failed(unmapped.error());
  --memory_.at(place).pieces;
  memory_.release(place);
  return {};
}

// ------------------------------------------------------------------------------------------------- observing

Result<Observation> SimType1Backend::observe() {
  Observation seen;
  std::uint64_t pinned = 0;
  for (const auto& [name, space] : spaces_) {
    ObservedIoas& ioas = seen.ioas.emplace_back(ObservedIoas{name, std::nullopt, std::nullopt, std::nullopt});
    pinned += space.container->pinned_bytes();
    if (!space.started) continue;
    auto info = space.container->get_info();
    if (!info) return failed(info.error());
    ioas.ranges = std::move(info->iova_ranges);
    ioas.alignment = lowest_bit(info->page_sizes);
    for (const Type1Domain& domain : space.container->domains()) seen.hwpts.push_back(observe_domain(name, space, domain));
  }
  seen.pinned_bytes = pinned;
  return seen;
}

// Named as the plan names the HWPT of its first device; if the container has made another of the same name, or has put
// strangers into it, the comparison says so.
ObservedHwpt SimType1Backend::observe_domain(const std::string& ioas, const Space& space, const Type1Domain& domain) const {
  ObservedHwpt hwpt;
  std::vector<std::string> devices;
  for (const std::uint32_t group : domain.groups) {
    for (const auto& [id, attached] : attached_) {
      if (attached.group != group) continue;
      if (hwpt.id.empty()) hwpt.id = attached.hwpt;
      devices.push_back(id);
    }
    if (!hwpt.allocator && !devices.empty()) {  // of the group that opened the domain
      hwpt.allocator = *std::ranges::min_element(devices, natural_less);
    }
  }
  std::ranges::sort(devices, natural_less);
  const Host& host = machine_.host();
  hwpt.ioas = ioas;
  hwpt.stage = domain.shape.stage;
  hwpt.levels = domain.shape.levels;
  hwpt.address_bits = domain.shape.address_bits;
  hwpt.format = domain.shape.format;
  hwpt.aperture = domain.shape.aperture;
  hwpt.page_sizes = domain.shape.page_sizes;
  hwpt.enforce_cache_coherency = domain.enforce_cache_coherency;
  hwpt.flags = 0;
  hwpt.devices = std::move(devices);
  hwpt.driver = host.unit(*host.device(domain.allocator).unit).driver;
  hwpt.automatic = true;
  // On Arm the container also maps where interrupts go, which plans leave out.
  if (domain.shape.format != PageTableFormat::arm_lpae) {
    hwpt.page_table_bytes = space.container->table(domain.number)->table_bytes();
  }
  return hwpt;
}

}  // namespace ioplan::sim
