// The library's planning time against the number of devices, for 1, 4, 16 and 64 distinct signatures.
//
// `plan`: make_plan on a request in memory. `solve`: the solver inside it, without fingerprint, assumptions and the
// written Plan. Before timing, the plan is compared with that of a host with one function a unit (the number of HWPTs
// hangs on signatures only) and given to the judge. Every iteration plans a fresh copy of the request.

#include <benchmark/benchmark.h>

#include "bench/samples.h"
#include "bench/synthetic_host.h"
#include "constraints/kernel_law.h"
#include "engine/check/check.h"
#include "engine/planner/planner.h"
#include "engine/solve/solver.h"

namespace ioplan::bench {
namespace {

constexpr double kMicro = 1e6;

Request request_of(const benchmark::State& state) {
  return synthetic_request({.functions = static_cast<std::size_t>(state.range(1)),
                            .units = 64,
                            .signatures = static_cast<std::size_t>(state.range(0))});
}

// The HWPTs of the plan, or 0 when something is wrong with it.
std::size_t verified_hwpts(const Request& request, std::size_t signatures) {
  const Plan plan = make_plan(request, kernel_law());
  const std::size_t units = request.host.units.size();
  const Plan small = make_plan(synthetic_request({units, units, signatures}), kernel_law());
  const bool sound = plan.verdict == Verdict::feasible && plan.optimality.lower_bound == plan.hwpts.size() &&
                     plan.hwpts.size() == small.hwpts.size() && check_plan(plan, request, kernel_law()).accepted();
  return sound ? plan.hwpts.size() : 0;
}

template <class Work>
void run(benchmark::State& state, const Work& work) {
  const Request request = request_of(state);
  const std::size_t hwpts = verified_hwpts(request, static_cast<std::size_t>(state.range(0)));
  if (hwpts == 0) return state.SkipWithError("wrong plan");
  Samples samples;
  for (auto _ : state) {
    const Request fresh = request;
    benchmark::DoNotOptimize(samples.time([&] { return work(fresh); }));
    state.SetIterationTime(samples.last());
  }
  state.counters["min"] = samples.least() * kMicro;
  state.counters["med"] = samples.median() * kMicro;
  state.counters["hwpts"] = static_cast<double>(hwpts);
}

void plan(benchmark::State& state) {
  run(state, [](const Request& r) { return make_plan(r, kernel_law(), {.budget = {}, .explain_no = false}); });
}

void solve_only(benchmark::State& state) {
  run(state, [](const Request& r) { return solve(r, {r.vms[0].needs}, kernel_law(), {}); });
}

void sizes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"signatures", "devices"})->UseManualTime()->Unit(benchmark::kMicrosecond);
  for (std::int64_t signatures : {1, 4, 16, 64}) {
    for (std::int64_t devices : {1, 16, 64, 256, 1024, 4096}) b->Args({signatures, devices});
  }
}

BENCHMARK(plan)->Apply(sizes);
BENCHMARK(solve_only)->Name("solve")->Apply(sizes);

}  // namespace
}  // namespace ioplan::bench

BENCHMARK_MAIN();
