#include "backends/type1/type1_backend.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <set>

#include "backends/vfio/admission.h"
#include "backends/vfio/device.h"
#include "backends/vfio/prediction.h"
#include "backends/vfio/refusal.h"
#include "engine/apply/apply.h"
#include "engine/apply/step_action.h"
#include "engine/base/log2.h"
#include "engine/base/text.h"

namespace ioplan::type1 {

namespace {

constexpr std::string_view kContainerNode = "/dev/vfio/vfio";
constexpr std::string_view kEntryLimit = "/sys/module/vfio_iommu_type1/parameters/dma_entry_limit";
constexpr std::uint64_t kStockEntryLimit = 65535;

// As type1 shows page sizes: what is below the kernel's page is the page.
std::uint64_t as_shown(std::uint64_t page_sizes, std::uint64_t page) {
  return (page_sizes & (page - 1)) == 0 ? page_sizes : (page_sizes & ~(page - 1)) | page;
}

// Could that page stand for smaller sizes? No IOMMU has pages of less than 4 KiB.
bool hides_sizes(std::uint64_t shown, std::uint64_t page) { return page > 4096 && (shown & page) != 0; }

// Mappings that the plan's memory takes in its container; the executor maps in pieces.
std::uint64_t mappings_of(const PlannedIoas& space) {
  const std::uint64_t piece = ApplyOptions{}.piece;
  std::uint64_t count = 0;
  for (const MemoryRange& m : space.memory) count += m.gpa.last / piece - m.gpa.start / piece + 1;
  return count;
}

constexpr std::string_view kOtherMachine =
    "the host document is not this machine's, or out of date: capture it again and plan again";

}  // namespace

Type1Backend::Type1Backend(System& system, Type1Options options)
    : system_(system), locked_before_(locked_bytes(system)), memory_(system, std::move(options.memory)) {}

// Devices before their groups, groups before their containers, and containers before the memory that they have pinned.
Type1Backend::~Type1Backend() {
  devices_.clear();
  groups_.clear();
  containers_.clear();
}

std::optional<int> Type1Backend::device_descriptor(std::string_view device) const {
  const Device* attached = find_name(devices_, device);
  return attached == nullptr ? std::nullopt : std::optional(attached->file.get());
}

// ------------------------------------------------------------------------------------------------- before the first
// step

// Nothing is touched: a container without groups is nothing to anybody.
Result<void> Type1Backend::admit(const Plan& plan) {
  const auto probe = system_.open(std::string(kContainerNode));
  if (!probe) return refused(Call::open_container, fmt::format("opening {}", kContainerNode), probe.error().value);
  const Descriptor closing = Descriptor::owned(system_, *probe);
  const auto version = get_api_version(system_, *probe);
  if (!version) return refused(Call::container_info, "VFIO's version", version.error().value);
  if (*version != uapi::VFIO_API_VERSION) {
    return failure(fmt::format("{} speaks version {} of VFIO's interface, and {} is known", kContainerNode, *version,
                               uapi::VFIO_API_VERSION));
  }
  const auto type1 = check_extension(system_, *probe, uapi::VFIO_TYPE1v2_IOMMU);
  if (!type1) return refused(Call::container_info, "VFIO's extensions", type1.error().value);
  if (!*type1) return failure("VFIO has no TYPE1v2 back end loaded", "as root: modprobe vfio_iommu_type1");
  if (!system_.list("/sys/module/vfio_iommu_type1")) {
    return failure(fmt::format("{} of this kernel is iommufd in disguise (CONFIG_IOMMUFD_VFIO_CONTAINER), which shares "
                               "page tables by other rules than type1",
                               kContainerNode),
                   "plan again without `--backend type1`, and apply with `--backend iommufd`");
  }
  if (auto usable = admit_devices(plan); !usable) return usable;
  if (auto room = admit_mappings(plan); !room) return room;
  if (auto enough = require_memlock_of_process(system_, plan); !enough) return enough;
  return memory_.lends() ? Result<void>{} : require_huge_pages(system_, plan);
}

Result<void> Type1Backend::admit_devices(const Plan& plan) {
  for (const Step& s : plan.steps) {
    if (s.kind != StepKind::attach_ioas) continue;
    if (is_uuid(s.device)) return failure(fmt::format("the mediated device {} can only be used by iommufd", s.device));
    if (const auto group = find_group(system_, s.device); !group) return tl::make_unexpected(group.error());
    if (auto viable = require_viable_group(system_, s.device); !viable) return viable;
  }
  return {};
}

Result<void> Type1Backend::admit_mappings(const Plan& plan) {
  const auto text = system_.read_file(std::string(kEntryLimit));
  const std::uint64_t limit = text ? parse_integer(*text).value_or(kStockEntryLimit) : kStockEntryLimit;
  for (const PlannedIoas& space : plan.ioas) {
    const std::uint64_t needed = mappings_of(space);
    if (needed <= limit) continue;
    return failure(fmt::format("{} takes {} mappings, and a container holds {} (dma_entry_limit)", space.id, needed, limit),
                   fmt::format("as root: echo {} > {}", needed, kEntryLimit));
  }
  return {};
}

// ------------------------------------------------------------------------------------------------- steps

Result<std::unique_ptr<Action>> Type1Backend::prepare(const Plan& plan, const Step& step) {
  if (step.kind == StepKind::ioas_alloc) {
    if (containers_.contains(step.ioas)) return failure(fmt::format("`{}` is there already", step.ioas));
    return prepare_container(step);
  }
  if (step.kind != StepKind::attach_ioas && step.kind != StepKind::map) {
    return failure(fmt::format("a container cannot `{}`", kStepKindNames[static_cast<std::size_t>(step.kind)]),
                   "plan again with `ioplan plan --backend type1`");
  }
  if (!containers_.contains(step.ioas)) return failure(fmt::format("`{}` is not allocated", step.ioas));
  if (step.kind == StepKind::map) return prepare_map(plan, step);
  return prepare_attach(plan, step);
}

std::unique_ptr<Action> Type1Backend::prepare_container(const Step& step) {
  return std::make_unique<StepAction>(
      step.ioas + ", a container", [this, name = step.ioas] { return open_container(name); },
      [this, name = step.ioas]() -> Result<void> {
        containers_.erase(name);
        return {};
      });
}

Result<void> Type1Backend::open_container(const std::string& ioas) {
  const auto fd = system_.open(std::string(kContainerNode));
  if (!fd) return refused(Call::open_container, fmt::format("opening {} for {}", kContainerNode, ioas), fd.error().value);
  containers_[ioas].file = Descriptor::owned(system_, *fd);
  return {};
}

Result<std::unique_ptr<Action>> Type1Backend::prepare_attach(const Plan& plan, const Step& step) {
  const std::string& id = step.device;
  if (devices_.contains(id)) return failure(fmt::format("`{}` is attached already", id));
  auto node = find_group(system_, id);
  if (!node) return tl::make_unexpected(node.error());
  if (const Group* group = find_name(groups_, *node); group != nullptr && group->ioas != step.ioas) {
    return failure(fmt::format("the group of `{}` is in `{}` already", id, group->ioas));
  }
  return std::make_unique<StepAction>(
      fmt::format("{}, in {}", id, step.ioas), [this, plan, step, node = *node] { return attach(plan, step, node); },
      [this, id] { return detach(id); });
}

// The first device of a group brings it into the container.
Result<void> Type1Backend::attach(const Plan& plan, const Step& step, const std::string& node) {
  const bool first = !groups_.contains(node);
  if (first) {
    if (auto joined = join(plan, step, node); !joined) return joined;
  }
  const auto fd = get_device_fd(system_, groups_.at(node).file.get(), step.device);
  if (fd) {
    devices_[step.device] = {Descriptor::owned(system_, *fd), node, step.ioas, step.hwpt};
    return {};
  }
  if (first) abandon(node);
  return refused(Call::device_fd, fmt::format("opening {} by its group {}", step.device, node), fd.error().value);
}

Result<void> Type1Backend::join(const Plan& plan, const Step& step, const std::string& node) {
  const auto fd = system_.open(node);
  if (!fd) return refused(Call::open_group, fmt::format("opening {} of {}", node, step.device), fd.error().value);
  Group group{Descriptor::owned(system_, *fd), step.ioas};
  if (auto entered = enter(containers_.at(step.ioas), group, node); !entered) return entered;
  groups_.emplace(node, std::move(group));
  auto as_predicted = verify_join(plan, step);
  if (!as_predicted) abandon(node);
  return as_predicted;
}

// A container gets its back end with its first group (vfio_ioctl_set_iommu).
Result<void> Type1Backend::enter(Container& container, Group& group, const std::string& node) {
  const auto status = group_status(system_, group.file.get());
  if (!status) return refused(Call::group_status, "status of " + node, status.error().value);
  if ((*status & uapi::VFIO_GROUP_FLAGS_VIABLE) == 0) {
    return failure(fmt::format("{} is not viable: the kernel drives one of its devices", node),
                   "`ioplan apply --dry-run` names it");
  }
  const auto joined = set_container(system_, group.file.get(), container.file.get());
  if (!joined) return refused(Call::set_container, fmt::format("{} joining {}", node, group.ioas), joined.error().value);
  if (container.groups.empty()) {
    const auto started = set_iommu(system_, container.file.get(), uapi::VFIO_TYPE1v2_IOMMU);
    if (!started) {
      (void)unset_container(system_, group.file.get());
      return refused(Call::set_iommu, fmt::format("{} as the first group of {}", node, group.ioas), started.error().value);
    }
  }
  container.groups.push_back(node);
  return {};
}

// Undoes `join` within a step that fails. Closing the group's descriptor takes it out of the container even where the call
// does not (vfio_group_fops_release).
void Type1Backend::abandon(const std::string& node) {
  if (leave(node)) return;
  std::erase(containers_.at(groups_.at(node).ioas).groups, node);
  groups_.erase(node);
}

// Undoes `join`.
Result<void> Type1Backend::leave(const std::string& node) {
  const Group& group = groups_.at(node);
  const auto left = unset_container(system_, group.file.get());
  if (!left) return refused(Call::unset_container, fmt::format("{} leaving {}", node, group.ioas), left.error().value);
  std::erase(containers_.at(group.ioas).groups, node);
  groups_.erase(node);
  return {};
}

Result<void> Type1Backend::detach(const std::string& id) {
  const std::string node = devices_.at(id).group;
  devices_.erase(id);
  const bool last = std::ranges::none_of(devices_, [&](const auto& d) { return d.second.group == node; });
  return last ? leave(node) : Result<void>{};
}

// The domains that must be there now are those of the plan that some attached device, or this one, is in.
Result<void> Type1Backend::verify_join(const Plan& plan, const Step& step) {
  const Container& container = containers_.at(step.ioas);
  std::uint64_t page_sizes = ~std::uint64_t{0};
  bool enforce = true;
  for (const PlannedHwpt& h : plan.hwpts) {
    if (h.ioas != step.ioas || (h.id != step.hwpt && attached_to(h.id).empty())) continue;
    page_sizes &= h.page_sizes;
    enforce = enforce && h.enforce_cache_coherency;
  }
  page_sizes = as_shown(page_sizes, system_.page_size());
  const auto differs = [&](std::string_view seen, std::string_view predicted) {
    return failure(fmt::format("with {} in it {} {}, and {} were predicted", step.device, step.ioas, seen, predicted),
                   std::string(kOtherMachine));
  };
  const auto info = get_info(system_, container.file.get());
  if (!info) return refused(Call::container_info, "what is left of " + step.ioas, info.error().value);
  if (info->page_sizes != page_sizes) {
    return differs("has pages of " + format_page_sizes(info->page_sizes), format_page_sizes(page_sizes));
  }
  const auto coherent = check_extension(system_, container.file.get(), uapi::VFIO_DMA_CC_IOMMU);
  if (!coherent) return refused(Call::container_info, "coherency of " + step.ioas, coherent.error().value);
  if (*coherent != enforce) {
    const auto words = [](bool all) { return all ? "only domains that block no-snoop" : "domains that do not block no-snoop"; };
    return differs(fmt::format("has {}", words(*coherent)), words(enforce));
  }
  const std::vector<Range> predicted = planned_space(plan, step.ioas).ranges;
  if (!info->ranges || contain(*info->ranges, predicted)) return {};
  return differs("offers " + format_ranges(*info->ranges), format_ranges(predicted));
}

// ------------------------------------------------------------------------------------------------- memory

std::unique_ptr<Action> Type1Backend::prepare_map(const Plan& plan, const Step& step) {
  const PlannedIoas space = planned_space(plan, step.ioas);
  const MemoryRange range = planned_range(space, step);
  return std::make_unique<StepAction>(
      fmt::format("{:#x}-{:#x}, mapped in {}", step.iova.start, step.iova.last, step.ioas),
      [this, step, space, range] { return map(step, space, range); },
      [this, step, range] { return unmap(step, range.gpa); });
}

Result<void> Type1Backend::map(const Step& step, const PlannedIoas& space, const MemoryRange& range) {
  const GuestMemories::Place place{step.ioas, range.gpa};
  const std::string what = fmt::format("map of {:#x}-{:#x} in {}", step.iova.start, step.iova.last, step.ioas);
  const auto memory = memory_.at(space, range);
  if (!memory) return tl::make_unexpected(memory.error());
  const std::uint32_t flags =
      uapi::VFIO_DMA_MAP_FLAG_READ | (step.writeable ? uapi::VFIO_DMA_MAP_FLAG_WRITE : std::uint32_t{0});
  const auto address = (*memory)->address_of(step.iova.start);
  auto mapped = address ? map_dma(system_, containers_.at(step.ioas).file.get(), {step.iova, *address, flags})
                        : Reply<void>(tl::make_unexpected(address.error()));
  if (mapped) memory_.take(place);
  memory_.release(place);
  if (mapped) return {};
  return refused(address ? Call::map_dma : Call::memory, what, mapped.error().value);
}

Result<void> Type1Backend::unmap(const Step& step, const Range& range) {
  const std::uint64_t length = step.iova.extent() + 1;
  const std::string what = fmt::format("unmap of {:#x}-{:#x} in {}", step.iova.start, step.iova.last, step.ioas);
  const auto unmapped = unmap_dma(system_, containers_.at(step.ioas).file.get(), step.iova);
  if (!unmapped) return refused(Call::unmap_dma, what, unmapped.error().value);
  memory_.drop({step.ioas, range});
  if (*unmapped == length) return {};
  return failure(fmt::format("{}: {} instead of {} were unmapped", what, format_size(*unmapped), format_size(length)));
}

// ------------------------------------------------------------------------------------------------- observing

std::vector<std::string> Type1Backend::attached_to(const std::string& hwpt) const {
  std::vector<std::string> attached;
  for (const auto& [id, device] : devices_) {
    if (device.hwpt == hwpt) attached.push_back(id);
  }
  std::ranges::sort(attached, natural_less);
  return attached;
}

Result<Observation> Type1Backend::observe() {
  Observation seen;
  for (const auto& [name, container] : containers_) {
    auto ioas = observe_container(name, container, seen.hwpts);
    if (!ioas) return tl::make_unexpected(ioas.error());
    seen.ioas.push_back(std::move(*ioas));
  }
  const auto locked = locked_before_ ? locked_bytes(system_) : std::nullopt;
  if (locked) seen.pinned_bytes = *locked - std::min(*locked, *locked_before_);
  return seen;
}

// Of several domains the kernel tells what they have in common; of one that is all.
Result<ObservedIoas> Type1Backend::observe_container(const std::string& ioas, const Container& container,
                                                     std::vector<ObservedHwpt>& hwpts) {
  ObservedIoas seen{ioas, std::nullopt, std::nullopt, std::nullopt};
  if (container.groups.empty()) return seen;
  auto info = get_info(system_, container.file.get());
  if (!info) return refused(Call::container_info, "what is left of " + ioas, info.error().value);
  const auto coherent = check_extension(system_, container.file.get(), uapi::VFIO_DMA_CC_IOMMU);
  if (!coherent) return refused(Call::container_info, "coherency of " + ioas, coherent.error().value);
  seen.ranges = std::move(info->ranges);
  seen.alignment = lowest_bit(info->page_sizes);
  std::set<std::string> names;
  for (const auto& [id, device] : devices_) {
    if (device.ioas == ioas) names.insert(device.hwpt);
  }
  for (const std::string& name : names) {
    ObservedHwpt& hwpt = hwpts.emplace_back();
    hwpt.id = name;
    hwpt.ioas = ioas;
    hwpt.automatic = true;
    hwpt.devices = attached_to(name);
    if (*coherent || names.size() == 1) hwpt.enforce_cache_coherency = *coherent;
    if (names.size() == 1 && !hides_sizes(info->page_sizes, system_.page_size())) hwpt.page_sizes = info->page_sizes;
  }
  return seen;
}

}  // namespace ioplan::type1
