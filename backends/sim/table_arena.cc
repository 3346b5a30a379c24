#include "backends/sim/table_arena.h"

#include <sys/mman.h>

#include <new>

#include "backends/sim/page_table/stretch.h"
#include "engine/base/log2.h"

namespace ioplan::sim {

namespace {

// Address space only: the kernel gives memory to pages that are touched.
void* reserve(std::uint64_t bytes) {
  void* const memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  return memory;
}

}  // namespace

TableArena::TableArena(std::uint64_t bytes) : bytes_(bytes & ~last_of_width(kLargestLg2)), fresh_(pow2(kLargestLg2)) {
  base_ = static_cast<std::byte*>(reserve(bytes_ + 1));
  states_ = static_cast<std::atomic<std::uint64_t>*>(reserve((bytes_ >> kSmallestLg2) * sizeof(*states_) + 1));
}

TableArena::~TableArena() {
  munmap(base_, bytes_ + 1);
  munmap(states_, (bytes_ >> kSmallestLg2) * sizeof(*states_) + 1);
}

std::uint64_t TableArena::allocate(unsigned size_lg2, Content content) {
  if (fails_now()) return 0;
  bool used_before = false;
  const std::uint64_t pa = take(size_lg2, used_before);
  if (pa == 0) return 0;
  if (used_before && content == Content::zeroed) {
    stretch::fill(entries_at(at(pa)), pow2(size_lg2) / sizeof(Entry), 0);
  }
  in_use_.fetch_add(pow2(size_lg2), std::memory_order_relaxed);
  return pa;
}

std::uint64_t TableArena::take(unsigned size_lg2, bool& used_before) {
  const std::lock_guard lock(mutex_);
  std::vector<std::uint64_t>& free = free_[size_lg2 - kSmallestLg2];
  if (free.empty()) recycle();
  used_before = !free.empty();
  if (used_before) {
    const std::uint64_t pa = free.back();
    free.pop_back();
    return pa;
  }
  const std::uint64_t pa = (fresh_ + last_of_width(size_lg2)) & ~last_of_width(size_lg2);
  if (pa + pow2(size_lg2) > bytes_) return 0;
  fresh_ = pa + pow2(size_lg2);
  return pa;
}

void TableArena::free(std::uint64_t pa, unsigned size_lg2) {
  in_use_.fetch_sub(pow2(size_lg2), std::memory_order_relaxed);
  const std::lock_guard lock(mutex_);
  if (!walked()) {
    free_[size_lg2 - kSmallestLg2].push_back(pa);
    return;
  }
  limbo_[phase_.load(std::memory_order_relaxed) & 1].emplace_back(pa, size_lg2);
  recycle();
}

// Tables freed in the phase before this one were unlinked before this one began. Walks of this phase cannot reach them;
// when those of the other phase are over, nobody can.
void TableArena::recycle() {
  const std::uint32_t phase = phase_.load(std::memory_order_relaxed);
  if (walks_[(phase + 1) & 1].load(std::memory_order_seq_cst) != 0) return;
  for (const auto& [pa, size_lg2] : limbo_[(phase + 1) & 1]) free_[size_lg2 - kSmallestLg2].push_back(pa);
  limbo_[(phase + 1) & 1].clear();
  phase_.store(phase + 1, std::memory_order_seq_cst);
}

bool TableArena::walked() const {
  return walks_[0].load(std::memory_order_seq_cst) != 0 || walks_[1].load(std::memory_order_seq_cst) != 0;
}

TableArena::WalkGuard::WalkGuard(const TableArena& arena)
    : walks_(arena.walks_[arena.phase_.load(std::memory_order_seq_cst) & 1]) {
  walks_.fetch_add(1, std::memory_order_seq_cst);
}

}  // namespace ioplan::sim
