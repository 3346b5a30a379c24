#include "backends/iommufd/guest_maps.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "backends/vfio/admission.h"
#include "backends/vfio/prediction.h"
#include "backends/vfio/refusal.h"
#include "engine/base/text.h"

namespace ioplan::iommufd {

namespace {

// The plan's memory range that holds the map, so that its pieces come from one file; or the map itself.
MemoryRange planned_range(const PlannedIoas& space, const Step& step) {
  for (const MemoryRange& m : space.memory) {
    if (m.gpa.contains(step.iova)) return m;
  }
  return {step.iova, step.writeable ? Access::read_write : Access::read_only};
}

// Errno of a copy that say only that the source is not what the ledger believes: others use a lent context, too.
bool source_is_unfit(int errno_value) { return errno_value == ENOENT || errno_value == EPERM; }

std::string text_of(const GuestMap& map) {
  return fmt::format("{:#x}-{:#x} in {}", map.step.iova.start, map.step.iova.last, map.step.ioas);
}

}  // namespace

GuestMap guest_map(const Plan& plan, const Step& step) {
  GuestMap map{step, planned_space(plan, step.ioas), {}, {}};
  map.range = planned_range(map.space, step);
  map.file = file_range(plan, map.space, map.range.gpa);
  return map;
}

// ------------------------------------------------------------------------------------------------- files

// Lenders are asked for every range of every IOAS, and may give the same file for several.
GuestMaps::Place GuestMaps::place_of(const GuestMap& map) const {
  if (lender_) return {map.space.id, map.range.gpa};
  return {map.space.vm.empty() ? map.space.id : map.space.vm, map.file};
}

Result<GuestMaps::Lent> GuestMaps::lent(const GuestMap& map) {
  const Place place = place_of(map);
  if (const auto it = lent_.find(place); it != lent_.end()) return it->second;
  const auto memory = lender_(map.space, map.range);
  if (!memory) return tl::make_unexpected(memory.error());
  const auto identity = system_.identify(memory->fd);
  if (!identity) return refused(Call::memory, "the memory lent for " + text_of(map), identity.error().value);
  return lent_.emplace(place, Lent{*memory, *identity}).first->second;
}

Result<GuestMaps::Backing> GuestMaps::make_backing(const GuestMap& map) {
  const std::uint64_t page = backing_page(system_, map.space);
  if (lender_) {
    const auto theirs = lent(map);
    if (!theirs) return tl::make_unexpected(theirs.error());
    return Backing{GuestMemory::lent(system_, map.range.gpa, page, theirs->memory), theirs->identity};
  }
  auto ours = GuestMemory::allocate(system_, map.file, page);
  if (!ours) return tl::make_unexpected(ours.error());
  const auto identity = system_.identify(ours->fd());
  if (!identity) return refused(Call::memory, "memory for " + text_of(map), identity.error().value);
  return Backing{std::move(*ours), *identity};
}

Result<GuestMaps::Backing*> GuestMaps::backing(const GuestMap& map) {
  const Place place = place_of(map);
  if (const auto it = backings_.find(place); it != backings_.end()) return &it->second;
  auto made = make_backing(map);
  if (!made) return tl::make_unexpected(made.error());
  return &backings_.emplace(place, std::move(*made)).first->second;
}

// Memory of which nothing is mapped and nothing held goes back.
void GuestMaps::give_back(const Place& place, std::size_t pieces) {
  const auto it = backings_.find(place);
  it->second.pieces -= pieces;
  if (it->second.pieces == 0) backings_.erase(it);
}

GuestMaps::Hold GuestMaps::hold(const GuestMap& map) {
  const Place place = place_of(map);
  Backing& backing = backings_.at(place);
  ++backing.pieces;
  return {&backing, [this, place](void*) { give_back(place, 1); }};
}

// The plan's maps on a ledger of their own. Files of ours are not there yet: a number of each stands for it.
Result<std::uint64_t> GuestMaps::bytes_to_pin(const Plan& plan) {
  MappedPages planned;
  std::map<Place, std::uint64_t> ours;
  std::uint64_t bytes = 0;
  for (const Step& step : plan.steps) {
    if (step.kind != StepKind::map) continue;
    const GuestMap map = guest_map(plan, step);
    FileStretch stretch{{}, step.iova.start - map.file.start, map.bytes()};
    if (lender_) {
      const auto theirs = lent(map);
      if (!theirs) return tl::make_unexpected(theirs.error());
      stretch.file = theirs->identity;
      stretch.offset = theirs->memory.offset + (step.iova.start - map.range.gpa.start);
    } else {
      stretch.file.inode = ours.try_emplace(place_of(map), ours.size()).first->second;
    }
    const auto source = planned.find(stretch, map.access());
    if (!source) bytes += stretch.bytes;
    planned.add(step.ioas, step.iova.start, stretch, source ? source->pinned : map.access());
  }
  return bytes;
}

// ------------------------------------------------------------------------------------------------- maps

Result<void> GuestMaps::map(int iommu, const GuestMap& map) {
  const auto memory = backing(map);
  if (!memory) return tl::make_unexpected(memory.error());
  ++(*memory)->pieces;
  auto filled = fill(iommu, map, **memory);
  if (!filled) give_back(place_of(map), 1);
  return filled;
}

// From an IOAS that has the pages, or by pinning them.
Result<void> GuestMaps::fill(int iommu, const GuestMap& map, Backing& backing) {
  const FileStretch stretch{backing.identity, backing.memory.offset_of(map.step.iova.start), map.bytes()};
  const auto source = pages_.find(stretch, map.access());
  std::string why = source ? "" : source.error();
  if (source) {
    const auto copied =
        ioas_copy(system_, iommu, id_of_(map.step.ioas), mapping_of(map), id_of_(source->ioas), source->iova);
    if (copied) {
      pages_.add(map.step.ioas, map.step.iova.start, stretch, source->pinned);
      return {};
    }
    const int no = copied.error().value;
    if (!source_is_unfit(no))
      return refused(Call::copy, fmt::format("copy of {} from {}", text_of(map), source->ioas), no);
    why = fmt::format("{} gives no copy, {}", source->ioas, errno_text(no));
  }
  const auto pinned = pin(iommu, map, backing.memory);
  if (!pinned) return refused(Call::map, "map of " + text_of(map), pinned.error().value);
  pages_.add(map.step.ioas, map.step.iova.start, stretch, map.access());
  if (!why.empty()) pinned_again_.push_back(fmt::format("{}: {}", text_of(map), why));
  return {};
}

Mapping GuestMaps::mapping_of(const GuestMap& map) const {
  const std::uint32_t writeable = map.step.writeable ? uapi::IOMMU_IOAS_MAP_WRITEABLE : 0;
  return {map.step.iova.start, map.bytes(),
          uapi::IOMMU_IOAS_MAP_FIXED_IOVA | uapi::IOMMU_IOAS_MAP_READABLE | writeable};
}

// By file, so that the memory can outlive this process's view of it; by address where the kernel does not know how.
Reply<void> GuestMaps::pin(int iommu, const GuestMap& map, GuestMemory& memory) {
  const ObjectId ioas = id_of_(map.step.ioas);
  const Mapping mapping = mapping_of(map);
  if (maps_files_) {
    auto mapped = ioas_map_file(system_, iommu, ioas, mapping, memory.fd(), memory.offset_of(mapping.iova));
    if (mapped || mapped.error().value != ENOTTY) return mapped;
    maps_files_ = false;
  }
  const auto address = memory.address_of(mapping.iova);
  if (!address) return tl::make_unexpected(address.error());
  return ioas_map(system_, iommu, ioas, mapping, *address);
}

Result<void> GuestMaps::unmap(int iommu, const GuestMap& map) {
  const std::string what = "unmap of " + text_of(map);
  const std::vector<Range> pieces = pages_.pieces(map.step.ioas, map.step.iova);
  const auto unmapped = ioas_unmap(system_, iommu, id_of_(map.step.ioas), map.step.iova.start, map.bytes());
  if (!unmapped) return refused(Call::unmap, what, unmapped.error().value);
  for (const Range& piece : pieces) pages_.remove(map.step.ioas, piece.start);
  give_back(place_of(map), pieces.size());
  if (*unmapped == map.bytes()) return {};
  return failure(
      fmt::format("{}: {} instead of {} were unmapped", what, format_size(*unmapped), format_size(map.bytes())));
}

}  // namespace ioplan::iommufd
