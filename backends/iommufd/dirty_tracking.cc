// What IommufdBackend knows of dirty tracking. The kernel answers EOPNOTSUPP for a HWPT that was allocated without the
// flag, and says nothing at all when a part of the range is not mapped (io_pagetable.c iommu_read_and_clear_dirty).
// A range that begins or ends inside a large page makes it write behind the bitmap (tests/kernel/README.md). So all
// that is not a whole mapped range is refused here before it is asked.

#include <fmt/format.h>

#include <algorithm>

#include "backends/iommufd/iommufd_backend.h"
#include "backends/vfio/refusal.h"
#include "engine/base/text.h"

namespace ioplan::iommufd {

Result<const IommufdBackend::Hwpt*> IommufdBackend::tracked(std::string_view name) const {
  const auto hwpt = hwpts_.find(name);
  if (hwpt == hwpts_.end()) return failure(fmt::format("`{}` is not allocated", name));
  if ((hwpt->second.flags & kDirtyTracking) != 0) return &hwpt->second;
  if (hwpt->second.origin == HwptOrigin::automatic) {
    return failure(
        fmt::format("`{}` has no dirty tracking: the kernel made it, by attaching to {}", name, hwpt->second.ioas));
  }
  return failure(fmt::format("`{}` was planned and allocated without dirty-tracking", name),
                 "plan with `needs: {dirty_tracking: required}`");
}

Result<void> IommufdBackend::track_dirty(std::string_view name, DirtyTracking tracking) {
  const auto hwpt = tracked(name);
  if (!hwpt) return tl::make_unexpected(hwpt.error());
  const auto set = set_dirty_tracking(system_, iommu_.get(), (*hwpt)->id, tracking);
  if (set) return {};
  const std::string_view what = tracking == DirtyTracking::on ? "starting" : "ending";
  return refused(Call::dirty, fmt::format("{} dirty tracking of {}", what, name), set.error().value);
}

Result<void> IommufdBackend::read_dirty(std::string_view name, DirtyRead read, DirtyBitmap& into) {
  const auto hwpt = tracked(name);
  if (!hwpt) return tl::make_unexpected(hwpt.error());
  const Range& range = into.range();
  const RangeSet mapped = maps_.mapped((*hwpt)->ioas);
  if (std::ranges::find(mapped.ranges(), range) == mapped.ranges().end()) {
    return failure(
        fmt::format("dirty pages of {:#x}-{:#x} in {}: that is no whole mapped range", range.start, range.last, name),
        fmt::format("these are: {}", format_ranges(mapped.ranges())));
  }
  const std::uint32_t flags = read == DirtyRead::keep ? uapi::IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR : 0;
  const auto got = get_dirty_bitmap(system_, iommu_.get(), (*hwpt)->id,
                                    {range.start, range.extent() + 1, into.page(), flags}, into.words().data());
  if (got) return {};
  return refused(Call::dirty, fmt::format("dirty pages of {:#x}-{:#x} in {}", range.start, range.last, name),
                 got.error().value);
}

std::vector<std::string> IommufdBackend::hwpts_of_vm(std::string_view vm) const {
  std::vector<std::string> names;
  for (const auto& [name, hwpt] : hwpts_) {
    if (ioas_.find(hwpt.ioas)->second.vm == vm) names.push_back(name);
  }
  return names;
}

Result<void> IommufdBackend::track_dirty_of_vm(std::string_view vm, DirtyTracking tracking) {
  const auto names = hwpts_of_vm(vm);
  if (names.empty()) return failure(fmt::format("`{}` has no HWPT", vm));
  Result<void> all;
  for (const std::string& name : names) {
    if (auto set = track_dirty(name, tracking); !set && all) all = set;
  }
  if (!all && tracking == DirtyTracking::on) {
    for (const std::string& name : names) (void)track_dirty(name, DirtyTracking::off);
  }
  return all;
}

// Read-only and writeable stretches, of all address spaces: what one does not map is nothing that it could have
// dirtied.
Result<std::vector<DirtyBitmap>> IommufdBackend::dirty_bitmaps(std::string_view vm, std::uint64_t page) const {
  RangeSet mapped;
  for (const auto& [name, ioas] : ioas_) {
    if (ioas.vm != vm) continue;
    const RangeSet here = maps_.mapped(name);
    for (const Range& r : here.ranges()) mapped.add(r);
  }
  std::vector<DirtyBitmap> bitmaps;
  for (const Range& r : mapped.ranges()) {
    auto bitmap = DirtyBitmap::create(r, page);
    if (!bitmap) return tl::make_unexpected(bitmap.error());
    bitmaps.push_back(std::move(*bitmap));
  }
  return bitmaps;
}

Result<void> IommufdBackend::read_dirty_of_vm(std::string_view vm, DirtyRead read, std::vector<DirtyBitmap>& into) {
  const auto names = hwpts_of_vm(vm);
  if (names.empty()) return failure(fmt::format("`{}` has no HWPT", vm));
  for (DirtyBitmap& bitmap : into) {
    for (const std::string& name : names) {
      if (auto got = read_mapped(name, read, bitmap); !got) return got;
    }
  }
  return {};
}

// Of what the HWPT's IOAS has mapped: a whole bitmap directly, parts of one by way of their own.
Result<void> IommufdBackend::read_mapped(const std::string& name, DirtyRead read, DirtyBitmap& into) {
  const RangeSet mapped = maps_.mapped(hwpts_.find(name)->second.ioas);
  for (const Range& m : mapped.ranges()) {
    if (!m.overlaps(into.range())) continue;
    if (!into.range().contains(m) || m == into.range()) return read_dirty(name, read, into);
    auto part = DirtyBitmap::create(m, into.page());
    if (!part) return tl::make_unexpected(part.error());
    const auto got = read_dirty(name, read, *part);
    into.add(*part);
    if (!got) return got;
  }
  return {};
}

}  // namespace ioplan::iommufd
