// What the map benchmarks map, and into which page tables.
//
// A workload is a stretch of IOVA filled with pages of one size. Its physical pages are either scattered, so that no
// two neighbours continue each other, or one run that starts one page further than IOVA does, so that no larger page
// fits: every workload costs as many leaves as it has pages (16 entries each where the format has no 64 KiB page).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "backends/sim/page_table/page_table.h"

namespace ioplan::bench {

struct Workload {
  static constexpr std::uint64_t kBase = std::uint64_t{1} << 42;  // the first IOVA; aligned for every page size

  std::string name;
  unsigned page_lg2 = 12;
  std::vector<sim::Extent> extents;  // page i's memory when scattered
  std::vector<std::uint32_t> order;  // every page once, shuffled

  std::size_t pages() const { return extents.size(); }
  std::uint64_t page_size() const { return std::uint64_t{1} << page_lg2; }
  std::uint64_t size() const { return pages() << page_lg2; }
  std::uint64_t iova(std::size_t page) const { return kBase + (static_cast<std::uint64_t>(page) << page_lg2); }
  std::uint64_t scattered_pa(std::size_t page) const { return extents[page].pa; }
  std::uint64_t contiguous_pa(std::size_t page) const { return iova(page) + page_size(); }
};

Workload workload(std::string name, unsigned page_lg2, std::size_t pages);

// 1 GiB of 4K, 1 GiB of 64K, 256 GiB of 2M, 1 TiB of 1G; and 128 MiB of 4K, whose tables fit the second-level cache.
std::vector<Workload> all_workloads();

// 4 GiB of 4K, whose tables (8 MiB) do not: for tables alone, because the ordered maps would take longer than all else.
Workload large_workload();

// A page table as a kernel driver would make it for a present-day unit: 48 bits, four levels (AMD v1 grows from
// three), dirty tracking where the format has it.
struct NamedShape {
  std::string name;
  sim::PageTableShape shape;
};
std::vector<NamedShape> all_shapes();

}  // namespace ioplan::bench
