// The IOVA that a type1 container offers: ranges, ascending, cut when a group joins and widened when a domain goes.
//
// The cuts are those of Linux drivers/vfio/vfio_iommu_type1.c, whose list is not a set: a range of one address at an edge is
// dropped, and widening moves only the outermost edges. Held by tests/sim_type1_test.cc.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "engine/base/range.h"
#include "engine/model/host.h"

namespace ioplan::sim {

class Type1Iova {
 public:
  std::span<const Range> ranges() const { return ranges_; }
  // From the first address to the last; nothing when the list is empty, as before the first group.
  std::optional<Range> hull() const;
  bool contains(const Range& range) const;  // in one of the ranges

  // vfio_iommu_aper_resize: only what lies within the aperture stays; an empty list becomes the aperture.
  void resize(const Range& aperture);
  // vfio_iommu_resv_exclude: without these regions, relaxable ones left alone. False when nothing is left.
  bool exclude(std::span<const ReservedRegion> regions);
  // vfio_iommu_aper_expand. Requires: not empty.
  void expand(const Range& aperture);
  void clear() { ranges_.clear(); }

 private:
  std::vector<Range> ranges_;
};

}  // namespace ioplan::sim
