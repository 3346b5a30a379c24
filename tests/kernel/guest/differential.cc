// Linux and the simulator are asked the same random questions, and every answer must be equal: errno, IOVA, ranges, bits.
//
// Kernel command line: ioplan.sequences of ioplan.steps calls each; ioplan.stop ends the case after so many divergences.
// A sequence that diverges is shrunk by leaving out calls as long as it still diverges, then printed.
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <map>
#include <optional>
#include <string>

#include "tests/kernel/guest/boot.h"
#include "tests/kernel/guest/case.h"
#include "tests/kernel/guest/generator.h"
#include "tests/kernel/guest/kernel_subject.h"
#include "tests/kernel/guest/operations.h"
#include "tests/kernel/guest/sim_subject.h"

namespace ioplan::kernel_test {

namespace {

using Sequence = std::vector<Operation>;
using Tally = std::map<std::pair<Call, int>, std::size_t>;

struct Divergence {
  std::size_t at = 0;
  Reply kernel, sim;
};

struct Pair {
  explicit Pair(const Host& host) : kernel(make_kernel_subject(host)), sim(make_sim_subject(host)) {}
  std::unique_ptr<Subject> kernel, sim;
};

// The simulator answers first: what would crash Linux (KR 2.4 H3) is not sent there, nor a write that no hardware would
// do: the mock driver marks read-only pages too. Nothing when both agree.
std::optional<Divergence> ask_both(Pair& pair, const Operation& o, Reply& reply) {
  const Reply sim = perform(*pair.sim, o);
  reply = sim;
  if (sim.errno_value == ENOTRECOVERABLE) return std::nullopt;
  Operation same = o;
  if (o.call == Call::write_pages && sim.errno_value == 0) same.b = sim.value;
  const Reply kernel = perform(*pair.kernel, same);
  reply = kernel;
  if (kernel == sim) return std::nullopt;
  return Divergence{0, kernel, sim};
}

std::optional<Divergence> replay(const Host& host, const Sequence& sequence) {
  Pair pair(host);
  for (std::size_t i = 0; i < sequence.size(); ++i) {
    Reply reply;
    if (auto d = ask_both(pair, sequence[i], reply)) {
      d->at = i;
      return d;
    }
  }
  return std::nullopt;
}

void shrink(const Host& host, Sequence& sequence, Divergence& divergence) {
  sequence.resize(divergence.at + 1);
  for (std::size_t i = sequence.size() - 1; i-- > 0;) {
    Sequence shorter = sequence;
    shorter.erase(shorter.begin() + static_cast<std::ptrdiff_t>(i));
    if (const auto d = replay(host, shorter)) {
      shorter.resize(d->at + 1);
      sequence = std::move(shorter);
      divergence = *d;
      i = std::min(i, sequence.size() - 1);
    }
  }
}

std::string to_text(const Reply& reply) {
  std::string text = "errno " + std::to_string(reply.errno_value) + " value " + std::to_string(reply.value);
  for (const std::uint64_t word : reply.words) {
    char hex[24];
    std::snprintf(hex, sizeof hex, " %llx", static_cast<unsigned long long>(word));
    text += hex;
  }
  return text;
}

void print(const Host& host, const Sequence& sequence, const Divergence& d, std::uint64_t seed) {
  std::printf("divergence, seed %llu\n", static_cast<unsigned long long>(seed));
  for (const Operation& o : sequence) std::printf("  %s\n", to_text(o, host).c_str());
  std::printf("  linux     %s\n  simulator %s\n", to_text(d.kernel).c_str(), to_text(d.sim).c_str());
}

std::vector<unsigned> mock_devices(const Guest& guest) {
  std::vector<unsigned> devices = guest.bindable;
  std::erase_if(devices, [&](unsigned d) { return !guest.is_mock(d); });
  return devices;
}

// One random sequence; false when the two disagreed.
bool run_sequence(const Guest& guest, std::uint64_t seed, std::size_t steps, Tally& tally) {
  const Host& host = guest.host;
  Sequence sequence;
  std::optional<Divergence> divergence;
  {
    Pair pair(host);
    Generator generator(guest.bindable, mock_devices(guest), seed);
    while (sequence.size() < steps && !divergence) {
      sequence.push_back(generator.next());
      Reply reply;
      divergence = ask_both(pair, sequence.back(), reply);
      generator.learn(sequence.back(), reply);
      ++tally[{sequence.back().call, reply.errno_value}];
    }
  }
  if (!divergence) return true;
  divergence->at = sequence.size() - 1;
  shrink(host, sequence, *divergence);
  print(host, sequence, *divergence, seed);
  return false;
}

void print(const Tally& tally) {
  for (const auto& [key, count] : tally) {
    std::printf("%-20s errno %3d: %zu\n", std::string(name_of(key.first)).c_str(), key.second, count);
  }
}

}  // namespace

Outcome differential(const Guest& guest) {
  const std::uint64_t sequences = command_line_number("ioplan.sequences", 28), stop = command_line_number("ioplan.stop", 6);
  const std::size_t steps = command_line_number("ioplan.steps", 200);
  Tally tally;
  std::size_t divergences = 0;
  for (std::uint64_t i = 0; i < sequences && divergences < stop; ++i) {
    if (!run_sequence(guest, guest.seed * 1'000'003 + i, steps, tally)) ++divergences;
  }
  print(tally);
  std::size_t asked = 0;
  for (const auto& [key, count] : tally) asked += count;
  return {divergences == 0, std::to_string(asked) + " calls, " + std::to_string(divergences) + " divergences"};
}

}  // namespace ioplan::kernel_test
