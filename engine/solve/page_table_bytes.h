// Bytes of page tables that a HWPT needs to map a VM's memory: every table from the root down, none that only a smaller
// choice of pages would need. Exact rules: engine/README.md, decision 5. Held by tests/page_table_bytes_test.cc, and by
// brute force in tests/support.
#pragma once

#include <cstdint>
#include <span>

#include "engine/model/plan.h"

namespace ioplan {

struct TableShape {
  PageTableFormat format = PageTableFormat::x86_64;
  unsigned stage = 1;
  unsigned levels = 0;        // at allocation
  unsigned address_bits = 0;
  std::uint64_t page_sizes = 0;
};

// `backing`: page size of the memory behind every range, a power of two.
std::uint64_t page_table_bytes(const TableShape& shape, std::span<const MemoryRange> memory, std::uint64_t backing);

}  // namespace ioplan
