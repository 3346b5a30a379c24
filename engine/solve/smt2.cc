// The claim "one HWPT fewer is impossible" in cover form, as SMT-LIB 2 that any solver can answer `unsat`.
//
// Without devices to keep apart: a boolean for each template (HWPTs that accept the same are one), a clause for each
// group, at most k-1. With them a template may serve several HWPTs, so the same is said of k-1 slots: which template a
// slot is under, and which groups are in it; the members of a set that excludes one another pairwise get a slot each,
// which loses nothing.

#include <algorithm>
#include <iterator>
#include <set>

#include <fmt/format.h>

#include "engine/solve/solver.h"

namespace ioplan {

namespace {

class Writer {
 public:
  Writer(const Solved& solved, const Request& request)
      : cover_(solved.pooled ? *solved.pooled : merge_covers(solved.vms, request.policy)),
        slots_(solved.lower_bound - 1) {
    for (const VmModel& m : solved.vms) {
      for (const auto& items : m.element_items) names_.push_back(request.host.device(m.problem.items[items[0]].lowest()).id);
    }
    for (DeviceIndex d : solved.witness) exclusive_.push_back(request.host.device(d).id);
    std::set<std::pair<ElementSet, unsigned>> distinct;
    for (const CoverCandidate& c : cover_.candidates) {
      if (c.accepts.any()) distinct.emplace(c.accepts, cover_.pools.empty() ? 0 : c.stage);
    }
    templates_.assign(distinct.begin(), distinct.end());
  }

  std::string write() {
    line("; {} HWPTs are not enough: a solver answers unsat.", slots_);
    line("(set-info :status unsat)");
    line("(set-logic QF_LIA)");
    if (cover_.apart.empty() && cover_.pools.empty()) {
      write_cover();
    } else {
      write_slots();
    }
    line("(check-sat)");
    return std::move(text_);
  }

 private:
  template <class... Args>
  void line(fmt::format_string<Args...> format, Args&&... args) {
    fmt::format_to(std::back_inserter(text_), format, std::forward<Args>(args)...);
    text_ += '\n';
  }

  void write_cover() {
    std::string sum;
    for (std::size_t t = 0; t < templates_.size(); ++t) {
      line("(declare-const t{} Bool)", t);
      sum += fmt::format(" (ite t{} 1 0)", t);
    }
    for (std::size_t e = 0; e < names_.size(); ++e) {
      std::string clause;
      for (std::size_t t = 0; t < templates_.size(); ++t) {
        if (templates_[t].first.test(e)) clause += fmt::format(" t{}", t);
      }
      line("(assert (or false{})) ; {}", clause, names_[e]);
    }
    line("(assert (<= (+ 0 0{}) {}))", sum, slots_);
  }

  void write_slots() {
    for (std::uint64_t h = 0; h < slots_; ++h) write_slot(h);
    for (std::size_t e = 0; e < names_.size(); ++e) {
      std::string somewhere;
      for (std::uint64_t h = 0; h < slots_; ++h) somewhere += fmt::format(" x{}_{}", h, e);
      line("(assert (or false{})) ; {}", somewhere, names_[e]);
    }
    for (std::uint64_t h = 0; h < std::min<std::uint64_t>(slots_, exclusive_.size()); ++h) {
      const auto e = std::ranges::find(names_, exclusive_[h]) - names_.begin();
      line("(assert x{}_{}) ; excludes the others of its set", h, e);
    }
    for (std::size_t p = 0; p < cover_.pools.size(); ++p) write_pool(p);
  }

  void write_slot(std::uint64_t h) {
    std::string some;
    for (std::size_t t = 0; t < templates_.size(); ++t) {
      line("(declare-const y{}_{} Bool)", h, t);
      some += fmt::format(" y{}_{}", h, t);
    }
    line("(assert (or false{}))", some);
    for (std::size_t e = 0; e < names_.size(); ++e) line("(declare-const x{}_{} Bool)", h, e);
    for (std::size_t e = 0; e < names_.size(); ++e) {
      for (std::size_t t = 0; t < templates_.size(); ++t) {
        if (!templates_[t].first.test(e)) line("(assert (or (not x{0}_{1}) (not y{0}_{2})))", h, e, t);
      }
    }
    for (const auto& [a, b] : cover_.apart) line("(assert (or (not x{0}_{1}) (not x{0}_{2})))", h, a, b);
  }

  // At most so many slots draw an id from the pool.
  void write_pool(std::size_t p) {
    const CoverPool& pool = cover_.pools[p];
    std::string sum;
    for (std::uint64_t h = 0; h < slots_; ++h) {
      line("(declare-const d{}_{} Bool)", h, p);
      sum += fmt::format(" (ite d{}_{} 1 0)", h, p);
      for (auto e = pool.elements.find_first(); e != ElementSet::npos; e = pool.elements.find_next(e)) {
        for (std::size_t t = 0; t < templates_.size(); ++t) {
          if (pool.stage != 0 && templates_[t].second != pool.stage) continue;
          line("(assert (or (not x{0}_{1}) (not y{0}_{2}) d{0}_{3}))", h, e, t, p);
        }
      }
    }
    line("(assert (<= (+ 0 0{}) {}))", sum, pool.capacity);
  }

  const CoverInstance cover_;
  const std::uint64_t slots_;
  std::vector<std::pair<ElementSet, unsigned>> templates_;  // distinct accept sets, and their stage where pools ask
  std::vector<std::string> names_, exclusive_;
  std::string text_;
};

}  // namespace

std::string one_fewer_smt2(const Solved& solved, const Request& request) {
  if (solved.lower_bound == 0) return {};
  return Writer(solved, request).write();
}

}  // namespace ioplan
