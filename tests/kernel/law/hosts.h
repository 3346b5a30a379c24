// Pairs of units to ask about: drawn so that every rule has work, from real registers where there are any.
//
// A draw starts from the registers of a real machine, or from fields drawn one by one, and changes a few of the bits
// that the driver reads; the second unit is mostly the first with a few more bits changed, as in real machines, so that
// mostly one rule decides. Each driver has a file: hosts_intel.cc, ...
#pragma once

#include <memory>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/model/host.h"
#include "tests/kernel/law/comparison.h"

namespace ioplan::judged {

class Draw {
 public:
  explicit Draw(std::uint64_t seed) : engine_(seed) {}

  std::uint64_t below(std::uint64_t n) { return n == 0 ? 0 : engine_() % n; }
  bool one_in(std::uint64_t n) { return below(n) == 0; }
  std::uint64_t bits() { return engine_(); }
  template <class T>
  const T& of(std::span<const T> choices) {
    return choices[below(choices.size())];
  }
  std::uint64_t of(std::initializer_list<std::uint64_t> choices) { return choices.begin()[below(choices.size())]; }

  // `value` with up to `most` of the bits of `which` changed.
  std::uint64_t flip(std::uint64_t value, std::uint64_t which, unsigned most);

 private:
  std::mt19937_64 engine_;
};

// Random hosts of one driver, and how our documents would describe them.
struct Hosts {
  virtual ~Hosts() = default;
  virtual judge_host draw(Draw& draw) const = 0;
  virtual Host ours(const judge_host& kernel, const std::array<judge_device, JUDGE_UNITS>& booted) const = 0;
};

// `real`: units of the corpus, of any driver; may be empty.
std::unique_ptr<Hosts> intel_hosts(std::span<const Unit> real);
std::unique_ptr<Hosts> amd_hosts(std::span<const Unit> real);
std::unique_ptr<Hosts> smmuv3_hosts(std::span<const Unit> real);
std::unique_ptr<Hosts> virtio_hosts();
std::unique_ptr<Hosts> hosts_of(std::string_view driver, std::span<const Unit> real);

// The units of every machine of the corpus; none when it is not there.
std::vector<Unit> real_units();

// Two units of this driver with nothing stated, a device behind each, and a device of the mock driver.
Host host_of_two(Arch arch, Driver driver, const judge_host& kernel);

// The registers and options of a drawn host that its driver reads, one line.
std::string describe_host(std::string_view driver, const judge_host& host);

}  // namespace ioplan::judged
