// Memory as an IOAS maps it: struct iopt_pages of Linux, shared by all areas that map a part of it (IOAS_COPY).
//
// A page is pinned, and counted against memlock, while some area that covers it is held by a HWPT: once, however many
// areas there are. Nothing is looked up before the first pin, so memory that does not exist can be mapped into an IOAS
// without HWPTs (drivers/iommu/iommufd/pages.c; pins at pfn_reader_user_pin, charges after all HWPTs are filled).
// Thread-safe. Held by tests/sim_dma_test.cc and tests/sim_iommufd_test.cc.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "backends/sim/failure_point.h"
#include "backends/sim/memlock.h"
#include "backends/sim/physical_memory.h"
#include "backends/sim/refusal.h"
#include "engine/base/range.h"

namespace ioplan::sim {

// What pages take from the machine.
struct PageSupply {
  PhysicalMemory& memory;
  Memlock& memlock;
  FailurePoint& failures;
  std::uint64_t page_size;
};

// Part of a Pages object, in bytes of it.
struct Slice {
  std::uint64_t start = 0;
  std::uint64_t length = 0;

  std::uint64_t last() const { return start + length - 1; }
  friend bool operator==(const Slice&, const Slice&) = default;
};

class Pages {
 public:
  // Both begin at the page that holds the first byte; `slice` tells which bytes are meant.
  Pages(const PageSupply& supply, std::uint64_t user_va, std::uint64_t length, bool writeable, MemlockAccount account);
  Pages(const PageSupply& supply, const Memory& file, std::uint64_t start, std::uint64_t length, bool writeable,
        MemlockAccount account);
  ~Pages();
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;

  const Slice& whole() const { return whole_; }
  bool writeable() const { return writeable_; }
  // Where byte `at` is for the user: an address, or an offset into the file. Automatic IOVAs are aligned like it.
  std::uint64_t user_address(std::uint64_t at) const { return base_ + at; }

  // Where a slice lies. EFAULT: no such memory, or not writeable; EINVAL: past the end of the file. Undone by unpin.
  Answer<PhysicalMemory::Place> pin(const Slice& slice);
  // Counts what `pin` pinned. ENOMEM: over the memlock limit. Undone by uncharge.
  Answer<void> charge(const Slice& slice);
  void uncharge(const Slice& slice);
  void unpin(const PhysicalMemory::Place& place);

  std::uint64_t pinned_bytes() const;
  MemlockAccount account() const { return account_; }

 private:
  void settle();  // recounts pinned_

  PageSupply supply_;
  std::optional<Memory> file_;
  std::uint64_t base_ = 0;  // page-aligned user address, or offset into the file
  Slice whole_;
  bool writeable_ = false;
  MemlockAccount account_;

  mutable std::mutex mutex_;
  std::vector<Slice> held_;  // one for each area that a HWPT holds
  std::uint64_t pinned_ = 0;
};

}  // namespace ioplan::sim
