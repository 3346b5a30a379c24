// Linux and the simulator are asked the same random questions, and every answer must be equal: errno, IOVA, ranges,
// bits.
//
// Kernel command line: ioplan.sequences of ioplan.steps calls each; ioplan.stop ends the case after so many
// divergences. A sequence that diverges is shrunk by leaving out calls as long as it still diverges, then printed.
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <map>
#include <optional>
#include <set>
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

// How often each call ended how: the errno, or 0. Attaches that replace, and those of PASIDs, count apart.
class Tally {
 public:
  void start_sequence() { attached_.clear(); }

  void count(const Operation& o, int errno_value) {
    ++seen_[{name(o), errno_value}];
    ++calls_;
    const std::pair place{o.device, o.flags};
    if (errno_value != 0) return;
    if (o.call == Call::attach) attached_.insert(place);
    if (o.call == Call::detach) attached_.erase(place);
    if (o.call == Call::unbind) std::erase_if(attached_, [&](const auto& p) { return p.first == o.device; });
  }

  void print() const {
    for (const auto& [key, count] : seen_) std::printf("%-20s errno %3d: %zu\n", key.first.c_str(), key.second, count);
  }

  std::size_t calls() const { return calls_; }
  std::size_t kinds() const { return seen_.size(); }
  std::size_t succeeded(const std::string& name) const {
    const auto it = seen_.find({name, 0});
    return it == seen_.end() ? 0 : it->second;
  }

 private:
  std::string name(const Operation& o) const {
    std::string name(name_of(o.call));
    if (o.call == Call::map && o.source == Source::file) name += "-file";
    if (o.call == Call::attach && attached_.contains({o.device, o.flags})) name = "replace";
    if ((o.call == Call::attach || o.call == Call::detach) && o.flags != 0) name += "-pasid";
    return name;
  }

  std::map<std::pair<std::string, int>, std::size_t> seen_;
  std::set<std::pair<unsigned, std::uint32_t>> attached_;  // device and PASID, in this sequence
  std::size_t calls_ = 0;
};

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
  tally.start_sequence();
  {
    Pair pair(host);
    Generator generator(guest.bindable, mock_devices(guest), seed);
    while (sequence.size() < steps && !divergence) {
      sequence.push_back(generator.next());
      Reply reply;
      divergence = ask_both(pair, sequence.back(), reply);
      generator.learn(sequence.back(), reply);
      tally.count(sequence.back(), reply.errno_value);
    }
  }
  if (!divergence) return true;
  divergence->at = sequence.size() - 1;
  shrink(host, sequence, *divergence);
  print(host, sequence, *divergence, seed);
  return false;
}

// A mix that no longer reaches what it should would find nothing, and pass.
std::string missing(const Tally& tally) {
  static constexpr std::size_t kLeastCalls = 5000, kLeastKinds = 85, kLeastSuccesses = 2;
  if (tally.calls() < kLeastCalls) return {};
  if (tally.kinds() < kLeastKinds) return "only " + std::to_string(tally.kinds()) + " kinds of answers";
  for (const std::string name : {"bind",
                                 "unbind",
                                 "ioas-alloc",
                                 "allow-iovas",
                                 "iova-ranges",
                                 "map",
                                 "map-file",
                                 "copy",
                                 "unmap",
                                 "set-huge-pages",
                                 "get-huge-pages",
                                 "set-rlimit-mode",
                                 "hw-info",
                                 "fault-queue-alloc",
                                 "hwpt-alloc",
                                 "attach",
                                 "attach-pasid",
                                 "replace",
                                 "replace-pasid",
                                 "detach",
                                 "detach-pasid",
                                 "set-dirty-tracking",
                                 "get-dirty-bitmap",
                                 "destroy",
                                 "reserve",
                                 "access-create",
                                 "access-destroy",
                                 "check-map",
                                 "write-pages"}) {
    if (tally.succeeded(name) < kLeastSuccesses) return name + " hardly ever succeeded";
  }
  return {};
}

}  // namespace

Outcome differential(const Guest& guest) {
  const std::uint64_t sequences = command_line_number("ioplan.sequences", 28),
                      stop = command_line_number("ioplan.stop", 6);
  const std::size_t steps = command_line_number("ioplan.steps", 200);
  Tally tally;
  std::size_t divergences = 0;
  for (std::uint64_t i = 0; i < sequences && divergences < stop; ++i) {
    if (!run_sequence(guest, guest.seed * 1'000'003 + i, steps, tally)) ++divergences;
  }
  tally.print();
  const std::string gap = missing(tally);
  if (!gap.empty()) std::printf("  the mix is too thin: %s\n", gap.c_str());
  return {divergences == 0 && gap.empty(), std::to_string(tally.calls()) + " calls, " + std::to_string(divergences) +
                                               " divergences, " + std::to_string(tally.kinds()) + " kinds of answers"};
}

}  // namespace ioplan::kernel_test
