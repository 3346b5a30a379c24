#include "backends/sim/sim_type1_backend.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "backends/sim/sim_action.h"
#include "engine/base/log2.h"
#include "engine/base/text.h"
#include "engine/model/features.h"

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
  switch (step.kind) {
    case StepKind::ioas_alloc: return prepare_space(step);
    case StepKind::ioas_destroy: return prepare_space_destroy(step);
    case StepKind::kvm_file_add:
    case StepKind::kvm_file_del: return kvm_file_action(kvm_files_, step);
    case StepKind::attach_ioas: return prepare_attach(plan, step);
    case StepKind::detach: return prepare_detach(step);
    case StepKind::map: return prepare_map(plan, step);
    case StepKind::unmap: return prepare_unmap(plan, step);
    default: return failure(fmt::format("a container cannot `{}`", kStepKindNames[static_cast<std::size_t>(step.kind)]));
  }
}

Result<std::unique_ptr<Action>> SimType1Backend::prepare_space(const Step& step) {
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

Result<std::unique_ptr<Action>> SimType1Backend::prepare_space_destroy(const Step& step) {
  const auto space = spaces_.find(step.ioas);
  if (space == spaces_.end()) return failure(fmt::format("`{}` is not allocated", step.ioas));
  if (!space->second.record.empty()) return failure(fmt::format("`{}` is in use", step.ioas));
  return std::make_unique<StepAction>(
      step.ioas + " (closed)",
      [this, name = step.ioas]() -> Result<void> {
        spaces_.erase(name);
        return {};
      },
      [this, name = step.ioas]() -> Result<void> {
        spaces_[name].container = Type1Container::open(machine_);
        return {};
      });
}

// ------------------------------------------------------------------------------------------------- groups

// Opening a device registers its file, unless a step of its own did; not of one that only opens a domain for others.
Result<std::unique_ptr<Action>> SimType1Backend::prepare_attach(const Plan& plan, const Step& step) {
  if (!spaces_.contains(step.ioas)) return failure(fmt::format("`{}` is not allocated", step.ioas));
  const auto device = machine_.host().find_device(step.device);
  if (!device) return failure(fmt::format("the simulated host has no device `{}`", step.device));
  if (attached_.contains(step.device)) return failure(fmt::format("`{}` is attached already", step.device));
  const std::uint32_t group = machine_.host().device(*device).group.value();
  const bool registers = home_of(plan, step.device) != nullptr && !kvm_files_.contains(step.device);
  return std::make_unique<StepAction>(
      step.device + " (attached)",
      [this, step, group, registers] {
        auto attached = attach(step, group);
        if (attached && registers) kvm_files_.insert(step.device);
        return attached;
      },
      [this, id = step.device, registers] {
        auto detached = detach(id);
        if (detached && registers) kvm_files_.erase(id);
        return detached;
      });
}

bool SimType1Backend::in_use(std::uint32_t group) const {
  return std::ranges::any_of(attached_, [&](const auto& a) { return a.second.group == group; });
}

// The first device of a group brings it into the container.
Result<void> SimType1Backend::attach(const Step& step, std::uint32_t group) {
  if (!in_use(group)) {
    if (auto joined = join(spaces_.at(step.ioas), group, step.hwpt); !joined) return joined;
  }
  attached_[step.device] = {step.ioas, step.hwpt, group};
  return {};
}

// VFIO_SET_IOMMU wants a first group.
Result<void> SimType1Backend::join(Space& space, std::uint32_t group, const std::string& hwpt) {
  if (const auto joined = space.container->attach_group(group); !joined) return failed(joined.error());
  if (space.record.empty()) {
    if (const auto set = space.container->set_iommu(); !set) {
      (void)space.container->detach_group(group);
      return failed(set.error());
    }
  }
  space.record.join(hwpt, std::to_string(group));
  return {};
}

Result<void> SimType1Backend::leave(Space& space, std::uint32_t group) {
  if (const auto left = space.container->detach_group(group); !left) return failed(left.error());
  space.record.leave(std::to_string(group));
  return {};
}

Result<void> SimType1Backend::detach(const std::string& device) {
  const Attached was = attached_.at(device);
  attached_.erase(device);
  return in_use(was.group) ? Result<void>{} : leave(spaces_.at(was.ioas), was.group);
}

Result<std::unique_ptr<Action>> SimType1Backend::prepare_detach(const Step& step) {
  const auto attached = attached_.find(step.device);
  if (attached == attached_.end()) return failure(fmt::format("`{}` is not attached", step.device));
  const Attached was = attached->second;
  return std::make_unique<StepAction>(
      step.device + " (detached)", [this, id = step.device] { return detach(id); },
      [this, id = step.device, was, record = spaces_.at(was.ioas).record] { return attach_again(id, was, record); });
}

// The container as it was. Where all groups have to leave for it, their mappings come back, too.
Result<void> SimType1Backend::attach_again(const std::string& device, const Attached& was, const ContainerRecord& record) {
  Space& space = spaces_.at(was.ioas);
  for (const Regrouping& way : way_back(space.record, record)) {
    const auto group = static_cast<std::uint32_t>(*parse_integer(way.group));
    if (auto done = way.joins ? join(space, group, way.hwpt) : leave(space, group); !done) return done;
    if (!way.maps_again) continue;
    for (const Mapped& piece : space.maps) {
      if (auto mapped = map_piece(space, piece); !mapped) return mapped;
    }
  }
  attached_[device] = was;
  return {};
}

// ------------------------------------------------------------------------------------------------- memory

Result<std::unique_ptr<Action>> SimType1Backend::prepare_map(const Plan& plan, const Step& step) {
  if (!spaces_.contains(step.ioas)) return failure(fmt::format("`{}` is not allocated", step.ioas));
  const auto wanted = memory_.wanted(plan, step);
  if (!wanted) return tl::make_unexpected(wanted.error());
  return std::make_unique<StepAction>(
      fmt::format("{} ({:#x}-{:#x} mapped)", step.ioas, step.iova.start, step.iova.last),
      [this, step, wanted = *wanted] { return map(step, wanted); },
      [this, step, place = wanted->place] { return unmap(step, place); });
}

Result<void> SimType1Backend::map(const Step& step, const GuestMemories::Wanted& wanted) {
  Space& space = spaces_.at(step.ioas);
  GuestMemory& guest = memory_.get(wanted);
  auto mapped = map_piece(space, {step, wanted});
  if (mapped) {
    ++guest.pieces;
    space.maps.push_back({step, wanted});
  }
  memory_.release(wanted.place);
  return mapped;
}

// Requires: its memory is there.
Result<void> SimType1Backend::map_piece(Space& space, const Mapped& piece) {
  const GuestMemory& guest = memory_.at(piece.wanted.place);
  const Range& r = piece.step.iova;
  const std::uint32_t flags = kVfioMapRead | (piece.step.writeable ? kVfioMapWrite : 0);
  return done(space.container->map_dma(r.start, guest.memory.user_va + (r.start - guest.first), r.extent() + 1, flags));
}

Result<void> SimType1Backend::unmap(const Step& step, const GuestMemories::Place& place) {
  Space& space = spaces_.at(step.ioas);
  const auto unmapped = space.container->unmap_dma(step.iova.start, step.iova.extent() + 1);
  if (!unmapped) return failed(unmapped.error());
  const auto gone = std::erase_if(space.maps, [&](const Mapped& m) { return step.iova.contains(m.step.iova); });
  memory_.at(place).pieces -= static_cast<unsigned>(gone);
  memory_.release(place);
  return {};
}

// The memory waits for an undo, or for a map of the same range on the way, and goes when nobody can ask for it any more.
Result<std::unique_ptr<Action>> SimType1Backend::prepare_unmap(const Plan& plan, const Step& step) {
  const auto space = spaces_.find(step.ioas);
  if (space == spaces_.end()) return failure(fmt::format("`{}` is not allocated", step.ioas));
  const auto wanted = memory_.wanted(plan, step);
  if (!wanted) return tl::make_unexpected(wanted.error());
  std::vector<Mapped> pieces;
  std::ranges::copy_if(space->second.maps, std::back_inserter(pieces),
                       [&](const Mapped& m) { return step.iova.contains(m.step.iova); });
  if (pieces.empty()) return failure(fmt::format("`{}` is not mapped so", step.ioas));
  ++memory_.at(wanted->place).pieces;
  const std::shared_ptr<void> held(nullptr, [this, place = wanted->place](void*) {
    --memory_.at(place).pieces;
    memory_.release(place);
  });
  return std::make_unique<StepAction>(
      fmt::format("{} ({:#x}-{:#x} unmapped)", step.ioas, step.iova.start, step.iova.last),
      [this, step, place = wanted->place] { return unmap(step, place); },
      [this, pieces, held]() -> Result<void> {
        for (const Mapped& piece : pieces) {
          if (auto mapped = map(piece.step, piece.wanted); !mapped) return mapped;
        }
        return {};
      });
}

// ------------------------------------------------------------------------------------------------- observing

Result<Observation> SimType1Backend::observe() {
  Observation seen;
  std::uint64_t pinned = 0;
  for (const auto& [name, space] : spaces_) {
    ObservedIoas& ioas = seen.ioas.emplace_back(ObservedIoas{name, std::nullopt, std::nullopt, std::nullopt});
    pinned += space.container->pinned_bytes();
    if (space.record.empty()) continue;
    auto info = space.container->get_info();
    if (!info) return failed(info.error());
    ioas.ranges = std::move(info->iova_ranges);
    ioas.alignment = lowest_bit(info->page_sizes);
    for (const Type1Domain& domain : space.container->domains()) seen.hwpts.push_back(observe_domain(name, space, domain));
  }
  seen.pinned_bytes = pinned;
  seen.kvm_files.emplace(kvm_files_.begin(), kvm_files_.end());
  return seen;
}

// Named as the plan names the HWPT of its first device; if the container has made another of the same name, or has put
// strangers into it, the comparison says so.
ObservedHwpt SimType1Backend::observe_domain(const std::string& ioas, const Space& space, const Type1Domain& domain) const {
  ObservedHwpt hwpt;
  const std::uint32_t opener = machine_.host().device(domain.allocator).group.value();  // it may have left
  std::vector<std::string> devices;
  for (const std::uint32_t group : domain.groups) {
    for (const auto& [id, attached] : attached_) {
      if (attached.group != group) continue;
      if (hwpt.id.empty()) hwpt.id = attached.hwpt;
      devices.push_back(id);
      if (group == opener && (!hwpt.allocator || natural_less(id, *hwpt.allocator))) hwpt.allocator = id;
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
