// The simulated machine's RAM beyond its page tables: memory that user space allocated, with physical pages.
//
// An allocation is both anonymous memory (it has a user address) and a file (it has an fd), of any size; it costs
// nothing until bytes are written. Its physical pages are `backing` large (at least a page of the kernel) and scattered:
// neighbours in the allocation are no neighbours in memory, except inside one backing page. Which page lies where follows
// from the allocation alone, so the same calls give the same addresses. Whoever pins an allocation keeps its pages:
// memory that is freed meanwhile loses its addresses, and its pages go with the last pin. Thread-safe.
// Held by tests/sim_memory_test.cc.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "backends/sim/page_table/page_table.h"

namespace ioplan::sim {

struct Memory {
  std::uint64_t user_va = 0;  // page-aligned, aligned to `backing`
  int fd = -1;
  std::uint64_t size = 0;     // bytes, a multiple of `backing`
  std::uint64_t backing = 4096;
  bool writeable = true;      // false: pinning it for write is refused
};

class PhysicalMemory {
 public:
  // Physical pages are taken from [first_pa, ...] upwards. `page_size`: the kernel's.
  explicit PhysicalMemory(std::uint64_t first_pa, std::uint64_t page_size = 4096);
  ~PhysicalMemory();

  // Requires: backing a power of two of at least 4 KiB, size a positive multiple of it.
  Memory allocate(std::uint64_t size, std::uint64_t backing, bool writeable = true);
  void free(const Memory& memory);

  // Requires: the memory is allocated, or pinned already. Each pin is undone by one unpin.
  void pin(const Memory& memory);
  void unpin(const Memory& memory);

  // The allocation that holds all of [user_va, user_va + length), and the offset into it.
  struct Place {
    Memory memory;
    std::uint64_t offset = 0;
  };
  std::optional<Place> find(std::uint64_t user_va, std::uint64_t length) const;
  std::optional<Memory> find_file(int fd) const;

  // Appends the physical extents of [offset, offset + length), merged where contiguous. Requires: within the memory.
  void extents(const Memory& memory, std::uint64_t offset, std::uint64_t length, std::vector<Extent>& out) const;

  // Bytes by physical address, as DMA and CPU see them; false when no allocation holds them all. Unwritten bytes are 0.
  bool read(std::uint64_t pa, std::span<std::byte> bytes) const;
  bool write(std::uint64_t pa, std::span<const std::byte> bytes);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace ioplan::sim
