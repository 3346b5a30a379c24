// The IOMMU itself: walks tables as the specifications say hardware does, and shares no code with those who write them.
//
// It reads the tree from memory, checks reserved bits and permissions, sets accessed and dirty bits atomically where
// the format has them and the shape turns them on, and answers with the physical address or the reason of the fault.
// What the bits mean is in one header a format, backends/sim/walk/. virtio has no tables in memory: every walk of it
// faults, and devices behind it translate with PageTable::iova_to_phys.
// Held by tests/walker_test.cc (tables written by hand) and tests/page_table_test.cc.
#pragma once

#include <string_view>

#include "backends/sim/page_table/page_table.h"

namespace ioplan::sim {

enum class DmaAccess : std::uint8_t { read, write };

struct Translation {
  std::uint64_t pa = 0;         // of the byte asked for
  std::uint64_t page_size = 0;  // of the leaf: what a TLB may cache (contiguous and NAPOT groups count as one)
  std::uint8_t protection = 0;  // kRead | kWrite | kCache (snooped: as the leaf and the shape say)
  bool dirty = false;           // the leaf's state after this access
  std::string_view fault;       // empty: no fault; else why ("no entry at level 2", "write to a read-only page", ...)
  unsigned fault_level = 0;     // 1: the level of the smallest pages
};

// `access` counts as a real access: a write makes the leaf dirty.
Translation walk(const TableArena& memory, const PageTableShape& shape, TableRoot root, std::uint64_t iova,
                 DmaAccess access);

// The same without side effects and without a permission check; for tests and inspection.
Translation probe(const TableArena& memory, const PageTableShape& shape, TableRoot root, std::uint64_t iova);

}  // namespace ioplan::sim
