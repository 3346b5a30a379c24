#include "backends/iommufd/iommufd_backend.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "backends/iommufd/lent_descriptor.h"
#include "backends/iommufd/registers.h"
#include "backends/vfio/admission.h"
#include "backends/vfio/device.h"
#include "backends/vfio/prediction.h"
#include "backends/vfio/refusal.h"
#include "engine/base/text.h"

namespace ioplan::iommufd {

namespace {

std::uint32_t uapi_flags(std::uint8_t planned) {
  std::uint32_t flags = 0;
  if ((planned & kDirtyTracking) != 0) flags |= uapi::IOMMU_HWPT_ALLOC_DIRTY_TRACKING;
  if ((planned & kNestParent) != 0) flags |= uapi::IOMMU_HWPT_ALLOC_NEST_PARENT;
  if ((planned & kPasid) != 0) flags |= uapi::IOMMU_HWPT_ALLOC_PASID;
  return flags;
}

}  // namespace

IommufdBackend::IommufdBackend(System& system, Host host, IommufdOptions options)
    : system_(system),
      host_(std::move(host)),
      options_(std::move(options)),
      maps_(system, options_.memory, [this](const std::string& ioas) { return ioas_.at(ioas).id; }) {
  if (options_.iommu) iommu_ = Descriptor::lent(*options_.iommu);
}

// Devices before the context, and the context before the memory that it has pinned. KVM's own hold on the files would
// keep them bound.
IommufdBackend::~IommufdBackend() {
  for (const std::string& id : std::set<std::string, std::less<>>(with_kvm_)) (void)set_kvm(id, KvmFile::del);
  devices_.clear();
  files_.clear();
  iommu_ = {};
}

std::optional<ObjectId> IommufdBackend::object(std::string_view name) const {
  if (const Ioas* ioas = find_name(ioas_, name)) return ioas->id;
  if (const Hwpt* hwpt = find_name(hwpts_, name)) return hwpt->id;
  if (const Device* device = find_name(devices_, name)) return device->id;
  return std::nullopt;
}

std::optional<int> IommufdBackend::device_descriptor(std::string_view device) const {
  const Device* bound = find_name(devices_, device);
  return bound == nullptr ? std::nullopt : std::optional(bound->file.get());
}

// ------------------------------------------------------------------------------------------------- before the first
// step

Result<void> IommufdBackend::admit(const Plan& plan) {
  for (const PlannedHwpt& h : plan.hwpts) {
    if (h.kind == HwptKind::nested)
      return failure(fmt::format("`{}` is nested: its tables are the guest's to give", h.id));
  }
  if (auto opened = options_.iommu ? require_iommu(system_, *options_.iommu) : open_iommu(); !opened) return opened;
  for (const Step& s : plan.steps) {
    if (s.kind != StepKind::bind || devices_.contains(s.device)) continue;
    if (auto usable = admit_device(s.device); !usable) return usable;
  }
  const auto pinned = maps_.bytes_to_pin(plan);
  if (!pinned) return tl::make_unexpected(pinned.error());
  if (auto enough = require_memlock(system_, *pinned); !enough) return enough;
  if (options_.memory) return {};
  Plan missing = plan;  // of a running layout most memory is there
  for (PlannedIoas& ioas : missing.ioas) {
    const RangeSet mapped = maps_.mapped(ioas.id);
    std::erase_if(ioas.memory, [&](const MemoryRange& m) { return mapped.contains(m.gpa); });
  }
  return require_huge_pages(system_, missing);
}

// Who lends a device has opened it, so sysfs is not asked for a way to it: it may not be there.
Result<void> IommufdBackend::admit_device(const std::string& id) {
  if (const int* lent = find_name(options_.devices, id)) return require_unbound_device(system_, id, *lent);
  if (const auto cdev = find_cdev(system_, id); !cdev) return tl::make_unexpected(cdev.error());
  if (is_uuid(id)) return {};
  return require_viable_group(system_, id);
}

Result<void> IommufdBackend::open_iommu() {
  if (iommu_.is_open()) return {};
  const auto fd = system_.open("/dev/iommu");
  if (!fd) return refused(Call::open_iommu, "opening /dev/iommu", fd.error().value);
  iommu_ = Descriptor::owned(system_, *fd);
  return {};
}

Result<int> IommufdBackend::context() {
  if (const auto opened = open_iommu(); !opened) return tl::make_unexpected(opened.error());
  if (options_.accounting == Accounting::per_process && !accounting_chosen_) {
    const auto set = set_rlimit_mode(system_, iommu_.get(), 1);
    if (!set) return refused(Call::accounting, "counting locked memory by process", set.error().value);
    accounting_chosen_ = true;
  }
  return iommu_.get();
}

// ------------------------------------------------------------------------------------------------- steps

std::unique_ptr<Action> IommufdBackend::action(const std::string& name, std::string remains, Work perform, Work undo) {
  const auto left = [this, name, text = std::move(remains)] {
    const auto id = object(name);
    return id ? fmt::format("{} (object {})", text, *id) : text;
  };
  return std::make_unique<StepAction>(left, std::move(perform), std::move(undo));
}

Result<std::unique_ptr<Action>> IommufdBackend::prepare(const Plan& plan, const Step& step) {
  if (step.kind > StepKind::map) return prepare_change(plan, step);
  if (step.kind == StepKind::bind) return prepare_bind(step);
  if (step.kind == StepKind::ioas_alloc) return prepare_ioas(plan, step);
  if (step.kind == StepKind::attach || step.kind == StepKind::attach_ioas) return prepare_attach(plan, step);
  const Ioas* ioas = find_name(ioas_, step.ioas);
  if (ioas == nullptr) return failure(fmt::format("`{}` is not allocated", step.ioas));
  if (step.kind == StepKind::allow_iovas) return prepare_allow(step, *ioas);
  if (step.kind == StepKind::hwpt_alloc) return prepare_hwpt(step);
  return prepare_map(plan, step);
}

Result<std::string> IommufdBackend::cdev_of(const std::string& id) {
  if (options_.devices.contains(id)) return std::string();
  return find_cdev(system_, id);
}

Result<std::unique_ptr<Action>> IommufdBackend::prepare_bind(const Step& step) {
  const std::string& id = step.device;
  if (devices_.contains(id)) return failure(fmt::format("`{}` is bound already", id));
  const auto cdev = cdev_of(id);
  if (!cdev) return tl::make_unexpected(cdev.error());
  const Opened opened = files_.contains(id) ? Opened::by_step : Opened::by_bind;
  return action(
      id, id + ", bound", [this, id, path = *cdev] { return bind(id, path); },
      [this, id, path = *cdev, opened] { return unbind(id, path, opened); });
}

// Opened and with KVM, or neither.
Result<void> IommufdBackend::open_file(const std::string& id, const std::string& cdev) {
  if (const int* lent = find_name(options_.devices, id)) {
    files_[id] = Descriptor::lent(*lent);
  } else {
    const auto fd = system_.open(cdev);
    if (!fd) return refused(Call::open_device, fmt::format("opening {} of {}", cdev, id), fd.error().value);
    files_[id] = Descriptor::owned(system_, *fd);
  }
  auto told = set_kvm(id, KvmFile::add);
  if (!told) files_.erase(id);
  return told;
}

// KVM holds on to a file, so it must let go first: the device stays bound as long as the file is open somewhere.
Result<void> IommufdBackend::close_file(const std::string& id) {
  if (with_kvm_.contains(id)) {
    if (auto told = set_kvm(id, KvmFile::del); !told) return told;
  }
  files_.erase(id);
  return {};
}

// Without KVM the registration is only noted: the steps are the same.
Result<void> IommufdBackend::set_kvm(const std::string& id, KvmFile what) {
  const auto unbound = files_.find(id);
  const int file = unbound == files_.end() ? devices_.at(id).file.get() : unbound->second.get();
  const auto set = options_.kvm ? set_kvm_file(system_, *options_.kvm, what, file) : Reply<void>();
  if (what == KvmFile::add) {
    if (!set) return refused(Call::kvm_file, fmt::format("registering the file of {} with KVM", id), set.error().value);
    with_kvm_.insert(id);
  } else {
    if (!set) return refused(Call::kvm_file, fmt::format("taking the file of {} from KVM", id), set.error().value);
    with_kvm_.erase(id);
  }
  return {};
}

// A lent device that is bound stays bound whatever follows: only closing its last descriptor unbinds.
Result<void> IommufdBackend::bind(const std::string& id, const std::string& cdev) {
  const auto iommu = context();
  if (!iommu) return tl::make_unexpected(iommu.error());
  const Opened opened = files_.contains(id) ? Opened::by_step : Opened::by_bind;
  if (opened == Opened::by_bind) {
    if (auto ok = open_file(id, cdev); !ok) return ok;
  }
  const auto bound = vfio_bind(system_, files_.at(id).get(), *iommu);
  if (!bound) {
    if (opened == Opened::by_bind) (void)close_file(id);
    return refused(Call::bind, fmt::format("bind of {} to iommufd", id), bound.error().value);
  }
  devices_.emplace(id, Device{std::move(files_.at(id)), *bound, {}});
  files_.erase(id);
  auto same = verify_registers(id, devices_.at(id));
  if (same) return {};
  if (devices_.at(id).file.is_lent()) left_behind_.push_back(id + ", which was lent, stays bound until its descriptor is closed");
  (void)release(id, cdev, opened);
  return same;
}

Result<void> IommufdBackend::unbind(const std::string& id, const std::string& cdev, Opened opened) {
  if (devices_.at(id).file.is_lent()) return failure("it was lent: closing its descriptor unbinds it");
  note_detached(devices_.at(id));
  return release(id, cdev, opened);
}

// The device is bound no more; what a step had opened before is open again.
Result<void> IommufdBackend::release(const std::string& id, const std::string& cdev, Opened opened) {
  files_[id] = std::move(devices_.at(id).file);
  devices_.erase(id);
  auto closed = close_file(id);
  return closed && opened == Opened::by_step ? open_file(id, cdev) : closed;
}

// Kernels before 6.6 do not know the call, drivers without registers to show tell nothing: neither is compared.
Result<void> IommufdBackend::verify_registers(const std::string& id, const Device& device) {
  if (is_uuid(id)) return {};
  const auto info = get_hw_info(system_, iommu_.get(), device.id);
  if (info) return compare_registers(*info, host_, id);
  const int why = info.error().value;
  if (why == ENOTTY || why == EOPNOTSUPP) return {};
  return refused(Call::hw_info, fmt::format("registers of the IOMMU of {}", id), why);
}

Result<std::unique_ptr<Action>> IommufdBackend::prepare_ioas(const Plan& plan, const Step& step) {
  const std::string& name = step.ioas;
  if (ioas_.contains(name)) return failure(fmt::format("`{}` is there already", name));
  return action(
      name, name, [this, name, vm = planned_space(plan, name).vm] { return allocate_ioas(name, vm); },
      [this, name] { return destroy_ioas(name); });
}

Result<void> IommufdBackend::allocate_ioas(const std::string& name, const std::string& vm) {
  const auto iommu = context();
  if (!iommu) return tl::make_unexpected(iommu.error());
  const auto id = ioas_alloc(system_, *iommu);
  if (!id) return refused(Call::ioas_alloc, "allocation of " + name, id.error().value);
  ioas_[name] = {*id, vm, {}};
  return {};
}

Result<void> IommufdBackend::destroy_ioas(const std::string& name) { return destroy(ioas_, name); }

std::unique_ptr<Action> IommufdBackend::prepare_allow(const Step& step, const Ioas& ioas) {
  return action(
      step.ioas, step.ioas + ", with allowed ranges", [this, step] { return allow(step.ioas, step.ranges); },
      [this, name = step.ioas, before = ioas.allowed] { return allow(name, before); });
}

Result<void> IommufdBackend::allow(const std::string& name, const std::vector<Range>& ranges) {
  Ioas& ioas = ioas_.at(name);
  const auto allowed = ioas_allow_iovas(system_, iommu_.get(), ioas.id, ranges);
  if (!allowed) {
    return refused(Call::allow_iovas, fmt::format("allowing {} in {}", format_ranges(ranges), name), allowed.error().value);
  }
  ioas.allowed = ranges;
  return {};
}

Result<std::unique_ptr<Action>> IommufdBackend::prepare_hwpt(const Step& step) {
  if (hwpts_.contains(step.hwpt)) return failure(fmt::format("`{}` is there already", step.hwpt));
  if (!devices_.contains(step.device)) return failure(fmt::format("`{}` is not bound", step.device));
  return action(
      step.hwpt, step.hwpt, [this, step] { return allocate_hwpt(step); }, [this, name = step.hwpt] { return destroy_hwpt(name); });
}

Result<void> IommufdBackend::allocate_hwpt(const Step& step) {
  const auto id =
      hwpt_alloc(system_, iommu_.get(), devices_.at(step.device).id, ioas_.at(step.ioas).id, uapi_flags(step.flags));
  if (!id) {
    const std::string what = fmt::format("allocation of {} in {} with {}", step.hwpt, step.ioas, step.device);
    return refused(Call::hwpt_alloc, what, id.error().value);
  }
  hwpts_[step.hwpt] = {*id, step.ioas, HwptOrigin::allocated, step.flags, step.device};
  return {};
}

Result<void> IommufdBackend::destroy_hwpt(const std::string& name) { return destroy(hwpts_, name); }

template <class Objects>
Result<void> IommufdBackend::destroy(Objects& objects, const std::string& name) {
  const auto gone = iommufd::destroy(system_, iommu_.get(), objects.at(name).id);
  if (!gone) return refused(Call::destroy, "destroying " + name, gone.error().value);
  objects.erase(name);
  return {};
}

// A second attach would be a replace, which is a step of its own (changes.cc).
Result<std::unique_ptr<Action>> IommufdBackend::prepare_attach(const Plan& plan, const Step& step) {
  const Device* device = find_name(devices_, step.device);
  if (device == nullptr) return failure(fmt::format("`{}` is not bound", step.device));
  if (!device->attached.empty()) return failure(fmt::format("`{}` is attached already", step.device));
  std::string target = step.ioas, space = step.ioas;
  if (step.kind == StepKind::attach) {
    target = step.hwpt;
    const Hwpt* hwpt = find_name(hwpts_, target);
    space = hwpt == nullptr ? "" : hwpt->ioas;
  }
  if (!ioas_.contains(space)) return failure(fmt::format("`{}` is not allocated", target));
  return action(
      step.device, fmt::format("{}, attached to {}", step.device, target),
      [this, step, in = predicted_space(plan, space)] { return attach(step, in); },
      [this, id = step.device] { return detach(id); });
}

// As long as HWPTs of an older layout are there, their apertures cut the IOAS, too: what is left is known at the end only.
PlannedIoas IommufdBackend::predicted_space(const Plan& plan, const std::string& ioas) const {
  PlannedIoas space = planned_space(plan, ioas);
  const auto is_older = [&](const auto& h) {
    return h.second.ioas == ioas && std::ranges::find(plan.hwpts, h.first, &PlannedHwpt::id) == plan.hwpts.end();
  };
  if (std::ranges::any_of(hwpts_, is_older)) space.ranges.clear();
  return space;
}

Result<void> IommufdBackend::attach(const Step& step, const PlannedIoas& space) {
  Device& device = devices_.at(step.device);
  const bool to_hwpt = step.kind == StepKind::attach;
  const std::string& target = to_hwpt ? step.hwpt : step.ioas;
  const auto result = vfio_attach(system_, device.file.get(), to_hwpt ? hwpts_.at(target).id : ioas_.at(target).id);
  if (!result) {
    return refused(Call::attach, fmt::format("attach of {} to {}", step.device, target), result.error().value);
  }
  device.attached = step.hwpt.empty() ? step.ioas : step.hwpt;
  auto as_predicted = verify_attach(step, space, *result);
  // Where this fails, the HWPT and the IOAS stay in use: taking them back fails and tells.
  if (!as_predicted) (void)detach(step.device);
  return as_predicted;
}

// Attaching to an IOAS lets the kernel make or choose the HWPT: it must be the one that the plan names. Regions that
// devices reserve and apertures of HWPTs shrink the ranges that are left.
Result<void> IommufdBackend::verify_attach(const Step& step, const PlannedIoas& space, ObjectId result) {
  if (!step.hwpt.empty()) {
    const Hwpt& hwpt = hwpts_.try_emplace(step.hwpt, Hwpt{result, space.id, HwptOrigin::automatic, 0, {}}).first->second;
    if (hwpt.id != result) {
      return failure(
          fmt::format("{} got object {} of the kernel, and {} is object {}", step.device, result, step.hwpt, hwpt.id),
          "the IOMMU's driver does not let the plan's devices share it: plan again for this machine");
    }
  }
  const auto left = ioas_iova_ranges(system_, iommu_.get(), ioas_.at(space.id).id);
  if (!left) return refused(Call::iova_ranges, "ranges of " + space.id, left.error().value);
  if (contain(left->ranges, space.ranges)) return {};
  return failure(fmt::format("attach of {} leaves {} in {}, and {} were predicted", step.device, format_ranges(left->ranges),
                             space.id, format_ranges(space.ranges)),
                 "the device reserves more than the host document says: capture it again and plan again");
}

Result<void> IommufdBackend::detach(const std::string& id) {
  Device& device = devices_.at(id);
  const auto detached = vfio_detach(system_, device.file.get());
  if (!detached) {
    return refused(Call::detach, fmt::format("detaching {} from {}", id, device.attached), detached.error().value);
  }
  note_detached(device);
  return {};
}

void IommufdBackend::note_detached(Device& device) {
  const std::string hwpt = std::exchange(device.attached, {});
  const auto it = hwpts_.find(hwpt);
  if (it == hwpts_.end() || it->second.origin == HwptOrigin::allocated) return;
  const bool used = std::ranges::any_of(devices_, [&](const auto& d) { return d.second.attached == hwpt; });
  if (!used) hwpts_.erase(it);
}

std::unique_ptr<Action> IommufdBackend::prepare_map(const Plan& plan, const Step& step) {
  const auto map = std::make_shared<const GuestMap>(guest_map(plan, step));
  return action(
      step.ioas, fmt::format("{:#x}-{:#x}, mapped in {}", step.iova.start, step.iova.last, step.ioas),
      [this, map] { return maps_.map(iommu_.get(), *map); }, [this, map] { return maps_.unmap(iommu_.get(), *map); });
}

// ------------------------------------------------------------------------------------------------- observing

std::vector<std::string> IommufdBackend::attached_to(const std::string& hwpt) const {
  std::vector<std::string> attached;
  for (const auto& [id, device] : devices_) {
    if (device.attached == hwpt) attached.push_back(id);
  }
  std::ranges::sort(attached, natural_less);
  return attached;
}

Result<Observation> IommufdBackend::observe() {
  if (!left_behind_.empty()) return failure(fmt::format("{}", fmt::join(left_behind_, "; ")));
  Observation seen;
  if (options_.kvm) seen.kvm_files.emplace(with_kvm_.begin(), with_kvm_.end());
  for (const auto& [name, ioas] : ioas_) {
    auto left = ioas_iova_ranges(system_, iommu_.get(), ioas.id);
    if (!left) return refused(Call::iova_ranges, "ranges of " + name, left.error().value);
    seen.ioas.push_back({name, std::move(left->ranges), left->alignment, std::nullopt});
  }
  for (const auto& [name, hwpt] : hwpts_) {
    ObservedHwpt& observed = seen.hwpts.emplace_back();
    observed.id = name;
    observed.ioas = hwpt.ioas;
    observed.automatic = hwpt.origin == HwptOrigin::automatic;
    observed.devices = attached_to(name);
  }
  return seen;
}

}  // namespace ioplan::iommufd
