#include "backends/sim/page_table/stretch.h"

// One body, several widths: the loader picks the widest that the processor has. Sanitized builds take the plain one.
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define IOPLAN_WIDE [[gnu::target_clones("avx512f", "avx2", "default")]]
#else
#define IOPLAN_WIDE
#endif

namespace ioplan::sim::stretch {

namespace {

inline Entry read(const Entry* slot) {
  if constexpr (kVectorStores) return *slot;
  return load_entry(slot);
}

inline void put(Entry* slot, Entry entry) {
  if constexpr (kVectorStores) {
    *slot = entry;
  } else {
    store_entry(slot, entry);
  }
}

}  // namespace

IOPLAN_WIDE bool all(const Entry* first, std::uint64_t count, Entry value) {
  Entry differing = 0;
  for (std::uint64_t i = 0; i < count; ++i) differing |= read(first + i) ^ value;
  return differing == 0;
}

IOPLAN_WIDE bool any(const Entry* first, std::uint64_t count, Entry mask, Entry value) {
  Entry found = 0;
  for (std::uint64_t i = 0; i < count; ++i) found |= (read(first + i) & mask) == value ? ~Entry{0} : 0;
  return found != 0;
}

IOPLAN_WIDE void fill(Entry* first, std::uint64_t count, Entry entry) {
  for (std::uint64_t i = 0; i < count; ++i) put(first + i, entry);
}

IOPLAN_WIDE void write(Entry* first, std::uint64_t count, Entry entry, Entry step) {
  // Lanes that step by themselves: a product per entry is what the loop must not cost.
  constexpr std::uint64_t kLanes = 8;
  Entry lanes[kLanes];
  for (std::uint64_t lane = 0; lane < kLanes; ++lane) lanes[lane] = entry + lane * step;
  std::uint64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (std::uint64_t lane = 0; lane < kLanes; ++lane) {
      put(first + i + lane, lanes[lane]);
      lanes[lane] += kLanes * step;
    }
  }
  for (std::uint64_t lane = 0; i < count; ++i, ++lane) put(first + i, lanes[lane]);
}

IOPLAN_WIDE Common common(std::span<const Extent> extents, std::uint64_t size) {
  const Extent* const from = extents.data();
  const std::uint64_t count = extents.size();
  std::uint64_t addresses = 0, sizes = 0;
  for (std::uint64_t i = 0; i < count; ++i) {
    addresses |= from[i].pa;
    sizes |= from[i].size ^ size;
  }
  return {addresses, sizes};
}

IOPLAN_WIDE Common write_each(Entry* first, std::span<const Extent> extents, std::uint64_t size, unsigned left,
                              unsigned right, Entry attributes) {
  const Extent* const from = extents.data();
  const std::uint64_t count = extents.size();
  std::uint64_t addresses = 0, sizes = 0;
  for (std::uint64_t i = 0; i < count; ++i) {
    const Extent e = from[i];
    addresses |= e.pa;
    sizes |= e.size ^ size;
    put(first + i, e.pa << left >> right | attributes);
  }
  return {addresses, sizes};
}

}  // namespace ioplan::sim::stretch
