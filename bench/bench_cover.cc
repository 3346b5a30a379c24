// The cover alone, on abstract families, against what others would write (cover_families.h, baselines/baseline.h).
//
// Every iteration takes a fresh instance (the next seed); contestants are alternated on it, their results compared, and
// nothing is remembered between calls. A row's time is ours; the counters hold all contestants, in microseconds, and
// the median over instances of (theirs / ours). Iterations are fixed, so every run sees the same instances.

#include <benchmark/benchmark.h>

#include <string>

#include "bench/baselines/baseline.h"
#include "bench/cover_families.h"
#include "bench/samples.h"

namespace ioplan::bench {
namespace {

constexpr double kMicro = 1e6;

void report(benchmark::State& state, const std::string& who, const Samples& samples) {
  state.counters[who + "_min"] = samples.least() * kMicro;
  state.counters[who + "_med"] = samples.median() * kMicro;
  state.counters[who + "_max"] = samples.most() * kMicro;
}

bool optimal(const CoverSolution& s) {
  return s.status == CoverStatus::solved && s.values[Objective::hwpts] == s.lower_bound;
}

// Ours and CaDiCaL's, alternately first.
void against_cadical(benchmark::State& state, Family family) {
  Samples ours, theirs, ratio;
  double first_fit = 0, blocks = 0, witnessed = 0;
  std::uint64_t seed = 0;
  for (auto _ : state) {
    const CoverInstance instance = cover_instance(family, static_cast<std::size_t>(state.range(0)), ++seed);
    CoverSolution solution;
    Counted counted;
    const auto we = [&] { solution = ours.time([&] { return solve_cover(instance); }); };
    const auto they = [&] { counted = theirs.time([&] { return cadical_cover(instance); }); };
    if (seed % 2 == 0) we();
    they();
    if (seed % 2 != 0) we();
    if (!optimal(solution) || !counted.proved || counted.blocks != solution.lower_bound) {
      return state.SkipWithError("the contestants disagree, or one gave up");
    }
    ratio.add(theirs.last() / ours.last());
    first_fit += static_cast<double>(first_fit_cover(instance));
    blocks += static_cast<double>(counted.blocks);
    witnessed += solution.proof == ProofKind::witness ? 1 : 0;
    state.SetIterationTime(ours.last());
  }
  report(state, "ours", ours);
  report(state, "cadical", theirs);
  state.counters["cadical/ours"] = ratio.median();
  state.counters["first-fit/optimum"] = first_fit / blocks;
  state.counters["witness%"] = 100 * witnessed / static_cast<double>(seed);
}

// All objectives, in the order of a default policy: what a plan really asks. Nobody else answers this.
void with_all_objectives(benchmark::State& state, Family family) {
  Samples ours;
  std::uint64_t seed = 0;
  for (auto _ : state) {
    const CoverInstance instance =
        with_costs(family, cover_instance(family, static_cast<std::size_t>(state.range(0)), ++seed));
    const CoverSolution solution = ours.time([&] { return solve_cover(instance); });
    if (!optimal(solution) || !solution.proved[static_cast<std::size_t>(Objective::unneeded_flags)]) {
      return state.SkipWithError("not proved");
    }
    state.SetIterationTime(ours.last());
  }
  report(state, "ours", ours);
}

// The naive model. It is stopped by Z3's own count of work; `z3_proved` says how often it was done by then.
void against_z3(benchmark::State& state, Family family) {
  constexpr unsigned kRlimit = 4'000'000;
  Samples ours, theirs, ratio;
  double proved = 0;
  std::uint64_t seed = 0;
  for (auto _ : state) {
    const CoverInstance instance = cover_instance(family, static_cast<std::size_t>(state.range(0)), ++seed);
    const CoverSolution solution = ours.time([&] { return solve_cover(instance); });
    const Counted counted = theirs.time([&] { return z3_cover(instance, kRlimit); });
    if (!optimal(solution) || counted.blocks < solution.lower_bound ||
        (counted.proved && counted.blocks != solution.lower_bound)) {
      return state.SkipWithError("the contestants disagree");
    }
    proved += counted.proved ? 1 : 0;
    ratio.add(theirs.last() / ours.last());
    state.SetIterationTime(ours.last());
  }
  report(state, "ours", ours);
  report(state, "z3", theirs);
  state.counters["z3/ours"] = ratio.median();
  state.counters["z3_proved%"] = 100 * proved / static_cast<double>(seed);
}

void register_all() {
  const auto add = [](const std::string& name, const auto& run, std::int64_t n, std::int64_t instances) {
    benchmark::RegisterBenchmark(name.c_str(), run)
        ->ArgName("n")
        ->Arg(n)
        ->Iterations(instances)
        ->UseManualTime()
        ->Unit(benchmark::kMicrosecond);
  };
  for (Family family : {Family::R, Family::S, Family::H}) {
    const std::string name(kFamilyNames[static_cast<std::size_t>(family)]);
    for (std::int64_t n : {8, 16, 32, 64, 128, 256}) {
      add(
          "cover/" + name, [=](benchmark::State& s) { against_cadical(s, family); }, n, n <= 64 ? 51 : 15);
    }
  }
  for (Family family : {Family::R, Family::H}) {
    const std::string name(kFamilyNames[static_cast<std::size_t>(family)]);
    for (std::int64_t n : {16, 64, 256}) {
      add(
          "cover-all-objectives/" + name, [=](benchmark::State& s) { with_all_objectives(s, family); }, n, 51);
    }
  }
  for (Family family : {Family::R, Family::H}) {
    const std::string name(kFamilyNames[static_cast<std::size_t>(family)]);
    for (std::int64_t n : {8, 16})
      add(
          "cover-z3/" + name, [=](benchmark::State& s) { against_z3(s, family); }, n, 5);
  }
}

}  // namespace
}  // namespace ioplan::bench

int main(int argc, char** argv) {
  ioplan::bench::register_all();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
}
