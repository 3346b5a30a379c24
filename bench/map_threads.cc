// One table, two threads on disjoint ranges of it, against one thread that does all the work.
//
// Wall time says what a user gets; it needs both processors for itself, so beside the median of ratios there is the
// ratio of the least times. The ratio of CPU time (of the slower thread) shows what the threads cost each other and
// nothing else.

#include <algorithm>
#include <array>
#include <barrier>
#include <ctime>
#include <thread>

#include "bench/map_contestants.h"
#include "bench/map_operations.h"
#include "bench/map_report.h"
#include "bench/map_rows.h"
#include "bench/map_workload.h"

namespace ioplan::bench {
namespace {

// One table, 1 GiB of it per thread, stretches of 2 MiB in turn: leaf tables are a thread's own, all above are shared.
class Halves {
 public:
  explicit Halves(const sim::PageTableShape& shape, const Workload& work)
      : table_(shape), calls_(table_.calls()), work_(work) {}

  // Performs `half` of an operation; what the calls gave back.
  std::uint64_t perform(Operation o, std::size_t half) {
    std::uint64_t result = 0;
    for (std::size_t page = half * kStretch; page < work_.pages(); page += 2 * kStretch) result += stretch(o, page);
    return result;
  }
  void prepare(Operation o) {
    calls_.unmap(Workload::kBase, work_.size());
    if (!maps(o)) calls_.map(Workload::kBase, work_.extents);
  }

 private:
  static constexpr std::size_t kStretch = 512;

  std::uint64_t stretch(Operation o, std::size_t first) {
    const std::uint64_t iova = work_.iova(first), size = kStretch * work_.page_size();
    const std::span<const sim::Extent> extents = std::span(work_.extents).subspan(first, kStretch);
    std::uint64_t result = 0;
    switch (o) {
      case Operation::map_list:
        return static_cast<std::uint64_t>(calls_.map(iova, extents));
      case Operation::unmap_all:
        return calls_.unmap(iova, size) - size;
      case Operation::map_each:
        for (std::size_t i = 0; i < kStretch; ++i) {
          result |=
              static_cast<std::uint64_t>(calls_.map(iova + i * work_.page_size(), extents[i].pa, extents[i].size));
        }
        return result;
      case Operation::unmap_each:
        for (std::size_t i = 0; i < kStretch; ++i) {
          result += calls_.unmap(iova + i * work_.page_size(), work_.page_size()) - work_.page_size();
        }
        return result;
      default:
        for (std::size_t i = 0; i < kStretch; ++i) {
          result += calls_.translate(iova + i * work_.page_size()).value_or(0) - extents[i].pa;
        }
        return result;
    }
  }

  Table table_;
  Table::Calls calls_;
  const Workload& work_;
};

double now() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) / kNano;
}

// What one thread did.
struct Turn {
  double start = 0, end = 0, cpu = 0;
  std::uint64_t result = 0;  // 0: right
};

template <class Work>
Turn turn(const Work& work) {
  Turn t{.start = now()};
  Samples cpu;
  t.result = cpu.time(work);
  t.cpu = cpu.last();
  t.end = now();
  return t;
}

// From the first start to the last end; the slower one's CPU time.
Turn together(const Turn& a, const Turn& b) {
  return {std::min(a.start, b.start), std::max(a.end, b.end), std::max(a.cpu, b.cpu), a.result | b.result};
}

Turn one_thread(Halves& halves, Operation o) {
  return turn([&] { return halves.perform(o, 0) | halves.perform(o, 1); });
}

Turn two_threads(Halves& halves, Operation o) {
  std::barrier gate(2);
  std::array<Turn, 2> turns;
  const auto run = [&](std::size_t half) {
    gate.arrive_and_wait();
    turns[half] = turn([&] { return halves.perform(o, half); });
  };
  std::thread first(run, 0), second(run, 1);
  first.join();
  second.join();
  return together(turns[0], turns[1]);
}

void threads(benchmark::State& state, Operation o, const NamedShape& shape) {
  static const Workload work = workload("2GiB-of-4K", 12, std::size_t{1} << 19);
  Halves halves(shape.shape, work);
  Columns columns;
  Samples by_wall, by_cpu;
  for (auto _ : state) {
    halves.prepare(o);
    const Turn one = one_thread(halves, o);
    halves.prepare(o);
    const Turn two = two_threads(halves, o);
    if (one.result != 0 || two.result != 0) return state.SkipWithError("wrong result");
    columns["1-thread"].add(per_page(one.end - one.start, work.pages()));
    columns["2-threads"].add(per_page(two.end - two.start, work.pages()));
    by_wall.add((one.end - one.start) / (two.end - two.start));
    by_cpu.add(one.cpu / two.cpu);
    state.SetIterationTime(two.end - two.start);
  }
  report(state, columns);
  state.counters["x-wall"] = by_wall.median();
  state.counters["x-wall-min"] = columns.at("1-thread").least() / columns.at("2-threads").least();
  state.counters["x-cpu"] = by_cpu.median();
}

}  // namespace

void register_thread_rows() {
  for (const NamedShape& shape : all_shapes()) {
    if (shape.name != "vtd-ss" && shape.name != "amdv1" && shape.name != "arm-s2") continue;
    for (Operation o : {Operation::map_each, Operation::map_list, Operation::unmap_each, Operation::unmap_all,
                        Operation::translate}) {
      const std::string row = "threads/" + shape.name + "/" + std::string(name(o));
      benchmark::RegisterBenchmark(row.c_str(), [o, shape](benchmark::State& state) { threads(state, o, shape); })
          ->Iterations(2 * kIterations + 1)
          ->UseManualTime();
    }
  }
}

}  // namespace ioplan::bench
