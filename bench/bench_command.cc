// The whole command on a host of 4096 functions: `ioplan plan` from YAML and from JSON, to text and to JSON, judge
// included; and `ioplan scan` of a copy of a machine with 2000 functions behind 64 units, and of its capture. Wall time, CPU time and peak resident memory of the child (wait4); on a busy machine wall time is an upper
// bound. `version` is the floor: start and end of the process. Before timing the output is looked at, and the dynamic
// linker is asked which Z3 functions were bound: none may be, because Z3 is only for those who ask for it.
//
// usage: bench_command [--benchmark_...]; the program is the one built beside it.

#include <benchmark/benchmark.h>
#include <fcntl.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "bench/samples.h"
#include "bench/synthetic_host.h"
#include "tests/support/machine_tree.h"

namespace ioplan::bench {
namespace {

namespace fs = std::filesystem;

constexpr double kMilli = 1e3;

// The generated documents, removed at the end.
class Scratch {
 public:
  Scratch() : path_(fs::temp_directory_path() / ("ioplan-bench-" + std::to_string(getpid()))) {
    fs::create_directory(path_);
    const Request request = synthetic_request({});
    std::ofstream(file("host.yaml")) << to_yaml(request);
    std::ofstream(file("host.json")) << to_json(request);
    const intake::Entries machine = machine_tree::make({.driver = Driver::intel, .units = 64, .functions = 2000}).files;
    machine_tree::write(machine, file("machine"));
    std::ofstream(file("machine.tar"), std::ios::binary) << intake::write_archive(machine).value();
  }
  ~Scratch() { fs::remove_all(path_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  std::string file(const std::string& name) const { return path_ / name; }

 private:
  fs::path path_;
};

struct Ended {
  int status = -1;
  double cpu = 0;  // user and system, seconds
  double peak_mib = 0;
};

double seconds(const timeval& t) { return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6; }

// Runs the program with its output in files; the environment is ours plus `extra`.
Ended spawn(std::vector<std::string> arguments, const std::string& out, const std::string& err,
            const std::string& extra = "IOPLAN_BENCH=1") {
  arguments.insert(arguments.begin(), IOPLAN_BINARY);
  std::vector<char*> argv, envp;
  for (std::string& a : arguments) argv.push_back(a.data());
  argv.push_back(nullptr);
  std::string own = extra;
  for (char** e = environ; *e != nullptr; ++e) envp.push_back(*e);
  envp.push_back(own.data());
  envp.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 1, out.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  posix_spawn_file_actions_addopen(&actions, 2, err.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  pid_t child = 0;
  const int failed = posix_spawn(&child, IOPLAN_BINARY, &actions, nullptr, argv.data(), envp.data());
  posix_spawn_file_actions_destroy(&actions);
  if (failed != 0) return {};
  Ended ended;
  rusage usage{};
  wait4(child, &ended.status, 0, &usage);
  ended.cpu = seconds(usage.ru_utime) + seconds(usage.ru_stime);
  ended.peak_mib = static_cast<double>(usage.ru_maxrss) / 1024;
  return ended;
}

std::string text_of(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

// The program binds functions when it first calls them; libz3's own bindings at load time do not count.
bool binds_z3(const std::string& bindings) {
  std::istringstream lines(bindings);
  for (std::string line; std::getline(lines, line);) {
    if (line.find("ioplan [0] to") != std::string::npos && line.find("symbol `Z3_") != std::string::npos) return true;
  }
  return false;
}

// Empty when the command answers as it should and leaves Z3 alone.
std::string complaint(const Scratch& scratch, const std::vector<std::string>& arguments, const std::string& expected) {
  const std::string out = scratch.file("out"), err = scratch.file("err");
  if (spawn(arguments, out, err, "LD_DEBUG=bindings").status != 0) return "the command fails";
  if (text_of(out).find(expected) == std::string::npos) return "the output lacks `" + expected + "`";
  if (binds_z3(text_of(err))) return "Z3 was called";
  return {};
}

void run(benchmark::State& state, const Scratch& scratch, const std::vector<std::string>& arguments,
         const std::string& expected) {
  if (const std::string wrong = complaint(scratch, arguments, expected); !wrong.empty()) {
    return state.SkipWithError(wrong.c_str());
  }
  Samples wall, cpu;
  double peak = 0;
  for (auto _ : state) {
    const Ended ended =
        wall.time([&] { return spawn(arguments, scratch.file("out"), scratch.file("err")); }, CLOCK_MONOTONIC);
    if (ended.status != 0) return state.SkipWithError("the command fails");
    cpu.add(ended.cpu);
    peak = std::max(peak, ended.peak_mib);
    state.SetIterationTime(wall.last());
  }
  state.counters["wall_min_ms"] = wall.least() * kMilli;
  state.counters["wall_med_ms"] = wall.median() * kMilli;
  state.counters["cpu_min_ms"] = cpu.least() * kMilli;
  state.counters["cpu_med_ms"] = cpu.median() * kMilli;
  state.counters["peak_MiB"] = peak;
}

void register_all(const Scratch& scratch) {
  const auto add = [&](const std::string& name, const std::vector<std::string>& arguments,
                       const std::string& expected) {
    benchmark::RegisterBenchmark(
        name.c_str(), [&scratch, arguments, expected](benchmark::State& s) { run(s, scratch, arguments, expected); })
        ->Iterations(15)
        ->UseManualTime()
        ->Unit(benchmark::kMillisecond);
  };
  add("command/version", {"--version"}, "ioplan");
  for (const char* input : {"yaml", "json"}) {
    const std::string host = scratch.file(std::string("host.") + input);
    add(std::string("command/plan/") + input + "/text", {"plan", host}, "hwpt0");
    add(std::string("command/plan/") + input + "/json", {"plan", host, "-o", "json"}, "\"verdict\": \"feasible\"");
  }
  for (const char* input : {"machine", "machine.tar"}) {
    add(std::string("command/scan/") + input, {"scan", "--root", scratch.file(input)}, "dmar63");
  }
}

}  // namespace
}  // namespace ioplan::bench

int main(int argc, char** argv) {
  const ioplan::bench::Scratch scratch;
  ioplan::bench::register_all(scratch);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
}
