// How memory gets into page tables: pinned once, its extents computed once, then mapped by every domain.
//
// Mirrors iopt_area_fill_domains and iopt_area_fill_domain (drivers/iommu/iommufd/pages.c): batches, the charge at the
// end, and on a failure all tables as they were.

#include <algorithm>
#include <cerrno>

#include "backends/sim/io_page_table.h"

namespace ioplan::sim {

namespace {

// Extents that are computed and mapped at a time: 1 MiB of them, and a multiple of any backing.
constexpr std::uint64_t kBatchExtents = std::uint64_t{1} << 16;

std::string_view why(int error) {
  switch (error) {
    case ENOMEM: return "no memory for a page table";
    case ERANGE: return "the table cannot hold such an address";
    case ENODEV: return "the domain has no page table before its first attach";
    case EADDRINUSE:
    case EEXIST: return "a page of the table is in use";
    default: return "the page table refuses such a mapping";
  }
}

}  // namespace

// Pins the area if it is not yet, and maps it in `domains`.
Answer<void> IoPageTable::fill(Area& area, std::span<Domain* const> domains) {
  if (domains.empty()) return {};
  if (area.pinned) return map_into(domains, area, *area.pinned);
  auto place = area.pages->pin(area.slice);
  if (!place) return tl::make_unexpected(place.error());
  auto answer = map_into(domains, area, *place);
  if (answer) {
    answer = area.pages->charge(area.slice);
    if (answer) {
      area.pinned = *place;
      return {};
    }
    for (Domain* domain : domains) domain->table->unmap(area.iova.start, area.slice.length);
  }
  area.pages->unpin(*place);
  return answer;
}

void IoPageTable::unfill(Area& area, std::span<Domain* const> domains) {
  for (Domain* domain : domains) domain->table->unmap(area.iova.start, area.slice.length);
  if (area.pinned) release(area);
}

void IoPageTable::release(Area& area) {
  area.pages->uncharge(area.slice);
  area.pages->unpin(*area.pinned);
  area.pinned.reset();
}

Answer<void> IoPageTable::map_into(std::span<Domain* const> domains, const Area& area,
                                   const PhysicalMemory::Place& place) {
  const std::uint64_t batch = std::max(place.memory.backing, supply_.page_size) * kBatchExtents;
  std::vector<Extent> extents;
  for (std::uint64_t done = 0; done < area.slice.length;) {
    const std::uint64_t offset = place.offset + done;
    const std::uint64_t length = std::min(area.slice.length - done, batch - offset % batch);
    extents.clear();
    supply_.memory.extents(place.memory, offset, length, extents);
    for (std::size_t i = 0; i < domains.size(); ++i) {
      const int error = map_extents(*domains[i], area.iova.start + done, extents, area.protection);
      if (error == 0) continue;
      for (std::size_t d = 0; d < domains.size(); ++d) {
        const std::uint64_t mapped = d < i ? done + length : done;
        if (mapped > 0) domains[d]->table->unmap(area.iova.start, mapped);
      }
      return refuse(error, why(error));
    }
    done += length;
  }
  return {};
}

// With large pages off every page is a mapping of its own: batch_iommu_map_small.
int IoPageTable::map_extents(Domain& domain, std::uint64_t iova, std::span<const Extent> extents,
                             std::uint8_t protection) const {
  if (!domain.table) return ENODEV;
  if (large_pages_) return domain.table->map(iova, extents, protection);
  std::uint64_t at = iova;
  for (const Extent& extent : extents) {
    for (std::uint64_t done = 0; done < extent.size; done += supply_.page_size) {
      const int error = domain.table->map(at, extent.pa + done, supply_.page_size, protection);
      if (error != 0) {
        if (at != iova) domain.table->unmap(iova, at - iova);
        return error;
      }
      at += supply_.page_size;
    }
  }
  return 0;
}

}  // namespace ioplan::sim
