// The map path: what a page costs to map, unmap, translate and scan, in each format, against ordered maps and memory.
//
// A row is one operation on one workload; its columns are the contestants, nanoseconds per page, minimum/median over
// iterations. Within an iteration all contestants run one after the other, so a ratio (a median over iterations)
// compares neighbours in time. Before timing, every page of every contestant is compared with the formula; results are
// judged again after every timed run. Times are the thread's CPU time less that of an empty measurement; threads: wall
// time.
//
// The bound is what memory alone would cost: `memset` writes the bytes of the VT-d entries through the cache, `stream`
// past it, `read` adds them up.

#include <benchmark/benchmark.h>
#include <malloc.h>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

#include "bench/map_contestants.h"
#include "bench/map_operations.h"
#include "bench/map_report.h"
#include "bench/map_rows.h"
#include "bench/map_workload.h"

namespace ioplan::bench {
namespace {

// Makes glibc join freed nodes into large pieces, in the order of addresses, as in a fresh heap: a request that no
// small piece can serve does so.
void join_freed_nodes() {
  void* volatile piece = std::malloc(std::size_t{1} << 17);
  std::free(piece);
}

// A contestant with its trial, behind one interface; the virtual call is per operation, not per page.
class Contender {
 public:
  explicit Contender(std::string name) : name_(std::move(name)) {}
  virtual ~Contender() = default;
  const std::string& name() const { return name_; }
  virtual bool takes_part(Operation o) const = 0;
  virtual bool verify() = 0;  // every page of both kinds of memory
  virtual void prepare(Operation o) = 0;
  virtual std::uint64_t perform(Operation o) = 0;
  virtual bool right(Operation o, std::uint64_t result) = 0;
  virtual void rest() = 0;  // after each of its turns

 private:
  std::string name_;
};

template <class Contestant>
class Runner : public Contender {
 public:
  template <class... Arguments>
  Runner(std::string name, const Workload& work, Arguments&&... arguments)
      : Contender(std::move(name)), contestant_(std::forward<Arguments>(arguments)...), trial_(contestant_, work) {}

  bool takes_part(Operation o) const override { return contestant_.takes_part(o); }
  void prepare(Operation o) override { trial_.prepare(o); }
  std::uint64_t perform(Operation o) override { return trial_.perform(o); }
  bool right(Operation o, std::uint64_t result) override { return trial_.right(o, result); }

  // Ordered maps give their nodes back, so that the next finds the heap in one piece: a heap that is left in the order
  // of a shuffled unmap makes them up to three times slower.
  void rest() override {
    if constexpr (!std::is_same_v<Contestant, Table>) {
      trial_.empty();
      join_freed_nodes();
    }
  }

  bool verify() override {
    for (Operation o : {Operation::map_run, Operation::map_each_random, Operation::map_list}) {
      trial_.prepare(o);
      if (!trial_.right(o, trial_.perform(o)) || !trial_.every_page_right()) return false;
    }
    rest();
    return true;
  }

 private:
  Contestant contestant_;
  Trial<Contestant> trial_;
};

// Bytes of PTEs, written or read.
class Memory {
 public:
  explicit Memory(const Workload& work) : words_(work.pages() * (work.page_lg2 == 16 ? 16 : 1)) {}
  void set() {
    std::memset(words_.data(), ++fill_, words_.size() * sizeof(words_[0]));
    benchmark::ClobberMemory();
  }
  void stream() {
#if defined(__SSE2__)
    ++fill_;
    for (std::uint64_t& word : words_) _mm_stream_si64(reinterpret_cast<long long*>(&word), fill_);
    _mm_sfence();
#endif
  }
  void read() { benchmark::DoNotOptimize(std::reduce(words_.begin(), words_.end())); }

 private:
  std::vector<std::uint64_t> words_;
  unsigned char fill_ = 0;
};

enum class Beside : std::uint8_t { ordered_maps, nothing };

struct Field {
  Field(Workload w, Beside beside) : work(std::move(w)), memory(work) {
    for (const NamedShape& s : all_shapes()) {
      if (beside == Beside::nothing && s.name != "vtd-ss" && s.name != "amdv1" && s.name != "arm-s2") continue;
      contenders.push_back(std::make_unique<Runner<Table>>(s.name, work, s.shape));
    }
    formats = contenders.size();
    if (beside == Beside::ordered_maps) {
      contenders.push_back(std::make_unique<Runner<StdMap>>("std::map", work));
      contenders.push_back(std::make_unique<Runner<BtreeMap>>("btree", work));
      contenders.push_back(std::make_unique<Runner<IntervalMap>>("icl", work));
    }
    for (const auto& c : contenders) {
      if (!c->verify()) wrong += c->name() + " ";
      order.push_back(c.get());
    }
  }

  Workload work;
  Memory memory;
  std::vector<std::unique_ptr<Contender>> contenders;  // tables first
  std::size_t formats = 0;
  std::vector<Contender*> order;  // of the next iteration
  std::string wrong;              // who failed the verification
};

void time_memory(Operation o, Field& field, Columns& columns) {
  const auto time = [&](const char* column, auto work) {
    work();  // so that the bytes are in the cache, as far as they fit
    Samples s;
    s.time([&] { return work(), 0; });
    columns[column].add(per_page(s.last(), field.work.pages()));
  };
  if (maps(o)) {
    time("memset", [&] { field.memory.set(); });
    time("stream", [&] { field.memory.stream(); });
  }
  if (reads_dirty(o)) time("read", [&] { field.memory.read(); });
}

// The least ratio over formats, of what std::map and icl cost to what a format costs, both medians.
double least_ratio(const Field& field, const Columns& columns) {
  double least = 0;
  for (std::size_t i = 0; i < field.formats; ++i) {
    const auto ours = columns.find(field.contenders[i]->name());
    if (ours == columns.end()) continue;
    for (const char* baseline : {"std::map", "icl"}) {
      const double ratio = columns.at(baseline).median() / ours->second.median();
      least = least == 0 ? ratio : std::min(least, ratio);
    }
  }
  return least;
}

void operation(benchmark::State& state, Operation o, Field& field) {
  if (!field.wrong.empty()) return state.SkipWithError(("wrong pages: " + field.wrong).c_str());
  Columns columns;
  std::map<std::string, Samples> ratios;
  std::mt19937_64 random(1);
  for (auto _ : state) {
    // In a new order each time: who comes after an ordered map finds cold caches.
    std::ranges::shuffle(field.order, random);
    for (Contender* contender : field.order) {
      if (!contender->takes_part(o)) continue;
      contender->prepare(o);
      Samples s;
      const std::uint64_t result = s.time([&] { return contender->perform(o); });
      if (!contender->right(o, result)) return state.SkipWithError((contender->name() + " is wrong").c_str());
      contender->rest();
      columns[contender->name()].add(per_page(s.last(), field.work.pages()));
    }
    time_memory(o, field, columns);
    const double ours = columns.at("vtd-ss").last();
    for (const char* baseline : {"std::map", "btree", "icl"}) {
      if (columns.contains(baseline)) ratios[baseline].add(columns[baseline].last() / ours);
    }
    state.SetIterationTime(ours * static_cast<double>(field.work.pages()) / kNano);
  }
  report(state, columns);
  for (const auto& [baseline, ratio] : ratios) state.counters["x" + baseline] = ratio.median();
  if (columns.contains("icl")) state.counters["xleast"] = least_ratio(field, columns);
}

void register_operation_rows(const Workload& work, Beside beside) {
  // Made when the first of its rows runs; a filter then leaves the others alone.
  const auto field = std::make_shared<std::unique_ptr<Field>>();
  for (std::size_t i = 0; i < kOperationNames.size(); ++i) {
    const auto o = static_cast<Operation>(i);
    const std::string row = work.name + "/" + std::string(name(o));
    const auto run = [=](benchmark::State& state) {
      if (*field == nullptr) *field = std::make_unique<Field>(work, beside);
      operation(state, o, **field);
    };
    benchmark::RegisterBenchmark(row.c_str(), run)->Iterations(kIterations)->UseManualTime();
  }
}

void register_operation_rows() {
  for (const Workload& work : all_workloads()) register_operation_rows(work, Beside::ordered_maps);
  register_operation_rows(large_workload(), Beside::nothing);
}

}  // namespace
}  // namespace ioplan::bench

int main(int argc, char** argv) {
  mallopt(M_MMAP_THRESHOLD, 1 << 30);  // the heap is kept, and kept in one piece
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  ioplan::bench::register_operation_rows();
  ioplan::bench::register_thread_rows();
  ioplan::bench::register_fan_out_rows();
  ioplan::bench::register_guarantee_rows();
  ioplan::bench::Lines lines;
  benchmark::RunSpecifiedBenchmarks(&lines);
  return 0;
}
