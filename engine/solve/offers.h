// Templates and accept sets: what each class of device could allocate, and which classes would be accepted.
//
// Allocation is evaluated, never guessed: every assigned class with every flag set, through the law. Allocations that
// come out equal are one offer. An offer stands when the allocation rules hold for one of its allocators and the fit
// rules hold for the VM; acceptance is the attach rules for every member and the placement rules for assigned devices.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/solve/problem.h"

namespace ioplan {

// The rules of a law, by phase, in the law's order.
class RuleBook {
 public:
  explicit RuleBook(const Law& law);
  std::span<const Rule* const> of(Phase phase) const { return by_phase_[static_cast<std::size_t>(phase)]; }
  bool hold(Phase phase, const Values& values) const;
  bool hold_in_linux(Phase phase, const Values& values) const;  // strict rules left out, which it does not know

 private:
  std::array<std::vector<const Rule*>, kPhaseNames.size()> by_phase_;
};

struct Offer {
  HwptQuantities hwpt;
  std::vector<std::uint32_t> allocator_classes;  // ascending
  std::vector<bool> accepts_member;              // by class: attach rules
  std::vector<bool> accepts_assigned;            // by class: attach and placement rules
  std::uint64_t page_table_bytes = 0;
  std::uint64_t unneeded_flags = 0;

  bool accepts(const ProblemGroup& group) const;
};

// Every offer that stands, in an order that depends on the facts alone.
std::vector<Offer> make_offers(const Problem& problem, const RuleBook& rules, const Law& law);

// Page tables for this HWPT and the problem's memory.
std::uint64_t page_table_bytes_of(const HwptQuantities& hwpt, const Problem& problem);

// Flags that nobody in the VM needs.
std::uint64_t unneeded_flags_of(const HwptQuantities& hwpt, const Problem& problem);

// Devices that break a usable or group rule, with the first rule that each breaks.
struct Unusable {
  std::uint32_t group = 0;
  std::uint32_t cls = 0;
  const Rule* rule = nullptr;
};
std::vector<Unusable> unusable_groups(const Problem& problem, const RuleBook& rules);

}  // namespace ioplan
