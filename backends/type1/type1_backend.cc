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
#include "engine/model/features.h"

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
    : system_(system), locked_before_(locked_bytes(system)), memory_(system, std::move(options.memory)), kvm_(options.kvm) {}

// KVM lets go first; then devices before their groups, groups before their containers, and containers before the memory
// that they have pinned.
Type1Backend::~Type1Backend() {
  for (auto& [node, group] : groups_) {
    for (const std::string& id : std::set<std::string>(group.with_kvm)) (void)set_kvm(id, node, KvmFile::del);
  }
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
  const Plan missing = not_yet_mapped(plan);
  if (auto enough = require_memlock_of_process(system_, missing); !enough) return enough;
  return memory_.lends() ? Result<void>{} : require_huge_pages(system_, missing);
}

// Of a running layout most memory is there.
Plan Type1Backend::not_yet_mapped(const Plan& plan) const {
  Plan missing = plan;
  for (PlannedIoas& ioas : missing.ioas) {
    const Container* container = find_name(containers_, ioas.id);
    if (container == nullptr) continue;
    std::erase_if(ioas.memory, [&](const MemoryRange& m) {
      const bool there = std::ranges::any_of(container->maps, [&](const Mapped& p) { return p.range.gpa == m.gpa; });
      if (there) missing.resources.pinned_bytes -= m.gpa.extent() + 1;
      return there;
    });
  }
  return missing;
}

Result<void> Type1Backend::admit_devices(const Plan& plan) {
  for (const Step& s : plan.steps) {
    if (s.kind != StepKind::attach_ioas || has_opened(plan, s)) continue;
    if (is_uuid(s.device)) return failure(fmt::format("the mediated device {} can only be used by iommufd", s.device));
    if (const auto group = find_group(system_, s.device); !group) return tl::make_unexpected(group.error());
    if (auto viable = require_viable_group(system_, s.device); !viable) return viable;
  }
  return {};
}

// Does the device only open a HWPT for others, which is there?
bool Type1Backend::has_opened(const Plan& plan, const Step& step) const {
  const Container* container = find_name(containers_, step.ioas);
  if (container == nullptr || home_of(plan, step.device) != nullptr) return false;
  return std::ranges::find(container->record.domains(), step.hwpt, &RecordedDomain::hwpt) != container->record.domains().end();
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
  const bool in_container = step.kind == StepKind::attach_ioas || step.kind == StepKind::map || step.kind == StepKind::unmap;
  if (in_container && !containers_.contains(step.ioas)) return failure(fmt::format("`{}` is not allocated", step.ioas));
  switch (step.kind) {
    case StepKind::ioas_alloc: return prepare_container(step);
    case StepKind::ioas_destroy: return prepare_container_close(step);
    case StepKind::kvm_file_add:
    case StepKind::kvm_file_del: return prepare_kvm_file(step);
    case StepKind::attach_ioas: return prepare_attach(plan, step);
    case StepKind::detach: return prepare_detach(step);
    case StepKind::map: return prepare_map(plan, step);
    case StepKind::unmap: return prepare_unmap(plan, step);
    default:
      return failure(fmt::format("a container cannot `{}`", kStepKindNames[static_cast<std::size_t>(step.kind)]),
                     "plan again with `ioplan plan --backend type1`");
  }
}

Result<std::unique_ptr<Action>> Type1Backend::prepare_container(const Step& step) {
  if (containers_.contains(step.ioas)) return failure(fmt::format("`{}` is there already", step.ioas));
  return std::make_unique<StepAction>(
      step.ioas + ", a container", [this, name = step.ioas] { return open_container(name); },
      [this, name = step.ioas] { return close_container(name); });
}

Result<void> Type1Backend::open_container(const std::string& ioas) {
  const auto fd = system_.open(std::string(kContainerNode));
  if (!fd) return refused(Call::open_container, fmt::format("opening {} for {}", kContainerNode, ioas), fd.error().value);
  containers_[ioas].file = Descriptor::owned(system_, *fd);
  return {};
}

Result<void> Type1Backend::close_container(const std::string& ioas) {
  containers_.erase(ioas);
  return {};
}

// Opening a device registers its group's file with KVM, unless a step of its own did; not of one that only opens a domain for
// others.
Result<std::unique_ptr<Action>> Type1Backend::prepare_attach(const Plan& plan, const Step& step) {
  const std::string& id = step.device;
  if (devices_.contains(id)) return failure(fmt::format("`{}` is attached already", id));
  auto node = find_group(system_, id);
  if (!node) return tl::make_unexpected(node.error());
  const Group* group = find_name(groups_, *node);
  if (group != nullptr && !group->ioas.empty() && group->ioas != step.ioas) {
    return failure(fmt::format("the group of `{}` is in `{}` already", id, group->ioas));
  }
  const bool registers = home_of(plan, id) != nullptr && (group == nullptr || !group->with_kvm.contains(id));
  return std::make_unique<StepAction>(
      fmt::format("{}, in {}", id, step.ioas),
      [this, plan, step, registers, node = *node]() -> Result<void> {
        if (auto attached = attach(plan, step, node); !attached || !registers) return attached;
        auto told = set_kvm(step.device, node, KvmFile::add);
        if (!told) (void)detach(step.device);
        return told;
      },
      [this, id, registers, node = *node]() -> Result<void> {
        if (registers) {
          if (auto told = set_kvm(id, node, KvmFile::del); !told) return told;
        }
        return detach(id);
      });
}

Result<void> Type1Backend::open_group(const std::string& node, const std::string& device) {
  if (groups_.contains(node)) return {};
  const auto fd = system_.open(node);
  if (!fd) return refused(Call::open_group, fmt::format("opening {} of {}", node, device), fd.error().value);
  groups_[node].file = Descriptor::owned(system_, *fd);
  return {};
}

void Type1Backend::close_unused(const std::string& node) {
  const auto it = groups_.find(node);
  if (it != groups_.end() && it->second.ioas.empty() && it->second.with_kvm.empty()) groups_.erase(it);
}

// The first device of a group brings it into the container.
Result<void> Type1Backend::attach(const Plan& plan, const Step& step, const std::string& node) {
  if (auto open = open_group(node, step.device); !open) return open;
  const bool first = groups_.at(node).ioas.empty();
  if (first) {
    if (auto joined = join(node, step.ioas, step.hwpt); !joined) {
      close_unused(node);
      return joined;
    }
    if (auto as_predicted = verify_join(plan, step); !as_predicted) {
      abandon(node);
      return as_predicted;
    }
  }
  auto opened = open_device(step.device, {Descriptor(), node, step.ioas, step.hwpt});
  if (!opened && first) abandon(node);
  return opened;
}

Result<void> Type1Backend::open_device(const std::string& id, Device device) {
  const auto fd = get_device_fd(system_, groups_.at(device.group).file.get(), id);
  if (!fd) return refused(Call::device_fd, fmt::format("opening {} by its group {}", id, device.group), fd.error().value);
  device.file = Descriptor::owned(system_, *fd);
  devices_.insert_or_assign(id, std::move(device));
  return {};
}

Result<void> Type1Backend::join(const std::string& node, const std::string& ioas, const std::string& hwpt) {
  Container& container = containers_.at(ioas);
  Group& group = groups_.at(node);
  const auto status = group_status(system_, group.file.get());
  if (!status) return refused(Call::group_status, "status of " + node, status.error().value);
  if ((*status & uapi::VFIO_GROUP_FLAGS_VIABLE) == 0) {
    return failure(fmt::format("{} is not viable: the kernel drives one of its devices", node),
                   "`ioplan apply --dry-run` names it");
  }
  const auto joined = set_container(system_, group.file.get(), container.file.get());
  if (!joined) return refused(Call::set_container, fmt::format("{} joining {}", node, ioas), joined.error().value);
  if (container.record.empty()) {
    if (auto started = start(node, ioas); !started) return started;
  }
  group.ioas = ioas;
  container.record.join(hwpt, node);
  return {};
}

// A container gets its back end with its first group (vfio_ioctl_set_iommu).
Result<void> Type1Backend::start(const std::string& node, const std::string& ioas) {
  const auto started = set_iommu(system_, containers_.at(ioas).file.get(), uapi::VFIO_TYPE1v2_IOMMU);
  if (started) return {};
  (void)unset_container(system_, groups_.at(node).file.get());
  return refused(Call::set_iommu, fmt::format("{} as the first group of {}", node, ioas), started.error().value);
}

// Undoes `join` within a step that fails. Closing the group's descriptor takes it out of the container even where the call
// does not (vfio_group_fops_release); but not while KVM has it.
void Type1Backend::abandon(const std::string& node) {
  if (leave(node)) return;
  Group& group = groups_.at(node);
  if (!group.with_kvm.empty()) return;
  containers_.at(group.ioas).record.leave(node);
  group.ioas.clear();
  close_unused(node);
}

// Undoes `join`.
Result<void> Type1Backend::leave(const std::string& node) {
  Group& group = groups_.at(node);
  const auto left = unset_container(system_, group.file.get());
  if (!left) return refused(Call::unset_container, fmt::format("{} leaving {}", node, group.ioas), left.error().value);
  containers_.at(group.ioas).record.leave(node);
  group.ioas.clear();
  close_unused(node);
  return {};
}

// A group leaves when none of its devices is open.
Result<void> Type1Backend::detach(const std::string& id) {
  const Device& device = devices_.at(id);
  Device closed{Descriptor(), device.group, device.ioas, device.hwpt};
  devices_.erase(id);
  const bool last = std::ranges::none_of(devices_, [&](const auto& d) { return d.second.group == closed.group; });
  auto left = last ? leave(closed.group) : Result<void>{};
  if (!left) (void)open_device(id, std::move(closed));
  return left;
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
  const auto is_guest = [&](const auto& d) { return d.second.ioas == step.ioas && home_of(plan, d.first) == nullptr; };
  // A group that only opens a domain takes its regions along when it leaves.
  if (home_of(plan, step.device) == nullptr || std::ranges::any_of(devices_, is_guest)) return {};
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
      [this, piece = Mapped{step, space, range}] { return map(piece); },
      [this, step, range] { return unmap(step, range.gpa); });
}

Result<void> Type1Backend::map(const Mapped& piece) {
  Container& container = containers_.at(piece.step.ioas);
  const GuestMemories::Place place{piece.step.ioas, piece.range.gpa};
  auto mapped = map_piece(container, piece);
  if (mapped) {
    memory_.take(place);
    container.maps.push_back(piece);
  }
  memory_.release(place);
  return mapped;
}

Result<void> Type1Backend::map_piece(const Container& container, const Mapped& piece) {
  const Step& step = piece.step;
  const std::string what = fmt::format("map of {:#x}-{:#x} in {}", step.iova.start, step.iova.last, step.ioas);
  const auto memory = memory_.at(piece.space, piece.range);
  if (!memory) return tl::make_unexpected(memory.error());
  const std::uint32_t flags =
      uapi::VFIO_DMA_MAP_FLAG_READ | (step.writeable ? uapi::VFIO_DMA_MAP_FLAG_WRITE : std::uint32_t{0});
  const auto address = (*memory)->address_of(step.iova.start);
  if (!address) return refused(Call::memory, what, address.error().value);
  const auto mapped = map_dma(system_, container.file.get(), {step.iova, *address, flags});
  return mapped ? Result<void>{} : refused(Call::map_dma, what, mapped.error().value);
}

// All pieces of it at once.
Result<void> Type1Backend::unmap(const Step& step, const Range& range) {
  const std::uint64_t length = step.iova.extent() + 1;
  const std::string what = fmt::format("unmap of {:#x}-{:#x} in {}", step.iova.start, step.iova.last, step.ioas);
  Container& container = containers_.at(step.ioas);
  const auto unmapped = unmap_dma(system_, container.file.get(), step.iova);
  if (!unmapped) return refused(Call::unmap_dma, what, unmapped.error().value);
  const auto pieces = std::erase_if(container.maps, [&](const Mapped& m) { return step.iova.contains(m.step.iova); });
  for (std::size_t p = 0; p < pieces; ++p) memory_.drop({step.ioas, range});
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
  if (kvm_) {
    seen.kvm_files.emplace();
    for (const auto& [node, group] : groups_) seen.kvm_files->insert(seen.kvm_files->end(), group.with_kvm.begin(), group.with_kvm.end());
    std::ranges::sort(*seen.kvm_files);
  }
  return seen;
}

// Of several domains the kernel tells what they have in common; of one that is all.
Result<ObservedIoas> Type1Backend::observe_container(const std::string& ioas, const Container& container,
                                                     std::vector<ObservedHwpt>& hwpts) {
  ObservedIoas seen{ioas, std::nullopt, std::nullopt, std::nullopt};
  if (container.record.empty()) return seen;
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
