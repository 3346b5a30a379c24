// What could be allocated for a VM, and who would take it: the judge's own templates and accept sets.
//
// A choice is (allocating device, flags) with what comes out; choices that come out equal are one, and so are devices
// of equal quantities, so the work grows with distinct capabilities. A clump is what must share a HWPT: a group, and
// the groups that `together` rules and SMMUv2 tie to it.
#pragma once

#include <boost/dynamic_bitset.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "engine/check/scene.h"

namespace ioplan::check {

using ChoiceSet = boost::dynamic_bitset<std::uint64_t>;

struct Choice {
  std::size_t allocator = 0;  // the lowest device that makes it
  HwptQuantities hwpt;
  std::uint64_t table_bytes = 0;

  std::uint8_t flags() const { return static_cast<std::uint8_t>(hwpt[HwptQ::flags]); }
  bool enforces() const { return hwpt[HwptQ::enforce_cache_coherency] != 0; }
};

struct Choices {
  std::vector<Choice> all;         // that the driver allocates, and that fit the VM's address space and needs
  std::vector<ChoiceSet> by_item;  // accepted by each item of the scene; empty set where the item is unusable
};

// A refusal by a rule, for one device.
struct Refusal {
  const Rule* rule = nullptr;
  std::size_t device = 0;
  explicit operator bool() const { return rule != nullptr; }
};

// May the group be bound at all?
Refusal unusable(const World& world, const Scene& scene, const Item& item);

// Would all devices of the group accept this HWPT (attach rules)?
Refusal refused_by_driver(const World& world, const Scene& scene, const Item& item, const HwptQuantities& hwpt);

// May its assigned devices sit in this HWPT (placement rules)?
Refusal refused_by_policy(const World& world, const Scene& scene, const Item& item, const HwptQuantities& hwpt);

Choices choices_of(const World& world, const Scene& scene);

struct Clump {
  std::vector<std::size_t> items;  // indices into Scene::items, ascending
  ChoiceSet accepted;
  ChoiceSet side_a, side_b;                         // by `separate` rule: holds a device of that side
  std::uint64_t enforceable = 0;                    // assigned devices that are CC-capable
  std::array<std::vector<std::uint64_t>, 3> pools;  // by stage: keys of the domain id pools that it draws from, sorted

  bool foe_of(const Clump& other) const {  // a `separate` rule keeps the two apart
    return side_a.intersects(other.side_b) || side_b.intersects(other.side_a);
  }
  bool like(const Clump& other) const;     // nothing but their number of CC-capable devices tells the two apart
  bool twin_of(const Clump& other) const;  // nothing does
};

// All clumps of the scene. One that a rule tears apart from within has an empty accept set.
std::vector<Clump> clumps_of(const World& world, const Scene& scene, const Choices& choices);

// Ids left in each pool that a device of the scenes can draw from.
std::map<std::uint64_t, std::uint64_t> pool_capacities(const World& world);

// The pools that a HWPT of this stage with this item draws from.
std::vector<std::uint64_t> pools_of(const World& world, const Item& item, unsigned stage);

// Flags that somebody in the VM asks for: needs, and `require` rules for any of its devices (decision 6).
std::uint8_t needed_flags(const Scene& scene);

// The HWPTs that the policy allows a VM.
std::uint64_t hwpt_limit(const Policy& policy);

// Two distinct devices, one of each side of a `separate` rule; nothing when no rule objects to this set of devices.
struct Quarrel {
  const PolicyRule* rule = nullptr;
  std::size_t a = 0, b = 0;
  explicit operator bool() const { return rule != nullptr; }
};
Quarrel quarrel_among(const World& world, const Scene& scene, const std::vector<std::size_t>& devices);

}  // namespace ioplan::check
