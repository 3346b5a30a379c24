// Steps between running layouts (engine/lifecycle/README.md 6): replace, detach, destroy, unmap, KVM's files, each with its
// undo. What the undo of a destroy makes again is equal to what was, by another object of the kernel.

#include <fmt/format.h>

#include <algorithm>

#include "backends/iommufd/iommufd_backend.h"
#include "backends/vfio/prediction.h"
#include "backends/vfio/refusal.h"
#include "engine/base/text.h"

namespace ioplan::iommufd {

namespace {

tl::unexpected<Error> not_there(const std::string& name) { return failure(fmt::format("`{}` is not allocated", name)); }

}  // namespace

Result<std::unique_ptr<Action>> IommufdBackend::prepare_change(const Plan& plan, const Step& step) {
  switch (step.kind) {
    case StepKind::unbind: return prepare_unbind(step);
    case StepKind::kvm_file_add:
    case StepKind::kvm_file_del: return prepare_kvm_file(step);
    case StepKind::replace: return prepare_replace(plan, step);
    case StepKind::detach: return prepare_detach(step);
    case StepKind::hwpt_destroy: return prepare_hwpt_destroy(step);
    case StepKind::unmap: return prepare_unmap(plan, step);
    default: return prepare_ioas_destroy(step);
  }
}

// ------------------------------------------------------------------------------------------------- files

Result<std::unique_ptr<Action>> IommufdBackend::prepare_unbind(const Step& step) {
  const std::string& id = step.device;
  const Device* device = find_name(devices_, id);
  if (device == nullptr) return failure(fmt::format("`{}` is not bound", id));
  if (!device->attached.empty()) return failure(fmt::format("`{}` is attached to {}", id, device->attached));
  if (device->file.is_lent()) return failure(fmt::format("`{}` was lent: closing its descriptor unbinds it", id));
  const auto cdev = cdev_of(id);
  if (!cdev) return tl::make_unexpected(cdev.error());
  const bool registered = with_kvm_.contains(id);
  return action(
      id, id + ", closed", [this, id, path = *cdev] { return unbind(id, path, Opened::by_bind); },
      [this, id, path = *cdev, registered]() -> Result<void> {
        auto bound = bind(id, path);
        return bound && !registered ? set_kvm(id, KvmFile::del) : bound;
      });
}

Result<std::unique_ptr<Action>> IommufdBackend::prepare_kvm_file(const Step& step) {
  const std::string& id = step.device;
  const bool adds = step.kind == StepKind::kvm_file_add;
  if (with_kvm_.contains(id) == adds) return failure(fmt::format("the file of `{}` is {} KVM", id, adds ? "with" : "not with"));
  if (devices_.contains(id)) {
    const KvmFile there = adds ? KvmFile::add : KvmFile::del, back = adds ? KvmFile::del : KvmFile::add;
    return action(
        id, fmt::format("{}, {} KVM", id, adds ? "with" : "not with"), [this, id, there] { return set_kvm(id, there); },
        [this, id, back] { return set_kvm(id, back); });
  }
  if (!adds) return failure(fmt::format("`{}` is not bound", id));
  const auto cdev = cdev_of(id);
  if (!cdev) return tl::make_unexpected(cdev.error());
  return action(
      id, id + ", with KVM", [this, id, path = *cdev] { return open_file(id, path); }, [this, id] { return close_file(id); });
}

// ------------------------------------------------------------------------------------------------- attachments

IommufdBackend::Home IommufdBackend::home_of(const Device& device) const {
  const Hwpt* hwpt = find_name(hwpts_, device.attached);
  return hwpt == nullptr ? Home{"", device.attached} : Home{device.attached, hwpt->ioas};
}

// The kernel moves all attached devices of the group.
Result<std::unique_ptr<Action>> IommufdBackend::prepare_replace(const Plan& plan, const Step& step) {
  const Device* device = find_name(devices_, step.device);
  if (device == nullptr) return failure(fmt::format("`{}` is not bound", step.device));
  const Hwpt *from = find_name(hwpts_, device->attached), *to = find_name(hwpts_, step.hwpt);
  if (from == nullptr) return failure(fmt::format("`{}` is not attached to a page table", step.device));
  if (to == nullptr) return not_there(step.hwpt);
  if (from->origin == HwptOrigin::automatic || to->origin == HwptOrigin::automatic) {
    return failure(fmt::format("`{}` is moved between {} and {}, one of which is the kernel's own", step.device, device->attached, step.hwpt));
  }
  Step back = step;
  back.hwpt = device->attached;
  return action(
      step.device, fmt::format("{}, in {}", step.device, step.hwpt),
      [this, step, space = predicted_space(plan, to->ioas)] { return replace(step, space); },
      [this, back, space = planned_space({}, from->ioas)] { return replace(back, space); });
}

Result<void> IommufdBackend::replace(const Step& step, const PlannedIoas& space) {
  const Home before = home_of(devices_.at(step.device));
  const auto group = host_.device(*host_.find_device(step.device)).group;
  std::vector<std::string> members;
  for (const std::string& d : attached_to(before.hwpt)) {
    if (host_.device(*host_.find_device(d)).group == group) members.push_back(d);
  }
  const auto result = vfio_attach(system_, devices_.at(step.device).file.get(), hwpts_.at(step.hwpt).id);
  for (const std::string& d : members) devices_.at(d).attached = step.hwpt;
  Result<void> moved;
  if (result) {
    moved = verify_attach(step, space, *result);
  } else {
    moved = refused(Call::replace, fmt::format("replacing {} of {} by {}", before.hwpt, step.device, step.hwpt), result.error().value);
  }
  if (moved) return moved;
  if (auto mended = move_back(members, before); !mended) {
    Error both = moved.error();
    both.message += "; and then, " + mended.error().message;
    return tl::make_unexpected(std::move(both));
  }
  return moved;
}

// Detaching and attaching again gives back what a failed replace has lost (KR 2.4 H1), whichever of both the devices are in.
Result<void> IommufdBackend::move_back(const std::vector<std::string>& devices, const Home& home) {
  for (const std::string& d : devices) {
    if (auto detached = detach(d); !detached) return detached;
  }
  for (const std::string& d : devices) {
    if (auto attached = attach_again(d, home); !attached) return attached;
  }
  return {};
}

Result<std::unique_ptr<Action>> IommufdBackend::prepare_detach(const Step& step) {
  const std::string& id = step.device;
  const Device* device = find_name(devices_, id);
  if (device == nullptr || device->attached.empty()) return failure(fmt::format("`{}` is not attached", id));
  return action(
      id, id + ", detached", [this, id] { return detach(id); },
      [this, id, home = home_of(*device)] { return attach_again(id, home); });
}

// A page table of the kernel's own is made again by attaching to the address space.
Result<void> IommufdBackend::attach_again(const std::string& id, const Home& home) {
  Device& device = devices_.at(id);
  const Hwpt* hwpt = find_name(hwpts_, home.hwpt);
  const bool explicitly = hwpt != nullptr && hwpt->origin == HwptOrigin::allocated;
  const auto result = vfio_attach(system_, device.file.get(), explicitly ? hwpt->id : ioas_.at(home.ioas).id);
  const std::string& target = home.hwpt.empty() ? home.ioas : home.hwpt;
  if (!result) return refused(Call::attach, fmt::format("attach of {} to {} again", id, target), result.error().value);
  device.attached = target;
  if (!home.hwpt.empty()) hwpts_.try_emplace(home.hwpt, Hwpt{*result, home.ioas, HwptOrigin::automatic, 0, {}});
  return {};
}

// ------------------------------------------------------------------------------------------------- objects

Result<std::unique_ptr<Action>> IommufdBackend::prepare_hwpt_destroy(const Step& step) {
  const std::string& name = step.hwpt;
  const Hwpt* hwpt = find_name(hwpts_, name);
  if (hwpt == nullptr) return not_there(name);
  return action(
      name, name + ", destroyed", [this, name] { return destroy_hwpt(name); },
      [this, name, was = *hwpt] { return allocate_again(name, was); });
}

// The device that it was made for may have left since: it is bound for the time being.
Result<void> IommufdBackend::allocate_again(const std::string& name, const Hwpt& was) {
  const bool guest = !devices_.contains(was.allocator);
  const auto cdev = cdev_of(was.allocator);
  if (!cdev) return tl::make_unexpected(cdev.error());
  if (guest) {
    if (auto bound = bind(was.allocator, *cdev); !bound) return bound;
  }
  Step step;
  step.device = was.allocator;
  step.hwpt = name;
  step.ioas = was.ioas;
  step.flags = was.flags;
  auto made = allocate_hwpt(step);
  if (!guest) return made;
  auto unbound = unbind(was.allocator, *cdev, Opened::by_bind);
  return made ? unbound : made;
}

Result<std::unique_ptr<Action>> IommufdBackend::prepare_ioas_destroy(const Step& step) {
  const std::string& name = step.ioas;
  const Ioas* ioas = find_name(ioas_, name);
  if (ioas == nullptr) return not_there(name);
  return action(
      name, name + ", destroyed", [this, name] { return destroy_ioas(name); },
      [this, name, was = *ioas]() -> Result<void> {
        auto made = allocate_ioas(name, was.vm);
        return made && !was.allowed.empty() ? allow(name, was.allowed) : made;
      });
}

// The range is unmapped at once, and mapped again in the pieces that it was mapped in, from the same pages.
Result<std::unique_ptr<Action>> IommufdBackend::prepare_unmap(const Plan& plan, const Step& step) {
  if (!ioas_.contains(step.ioas)) return not_there(step.ioas);
  const std::vector<Range> pieces = maps_.pieces(step.ioas, step.iova);
  if (pieces.empty()) return failure(fmt::format("{:#x}-{:#x} is not mapped in {}", step.iova.start, step.iova.last, step.ioas));
  const GuestMap whole = guest_map(plan, step);
  return action(
      step.ioas, fmt::format("{:#x}-{:#x}, unmapped in {}", step.iova.start, step.iova.last, step.ioas),
      [this, whole] { return maps_.unmap(iommu_.get(), whole); },
      [this, whole, pieces, hold = maps_.hold(whole)]() -> Result<void> {
        for (const Range& piece : pieces) {
          GuestMap map = whole;
          map.step.iova = piece;
          if (auto mapped = maps_.map(iommu_.get(), map); !mapped) return mapped;
        }
        return {};
      });
}

}  // namespace ioplan::iommufd
