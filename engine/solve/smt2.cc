// The claim "one HWPT fewer is impossible" in cover form, as SMT-LIB 2 that any solver can answer `unsat`.
//
// Without devices to keep apart: a boolean for each template (HWPTs that accept the same are one), a clause for each
// group, at most k-1. With them a template may serve several HWPTs, so the same is said of k-1 slots: which template a
// slot is under, and which groups are in it; the members of a set that excludes one another pairwise get a slot each,
// which loses nothing.

#include <algorithm>
#include <map>

#include <fmt/format.h>

#include "engine/solve/solver.h"

namespace ioplan {

namespace {

class Writer {
 public:
  Writer(const Solved& solved, const Host& host) : solved_(solved), host_(host) {}

  std::string write() {
    bool apart = false;
    std::size_t offset = 0;
    for (const VmModel& m : solved_.vms) {
      std::map<ElementSet, bool> distinct;
      for (const CoverCandidate& c : m.cover.candidates) {
        if (c.accepts.any()) distinct.emplace(c.accepts, true);
      }
      for (const auto& [accepts, unused] : distinct) {
        ElementSet shifted = accepts;
        shifted.resize(offset + m.cover.elements);
        templates_.push_back(shifted << offset);
      }
      for (std::uint32_t e = 0; e < m.cover.elements; ++e) {
        names_.push_back(host_.device(m.problem.items[m.element_items[e][0]].lowest()).id);
      }
      for (const auto& [a, b] : m.cover.apart) apart_.emplace_back(offset + a, offset + b);
      apart = apart || !m.cover.apart.empty();
      offset += m.cover.elements;
    }
    for (ElementSet& t : templates_) t.resize(names_.size());
    const std::uint64_t fewer = solved_.lower_bound - 1;
    text_ = fmt::format("; {} HWPTs are not enough: a solver answers unsat.\n(set-info :status unsat)\n", fewer);
    if (apart) {
      write_slots(fewer);
    } else {
      write_cover(fewer);
    }
    return text_ + "(check-sat)\n";
  }

 private:
  void line(const std::string& s) { text_ += s + "\n"; }

  void write_cover(std::uint64_t fewer) {
    line("(set-logic QF_LIA)");
    for (std::size_t t = 0; t < templates_.size(); ++t) line(fmt::format("(declare-const t{} Bool)", t));
    for (std::size_t e = 0; e < names_.size(); ++e) {
      std::string clause;
      for (std::size_t t = 0; t < templates_.size(); ++t) {
        if (templates_[t].test(e)) clause += fmt::format(" t{}", t);
      }
      line(fmt::format("(assert (or false{})) ; {}", clause, names_[e]));
    }
    std::string sum;
    for (std::size_t t = 0; t < templates_.size(); ++t) sum += fmt::format(" (ite t{} 1 0)", t);
    line(fmt::format("(assert (<= (+ 0 0{}) {}))", sum, fewer));
  }

  void write_slots(std::uint64_t slots) {
    line("(set-logic QF_UF)");
    for (std::uint64_t h = 0; h < slots; ++h) {
      std::string some;
      for (std::size_t t = 0; t < templates_.size(); ++t) {
        line(fmt::format("(declare-const y{}_{} Bool)", h, t));
        some += fmt::format(" y{}_{}", h, t);
      }
      line(fmt::format("(assert (or false{}))", some));
      for (std::size_t e = 0; e < names_.size(); ++e) line(fmt::format("(declare-const x{}_{} Bool)", h, e));
      for (std::size_t e = 0; e < names_.size(); ++e) {
        for (std::size_t t = 0; t < templates_.size(); ++t) {
          if (!templates_[t].test(e)) line(fmt::format("(assert (or (not x{0}_{1}) (not y{0}_{2})))", h, e, t));
        }
      }
      for (const auto& [a, b] : apart_) line(fmt::format("(assert (or (not x{0}_{1}) (not x{0}_{2})))", h, a, b));
    }
    for (std::size_t e = 0; e < names_.size(); ++e) {
      std::string somewhere;
      for (std::uint64_t h = 0; h < slots; ++h) somewhere += fmt::format(" x{}_{}", h, e);
      line(fmt::format("(assert (or false{})) ; {}", somewhere, names_[e]));
    }
    std::uint64_t h = 0;
    for (DeviceIndex d : solved_.witness) {
      const auto e = std::ranges::find(names_, host_.device(d).id) - names_.begin();
      if (h < slots) line(fmt::format("(assert x{}_{}) ; excludes the others of its set", h++, e));
    }
  }

  const Solved& solved_;
  const Host& host_;
  std::vector<ElementSet> templates_;
  std::vector<std::string> names_;
  std::vector<std::pair<std::size_t, std::size_t>> apart_;
  std::string text_;
};

}  // namespace

std::string one_fewer_smt2(const Solved& solved, const Host& host) {
  if (solved.lower_bound == 0) return {};
  return Writer(solved, host).write();
}

}  // namespace ioplan
