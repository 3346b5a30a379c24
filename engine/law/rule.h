// A rule of the law as data: one definition, three readings.
//
// A rule holds when all its `require` atoms hold, or when some `when` atom does not (then it has nothing to say). An
// atom relates two terms: quantities of the HWPT, the device or the VM, or constants. Three small interpreters read
// them: `holds` below for the accept sets, engine/solve/symbolic.cc for Z3, and engine/explain/sentence.cc for the user.
// The rules themselves are in constraints/rules, one a file; each has an accepting and a refusing case in
// tests/rules_test.cc.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string_view>

#include "engine/law/quantity.h"

namespace ioplan {

enum class Subject : std::uint8_t { hwpt, device, vm, constant };

struct Term {
  Subject subject = Subject::constant;
  std::uint8_t index = 0;
  std::uint64_t constant = 0;

  constexpr Term() = default;
  constexpr Term(HwptQ q) : subject(Subject::hwpt), index(static_cast<std::uint8_t>(q)) {}      // NOLINT
  constexpr Term(DeviceQ q) : subject(Subject::device), index(static_cast<std::uint8_t>(q)) {}  // NOLINT
  constexpr Term(VmQ q) : subject(Subject::vm), index(static_cast<std::uint8_t>(q)) {}          // NOLINT
  constexpr Term(std::uint64_t c) : constant(c) {}                                              // NOLINT
};

// Bitmaps: left has no bit that right lacks; with 0 and 1 that is implication. Numbers: unsigned, 64 bits.
enum class Relation : std::uint8_t { within, at_most, equal };

struct Atom {
  Term left;
  Relation relation = Relation::equal;
  Term right;
};

// A few atoms, inline, so that rules are constants.
class Atoms {
 public:
  constexpr Atoms() = default;
  constexpr Atoms(std::initializer_list<Atom> atoms) {
    for (const Atom& a : atoms) items_[size_++] = a;
  }
  constexpr const Atom* begin() const { return items_.data(); }
  constexpr const Atom* end() const { return items_.data() + size_; }

 private:
  std::array<Atom, 4> items_{};
  std::size_t size_ = 0;
};

// When a rule is asked, and of whom.
enum class Phase : std::uint8_t {
  usable,      // device, VM: may it be bound at all (assigned devices)
  group,       // device, VM: the same, asked of every device of the group
  allocation,  // HWPT, its allocating device: does HWPT_ALLOC succeed
  fit,         // HWPT, VM: can it join the VM's IOAS and serve its needs
  attach,      // HWPT, device: does the driver accept (every device of the group)
  placement,   // HWPT, device, VM: what VM and operator ask of the HWPT of an assigned device
  cover        // not of one HWPT but of all of them together: no atoms, the cover itself keeps these
};
inline constexpr std::array<std::string_view, 7> kPhaseNames = {"usable", "group",     "allocation", "fit",
                                                                "attach", "placement", "cover"};

struct Rule {
  std::string_view name;     // "intel.second-stage.levels"
  Phase phase = Phase::attach;
  std::string_view law;      // one sentence
  std::string_view source;   // kernel function, or section of the product's contract
  std::string_view refusal;  // what the user reads; {device}, {unit}, {vm} and {left}, {right} of the failing atom
  int errno_value = 0;       // what Linux answers; 0 when it does not check (strict) or when it is policy
  bool strict = false;       // Linux has a gap here: it accepts what the hardware cannot do
  Atoms when{};
  Atoms require{};
};

// The values that a rule is read against; an absent subject is null and must not be named by the rule's phase.
struct Values {
  const HwptQuantities* hwpt = nullptr;
  const DeviceQuantities* device = nullptr;
  const VmQuantities* vm = nullptr;

  std::uint64_t operator()(const Term& t) const {
    switch (t.subject) {
      case Subject::hwpt: return hwpt->data()[t.index];
      case Subject::device: return device->data()[t.index];
      case Subject::vm: return vm->data()[t.index];
      case Subject::constant: break;
    }
    return t.constant;
  }
};

inline bool holds(const Atom& atom, const Values& values) {
  const std::uint64_t left = values(atom.left);
  const std::uint64_t right = values(atom.right);
  switch (atom.relation) {
    case Relation::within: return (left & ~right) == 0;
    case Relation::at_most: return left <= right;
    case Relation::equal: return left == right;
  }
  return false;
}

// Does the rule speak here at all?
inline bool applies(const Rule& rule, const Values& values) {
  for (const Atom& atom : rule.when) {
    if (!holds(atom, values)) return false;
  }
  return true;
}

inline bool holds(const Rule& rule, const Values& values) {
  if (!applies(rule, values)) return true;
  for (const Atom& atom : rule.require) {
    if (!holds(atom, values)) return false;
  }
  return true;
}

}  // namespace ioplan
