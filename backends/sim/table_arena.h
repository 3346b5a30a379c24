// The physical memory that page tables live in: [0, bytes) of the simulated machine.
//
// One reserved stretch of the process's address space, so that the host pointer of a table is `base + pa`, for the map
// path and for the hardware walker alike. Tables are handed out aligned to their size, zeroed unless asked otherwise;
// PA 0 is never handed out. Memory stays mapped until the arena goes: a stale reader may read a freed table, never
// fault (page_table.h says how it notices).
//
// Invariants: beside every table lies a word of state that belongs to whoever owns the table and keeps its value while
// the table is free, so that owner after owner can tell its tenancy from the others. A freed table is handed out again
// only after every hardware walk that was under way when it was freed has ended (WalkGuard): what an IOTLB invalidation
// that waits for completion is to a real IOMMU.
//
// Thread-safe; a lock is taken only to hand out or take back a table. Held by tests/page_table_test.cc and
// tests/page_table_threads_test.cc.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <utility>
#include <vector>

#include "backends/sim/failure_point.h"

namespace ioplan::sim {

class TableArena {
 public:
  explicit TableArena(std::uint64_t bytes = std::uint64_t{8} << 30);
  ~TableArena();
  TableArena(const TableArena&) = delete;
  TableArena& operator=(const TableArena&) = delete;

  // A table of 2^size_lg2 bytes (2 KiB to 1 MiB); 0 when memory is out or the injected failure is due. `any` is for
  // owners who write all of it before anybody sees it.
  enum class Content : std::uint8_t { zeroed, any };
  std::uint64_t allocate(unsigned size_lg2, Content content = Content::zeroed);
  void free(std::uint64_t pa, unsigned size_lg2);

  std::byte* at(std::uint64_t pa) const { return base_ + pa; }
  std::uint64_t bytes() const { return bytes_; }
  std::uint64_t bytes_in_use() const { return in_use_.load(std::memory_order_relaxed); }  // handed out and not freed

  // The n-th allocation from now fails (1: the next), once; 0 disarms.
  void fail_nth(std::uint64_t n) { failures_->arm(n); }
  // Counts allocations among the other resources of a machine from now on. Requires: `failures` outlives the arena.
  void share(FailurePoint& failures) { failures_ = &failures; }
  // The same for an owner who takes a table that he had kept aside: true when this is the n-th.
  bool fails_now() { return failures_->strikes(); }

  // The owners' words: the one beside the table at `pa` is number pa >> kSmallestLg2.
  static constexpr unsigned kSmallestLg2 = 11, kLargestLg2 = 20;
  std::atomic<std::uint64_t>* states() const { return states_; }

  // While one lives, no table that its holder can reach from a root is handed out anew. Whoever walks tables as
  // hardware does takes one for the length of a walk.
  class WalkGuard {
   public:
    explicit WalkGuard(const TableArena& arena);
    ~WalkGuard() { walks_.fetch_sub(1, std::memory_order_release); }
    WalkGuard(const WalkGuard&) = delete;
    WalkGuard& operator=(const WalkGuard&) = delete;

   private:
    std::atomic<std::uint32_t>& walks_;
  };
  // Whether a walk may be under way that began before this call. Requires: what the caller unlinked is unlinked by a
  // sequentially consistent read-modify-write, or was before one.
  bool walked() const;

 private:
  using Tables = std::array<std::vector<std::uint64_t>, kLargestLg2 - kSmallestLg2 + 1>;  // by size

  std::uint64_t take(unsigned size_lg2, bool& used_before);
  void recycle();

  std::byte* base_ = nullptr;
  std::uint64_t bytes_ = 0;
  std::atomic<std::uint64_t>* states_ = nullptr;
  std::atomic<std::uint64_t> in_use_{0};
  FailurePoint own_failures_;
  FailurePoint* failures_ = &own_failures_;

  // Walks count themselves in the phase they begin in. Tables freed in one phase are free for all once the phase has
  // changed and the walks of the one before have ended.
  mutable std::array<std::atomic<std::uint32_t>, 2> walks_{};
  std::atomic<std::uint32_t> phase_{0};

  std::mutex mutex_;  // guards what follows
  std::uint64_t fresh_ = 0;
  Tables free_;
  std::array<std::vector<std::pair<std::uint64_t, unsigned>>, 2> limbo_;  // by phase: pa, size_lg2
};

}  // namespace ioplan::sim
