// An IOMMU domain as a driver makes it: what Linux calls struct iommu_domain, with its page table and its domain ids.
//
// Attributes are the law's (Law::allocate) and never change, but for cache coherency, which may be enforced once while
// nothing is mapped. An SMMUv2 domain has no table and the aperture [0, 0] until its first attach (arm_smmu_attach_dev
// finalises it): `finalise` gives it both. Held by tests/sim_iommufd_test.cc.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>

#include "backends/sim/page_table/page_table.h"
#include "backends/sim/walker.h"
#include "engine/law/law.h"

namespace ioplan::sim {

// The table of a domain with these attributes, allocated behind `unit`: the widths of physical addresses, which the law
// does not know, come from the formats' specifications and from the unit's registers.
PageTableShape shape_of(const HwptQuantities& attributes, const Unit& unit);

class Domain {
 public:
  Domain(DeviceIndex made_for, const HwptQuantities& quantities, const PageTableShape& shape)
      : allocator(made_for), attributes(quantities), shape_(shape) {}

  // Builds the table. False: no memory for its root.
  bool finalise(TableArena& arena);
  bool finalised() const { return table != nullptr; }

  // Turns on blocking of no-snoop for all that is mapped from now on. Requires: nothing is mapped. False: no memory for
  // the table that replaces the empty one.
  bool enforce_cache_coherency(TableArena& arena);

  const PageTableShape& shape() const { return shape_; }
  Range aperture() const { return table ? shape_.aperture : Range{0, 0}; }
  std::uint64_t page_sizes() const { return shape_.page_sizes; }

  // Only dirty-tracking HWPTs have dirty operations. What the IOMMU logs: drivers turn it on in the device's table
  // entry, but Arm's tables always log.
  bool tracks_dirty() const { return attributes[HwptQ::dirty_tracking] != 0; }
  void log_dirty(bool on) { logging_ = on; }
  bool logs_dirty() const { return logging_ || (tracks_dirty() && shape_.format == PageTableFormat::arm_lpae); }

  // What a device's access to `iova` meets. Formats without tables in memory are asked by lookup.
  Translation translate(const TableArena& arena, std::uint64_t iova, DmaAccess access) const;

  const DeviceIndex allocator;
  HwptQuantities attributes;
  std::unique_ptr<PageTable> table;
  bool takes_faults = false;                  // allocated with a fault queue
  std::map<std::uint64_t, unsigned> ids;      // domain ids held: pool, attachments that need it
  std::set<std::uint64_t> doorbells;          // IOVAs of software MSI pages

 private:
  PageTableShape shape_;
  bool logging_ = false;
};

}  // namespace ioplan::sim
