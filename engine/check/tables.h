// The judge's own count of page-table bytes (engine/README.md, decision 5).
//
// A leaf run is a stretch of equal leaves; a level's tables are the distinct blocks, each as large as one table
// reaches, that are touched by a run whose leaves live at that level or below. Nothing is walked page by page, so a
// terabyte costs as much as a page.
#pragma once

#include <cstdint>
#include <span>

#include "engine/model/plan.h"
#include "engine/model/virtual_machine.h"

namespace ioplan::check {

struct TableShape {
  PageTableFormat format = PageTableFormat::x86_64;
  unsigned stage = 1;
  unsigned levels = 0;
  unsigned address_bits = 0;
  std::uint64_t page_sizes = 0;  // bitmap
};

// Bytes of all tables, root included, that map `memory` (sorted) with the largest leaves possible. `backing` is the
// page size of the memory behind it, aligned like its guest address.
std::uint64_t table_bytes(const TableShape& shape, std::span<const MemoryRange> memory, std::uint64_t backing);

}  // namespace ioplan::check
