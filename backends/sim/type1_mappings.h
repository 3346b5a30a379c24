// The mappings of a type1 container (struct vfio_dma): which IOVA leads to which memory, pinned and charged while it does.
//
// Every mapping is in every domain of the container, piece by piece of contiguous allocations as vfio_pin_map_dma does it;
// whole or not at all. Held by tests/sim_type1_test.cc.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "backends/sim/domain.h"
#include "backends/sim/failure_point.h"
#include "backends/sim/memlock.h"
#include "backends/sim/physical_memory.h"
#include "backends/sim/refusal.h"
#include "engine/base/range.h"

namespace ioplan::sim {

class Type1Mappings {
 public:
  Type1Mappings(PhysicalMemory& memory, Memlock& memlock, FailurePoint& failures)
      : memory_(memory), memlock_(memlock), failures_(failures) {}

  std::size_t count() const { return mappings_.size(); }
  std::uint64_t bytes() const;
  bool overlaps(const Range& iova) const;
  // Does an end of the range lie within a mapping that goes on beyond it?
  bool cuts(const Range& iova) const;

  // Requires: overlaps nothing. EFAULT: no memory there, or not writeable; ENOMEM; what the page tables say.
  Answer<void> map(const Range& iova, std::uint64_t user_va, std::uint8_t protection, std::span<Domain* const> domains);
  // Bytes unmapped. Requires: the range cuts no mapping.
  std::uint64_t unmap(const Range& iova, std::span<Domain* const> domains);
  // vfio_iommu_replay: everything into a domain that has nothing yet. After a refusal it is to be thrown away.
  Answer<void> replay(Domain& domain) const;

  void append_text(std::string& text) const;  // a line each

 private:
  // A stretch of one allocation.
  struct Pinned {
    Memory memory;
    std::uint64_t offset = 0;
    std::uint64_t length = 0;
  };
  struct Mapping {
    std::uint64_t user_va = 0;
    std::uint64_t size = 0;
    std::uint8_t protection = 0;
    std::vector<Pinned> pieces;
  };
  using Mappings = std::map<std::uint64_t, Mapping>;  // by IOVA

  Mappings::const_iterator at_or_before(std::uint64_t iova) const;
  Answer<void> map_piece(std::uint64_t iova, std::uint64_t length, Mapping& mapping, std::span<Domain* const> domains);
  Answer<Pinned> pin(std::uint64_t user_va, std::uint64_t length, std::uint8_t protection);
  void unpin(const Pinned& piece);
  void remove(std::uint64_t iova, const Mapping& mapping, std::span<Domain* const> domains);

  PhysicalMemory& memory_;
  Memlock& memlock_;
  FailurePoint& failures_;
  Mappings mappings_;
};

}  // namespace ioplan::sim
