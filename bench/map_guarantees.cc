// What the page tables' guarantees cost, on entries alone: a dirty bit is not lost when hardware sets it during a
// clear; a table is not freed under a thread that writes to it.

#include <atomic>
#include <vector>

#include "bench/map_report.h"
#include "bench/map_rows.h"

namespace ioplan::bench {
namespace {

constexpr std::size_t kEntries = std::size_t{1} << 18;

// The naked work on a gibibyte's worth of entries, without any table around it: a plain loop, and the same when
// hardware may set dirty bits, or other threads may free the table, at the same time.
class Entries {
 public:
  void fill(std::uint64_t entry) { words_.assign(words_.size(), entry); }

  std::uint64_t clear_plain() {
    return each([](std::uint64_t& e) {
      const bool dirty = (e & kDirty) != 0;
      if (dirty) e &= ~kDirty;
      return dirty;
    });
  }
  std::uint64_t clear_atomic() {
    return each([](std::uint64_t& e) {
      std::atomic_ref<std::uint64_t> entry(e);
      if ((entry.load(std::memory_order_relaxed) & kDirty) == 0) return false;
      entry.fetch_and(~kDirty, std::memory_order_relaxed);
      return true;
    });
  }
  std::uint64_t store_plain() {
    return each([](std::uint64_t& e) {
      reinterpret_cast<volatile std::uint64_t&>(e) = kDirty;
      return true;
    });
  }
  // Pinning a table: its count goes up by one atomic addition before an entry is written.
  std::uint64_t store_pinned() {
    return each([this](std::uint64_t& e) {
      count_.fetch_add(1, std::memory_order_acquire);
      reinterpret_cast<volatile std::uint64_t&>(e) = kDirty;
      return true;
    });
  }

  static constexpr std::uint64_t kDirty = std::uint64_t{1} << 9;

 private:
  template <class Visit>
  std::uint64_t each(const Visit& visit) {
    std::uint64_t n = 0;
    for (std::uint64_t& word : words_) n += visit(word);
    return n;
  }

  std::vector<std::uint64_t> words_ = std::vector<std::uint64_t>(kEntries);
  std::atomic<std::uint64_t> count_ = 0;
};

void guarantees(benchmark::State& state) {
  Entries entries;
  Columns columns;
  const auto time = [&](const char* column, std::uint64_t entry, std::uint64_t (Entries::*work)()) {
    entries.fill(entry);
    Samples s;
    benchmark::DoNotOptimize(s.time([&] { return (entries.*work)(); }));
    columns[column].add(per_page(s.last(), kEntries));
  };
  for (auto _ : state) {
    time("clear-plain", Entries::kDirty, &Entries::clear_plain);
    time("clear-atomic", Entries::kDirty, &Entries::clear_atomic);
    time("scan-plain", 0, &Entries::clear_plain);
    time("scan-atomic", 0, &Entries::clear_atomic);
    time("store-plain", 0, &Entries::store_plain);
    time("store-pinned", 0, &Entries::store_pinned);
    state.SetIterationTime(columns["clear-atomic"].last() * kEntries / kNano);
  }
  report(state, columns);
}

}  // namespace

void register_guarantee_rows() {
  benchmark::RegisterBenchmark("guarantees", guarantees)->Iterations(kIterations)->UseManualTime();
}

}  // namespace ioplan::bench
