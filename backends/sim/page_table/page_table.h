// An IOMMU page table in its hardware's format: what a HWPT is made of.
//
// Formats are one header each beside this file, written from their public specifications; the algorithms (map, unmap,
// translate, dirty) are written once and instantiated for each. Calls through this class are virtual, one per run of
// memory, never one per entry.
//
// Invariants: a run is mapped with the largest pages that the table's page sizes, the addresses' alignment and the
// contiguity of its extents allow (adjacent extents that continue each other are one); a table exists only while it
// holds an entry, save for one spare a level (`spare_bytes`). Large pages are never split: unmap takes whole leaves.
// AMD v1 tables never get fewer levels than the highest mapping yet has needed (amdv1.h).
//
// Threads: maps, unmaps, translations, dirty scans and walks of *disjoint* IOVA ranges may run at once, without
// locks, in one table; a translation, scan or DMA walk that races with a map or unmap of the same page sees it before
// or after. Two writers on overlapping ranges are the caller's error (an IOAS never lets that happen).
//
// The hardware walker, which cannot know of any of this, walks under a TableArena::WalkGuard.
//
// Held by tests/page_table_test.cc (a flat ordered map, the hardware walker) and tests/page_table_threads_test.cc.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "backends/sim/table_arena.h"
#include "engine/base/range.h"
#include "engine/model/plan.h"

namespace ioplan::sim {

// A physically contiguous run, bytes; both multiples of the smallest page.
struct Extent {
  std::uint64_t pa = 0;
  std::uint64_t size = 0;
};

// IOMMU_READ, IOMMU_WRITE, IOMMU_CACHE as bits; others are ignored.
enum Protection : std::uint8_t { kRead = 1, kWrite = 2, kCache = 4 };

struct PageTableShape {
  PageTableFormat format = PageTableFormat::vtd_ss;
  unsigned stage = 2;
  unsigned levels = 4;  // at allocation; AMD v1 and mock grow
  unsigned address_bits = 48;
  Range aperture{0, (std::uint64_t{1} << 48) - 1};
  std::uint64_t page_sizes = 0;  // bitmap; Arm's contiguous sizes and RISC-V's 64K are used when their bit is set
  unsigned output_bits = 52;
  bool dirty_tracking = false;   // leaves can become dirty: VT-d SSADE, AMD HD, Arm DBM
  bool force_coherence = false;  // VT-d SNP and AMD FC in every leaf
  bool force_writeable = false;  // VT-d nesting parents: a map without kWrite is refused

  friend bool operator==(const PageTableShape&, const PageTableShape&) = default;
};

// Where the hardware starts to walk. AMD v1 changes it when the table grows.
struct TableRoot {
  std::uint64_t pa = 0;
  unsigned levels = 0;
};

// One bit a page of 2^page_lg2 bytes, bit 0 of word 0 for the page at `base`.
struct DirtyBitmap {
  std::uint64_t base = 0;
  unsigned page_lg2 = 12;
  std::span<std::uint64_t> words;
};

enum class DirtyRead : std::uint8_t { clear, keep };

class PageTable {
 public:
  // Requires: a shape that the law can produce (supported() says so). Null when there is no memory for the root.
  static std::unique_ptr<PageTable> create(const PageTableShape& shape, TableArena& arena);
  static bool supported(const PageTableShape& shape);
  virtual ~PageTable() = default;

  // Maps the extents one after the other from `iova` on, all or nothing. 0, or
  //   EINVAL      no extents, misaligned addresses or sizes, neither read nor write, not writeable where it must be
  //   ERANGE      leaves the aperture, or a physical address wider than output_bits
  //   EADDRINUSE  some page is mapped already (EEXIST in Arm's formats)
  //   ENOMEM      no memory for a table
  virtual int map(std::uint64_t iova, std::span<const Extent> extents, std::uint8_t protection) = 0;
  virtual int map(std::uint64_t iova, std::uint64_t pa, std::uint64_t size, std::uint8_t protection) = 0;

  // Unmaps leaves that lie within [iova, iova + size); stops in front of the first hole, and of the first leaf that
  // does not lie within. Bytes unmapped.
  virtual std::uint64_t unmap(std::uint64_t iova, std::uint64_t size) = 0;

  virtual std::optional<std::uint64_t> iova_to_phys(std::uint64_t iova) const = 0;

  // ORs a bit into `bitmap` for every page within `range` that lies in a dirty leaf; with `clear` makes those leaves
  // clean, without losing a write that the hardware reports meanwhile.
  virtual void read_dirty(Range range, DirtyRead mode, DirtyBitmap bitmap) = 0;

  virtual TableRoot root() const = 0;
  virtual std::uint64_t table_bytes() const = 0;  // tables in the tree, the root included
  virtual std::uint64_t spare_bytes() const = 0;  // kept aside, at most one table a level

  const PageTableShape& shape() const { return shape_; }

 protected:
  explicit PageTable(const PageTableShape& shape) : shape_(shape) {}

 private:
  PageTableShape shape_;
};

}  // namespace ioplan::sim
