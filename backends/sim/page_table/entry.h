// Page-table entries in memory: 64-bit words that map paths, readers and the hardware walker touch at the same time.
//
// Single entries are read and written as atomics. Stretches of entries may be written by vector stores: every processor
// that this runs on writes an aligned 8-byte lane at once, which is all that a reader relies on, but C++ has no word
// for it. Builds with the thread sanitizer, which goes by C++'s words, use atomics throughout.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace ioplan::sim {

#if defined(__SANITIZE_THREAD__)
inline constexpr bool kVectorStores = false;
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
inline constexpr bool kVectorStores = false;
#else
inline constexpr bool kVectorStores = true;
#endif
#else
inline constexpr bool kVectorStores = true;
#endif

using Entry = std::uint64_t;

inline Entry* entries_at(std::byte* table) { return reinterpret_cast<Entry*>(table); }

// Acquire: what an entry points to, and what was written before it, is seen by whoever sees the entry.
inline Entry load_entry(const Entry* slot) {
  return std::atomic_ref(*const_cast<Entry*>(slot)).load(std::memory_order_acquire);
}

inline void store_entry(Entry* slot, Entry entry) { std::atomic_ref(*slot).store(entry, std::memory_order_release); }

inline bool replace_entry(Entry* slot, Entry& expected, Entry entry) {
  return std::atomic_ref(*slot).compare_exchange_strong(expected, entry, std::memory_order_acq_rel,
                                                        std::memory_order_acquire);
}

inline void clear_bits(Entry* slot, Entry bits) { std::atomic_ref(*slot).fetch_and(~bits, std::memory_order_acq_rel); }

}  // namespace ioplan::sim
