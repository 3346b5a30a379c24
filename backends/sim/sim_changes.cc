// The simulator's side of transitions between running layouts: replace, detach, destroy, unmap, KVM's files, each with
// its undo.

#include <algorithm>

#include "backends/sim/sim_action.h"
#include "backends/sim/sim_backend.h"
#include "engine/base/text.h"

namespace ioplan::sim {

namespace {

std::uint32_t flags_of(const HwptView& view) {
  return (view.dirty_tracking ? kHwptDirtyTracking : 0) | (view.nest_parent ? kHwptNestParent : 0) |
         (view.pasid ? kHwptPasid : 0);
}

}  // namespace

Result<std::unique_ptr<Action>> SimBackend::prepare_change(const Step& step) {
  switch (step.kind) {
    case StepKind::unbind:
      return prepare_unbind(step);
    case StepKind::kvm_file_add:
    case StepKind::kvm_file_del:
      return kvm_file_action(kvm_files_, step);
    case StepKind::replace:
      return prepare_replace(step);
    case StepKind::detach:
      return prepare_detach(step);
    case StepKind::hwpt_destroy:
      return prepare_hwpt_destroy(step);
    case StepKind::unmap:
      return prepare_unmap(step);
    default:
      return prepare_ioas_destroy(step);
  }
}

Result<std::unique_ptr<Action>> SimBackend::prepare_unbind(const Step& step) {
  const std::string& id = step.device;
  const auto access = mediated_.find(id);
  if (access == mediated_.end() && !devices_.contains(id)) return failure(fmt::format("`{}` is not bound", id));
  if (access != mediated_.end() && access->second) return failure(fmt::format("`{}` is attached", id));
  if (access == mediated_.end() && context_->attached(devices_.at(id))) {
    return failure(fmt::format("`{}` is attached", id));
  }
  const bool registered = kvm_files_.contains(id);  // closing the last file takes it from KVM
  return std::make_unique<StepAction>(
      id + " (closed)",
      [this, id]() -> Result<void> {
        auto unbound = unbind(id);
        if (unbound) kvm_files_.erase(id);
        return unbound;
      },
      [this, id, registered]() -> Result<void> {
        auto bound = bind(id);
        if (bound && registered) kvm_files_.insert(id);
        return bound;
      });
}

// ------------------------------------------------------------------------------------------------- attachments

Result<std::unique_ptr<Action>> SimBackend::prepare_replace(const Step& step) {
  const auto device = devices_.find(step.device);
  if (device == devices_.end()) return failure(fmt::format("`{}` is not bound", step.device));
  const auto attached = context_->attached(device->second);
  if (!attached) return failure(fmt::format("`{}` is not attached", step.device));
  if (!hwpts_.contains(step.hwpt)) return failure(fmt::format("`{}` is not allocated", step.hwpt));
  const std::string from = name_of_object(*attached);
  return std::make_unique<StepAction>(
      fmt::format("{} (in {})", step.device, step.hwpt),
      [this, id = step.device, from, to = step.hwpt] { return replace_or_repair(id, from, to); },
      [this, id = step.device, from, to = step.hwpt] { return replace_or_repair(id, to, from); });
}

// A replace that fails may leave DMA blocked and reservations lost (machine.h Hazards): detaching and attaching again
// mends both.
Result<void> SimBackend::replace_or_repair(const std::string& device, const std::string& from, const std::string& to) {
  const Host& host = machine_.host();
  const auto replaced = context_->replace(devices_.at(device), hwpts_.at(to));
  if (replaced) return {};
  const auto group = host.device(*host.find_device(device)).group;
  const HwptView view = *context_->hwpt(hwpts_.at(from));
  std::vector<ObjectId> members;
  for (const std::string& d : view.devices) {
    if (host.device(*host.find_device(d)).group == group) members.push_back(devices_.at(d));
  }
  for (const ObjectId d : members) static_cast<void>(context_->detach(d));
  for (const ObjectId d : members) {
    if (const auto again = context_->attach(d, hwpts_.at(from)); !again) return failed(again.error());
  }
  return failed(replaced.error());
}

Result<std::unique_ptr<Action>> SimBackend::prepare_detach(const Step& step) {
  const std::string& id = step.device;
  if (const auto access = mediated_.find(id); access != mediated_.end()) {
    if (!access->second) return failure(fmt::format("`{}` is not attached", id));
    const std::string ioas = access_to_.at(id);
    return std::make_unique<StepAction>(
        id + " (detached)",
        [this, id]() -> Result<void> {
          const auto gone = context_->access_destroy(*mediated_.at(id));
          if (gone) mediated_.at(id).reset();
          return done(gone);
        },
        [this, id, ioas]() -> Result<void> {
          const auto made = context_->access_create(ioas_.at(ioas), true);
          if (made) mediated_.at(id) = *made;
          return done(made);
        });
  }
  const auto device = devices_.find(id);
  const auto attached = device == devices_.end() ? std::nullopt : context_->attached(device->second);
  if (!attached) return failure(fmt::format("`{}` is not attached", id));
  const std::string hwpt = name_of_object(*attached);
  const std::string ioas = name_of_object(context_->hwpt(*attached)->ioas);
  return std::make_unique<StepAction>(
      id + " (detached)",
      [this, id, hwpt, object = *attached]() -> Result<void> {
        const auto detached = context_->detach(devices_.at(id));
        if (detached && !context_->hwpt(object)) hwpts_.erase(hwpt);  // it was automatic, and the last one left
        return done(detached);
      },
      [this, id, hwpt, ioas] { return attach_again(id, hwpt, ioas); });
}

Result<void> SimBackend::attach_again(const std::string& device, const std::string& hwpt, const std::string& ioas) {
  const auto known = hwpts_.find(hwpt);
  const bool automatic = known == hwpts_.end() || context_->hwpt(known->second)->automatic;
  const auto attached = context_->attach(devices_.at(device), automatic ? ioas_.at(ioas) : known->second);
  if (attached) hwpts_[hwpt] = *attached;
  return done(attached);
}

// ------------------------------------------------------------------------------------------------- objects

Result<std::unique_ptr<Action>> SimBackend::prepare_hwpt_destroy(const Step& step) {
  const auto hwpt = hwpts_.find(step.hwpt);
  if (hwpt == hwpts_.end()) return failure(fmt::format("`{}` is not allocated", step.hwpt));
  const HwptView was = *context_->hwpt(hwpt->second);
  return std::make_unique<StepAction>(
      step.hwpt + " (destroyed)",
      [this, name = step.hwpt]() -> Result<void> {
        const auto gone = context_->destroy(hwpts_.at(name));
        if (gone) hwpts_.erase(name);
        return done(gone);
      },
      [this, name = step.hwpt, was, ioas = name_of_object(was.ioas)] { return allocate_again(name, was, ioas); });
}

// The device that it was made for may have left since: it is bound for the time being.
Result<void> SimBackend::allocate_again(const std::string& name, const HwptView& was, const std::string& ioas) {
  const bool guest = !devices_.contains(was.allocator);
  if (guest) {
    if (auto bound = bind(was.allocator); !bound) return bound;
  }
  const auto made = context_->hwpt_alloc(devices_.at(was.allocator), ioas_.at(ioas), flags_of(was));
  if (made) hwpts_[name] = *made;
  if (guest) static_cast<void>(unbind(was.allocator));
  return done(made);
}

Result<std::unique_ptr<Action>> SimBackend::prepare_ioas_destroy(const Step& step) {
  const auto ioas = ioas_.find(step.ioas);
  if (ioas == ioas_.end()) return failure(fmt::format("`{}` is not allocated", step.ioas));
  return std::make_unique<StepAction>(
      step.ioas + " (destroyed)",
      [this, name = step.ioas]() -> Result<void> {
        const auto gone = context_->destroy(ioas_.at(name));
        if (gone) ioas_.erase(name);
        return done(gone);
      },
      [this, name = step.ioas, ranges = allowed_[ioas->second]]() -> Result<void> {
        const auto made = context_->ioas_alloc();
        if (!made) return failed(made.error());
        ioas_[name] = *made;
        const auto allowed = context_->ioas_allow_iovas(*made, ranges);
        if (allowed) allowed_[*made] = ranges;
        return done(allowed);
      });
}

// All areas of the range at once. The memory waits for an undo, which maps the same pages again, and goes when nobody can ask
// for one any more.
Result<std::unique_ptr<Action>> SimBackend::prepare_unmap(const Step& step) {
  const auto ioas = ioas_.find(step.ioas);
  if (ioas == ioas_.end()) return failure(fmt::format("`{}` is not allocated", step.ioas));
  const Place place{step.ioas, step.iova};
  if (!memory_.contains(place)) return failure(fmt::format("`{}` is not mapped so", step.ioas));
  const auto unmapped = std::make_shared<GuestMemories>(machine_);
  return std::make_unique<StepAction>(
      fmt::format("{} ({:#x}-{:#x} unmapped)", step.ioas, step.iova.start, step.iova.last),
      [this, place, unmapped]() -> Result<void> {
        const Range& r = place.second;
        const auto gone = context_->ioas_unmap(ioas_.at(place.first), r.start, r.extent() + 1);
        if (!gone) return failed(gone.error());
        unmapped->take(memory_, place);
        return {};
      },
      [this, place, unmapped, writeable = step.writeable]() -> Result<void> {
        const GuestMemory& guest = unmapped->at(place);
        const Range& r = place.second;
        const std::uint32_t flags = kMapFixedIova | kMapReadable | (writeable ? kMapWriteable : 0);
        const auto mapped = context_->ioas_map_file(ioas_.at(place.first), flags, guest.memory.fd,
                                                    r.start - guest.first, r.extent() + 1, r.start);
        if (!mapped) return failed(mapped.error());
        memory_.take(*unmapped, place);
        memory_.at(place).pieces = 1;
        return {};
      });
}

}  // namespace ioplan::sim
