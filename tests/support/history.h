// Random lives of VMs: hosts, VMs that boot on them, and plugs, unplugs and memory that comes. Seeded.
//
// A history is asked for its next change with the layout as it is, because what a mode refuses does not happen. Changes
// make sense always (nothing is bad input); whether they are feasible is the question. At most seven groups are in use
// at a time, so that every placement can be tried. tests/lifecycle_oracle_test.cc asserts the mix.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "engine/lifecycle/change.h"
#include "engine/model/request.h"
#include "tests/support/lifecycle_oracle.h"
#include "tests/support/running_layout.h"

namespace ioplan::generator {

class History {
 public:
  explicit History(std::uint64_t seed);

  // The documents: VMs with the devices and the memory that they boot with. All facts are there.
  const Request& request() const { return request_; }

  oracle::PlugChange next(const oracle::Layout& now);

 private:
  std::size_t below(std::size_t n) { return static_cast<std::size_t>(dice_() % n); }
  bool chance(unsigned percent) { return below(100) < percent; }
  void take_devices_out();
  void mix_coherency();
  std::vector<std::string> free_for(const oracle::Layout& now, const std::string& vm) const;
  void add_devices(oracle::PlugChange& change, const oracle::Layout& now);
  void remove_devices(oracle::PlugChange& change, const oracle::Layout& now);
  void change_mediated(oracle::PlugChange& change, const oracle::Layout& now);
  void add_memory(oracle::PlugChange& change, const oracle::Layout& now);

  std::mt19937_64 dice_;
  Request request_;
};

// The change as the engine is asked for it.
Change change_of(const oracle::PlugChange& change);

// The VMs as type1 can have them: without mediated devices, needs, expectations and rules that require something.
Request for_containers(Request request);

// A request of one VM that expects devices (by name, or by class) and sometimes memory; some devices of the host are
// its own, some it may expect.
Request random_expectations(std::uint64_t seed);

}  // namespace ioplan::generator
