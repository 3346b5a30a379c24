// Instructions per page of every operation of the map path (map_operations.h), counted by callgrind: figures that no
// neighbour on the machine can move. bench/instructions.sh runs this program under valgrind, turns what callgrind
// dumped into a table and holds it against the goals.
//
// Every operation is prepared, counted once (calls, loops and the tables that are made on the way included) and judged;
// callgrind dumps the count under the operation's label, `contestant operation workload pages`. Valgrind knows nothing
// beyond AVX2, so a wider vector path is not what is counted here.
//
// usage: map_instructions [CONTESTANT [OPERATION [WORKLOAD]]]; without valgrind around it, the operations are performed
// and judged, nothing counted.

#include <valgrind/callgrind.h>

#include <cstdio>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "bench/map_contestants.h"
#include "bench/map_operations.h"
#include "bench/map_workload.h"

namespace ioplan::bench {
namespace {

// What the command line asks for; an empty word asks for all.
struct Choice {
  std::string_view contestant, operation, workload;
  static bool takes(std::string_view wanted, std::string_view name) { return wanted.empty() || wanted == name; }
};

template <class Contestant>
bool count(std::string_view who, const Workload& work, Operation o, Trial<Contestant>& trial) {
  trial.prepare(o);
  CALLGRIND_START_INSTRUMENTATION;
  CALLGRIND_TOGGLE_COLLECT;
  const std::uint64_t result = trial.perform(o);
  CALLGRIND_TOGGLE_COLLECT;
  const std::string label =
      std::string(who) + " " + std::string(name(o)) + " " + work.name + " " + std::to_string(work.pages());
  CALLGRIND_DUMP_STATS_AT(label.c_str());
  CALLGRIND_STOP_INSTRUMENTATION;
  const bool right = trial.right(o, result);
  if (!right) std::fprintf(stderr, "wrong result: %s\n", label.c_str());
  return right;
}

template <class Contestant>
bool count_all(std::string_view who, const Workload& work, const Choice& choice, Contestant contestant) {
  if (!Choice::takes(choice.contestant, who) || !Choice::takes(choice.workload, work.name)) return true;
  Trial<Contestant> trial(contestant, work);
  trial.prepare(Operation::translate);  // filled and emptied once before: counts are those of warm tables
  trial.prepare(Operation::map_list);
  bool right = true;
  for (std::size_t i = 0; i < kOperationNames.size(); ++i) {
    const auto o = static_cast<Operation>(i);
    if (Choice::takes(choice.operation, name(o)) && contestant.takes_part(o))
      right = count(who, work, o, trial) && right;
  }
  return right;
}

// 2 GiB of 4K, 4 GiB of 64K, 64 GiB of 2M, 1 TiB of 1G: more than a small memory of recent tables could cover.
std::vector<Workload> counted_workloads() {
  return {workload("4K", 12, std::size_t{1} << 19), workload("64K", 16, std::size_t{1} << 16),
          workload("2M", 21, std::size_t{1} << 15), workload("1G", 30, 1024)};
}

bool run(const Choice& choice) {
  bool right = true;
  for (const Workload& work : counted_workloads()) {
    for (const NamedShape& s : all_shapes()) right = count_all(s.name, work, choice, Table(s.shape)) && right;
  }
  const Workload small = workload("4K", 12, std::size_t{1} << 15);
  right = count_all("std::map", small, choice, StdMap()) && right;
  right = count_all("btree", small, choice, BtreeMap()) && right;
  return count_all("icl", small, choice, IntervalMap()) && right;
}

}  // namespace
}  // namespace ioplan::bench

int main(int argc, char** argv) {
  const std::span<char*> words(argv, static_cast<std::size_t>(argc));
  const auto word = [&](std::size_t i) { return i < words.size() ? std::string_view(words[i]) : std::string_view(); };
  return ioplan::bench::run({word(1), word(2), word(3)}) ? 0 : 1;
}
