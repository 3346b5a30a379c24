// Weighted set cover by branch and bound: a component in which nothing must stay apart.
//
// Every candidate then opens at most one block (two would merge at no cost), so a solution is a set of candidates. The
// search branches on the uncovered element with the fewest candidates, never visits a set twice (options tried before
// are excluded further on), and bounds a node by elements whose candidates are disjoint. All optimal sets are kept, so
// that the canonical partition can be chosen among all of them.

#include <algorithm>
#include <functional>

#include "engine/solve/cover_parts.h"

namespace ioplan::cover {

namespace {

constexpr std::size_t kMostTies = 256;

using CandidateSet = ElementSet;  // indexed by candidate

class Search {
 public:
  Search(const CoverInstance& instance, std::uint64_t nodes) : instance_(instance), nodes_(nodes) {
    accepted_by_.assign(instance.elements, CandidateSet(instance.candidates.size()));
    enforced_by_ = accepted_by_;
    for (std::size_t c = 0; c < instance.candidates.size(); ++c) {
      const CoverCandidate& candidate = instance.candidates[c];
      for (auto e = candidate.accepts.find_first(); e != ElementSet::npos; e = candidate.accepts.find_next(e)) {
        accepted_by_[e].set(c);
        if (candidate.enforces) enforced_by_[e].set(c);
      }
    }
    for (std::uint32_t e = 0; e < instance.elements; ++e) by_choice_.push_back(e);
    std::ranges::stable_sort(by_choice_,
                             [&](auto a, auto b) { return accepted_by_[a].count() < accepted_by_[b].count(); });
    cheapest_ = instance.candidates[0];
    for (const CoverCandidate& c : instance.candidates) {
      cheapest_.page_table_bytes = std::min(cheapest_.page_table_bytes, c.page_table_bytes);
      cheapest_.unneeded_flags = std::min(cheapest_.unneeded_flags, c.unneeded_flags);
    }
  }

  // False when the budget or the room for ties ran out.
  bool run() {
    ElementSet uncovered(instance_.elements);
    uncovered.set();
    CandidateSet allowed(instance_.candidates.size());
    allowed.set();
    chosen_.resize(instance_.candidates.size());
    visit(uncovered, allowed, {});
    return !exhausted_;
  }

  const std::vector<CandidateSet>& optimal_sets() const { return optimal_; }
  const ObjectiveValues& best() const { return best_; }

  const CandidateSet& accepted_by(std::uint32_t e) const { return accepted_by_[e]; }
  const CandidateSet& enforced_by(std::uint32_t e) const { return enforced_by_[e]; }

 private:
  void visit(const ElementSet& uncovered, const CandidateSet& allowed, ObjectiveValues cost) {
    if (exhausted_ || nodes_-- == 0) {
      exhausted_ = true;
      return;
    }
    ObjectiveValues bound = cost;
    const std::uint64_t more = disjoint_demand(uncovered, allowed);
    if (more == kImpossible) return;
    bound[Objective::hwpts] += more;
    bound[Objective::page_tables] += more * cheapest_.page_table_bytes;
    bound[Objective::unneeded_flags] += more * cheapest_.unneeded_flags;
    bound[Objective::coherency] = unavoidable_coherency(allowed);
    if (!optimal_.empty() && better(best_, bound, instance_.order)) return;
    if (uncovered.any()) {
      branch(narrowest(uncovered, allowed), accepted_by_, uncovered, allowed, cost);
      return;
    }
    record(cost);
    // Further candidates can only pay by enforcing coherency for an element that no chosen one enforces.
    for (std::uint32_t e = 0; e < instance_.elements; ++e) {
      if (instance_.enforceable[e] == 0 || enforced_by_[e].intersects(chosen_)) continue;
      if (!enforced_by_[e].intersects(allowed)) continue;
      branch(e, enforced_by_, uncovered, allowed, cost);
      CandidateSet without = allowed - enforced_by_[e];
      visit_rest(uncovered, without, cost);
      return;
    }
  }

  // The same set of candidates, now without the options just tried; it was recorded already.
  void visit_rest(const ElementSet& uncovered, const CandidateSet& allowed, const ObjectiveValues& cost) {
    for (std::uint32_t e = 0; e < instance_.elements; ++e) {
      if (instance_.enforceable[e] == 0 || enforced_by_[e].intersects(chosen_)) continue;
      if (!enforced_by_[e].intersects(allowed)) continue;
      branch(e, enforced_by_, uncovered, allowed, cost);
      visit_rest(uncovered, allowed - enforced_by_[e], cost);
      return;
    }
  }

  void branch(std::uint32_t element, const std::vector<CandidateSet>& options_of, const ElementSet& uncovered,
              CandidateSet allowed, const ObjectiveValues& cost) {
    const CandidateSet options = options_of[element] & allowed;
    for (auto c = options.find_first(); c != CandidateSet::npos; c = options.find_next(c)) {
      const CoverCandidate& candidate = instance_.candidates[c];
      allowed.reset(c);
      chosen_.set(c);
      ObjectiveValues next = cost;
      next[Objective::hwpts] += 1;
      next[Objective::page_tables] += candidate.page_table_bytes;
      next[Objective::unneeded_flags] += candidate.unneeded_flags;
      visit(uncovered - candidate.accepts, allowed, next);
      chosen_.reset(c);
    }
  }

  std::uint32_t narrowest(const ElementSet& uncovered, const CandidateSet& allowed) const {
    std::uint32_t best = 0;
    std::size_t fewest = CandidateSet::npos;
    for (std::uint32_t e : by_choice_) {
      if (!uncovered.test(e)) continue;
      const std::size_t count = (accepted_by_[e] & allowed).count();
      if (count < fewest) {
        fewest = count;
        best = e;
      }
    }
    return best;
  }

  static constexpr std::uint64_t kImpossible = ~std::uint64_t{0};

  // How many more candidates are needed at least: elements whose remaining candidates are pairwise disjoint.
  std::uint64_t disjoint_demand(const ElementSet& uncovered, const CandidateSet& allowed) const {
    std::uint64_t demand = 0;
    CandidateSet taken(instance_.candidates.size());
    for (std::uint32_t e : by_choice_) {
      if (!uncovered.test(e)) continue;
      const CandidateSet options = accepted_by_[e] & allowed;
      if (options.none()) return kImpossible;
      if (options.intersects(taken)) continue;
      taken |= options;
      ++demand;
    }
    return demand;
  }

  std::uint64_t unavoidable_coherency(const CandidateSet& allowed) const {
    std::uint64_t cost = 0;
    for (std::uint32_t e = 0; e < instance_.elements; ++e) {
      if (instance_.enforceable[e] == 0 || enforced_by_[e].intersects(chosen_)) continue;
      if (!enforced_by_[e].intersects(allowed)) cost += instance_.enforceable[e];
    }
    return cost;
  }

  void record(ObjectiveValues cost) {
    cost[Objective::coherency] = 0;
    for (std::uint32_t e = 0; e < instance_.elements; ++e) {
      if (!enforced_by_[e].intersects(chosen_)) cost[Objective::coherency] += instance_.enforceable[e];
    }
    if (!optimal_.empty() && better(best_, cost, instance_.order)) return;
    if (optimal_.empty() || better(cost, best_, instance_.order)) {
      best_ = cost;
      optimal_.clear();
    }
    optimal_.push_back(chosen_);
    if (optimal_.size() > kMostTies) exhausted_ = true;
  }

  const CoverInstance& instance_;
  std::uint64_t nodes_;
  bool exhausted_ = false;
  std::vector<CandidateSet> accepted_by_, enforced_by_;
  std::vector<std::uint32_t> by_choice_;
  CoverCandidate cheapest_;
  CandidateSet chosen_;
  std::vector<CandidateSet> optimal_;
  ObjectiveValues best_;
};

// Blocks whose candidates are still open: block b may take any candidate that all its elements allow. A set of blocks is
// possible while every block can have a candidate of its own (a matching), whatever comes later.
class OpenBlocks {
 public:
  explicit OpenBlocks(std::size_t candidates) : owner_(candidates) {}

  // The lowest block that can take an element with these options.
  std::uint32_t place(const CandidateSet& options) {
    for (std::uint32_t b = 0; b < blocks_.size(); ++b) {
      const CandidateSet before = blocks_[b];
      blocks_[b] &= options;
      if (blocks_[b].any() && matched()) return b;
      blocks_[b] = before;
    }
    blocks_.push_back(options);
    return static_cast<std::uint32_t>(blocks_.size() - 1);
  }

 private:
  bool matched() {
    std::ranges::fill(owner_, kNobody);
    for (std::uint32_t b = 0; b < blocks_.size(); ++b) {
      CandidateSet seen(owner_.size());
      if (!augment(b, seen)) return false;
    }
    return true;
  }

  bool augment(std::uint32_t b, CandidateSet& seen) {
    for (auto c = blocks_[b].find_first(); c != CandidateSet::npos; c = blocks_[b].find_next(c)) {
      if (seen.test(c)) continue;
      seen.set(c);
      if (owner_[c] == kNobody || augment(owner_[c], seen)) {
        owner_[c] = b;
        return true;
      }
    }
    return false;
  }

  static constexpr std::uint32_t kNobody = ~0U;
  std::vector<CandidateSet> blocks_;
  std::vector<std::uint32_t> owner_;
};

std::vector<std::uint32_t> canonical_partition(const CoverInstance& instance, const Search& search,
                                               const CandidateSet& chosen) {
  OpenBlocks blocks(instance.candidates.size());
  std::vector<std::uint32_t> block_of(instance.elements);
  for (std::uint32_t e = 0; e < instance.elements; ++e) {
    CandidateSet options = search.accepted_by(e) & chosen;
    if (instance.enforceable[e] != 0 && search.enforced_by(e).intersects(chosen)) options &= search.enforced_by(e);
    block_of[e] = blocks.place(options);
  }
  return block_of;
}

}  // namespace

std::optional<PartSolution> search_set_cover(const CoverInstance& instance, const CoverBudget& budget) {
  Search search(instance, budget.nodes);
  if (!search.run()) return std::nullopt;
  PartSolution part;
  if (search.optimal_sets().empty()) return part;
  part.status = CoverStatus::solved;
  part.values = search.best();
  part.proved.fill(true);
  for (const CandidateSet& chosen : search.optimal_sets()) {
    auto block_of = canonical_partition(instance, search, chosen);
    if (part.block_of.empty() || block_of < part.block_of) part.block_of = std::move(block_of);
  }
  return part;
}

}  // namespace ioplan::cover
