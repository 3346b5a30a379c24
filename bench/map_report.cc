#include "bench/map_report.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <set>

namespace ioplan::bench {
namespace {

constexpr std::array kOrder = {"vtd-ss", "x86-64",    "amdv1",  "arm-s1", "arm-s2", "arm-s2c",
                               "riscv",  "std::map",  "btree",  "icl",    "read",   "memset",
                               "stream", "xstd::map", "xbtree", "xicl",   "xleast"};

double clock_cost() {
  static const double cost = [] {
    Samples samples;
    for (int i = 0; i < 1000; ++i) samples.time([] { return 0; });
    return samples.least();
  }();
  return cost;
}

std::string column_of(const std::string& counter) {
  const bool time = counter.ends_with("_min") || counter.ends_with("_med");
  return time ? counter.substr(0, counter.size() - 4) : counter;
}

// The known ones in their order, then others by name.
std::vector<std::string> columns_of(const benchmark::BenchmarkReporter::Run& run) {
  std::set<std::string> left;
  for (const auto& [counter, value] : run.counters) left.insert(column_of(counter));
  std::vector<std::string> columns;
  for (const char* c : kOrder) {
    if (left.erase(c) != 0) columns.emplace_back(c);
  }
  columns.insert(columns.end(), left.begin(), left.end());
  return columns;
}

// Three digits that matter.
std::string short_number(double v) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), v < 0.1 ? "%.3f" : v < 10 ? "%.2f" : v < 100 ? "%.1f" : "%.0f", v);
  return text.data();
}

std::string cell(const benchmark::BenchmarkReporter::Run& run, const std::string& column) {
  const auto ratio = run.counters.find(column);
  if (ratio != run.counters.end()) return "x" + short_number(ratio->second);
  return short_number(run.counters.at(column + "_min")) + "/" + short_number(run.counters.at(column + "_med"));
}

}  // namespace

double per_page(double seconds, std::size_t pages) {
  return std::max(seconds - clock_cost(), 0.0) * kNano / static_cast<double>(pages);
}

void report(benchmark::State& state, const Columns& columns) {
  for (const auto& [column, samples] : columns) {
    state.counters[column + "_min"] = samples.least();
    state.counters[column + "_med"] = samples.median();
  }
}

bool Lines::ReportContext(const Context& context) {
  PrintBasicContext(&GetErrorStream(), context);
  std::puts("ns per page, minimum/median; x: theirs / vtd-ss, median; xleast: std::map or icl / the slowest format");
  return true;
}

void Lines::ReportRuns(const std::vector<Run>& runs) {
  for (const Run& run : runs) line(run);
  std::fflush(stdout);
}

void Lines::line(const Run& run) {
  if (run.error_occurred) {
    std::printf("%s ERROR OCCURRED: %s\n", run.benchmark_name().c_str(), run.error_message.c_str());
    return;
  }
  const std::vector<std::string> columns = columns_of(run);
  if (columns != last_columns_) header(columns);
  std::printf("%-34s", run.run_name.function_name.c_str());
  for (const std::string& c : columns) std::printf(" %11s", cell(run, c).c_str());
  std::puts("");
}

void Lines::header(const std::vector<std::string>& columns) {
  last_columns_ = columns;
  std::printf("\n%-34s", "");
  for (const std::string& c : columns) std::printf(" %11s", c.c_str());
  std::puts("");
}

}  // namespace ioplan::bench
