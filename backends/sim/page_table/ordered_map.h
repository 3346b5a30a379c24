// The mappings of a virtio-iommu domain: virtio specification 5.13. The device has no tables that a driver could write;
// its driver keeps what it has mapped in an ordered map (drivers/iommu/virtio-iommu.c viommu_add_mapping), and so do
// we, under a lock.
//
// Invariants: runs do not overlap; a run holds whole leaves of one size, as large as page sizes and alignment allow.
// Held by tests/page_table_test.cc.
#pragma once

#include <map>
#include <mutex>

#include "backends/sim/page_table/page_table.h"

namespace ioplan::sim {

class OrderedMap final : public PageTable {
 public:
  explicit OrderedMap(const PageTableShape& shape) : PageTable(shape) {}

  int map(std::uint64_t iova, std::span<const Extent> extents, std::uint8_t protection) override;
  int map(std::uint64_t iova, std::uint64_t pa, std::uint64_t size, std::uint8_t protection) override;
  std::uint64_t unmap(std::uint64_t iova, std::uint64_t size) override;
  std::optional<std::uint64_t> iova_to_phys(std::uint64_t iova) const override;
  std::uint8_t protection(std::uint64_t iova) const;          // 0 where nothing is mapped
  void read_dirty(Range, DirtyRead, DirtyBitmap) override {}  // the device reports no dirty pages
  TableRoot root() const override { return {}; }
  std::uint64_t table_bytes() const override { return 0; }
  std::uint64_t spare_bytes() const override { return 0; }

 private:
  struct Run {
    std::uint64_t last = 0;  // inclusive
    std::uint64_t pa = 0;
    unsigned leaf_lg2 = 0;
    std::uint8_t protection = 0;
  };
  using Runs = std::map<std::uint64_t, Run>;  // by first address

  int check(std::uint64_t iova, std::span<const Extent> extents, std::uint8_t protection, std::uint64_t& last) const;
  void add(std::uint64_t iova, Extent run, std::uint8_t protection);
  Runs::const_iterator run_at(std::uint64_t iova) const;

  mutable std::mutex mutex_;
  Runs runs_;
};

}  // namespace ioplan::sim
