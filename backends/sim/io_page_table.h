// An IOAS's contents: which IOVAs are mapped to what, which may not be, and the domains that hold it all (Linux's struct
// io_pagetable, drivers/iommu/iommufd/io_pagetable.c).
//
// Invariants: areas are disjoint; no area and no allowed range lies over a reservation (reservations may overlap each
// other, each has an owner); every domain maps every area; memory is pinned while there is a domain. A refused call
// changes nothing, but an unmap that ends at an area it would cut has unmapped those in front of it, as in Linux.
//
// Threads: map, unmap, copy from and dirty reads of one IOAS may run at once; tables are filled outside the lock, so maps
// of different ranges scale as page tables do. Joining and leaving of domains, reservations, options: serialised by the caller
// with everything else. Held by tests/sim_iommufd_test.cc.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "backends/sim/domain.h"
#include "backends/sim/pages.h"
#include "backends/sim/refusal.h"
#include "engine/base/range.h"

namespace ioplan::sim {

class IoPageTable {
 public:
  explicit IoPageTable(const PageSupply& supply) : supply_(supply) {}

  // A part of memory to map; pieces follow each other in IOVA.
  struct Piece {
    std::shared_ptr<Pages> pages;
    Slice slice;
  };

  // `fixed`: where; else iopt_alloc_iova finds a place. The IOVA of the first piece.
  Answer<std::uint64_t> map(std::vector<Piece> pieces, std::optional<std::uint64_t> fixed, std::uint8_t protection);
  // What is mapped at [iova, iova + length), to be mapped elsewhere. ENOENT: a hole.
  Answer<std::vector<Piece>> pieces(std::uint64_t iova, std::uint64_t length) const;
  // Bytes unmapped, whole areas only.
  Answer<std::uint64_t> unmap(Range range);

  // Reservations keep areas and allowed ranges out, for as long as their owner has them.
  Answer<void> reserve(Range range, const void* owner);
  void unreserve(const void* owner);
  // Replaces the list. EINVAL: empty or overlapping ranges; EADDRINUSE: one is reserved.
  Answer<void> allow(std::span<const Range> ranges);
  std::vector<Range> usable() const;  // gaps between reservations
  std::uint64_t alignment() const { return alignment_; }

  // iopt_table_add_domain: alignment, aperture, then every area.
  Answer<void> join(Domain& domain);
  void leave(Domain& domain);
  std::span<Domain* const> domains() const { return domains_; }

  // An access asks for an alignment: iopt_add_access. EADDRINUSE: an area is not aligned so.
  Answer<void> add_access(std::uint64_t alignment);
  void remove_access(std::uint64_t alignment);

  bool large_pages() const { return large_pages_; }
  Answer<void> disable_large_pages();
  void enable_large_pages();

  // Clears dirty bits of every area in the domain's table.
  void clear_dirty(Domain& domain) const;
  // From `range`.start on until the first hole, as Linux does (its answer to a hole is lost on the way).
  void read_dirty(Domain& domain, Range range, DirtyRead mode, DirtyBitmap bitmap) const;

  // Inspection. `mapped`: areas, merged where they touch. `visit_pages`: those that areas map; a Pages object may come several times.
  template <class Visit>
  void visit_pages(Visit visit) const {
    const std::scoped_lock lock(mutex_);
    for (const auto& [iova, area] : areas_) visit(area->pages);
  }
  std::vector<Range> mapped() const;
  void append_text(std::string& text, const std::map<const void*, std::string>& owners) const;

 private:
  struct Area {
    Range iova;
    std::shared_ptr<Pages> pages;
    Slice slice;
    std::uint8_t protection = 0;
    bool ready = false;                           // false: being mapped or unmapped
    std::optional<PhysicalMemory::Place> pinned;  // while there is a domain
  };
  using Areas = std::map<std::uint64_t, std::unique_ptr<Area>>;  // by first IOVA
  struct Span {
    std::uint64_t start, last;
  };

  // io_page_table.cc; the caller holds the lock.
  Answer<std::uint64_t> place(std::span<const std::unique_ptr<Area>> made, std::uint64_t length,
                              std::optional<std::uint64_t> fixed) const;
  Answer<std::uint64_t> check_fixed(std::uint64_t iova, std::uint64_t length) const;
  Answer<void> reserve_outside(const Domain& domain);
  Areas::const_iterator first_area(std::uint64_t from) const;
  const Area* area_in(Range range) const;
  bool reserved_in(Range range) const;
  bool allowed_in(Range range) const;

  // iova_allocation.cc; the caller holds the lock.
  Answer<std::uint64_t> find_iova(std::uint64_t user_address, std::uint64_t length) const;
  std::optional<Span> next_used(Span within) const;
  std::vector<Span> allowed_spans(Span within) const;

  // area_fill.cc; without the lock.
  Answer<void> fill(Area& area, std::span<Domain* const> domains);
  void unfill(Area& area, std::span<Domain* const> domains);
  void release(Area& area);
  Answer<void> map_into(std::span<Domain* const> domains, const Area& area, const PhysicalMemory::Place& place);
  int map_extents(Domain& domain, std::uint64_t iova, std::span<const Extent> extents, std::uint8_t protection) const;

  Answer<void> check_alignment(std::uint64_t alignment) const;
  std::uint64_t wanted_alignment() const;
  Answer<void> realign();

  PageSupply supply_;
  mutable std::mutex mutex_;  // of areas_
  Areas areas_;
  std::map<const void*, std::vector<Range>> reservations_;  // by owner
  std::map<Range, unsigned> reserved_;                      // the same, by range: how many have it
  std::vector<Range> allowed_;  // sorted
  std::vector<Domain*> domains_;
  std::multiset<std::uint64_t> accesses_;  // their alignments
  std::uint64_t alignment_ = 1;
  bool large_pages_ = true;
};

}  // namespace ioplan::sim
