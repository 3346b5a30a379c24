// Steps between running layouts of containers (engine/lifecycle/README.md 10): files of KVM, groups that leave, memory that goes,
// each with its undo.

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "backends/type1/type1_backend.h"
#include "backends/vfio/device.h"
#include "backends/vfio/prediction.h"
#include "backends/vfio/refusal.h"
#include "engine/apply/step_action.h"

namespace ioplan::type1 {

Result<std::unique_ptr<Action>> Type1Backend::prepare_container_close(const Step& step) {
  const Container* container = find_name(containers_, step.ioas);
  if (container == nullptr) return failure(fmt::format("`{}` is not allocated", step.ioas));
  if (!container->record.empty()) return failure(fmt::format("`{}` still has groups", step.ioas));
  return std::make_unique<StepAction>(
      step.ioas + ", closed", [this, name = step.ioas] { return close_container(name); },
      [this, name = step.ioas] { return open_container(name); });
}

// ------------------------------------------------------------------------------------------------- files

Result<std::unique_ptr<Action>> Type1Backend::prepare_kvm_file(const Step& step) {
  const std::string& id = step.device;
  const bool adds = step.kind == StepKind::kvm_file_add;
  const auto node = find_group(system_, id);
  if (!node) return tl::make_unexpected(node.error());
  const Group* group = find_name(groups_, *node);
  if ((group != nullptr && group->with_kvm.contains(id)) == adds) {
    return failure(fmt::format("the file of `{}` is {} KVM", id, adds ? "with" : "not with"));
  }
  if (!adds && devices_.contains(id)) return failure(fmt::format("`{}` is attached", id));
  const auto set = [this, id, node = *node](KvmFile what) -> Result<void> {
    if (auto open = open_group(node, id); !open) return open;
    auto told = set_kvm(id, node, what);
    close_unused(node);
    return told;
  };
  return std::make_unique<StepAction>(
      fmt::format("{}, {} KVM", id, adds ? "with" : "not with"),
      [set, adds] { return set(adds ? KvmFile::add : KvmFile::del); },
      [set, adds] { return set(adds ? KvmFile::del : KvmFile::add); });
}

// KVM knows a group by its first device, and forgets it with the last. Without KVM that is only noted.
Result<void> Type1Backend::set_kvm(const std::string& id, const std::string& node, KvmFile what) {
  Group& group = groups_.at(node);
  const bool adds = what == KvmFile::add;
  if (kvm_ && group.with_kvm.size() == (adds ? 0 : 1)) {
    const auto set = set_kvm_file(system_, *kvm_, what, group.file.get());
    if (!set) {
      return refused(Call::kvm_file,
                     fmt::format("{} the file of {}, the group of {}, {} KVM", adds ? "registering" : "taking", node, id,
                                 adds ? "with" : "from"),
                     set.error().value);
    }
  }
  adds ? static_cast<void>(group.with_kvm.insert(id)) : static_cast<void>(group.with_kvm.erase(id));
  return {};
}

// ------------------------------------------------------------------------------------------------- groups

Result<std::unique_ptr<Action>> Type1Backend::prepare_detach(const Step& step) {
  const std::string& id = step.device;
  const Device* device = find_name(devices_, id);
  if (device == nullptr) return failure(fmt::format("`{}` is not attached", id));
  return std::make_unique<StepAction>(
      id + ", detached", [this, id] { return detach(id); },
      [this, id, node = device->group, ioas = device->ioas, hwpt = device->hwpt,
       was = containers_.at(device->ioas).record] { return attach_again(id, node, ioas, hwpt, was); });
}

Result<void> Type1Backend::attach_again(const std::string& id, const std::string& node, const std::string& ioas,
                                        const std::string& hwpt, const ContainerRecord& was) {
  if (auto back = regroup(containers_.at(ioas), ioas, was); !back) return back;
  return open_device(id, {Descriptor(), node, ioas, hwpt});
}

// Where all groups have to leave, their mappings go with the last, and come back with the first domain.
Result<void> Type1Backend::regroup(Container& container, const std::string& ioas, const ContainerRecord& was) {
  for (const Regrouping& way : way_back(container.record, was)) {
    if (auto done = return_to(way, ioas); !done) return done;
    if (!way.maps_again) continue;
    for (const Mapped& piece : container.maps) {
      if (auto mapped = map_piece(container, piece); !mapped) return mapped;
    }
  }
  return {};
}

// A group can only leave when its devices are closed.
Result<void> Type1Backend::return_to(const Regrouping& way, const std::string& ioas) {
  if (!way.joins) {
    for (auto& [id, device] : devices_) {
      if (device.group == way.group) device.file = Descriptor();
    }
    return leave(way.group);
  }
  if (auto open = open_group(way.group, "a group that was there before"); !open) return open;
  if (auto joined = join(way.group, ioas, way.hwpt); !joined) return joined;
  std::vector<std::string> closed;
  for (const auto& [id, device] : devices_) {
    if (device.group == way.group) closed.push_back(id);
  }
  for (const std::string& id : closed) {
    const Device& was = devices_.at(id);
    if (auto opened = open_device(id, {Descriptor(), was.group, was.ioas, was.hwpt}); !opened) return opened;
  }
  return {};
}

// ------------------------------------------------------------------------------------------------- memory

// The memory waits for an undo, which maps the same pages again in the same pieces, or for a map of the same range on the way:
// the guest keeps what it has written.
Result<std::unique_ptr<Action>> Type1Backend::prepare_unmap(const Plan& plan, const Step& step) {
  std::vector<Mapped> pieces;
  std::ranges::copy_if(containers_.at(step.ioas).maps, std::back_inserter(pieces),
                       [&](const Mapped& m) { return step.iova.contains(m.step.iova); });
  if (pieces.empty()) return failure(fmt::format("{:#x}-{:#x} is not mapped in {}", step.iova.start, step.iova.last, step.ioas));
  const Range range = planned_range(planned_space(plan, step.ioas), step).gpa;
  const GuestMemories::Place place{step.ioas, range};
  memory_.take(place);
  const std::shared_ptr<void> held(nullptr, [this, place](void*) { memory_.drop(place); });
  return std::make_unique<StepAction>(
      fmt::format("{:#x}-{:#x}, unmapped in {}", step.iova.start, step.iova.last, step.ioas),
      [this, step, range] { return unmap(step, range); },
      [this, pieces, held]() -> Result<void> {
        for (const Mapped& piece : pieces) {
          if (auto mapped = map(piece); !mapped) return mapped;
        }
        return {};
      });
}

}  // namespace ioplan::type1
