#include "backends/sim/sim_backend.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <set>

#include "backends/sim/sim_action.h"
#include "engine/base/log2.h"
#include "engine/base/text.h"

namespace ioplan::sim {

namespace {

std::uint32_t uapi_flags(std::uint8_t planned) {
  std::uint32_t flags = 0;
  if ((planned & kDirtyTracking) != 0) flags |= kHwptDirtyTracking;
  if ((planned & kNestParent) != 0) flags |= kHwptNestParent;
  if ((planned & kPasid) != 0) flags |= kHwptPasid;
  return flags | (planned >= kHwptFlagSets ? ~std::uint32_t{0} : 0);  // unknown ones stay unknown
}

std::uint8_t planned_flags(const HwptView& view) {
  return static_cast<std::uint8_t>((view.dirty_tracking ? kDirtyTracking : 0) | (view.nest_parent ? kNestParent : 0) |
                                   (view.pasid ? kPasid : 0));
}

template <class Names>
auto find_name(const Names& names, std::string_view name) {
  const auto it = names.find(name);
  return it == names.end() ? std::nullopt : std::optional(it->second);
}

bool meets(const std::vector<Range>& mapped, const Range& span) {
  return std::ranges::any_of(mapped, [&](const Range& r) { return r.overlaps(span); });
}

// A plan predicts the tables of the VM's memory; on Arm the kernel maps the interrupt doorbell beside it, and may need
// tables for that alone. (Where a table spans memory as well, that memory needs it: no leaf is as large as a table with
// the doorbell.)
std::uint64_t tables_for_doorbells_alone(const HwptView& hwpt, const std::vector<Range>& mapped) {
  if (hwpt.shape.levels == 0) return 0;
  const auto granule_lg2 = static_cast<unsigned>(std::countr_zero(hwpt.shape.page_sizes));
  std::set<Range> spans;
  for (const std::uint64_t doorbell : hwpt.doorbells) {
    for (unsigned level = 1; level < hwpt.shape.levels; ++level) {
      const std::uint64_t below = last_of_width(granule_lg2 + level * (granule_lg2 - 3));
      const Range span{doorbell & ~below, doorbell | below};
      if (!meets(mapped, span)) spans.insert(span);
    }
  }
  return spans.size() << granule_lg2;
}

}  // namespace

SimBackend::SimBackend(Machine& machine) : machine_(machine), memory_(machine), context_(machine.open()) {}

SimBackend::~SimBackend() = default;

Result<void> SimBackend::admit(const Plan& plan) {
  for (const PlannedHwpt& h : plan.hwpts) {
    if (h.kind == HwptKind::nested)
      return failure(fmt::format("`{}` is nested, which the simulator does not do", h.id));
  }
  for (const Step& s : plan.steps) {
    if (s.kind == StepKind::bind && !is_uuid(s.device) && !machine_.host().find_device(s.device)) {
      return failure(fmt::format("the simulated host has no device `{}`", s.device));
    }
  }
  return {};
}

std::optional<ObjectId> SimBackend::object(std::string_view name) const {
  for (const auto* names : {&ioas_, &hwpts_, &devices_}) {
    if (const auto id = find_name(*names, name)) return id;
  }
  return find_name(mediated_, name);  // its access, when it has one
}

// ------------------------------------------------------------------------------------------------- steps

Result<std::unique_ptr<Action>> SimBackend::prepare(const Plan& plan, const Step& step) {
  if (step.kind > StepKind::map) return prepare_change(step);
  if (step.kind == StepKind::bind) return prepare_bind(step);
  if (step.kind == StepKind::ioas_alloc) {
    if (ioas_.contains(step.ioas)) return failure(fmt::format("`{}` is there already", step.ioas));
    return prepare_ioas(step);
  }
  if (step.kind == StepKind::attach) {
    const auto hwpt = find_name(hwpts_, step.hwpt);
    if (!hwpt) return failure(fmt::format("`{}` is not allocated", step.hwpt));
    return prepare_attach(step, *hwpt);
  }
  const auto ioas = find_name(ioas_, step.ioas);
  if (!ioas) return failure(fmt::format("`{}` is not allocated", step.ioas));
  if (step.kind == StepKind::allow_iovas) return prepare_allow(step, *ioas);
  if (step.kind == StepKind::hwpt_alloc) return prepare_hwpt(step, *ioas);
  if (step.kind == StepKind::map) return prepare_map(plan, step, *ioas);
  return mediated_.contains(step.device) ? prepare_access(step, *ioas) : prepare_attach(step, *ioas);
}

Result<std::unique_ptr<Action>> SimBackend::prepare_bind(const Step& step) {
  const std::string& id = step.device;
  if (devices_.contains(id) || mediated_.contains(id)) return failure(fmt::format("`{}` is bound already", id));
  const bool registers = !kvm_files_.contains(id);  // unless a step of its own did
  return std::make_unique<StepAction>(
      id + " (bound)",
      [this, id, registers]() -> Result<void> {
        auto bound = bind(id);
        if (bound && registers) kvm_files_.insert(id);
        return bound;
      },
      [this, id, registers]() -> Result<void> {
        auto unbound = unbind(id);
        if (unbound && registers) kvm_files_.erase(id);
        return unbound;
      });
}

Result<void> SimBackend::bind(const std::string& id) {
  if (is_uuid(id)) {
    mediated_.emplace(id, std::nullopt);
    return {};
  }
  const auto bound = context_->bind(id);
  if (bound) devices_[id] = *bound;
  return done(bound);
}

Result<void> SimBackend::unbind(const std::string& id) {
  if (mediated_.erase(id) != 0) return {};
  const auto unbound = context_->unbind(devices_.at(id));
  if (unbound) devices_.erase(id);
  return done(unbound);
}

std::unique_ptr<Action> SimBackend::prepare_ioas(const Step& step) {
  return std::make_unique<StepAction>(
      step.ioas,
      [this, name = step.ioas]() -> Result<void> {
        const auto made = context_->ioas_alloc();
        if (made) ioas_[name] = *made;
        return done(made);
      },
      [this, name = step.ioas]() -> Result<void> {
        const auto gone = context_->destroy(ioas_.at(name));
        if (gone) ioas_.erase(name);
        return done(gone);
      });
}

std::unique_ptr<Action> SimBackend::prepare_allow(const Step& step, ObjectId ioas) {
  const auto allow = [this, ioas](const std::vector<Range>& ranges) {
    const auto allowed = context_->ioas_allow_iovas(ioas, ranges);
    if (allowed) allowed_[ioas] = ranges;
    return done(allowed);
  };
  return std::make_unique<StepAction>(
      step.ioas + " (allowed ranges)", [allow, ranges = step.ranges] { return allow(ranges); },
      [allow, before = allowed_[ioas]] { return allow(before); });
}

Result<std::unique_ptr<Action>> SimBackend::prepare_hwpt(const Step& step, ObjectId ioas) {
  if (hwpts_.contains(step.hwpt)) return failure(fmt::format("`{}` is there already", step.hwpt));
  const auto device = find_name(devices_, step.device);
  if (!device) return failure(fmt::format("`{}` is not bound", step.device));
  return std::make_unique<StepAction>(
      step.hwpt,
      [this, name = step.hwpt, device = *device, ioas, flags = uapi_flags(step.flags)]() -> Result<void> {
        const auto made = context_->hwpt_alloc(device, ioas, flags);
        if (made) hwpts_[name] = *made;
        return done(made);
      },
      [this, name = step.hwpt]() -> Result<void> {
        const auto gone = context_->destroy(hwpts_.at(name));
        if (gone) hwpts_.erase(name);
        return done(gone);
      });
}

// A second attach would be a replace, which cannot be taken back safely (machine.h Hazards).
Result<std::unique_ptr<Action>> SimBackend::prepare_attach(const Step& step, ObjectId target) {
  const auto device = find_name(devices_, step.device);
  if (!device) return failure(fmt::format("`{}` is not bound", step.device));
  if (context_->attached(*device)) return failure(fmt::format("`{}` is attached already", step.device));
  const bool makes = step.kind == StepKind::attach_ioas && !hwpts_.contains(step.hwpt);
  return std::make_unique<StepAction>(
      step.device + " (attached)", [this, step, device = *device, target] { return attach(step, device, target); },
      [this, device = *device, hwpt = step.hwpt, makes]() -> Result<void> {
        const auto detached = context_->detach(device);
        if (detached && makes) hwpts_.erase(hwpt);
        return done(detached);
      });
}

// Attaching to an IOAS lets the kernel choose or make the HWPT: it must be the one that the plan names.
Result<void> SimBackend::attach(const Step& step, ObjectId device, ObjectId target) {
  const auto result = context_->vfio_attach(device, target);
  if (!result) return failed(result.error());
  const auto [known, made] = hwpts_.try_emplace(step.hwpt, *result);
  if (known->second == *result) return {};
  if (const auto detached = context_->detach(device); !detached) return failed(detached.error());
  return failure(fmt::format("`{}` gets another HWPT than `{}`", step.device, step.hwpt));
}

Result<std::unique_ptr<Action>> SimBackend::prepare_access(const Step& step, ObjectId ioas) {
  const std::string& id = step.device;
  if (mediated_.at(id)) return failure(fmt::format("`{}` is attached already", id));
  access_to_[id] = step.ioas;
  return std::make_unique<StepAction>(
      id + " (attached)",
      [this, id, ioas]() -> Result<void> {
        const auto made = context_->access_create(ioas, true);
        if (made) mediated_.at(id) = *made;
        return done(made);
      },
      [this, id]() -> Result<void> {
        const auto gone = context_->access_destroy(*mediated_.at(id));
        if (gone) mediated_.at(id).reset();
        return done(gone);
      });
}

// ------------------------------------------------------------------------------------------------- memory

Result<std::unique_ptr<Action>> SimBackend::prepare_map(const Plan& plan, const Step& step, ObjectId ioas) {
  const auto wanted = memory_.wanted(plan, step);
  if (!wanted) return tl::make_unexpected(wanted.error());
  return std::make_unique<StepAction>(
      fmt::format("{} ({:#x}-{:#x} mapped)", step.ioas, step.iova.start, step.iova.last),
      [this, step, ioas, wanted = *wanted] { return map(step, ioas, wanted); },
      [this, step, ioas, place = wanted->place] { return unmap(step, ioas, place); });
}

Result<void> SimBackend::map(const Step& step, ObjectId ioas, const GuestMemories::Wanted& wanted) {
  GuestMemory& guest = memory_.get(wanted);
  const std::uint32_t flags = kMapFixedIova | kMapReadable | (step.writeable ? kMapWriteable : 0);
  const auto mapped = context_->ioas_map_file(ioas, flags, guest.memory.fd, step.iova.start - guest.first,
                                              step.iova.extent() + 1, step.iova.start);
  if (mapped) ++guest.pieces;
  memory_.release(wanted.place);
  return done(mapped);
}

Result<void> SimBackend::unmap(const Step& step, ObjectId ioas, const Place& place) {
  const auto unmapped = context_->ioas_unmap(ioas, step.iova.start, step.iova.extent() + 1);
  if (!unmapped) return failed(unmapped.error());
  --memory_.at(place).pieces;
  memory_.release(place);
  return {};
}

// ------------------------------------------------------------------------------------------------- observing

std::optional<Driver> SimBackend::driver_of(const std::string& device) const {
  const Host& host = machine_.host();
  const auto index = host.find_device(device);
  return index ? std::optional(host.unit(*host.device(*index).unit).driver) : std::nullopt;
}

std::string SimBackend::name_of_object(ObjectId id) const {
  for (const auto* names : {&ioas_, &hwpts_}) {
    for (const auto& [name, object] : *names) {
      if (object == id) return name;
    }
  }
  return {};
}

Result<Observation> SimBackend::observe() {
  Observation seen;
  for (const auto& [name, id] : ioas_) {
    auto ranges = context_->ioas_iova_ranges(id);
    if (!ranges) return failed(ranges.error());
    seen.ioas.push_back({name, std::move(ranges->ranges), ranges->alignment, context_->mapped(id)});
  }
  for (const auto& [name, id] : hwpts_) {
    const auto view = context_->hwpt(id);
    if (!view) return failure(fmt::format("`{}` is gone", name));
    const PageTableShape& s = view->shape;
    const std::uint64_t table_bytes =
        view->table_bytes - tables_for_doorbells_alone(*view, context_->mapped(view->ioas));
    seen.hwpts.push_back({name, name_of_object(view->ioas), s.stage, s.levels, s.address_bits, s.format, s.aperture,
                          s.page_sizes, view->enforce_cache_coherency, planned_flags(*view), table_bytes, view->devices,
                          view->automatic ? std::nullopt : std::optional(view->allocator), driver_of(view->allocator),
                          view->automatic});
  }
  seen.pinned_bytes = context_->pinned_bytes();
  seen.kvm_files = std::vector<std::string>(kvm_files_.begin(), kvm_files_.end());
  return seen;
}

}  // namespace ioplan::sim
