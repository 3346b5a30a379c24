// What an operator allows: coherency, provenance, objectives and rules over selected devices.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace ioplan {

enum class CoherencyPolicy : std::uint8_t { safe, strict, required };
inline constexpr std::array<std::string_view, 3> kCoherencyPolicyNames = {"safe", "strict", "required"};

enum class Permission : std::uint8_t { allow, refuse };
inline constexpr std::array<std::string_view, 2> kPermissionNames = {"allow", "refuse"};

enum class Objective : std::uint8_t { ioas, hwpts, coherency, page_tables, unneeded_flags };
inline constexpr std::array<std::string_view, 5> kObjectiveNames = {"ioas", "hwpts", "coherency", "page_tables",
                                                                    "unneeded_flags"};

enum class HotplugPolicy : std::uint8_t { frozen, additive, converge };
inline constexpr std::array<std::string_view, 3> kHotplugPolicyNames = {"frozen", "additive", "converge"};

// What becomes of the VFIO file of an unplugged device without which KVM would be coherent too early.
enum class NoncoherentUnplug : std::uint8_t { release, retain };
inline constexpr std::array<std::string_view, 2> kNoncoherentUnplugNames = {"release", "retain"};

// Chooses devices of a VM. Keys are joined by "and", the values of one key by "or"; a key without values does not ask.
// An empty selector chooses every device.
struct Selector {
  std::vector<std::string> host;    // device ids
  std::vector<std::string> name;    // the VM's name for the device, or the host's
  std::vector<std::string> label;   // of the VM's entry or the host's
  std::vector<std::uint64_t> vendor;
  std::vector<std::uint64_t> device;
  std::vector<std::uint64_t> numa;
  // A class code under a mask: `network` is {0x020000, 0xff0000}.
  struct ClassMatch {
    std::uint64_t code = 0;
    std::uint64_t mask = 0;
  };
  std::vector<ClassMatch> device_class;
};

struct SeparateRule {  // no HWPT holds one of each
  Selector a, b;
};
struct TogetherRule {  // one HWPT for all of them
  Selector which;
};
struct RequireRule {  // their HWPT has these
  Selector which;
  std::uint64_t page_size = 0;  // a page of at least this size; 0 does not ask
  bool dirty_tracking = false;
  bool nest_parent = false;
  bool pasid = false;
  bool enforce_cache_coherency = false;
};
struct LimitRule {  // at most so many HWPTs a VM
  std::uint64_t hwpts = 0;
};

struct PolicyRule {
  std::string name;
  std::variant<SeparateRule, TogetherRule, RequireRule, LimitRule> what;
};

struct Policy {
  std::string name;
  CoherencyPolicy coherency = CoherencyPolicy::safe;
  Permission assumed_coherency = Permission::allow;
  Permission assumptions = Permission::allow;
  HotplugPolicy hotplug = HotplugPolicy::converge;
  NoncoherentUnplug noncoherent_unplug = NoncoherentUnplug::release;
  std::array<Objective, 5> objectives = {Objective::ioas, Objective::hwpts, Objective::coherency,
                                         Objective::page_tables, Objective::unneeded_flags};
  std::vector<std::string> viommu_fallback;
  std::vector<PolicyRule> rules;  // sorted by name
};

}  // namespace ioplan
