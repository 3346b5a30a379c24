// The seam behind which a plan becomes real: the engine prepares, performs and takes back; backends/ know how.
//
// A backend keeps the map from the plan's names (ioas0, hwpt1, device ids) to its own handles. An Action is one step
// with its undo: everything that taking it back will need is found out when it is prepared, before anything is touched.
// Errors carry the errno that the kernel (or the simulator) gave. Implemented by backends/; held by tests/apply_test.cc
// and tests/apply_sim_test.cc.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/error.h"
#include "engine/model/plan.h"

namespace ioplan {

// Bytes done of a step so far; called now and then during long maps.
using Progress = std::function<void(std::uint64_t bytes)>;

class Action {
 public:
  virtual ~Action() = default;
  // All or nothing: after an error the world is as it was before this call.
  virtual Result<void> perform(const Progress& progress) = 0;
  // Takes back what perform did. Called at most once, after perform succeeded, in reverse order of performing.
  virtual Result<void> undo() = 0;
  // What is left behind when undo failed, in the user's words: "ioas0 (object 3)".
  virtual std::string remains() const = 0;
};

// What can be seen of the world after a plan; a field that a backend cannot see is absent and not compared.
struct ObservedIoas {
  std::string id;
  std::optional<std::vector<Range>> ranges;
  std::optional<std::uint64_t> alignment;
  std::optional<std::vector<Range>> mapped;  // IOVA, merged

  friend bool operator==(const ObservedIoas&, const ObservedIoas&) = default;
};

struct ObservedHwpt {
  std::string id;
  std::string ioas;
  std::optional<unsigned> stage, levels, address_bits;
  std::optional<PageTableFormat> format;
  std::optional<Range> aperture;
  std::optional<std::uint64_t> page_sizes;
  std::optional<bool> enforce_cache_coherency;
  std::optional<std::uint8_t> flags;
  std::optional<std::uint64_t> page_table_bytes;
  std::optional<std::vector<std::string>> devices;  // ascending
  std::optional<std::string> allocator;
  std::optional<Driver> driver;
  std::optional<bool> automatic;

  friend bool operator==(const ObservedHwpt&, const ObservedHwpt&) = default;
};

struct Observation {
  std::vector<ObservedIoas> ioas;
  std::vector<ObservedHwpt> hwpts;
  std::optional<std::uint64_t> pinned_bytes;
  std::optional<std::vector<std::string>> kvm_files;  // devices whose VFIO file is registered with KVM, ascending

  friend bool operator==(const Observation&, const Observation&) = default;
};

class Backend {
 public:
  virtual ~Backend() = default;
  virtual std::string_view name() const = 0;
  // Plans for another interface are not admitted.
  virtual KernelInterface interface() const { return KernelInterface::iommufd; }
  // Whether this plan can be carried out here at all. Touches nothing.
  virtual Result<void> admit(const Plan& plan) = 0;
  // `plan`: the one that the step leads to; for an unmap, the one that it leads away from.
  virtual Result<std::unique_ptr<Action>> prepare(const Plan& plan, const Step& step) = 0;
  // What exists of the plan's objects now. During an apply it holds those made so far.
  virtual Result<Observation> observe() = 0;
};

}  // namespace ioplan
