// How the rows of bench_map are timed and printed: nanoseconds per page, `minimum/median` of every contestant, a line a
// row.
#pragma once

#include <benchmark/benchmark.h>

#include <cstddef>
#include <map>
#include <string>
#include <vector>

#include "bench/samples.h"

namespace ioplan::bench {

inline constexpr int kIterations = 5;
inline constexpr double kNano = 1e9;

// Contestants of a row with their samples, nanoseconds per page.
using Columns = std::map<std::string, Samples>;

// Nanoseconds per page, less what it costs to look at the clock twice.
double per_page(double seconds, std::size_t pages);

// Makes counters of the columns: what Lines prints, and --benchmark_out writes.
void report(benchmark::State& state, const Columns& columns);

// Prints a line a row, and a header whenever the columns change. Counters that are not columns are ratios.
class Lines : public benchmark::BenchmarkReporter {
 public:
  bool ReportContext(const Context& context) override;
  void ReportRuns(const std::vector<Run>& runs) override;

 private:
  void line(const Run& run);
  void header(const std::vector<std::string>& columns);

  std::vector<std::string> last_columns_;
};

}  // namespace ioplan::bench
