// The answer to a plug, and headroom for every device, on a large host; beside planning everything again per device.
//
// The VM has half of the functions. `plug`: hotplug of one more, in each mode, documents in memory to steps. `replan`:
// the baseline, make_plan of the whole new set, which says neither what moves nor in which order. `headroom`: all
// devices that the VM has not. Before timing, the answer is given to the judge of transitions.

#include <benchmark/benchmark.h>

#include <algorithm>

#include "bench/samples.h"
#include "bench/synthetic_host.h"
#include "constraints/kernel_law.h"
#include "engine/check/transition.h"
#include "engine/lifecycle/headroom.h"
#include "engine/lifecycle/hotplug.h"
#include "engine/planner/planner.h"

namespace ioplan::bench {
namespace {

constexpr double kMilli = 1e3;

// A running VM with so many of the host's 4096 functions, and a device that it has not.
struct Running {
  Request request;
  Plan plan;
  Change change;

  explicit Running(std::size_t devices) {
    request = synthetic_request({.functions = 4096, .units = 64, .signatures = 16});
    auto& mine = request.vms[0].devices;
    const auto spare = request.host.device(*mine.back().host).id;
    mine.resize(devices);
    plan = make_plan(request, kernel_law());
    change.add = {spare};
  }

  bool sound(HotplugPolicy mode) const {
    const auto answer = hotplug(plan, request, change, mode, kernel_law());
    if (!answer || answer->verdict != Verdict::feasible) return false;
    const Request changed = *changed_request(plan, request, change);
    return check_transition(plan, answer->plan, answer->transition.steps, changed, kernel_law()).accepted();
  }
};

template <class Work>
void time(benchmark::State& state, const Work& work) {
  Samples samples;
  for (auto _ : state) {
    benchmark::DoNotOptimize(samples.time(work));
    state.SetIterationTime(samples.last());
  }
  state.counters["min_ms"] = samples.least() * kMilli;
  state.counters["med_ms"] = samples.median() * kMilli;
}

void plug(benchmark::State& state, HotplugPolicy mode) {
  const Running running(static_cast<std::size_t>(state.range(0)));
  if (!running.sound(mode)) return state.SkipWithError("wrong answer");
  time(state, [&] { return hotplug(running.plan, running.request, running.change, mode, kernel_law()); });
}

void replan(benchmark::State& state) {
  const Running running(static_cast<std::size_t>(state.range(0)));
  const Request changed = *changed_request(running.plan, running.request, running.change);
  time(state, [&] { return make_plan(changed, kernel_law(), {.budget = {}, .explain_no = false}); });
}

void all_headroom(benchmark::State& state) {
  const Running running(static_cast<std::size_t>(state.range(0)));
  const auto room = headroom(running.plan, running.request, "", kernel_law());
  if (!room || room->devices.size() + static_cast<std::size_t>(state.range(0)) != 4096) {
    return state.SkipWithError("wrong answer");
  }
  time(state, [&] { return headroom(running.plan, running.request, "", kernel_law()); });
}

// The baseline of headroom: every device planned with the VM's.
void replan_for_each(benchmark::State& state) {
  const Running running(static_cast<std::size_t>(state.range(0)));
  time(state, [&] {
    std::size_t feasible = 0;
    Request request = running.request;
    for (std::size_t d = 0; d < request.host.devices.size(); ++d) {
      auto& devices = request.vms[0].devices;
      const auto before = devices;
      AssignedDevice added;
      added.host = DeviceIndex(d);
      const auto at = std::ranges::find_if(devices, [&](const auto& x) { return !x.host || *added.host <= *x.host; });
      if (at != devices.end() && at->host == added.host) continue;
      devices.insert(at, added);
      feasible += make_plan(request, kernel_law(), {.budget = {}, .explain_no = false}).verdict == Verdict::feasible;
      devices = before;
    }
    return feasible;
  });
}

void sizes(benchmark::internal::Benchmark* b) {
  b->ArgName("devices")->UseManualTime()->Unit(benchmark::kMillisecond)->Arg(8)->Arg(64)->Arg(2048);
}

BENCHMARK_CAPTURE(plug, frozen, HotplugPolicy::frozen)->Apply(sizes);
BENCHMARK_CAPTURE(plug, additive, HotplugPolicy::additive)->Apply(sizes);
BENCHMARK_CAPTURE(plug, converge, HotplugPolicy::converge)->Apply(sizes);
BENCHMARK(replan)->Apply(sizes);
BENCHMARK(all_headroom)->Name("headroom")->Apply(sizes);
BENCHMARK(replan_for_each)->ArgName("devices")->UseManualTime()->Unit(benchmark::kMillisecond)->Arg(8)->Iterations(1);

}  // namespace
}  // namespace ioplan::bench

BENCHMARK_MAIN();
