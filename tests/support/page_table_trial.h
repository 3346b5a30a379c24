// A page table, the hardware walker and the flat map side by side: operations as data, a generator of them, and one
// trial that carries them out on all three and says where they differ.
//
// Operations are concrete (addresses, extents), so that a sequence that fails can be cut down and run again.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "backends/sim/page_table/page_table.h"
#include "backends/sim/table_arena.h"
#include "backends/sim/walker.h"
#include "tests/support/flat_map.h"

namespace ioplan::sim {

struct TableOperation {
  enum class Kind : std::uint8_t { map, unmap, translate, dma_read, dma_write, read_dirty, compare };

  Kind kind = Kind::translate;
  std::uint64_t iova = 0;
  std::uint64_t size = 0;         // unmap, read_dirty
  std::vector<Extent> extents;    // map
  std::uint8_t protection = 0;    // map
  std::uint64_t fail_nth = 0;     // map: this allocation fails; 0 none
  unsigned page_lg2 = 0;          // read_dirty
  DirtyRead mode = DirtyRead::keep;
};

std::string to_text(const TableOperation& operation);

// Is there an aligned place in the aperture for a page of this size?
bool has_room_for(const PageTableShape& shape, unsigned page_lg2);

// What was hit, and how often. A counter is named by what happened.
using Hits = std::map<std::string, std::uint64_t>;

class TableTrial {
 public:
  // Requires: PageTable::supported(shape).
  explicit TableTrial(const PageTableShape& shape);

  // Empty when table, walker and flat map agree; else what they disagree on.
  std::string apply(const TableOperation& operation);

  const FlatMap& expected() const { return expected_; }
  const Hits& hits() const { return hits_; }

 private:
  std::string map(const TableOperation& operation);
  std::string unmap(const TableOperation& operation);
  std::string dma(const TableOperation& operation, DmaAccess access);
  std::string read_dirty(const TableOperation& operation);
  std::string compare_everything();
  std::string compare_page(std::uint64_t iova) const;
  std::string compare_memory() const;
  void count_verdict(const TableOperation& operation, int error);

  bool walks() const { return shape_.format != PageTableFormat::virtio; }

  PageTableShape shape_;
  TableArena arena_;
  std::unique_ptr<PageTable> table_;
  FlatMap expected_;
  Hits hits_;
  std::vector<std::uint64_t> visited_;  // addresses to look at again in compare_everything
};

// Makes operations that hit every page size, the borders between tables of every level, both ends of the aperture, and
// every way to be refused.
class TableScript {
 public:
  TableScript(const PageTableShape& shape, std::uint64_t seed);

  TableOperation next(const FlatMap& state);

 private:
  TableOperation make_map(const FlatMap& state);
  TableOperation make_unmap(const FlatMap& state);
  TableOperation make_read_dirty(const FlatMap& state);
  void make_long_run(TableOperation& map);
  void make_long_list(TableOperation& map);
  void spoil(TableOperation& map);
  std::vector<Extent> make_extents(unsigned size_lg2, std::uint64_t bytes);
  std::uint64_t make_bytes(unsigned size_lg2);
  std::uint64_t address_near(unsigned size_lg2);
  std::uint64_t some_address(const FlatMap& state);
  std::uint64_t random_pa(unsigned size_lg2);
  std::uint8_t random_protection();
  unsigned pick_size();
  void new_neighbourhood(const FlatMap& state);

  std::uint64_t random(std::uint64_t n) { return random_() % n; }
  bool one_in(std::uint64_t n) { return random(n) == 0; }

  PageTableShape shape_;
  TableGeometry geometry_;
  std::mt19937_64 random_;
  std::vector<unsigned> page_sizes_;      // log2, ascending
  std::uint64_t centre_ = 0;              // operations happen around here for a while
  std::array<unsigned, 3> sizes_{};       // with pages of these sizes
  unsigned operations_left_ = 0;
  std::vector<TableOperation> pending_;   // unmaps that clear the table between neighbourhoods
};

// Cuts a failing sequence down by leaving out parts of it while it still fails. Takes at most `runs` runs.
std::vector<TableOperation> shrink(const PageTableShape& shape, std::vector<TableOperation> operations, unsigned runs);

}  // namespace ioplan::sim
