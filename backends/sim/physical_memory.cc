#include "backends/sim/physical_memory.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cstring>
#include <map>
#include <mutex>
#include <numeric>
#include <shared_mutex>
#include <unordered_map>

#include "engine/base/log2.h"

namespace ioplan::sim {

namespace {

constexpr std::uint64_t kChunk = 4096;                        // what a first write allocates on the host
constexpr std::uint64_t kFirstUserAddress = std::uint64_t{1} << 40;

std::uint64_t align_up(std::uint64_t value, std::uint64_t alignment) { return (value + alignment - 1) & ~(alignment - 1); }

// Where block i of an allocation of `blocks` lies: i * stride + 1, modulo the blocks. A stride that is coprime to their
// number makes it a permutation, and one that is not 1 keeps neighbours apart.
struct Scatter {
  std::uint64_t blocks = 1;
  std::uint64_t stride = 1;

  explicit Scatter(std::uint64_t n) : blocks(n) {
    if (n < 3) return;
    stride = std::max<std::uint64_t>(2, n / 8 * 5);
    while (std::gcd(stride, n) != 1) ++stride;
  }

  // The product stays within 64 bits: no memory has 2^32 backing pages (16 TiB of 4 KiB).
  std::uint64_t operator()(std::uint64_t i) const { return (i * stride + 1) % blocks; }
};

struct Allocation {
  Memory memory;
  std::uint64_t block = 0;  // bytes that are physically contiguous
  Scatter scatter{1};
  std::uint64_t pa = 0;
  unsigned pins = 0;
  bool freed = false;

  std::uint64_t bytes() const { return scatter.blocks * block; }
};

// Written bytes, by physical chunk.
class Chunks {
 public:
  void read(std::uint64_t pa, std::span<std::byte> bytes) {
    each(pa, bytes, [](Shard& shard, std::uint64_t chunk, std::uint64_t offset, std::span<std::byte> part) {
      const auto found = shard.chunks.find(chunk);
      if (found == shard.chunks.end()) {
        std::ranges::fill(part, std::byte{0});
      } else {
        std::memcpy(part.data(), found->second->data() + offset, part.size());
      }
    });
  }

  void write(std::uint64_t pa, std::span<const std::byte> bytes) {
    each(pa, bytes, [](Shard& shard, std::uint64_t chunk, std::uint64_t offset, std::span<const std::byte> part) {
      auto& data = shard.chunks[chunk];
      if (!data) data = std::make_unique<Data>();
      std::memcpy(data->data() + offset, part.data(), part.size());
    });
  }

  void drop(std::uint64_t pa, std::uint64_t bytes) {
    for (Shard& shard : shards_) {
      const std::scoped_lock lock(shard.mutex);
      std::erase_if(shard.chunks, [&](const auto& c) { return c.first * kChunk - pa < bytes; });
    }
  }

 private:
  using Data = std::array<std::byte, kChunk>;
  struct Shard {
    std::mutex mutex;
    std::unordered_map<std::uint64_t, std::unique_ptr<Data>> chunks;
  };

  template <class Bytes, class Do>
  void each(std::uint64_t pa, Bytes bytes, Do act) {
    while (!bytes.empty()) {
      const std::uint64_t chunk = pa / kChunk;
      const std::uint64_t offset = pa % kChunk;
      const std::size_t part = std::min<std::size_t>(bytes.size(), kChunk - offset);
      Shard& shard = shards_[chunk % shards_.size()];
      {
        const std::scoped_lock lock(shard.mutex);
        act(shard, chunk, offset, bytes.first(part));
      }
      bytes = bytes.subspan(part);
      pa += part;
    }
  }

  std::array<Shard, 64> shards_;
};

}  // namespace

struct PhysicalMemory::State {
  std::uint64_t first_pa;
  std::uint64_t page_size;
  mutable std::shared_mutex mutex;  // of everything but the chunks
  std::map<int, Allocation> by_fd;
  std::map<std::uint64_t, int> by_address;
  std::map<std::uint64_t, int> by_pa;
  std::uint64_t next_address = kFirstUserAddress;
  int next_fd = 3;
  mutable Chunks chunks;

  // The lowest gap that fits.
  std::uint64_t place(std::uint64_t bytes, std::uint64_t alignment) const {
    std::uint64_t pa = align_up(first_pa, alignment);
    for (const auto& [start, fd] : by_pa) {
      if (pa + bytes <= start) break;
      pa = align_up(start + by_fd.at(fd).bytes(), alignment);
    }
    return pa;
  }

  // Does one allocation after the other hold [pa, pa + bytes)?
  bool holds(std::uint64_t pa, std::uint64_t bytes) const {
    while (bytes > 0) {
      auto after = by_pa.upper_bound(pa);
      if (after == by_pa.begin()) return false;
      const auto& [start, fd] = *std::prev(after);
      const std::uint64_t size = by_fd.at(fd).bytes();
      if (pa - start >= size) return false;
      const std::uint64_t part = std::min(bytes, size - (pa - start));
      pa += part;
      bytes -= part;
    }
    return true;
  }

  void drop_if_unused(int fd) {
    const auto it = by_fd.find(fd);
    if (!it->second.freed || it->second.pins > 0) return;
    chunks.drop(it->second.pa, it->second.bytes());
    by_pa.erase(it->second.pa);
    by_fd.erase(it);
  }
};

PhysicalMemory::PhysicalMemory(std::uint64_t first_pa, std::uint64_t page_size) : state_(std::make_unique<State>()) {
  state_->first_pa = first_pa;
  state_->page_size = page_size;
}

PhysicalMemory::~PhysicalMemory() = default;

Memory PhysicalMemory::allocate(std::uint64_t size, std::uint64_t backing, bool writeable) {
  assert(std::has_single_bit(backing) && backing >= 4096 && size > 0 && size % backing == 0);
  State& s = *state_;
  const std::unique_lock lock(s.mutex);
  Allocation a;
  a.block = std::max(backing, s.page_size);
  a.scatter = Scatter((size + a.block - 1) / a.block);
  a.pa = s.place(a.bytes(), a.block);
  a.memory = {align_up(s.next_address, a.block), s.next_fd++, size, backing, writeable};
  s.next_address = a.memory.user_va + a.bytes() + s.page_size;  // an unmapped page ends every allocation
  s.by_address.emplace(a.memory.user_va, a.memory.fd);
  s.by_pa.emplace(a.pa, a.memory.fd);
  return s.by_fd.emplace(a.memory.fd, a).first->second.memory;
}

void PhysicalMemory::free(const Memory& memory) {
  const std::unique_lock lock(state_->mutex);
  const auto it = state_->by_fd.find(memory.fd);
  if (it == state_->by_fd.end() || it->second.freed) return;
  it->second.freed = true;
  state_->by_address.erase(it->second.memory.user_va);
  state_->drop_if_unused(memory.fd);
}

void PhysicalMemory::pin(const Memory& memory) {
  const std::unique_lock lock(state_->mutex);
  ++state_->by_fd.at(memory.fd).pins;
}

void PhysicalMemory::unpin(const Memory& memory) {
  const std::unique_lock lock(state_->mutex);
  --state_->by_fd.at(memory.fd).pins;
  state_->drop_if_unused(memory.fd);
}

std::optional<PhysicalMemory::Place> PhysicalMemory::find(std::uint64_t user_va, std::uint64_t length) const {
  const std::shared_lock lock(state_->mutex);
  const auto after = state_->by_address.upper_bound(user_va);
  if (after == state_->by_address.begin()) return std::nullopt;
  const Memory& memory = state_->by_fd.at(std::prev(after)->second).memory;
  const std::uint64_t offset = user_va - memory.user_va;
  if (offset >= memory.size || length > memory.size - offset) return std::nullopt;
  return Place{memory, offset};
}

std::optional<Memory> PhysicalMemory::find_file(int fd) const {
  const std::shared_lock lock(state_->mutex);
  const auto it = state_->by_fd.find(fd);
  if (it == state_->by_fd.end() || it->second.freed) return std::nullopt;
  return it->second.memory;
}

void PhysicalMemory::extents(const Memory& memory, std::uint64_t offset, std::uint64_t length,
                             std::vector<Extent>& out) const {
  std::shared_lock lock(state_->mutex);
  const Allocation a = state_->by_fd.at(memory.fd);
  lock.unlock();
  out.reserve(out.size() + length / a.block + 2);
  std::uint64_t inside = offset & (a.block - 1);
  std::uint64_t slot = a.scatter(offset / a.block);
  while (length > 0) {
    const std::uint64_t size = std::min(length, a.block - inside);
    out.push_back({a.pa + slot * a.block + inside, size});
    length -= size;
    inside = 0;
    slot += a.scatter.stride;  // the next block's, without a division
    if (slot >= a.scatter.blocks) slot -= a.scatter.blocks;
  }
}

bool PhysicalMemory::read(std::uint64_t pa, std::span<std::byte> bytes) const {
  const std::shared_lock lock(state_->mutex);
  if (!state_->holds(pa, bytes.size())) return false;
  state_->chunks.read(pa, bytes);
  return true;
}

bool PhysicalMemory::write(std::uint64_t pa, std::span<const std::byte> bytes) {
  const std::shared_lock lock(state_->mutex);
  if (!state_->holds(pa, bytes.size())) return false;
  state_->chunks.write(pa, bytes);
  return true;
}

}  // namespace ioplan::sim
