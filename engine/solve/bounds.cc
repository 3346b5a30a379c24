// Bounds on the number of blocks: greedy partitions from above, cliques of mutually exclusive elements from below.

#include <algorithm>
#include <numeric>
#include <random>

#include "engine/solve/cover_parts.h"

namespace ioplan::cover {

std::vector<ElementSet> exclusion_graph(const CoverInstance& instance) {
  std::vector<ElementSet> together(instance.elements, ElementSet(instance.elements));
  for (const CoverCandidate& c : instance.candidates) {
    for (auto e = c.accepts.find_first(); e != ElementSet::npos; e = c.accepts.find_next(e)) together[e] |= c.accepts;
  }
  for (std::size_t e = 0; e < instance.elements; ++e) {
    together[e].flip();
    together[e].reset(e);
  }
  for (const auto& [a, b] : instance.apart) {
    together[a].set(b);
    together[b].set(a);
  }
  return together;
}

namespace {

// Branch and bound for a maximum clique, bounded by a greedy colouring of what is left (Tomita and Seki's idea):
// vertices of one colour are pairwise non-adjacent, so a clique takes at most one of each.
class CliqueSearch {
 public:
  CliqueSearch(const std::vector<ElementSet>& adjacent, std::uint64_t nodes, std::size_t enough)
      : adjacent_(adjacent), nodes_(nodes), enough_(enough) {}

  std::vector<std::uint32_t> run() {
    seed_greedily();
    ElementSet all(adjacent_.size());
    all.set();
    extend(all);
    std::ranges::sort(best_);
    return best_;
  }

 private:
  bool found_enough() const { return best_.size() >= enough_; }

  // From every vertex of high degree, always to the neighbour that keeps most others.
  void seed_greedily() {
    constexpr std::size_t kSeeds = 16;
    std::vector<std::uint32_t> by_degree(adjacent_.size());
    std::vector<std::size_t> degree(adjacent_.size());
    std::iota(by_degree.begin(), by_degree.end(), 0U);
    for (std::size_t v = 0; v < degree.size(); ++v) degree[v] = adjacent_[v].count();
    std::ranges::stable_sort(by_degree, [&](auto a, auto b) { return degree[a] > degree[b]; });
    for (std::size_t s = 0; s < std::min(by_degree.size(), kSeeds) && !found_enough(); ++s) {
      std::vector<std::uint32_t> clique{by_degree[s]};
      ElementSet candidates = adjacent_[by_degree[s]];
      while (candidates.any()) {
        clique.push_back(best_connected(candidates));
        candidates &= adjacent_[clique.back()];
      }
      if (clique.size() > best_.size()) best_ = clique;
    }
  }

  std::uint32_t best_connected(const ElementSet& candidates) {
    std::uint32_t pick = 0;
    std::size_t most = 0;
    for (auto v = candidates.find_first(); v != ElementSet::npos; v = candidates.find_next(v)) {
      scratch_ = candidates;
      scratch_ &= adjacent_[v];
      if (const std::size_t kept = scratch_.count() + 1; kept > most) {
        most = kept;
        pick = static_cast<std::uint32_t>(v);
      }
    }
    return pick;
  }

  void extend(const ElementSet& candidates) {
    if (nodes_ == 0 || found_enough()) return;
    --nodes_;
    // Colour classes, in order; vertices of late classes are tried first, because their bound is largest.
    std::vector<std::pair<std::uint32_t, std::uint32_t>> coloured;  // (vertex, colours used so far)
    ElementSet left = candidates;
    for (std::uint32_t colour = 1; left.any(); ++colour) {
      ElementSet& independent = scratch_;
      independent = left;
      for (auto v = independent.find_first(); v != ElementSet::npos; v = independent.find_next(v)) {
        independent -= adjacent_[v];
        left.reset(v);
        coloured.emplace_back(static_cast<std::uint32_t>(v), colour);
      }
    }
    ElementSet open = candidates;
    for (auto it = coloured.rbegin(); it != coloured.rend(); ++it) {
      if (current_.size() + it->second <= best_.size() || nodes_ == 0 || found_enough()) return;
      current_.push_back(it->first);
      if (const ElementSet next = open & adjacent_[it->first]; next.any()) {
        extend(next);
      } else if (current_.size() > best_.size()) {
        best_ = current_;
      }
      current_.pop_back();
      open.reset(it->first);
    }
  }

  const std::vector<ElementSet>& adjacent_;
  std::uint64_t nodes_;
  std::size_t enough_;
  std::vector<std::uint32_t> current_, best_;
  ElementSet scratch_;
};

// First fit, keeping for every block the candidates that still accept all of it: the choice is left open.
class Greedy {
 public:
  explicit Greedy(const CoverInstance& instance) : instance_(instance) {
    accepted_by_.assign(instance.elements, ElementSet(instance.candidates.size()));
    for (std::size_t c = 0; c < instance.candidates.size(); ++c) {
      const ElementSet& accepts = instance.candidates[c].accepts;
      for (auto e = accepts.find_first(); e != ElementSet::npos; e = accepts.find_next(e)) accepted_by_[e].set(c);
    }
    apart_.assign(instance.elements, ElementSet(instance.elements));
    for (const auto& [a, b] : instance.apart) {
      apart_[a].set(b);
      apart_[b].set(a);
    }
  }

  // Elements with few candidates and many enemies first.
  std::vector<std::uint32_t> hardest_first() const {
    std::vector<std::pair<std::size_t, std::size_t>> hardness;
    for (std::size_t e = 0; e < instance_.elements; ++e) {
      hardness.emplace_back(accepted_by_[e].count(), instance_.elements - apart_[e].count());
    }
    std::vector<std::uint32_t> order(instance_.elements);
    std::iota(order.begin(), order.end(), 0U);
    std::ranges::stable_sort(order, [&](auto a, auto b) { return hardness[a] < hardness[b]; });
    return order;
  }

  // Each element where it leaves most candidates.
  std::vector<std::uint32_t> partition(const std::vector<std::uint32_t>& order) {
    std::vector<std::uint32_t> block_of(instance_.elements, 0);
    std::vector<ElementSet> candidates, members;
    for (std::uint32_t e : order) {
      std::size_t best = candidates.size();
      std::size_t most = 0;
      for (std::size_t b = 0; b < candidates.size(); ++b) {
        if (members[b].intersects(apart_[e])) continue;
        scratch_ = candidates[b];
        scratch_ &= accepted_by_[e];
        if (const std::size_t left = scratch_.count(); left > most) {
          most = left;
          best = b;
        }
      }
      if (best == candidates.size()) {
        candidates.push_back(accepted_by_[e]);
        members.emplace_back(instance_.elements);
      } else {
        candidates[best] &= accepted_by_[e];
      }
      members[best].set(e);
      block_of[e] = static_cast<std::uint32_t>(best);
    }
    return block_of;
  }

 private:
  const CoverInstance& instance_;
  std::vector<ElementSet> accepted_by_, apart_;
  ElementSet scratch_;
};

// A partial shuffle: hard elements stay near the front.
void stir(std::vector<std::uint32_t>& order, std::mt19937& random) {
  for (std::size_t i = 0; i + 1 < order.size(); ++i) {
    const std::size_t reach = std::min(order.size() - 1, i + 1 + order.size() / 8);
    std::swap(order[i], order[i + random() % (reach - i + 1)]);
  }
}

}  // namespace

std::vector<std::uint32_t> large_clique(const std::vector<ElementSet>& exclusive, std::uint64_t nodes,
                                        std::size_t enough) {
  if (exclusive.empty()) return {};
  return CliqueSearch(exclusive, nodes, enough).run();
}

Bounds bounds_of(const CoverInstance& instance, const std::vector<ElementSet>& exclusive) {
  constexpr std::size_t kStarts = 20;
  constexpr std::uint64_t kCliqueNodes = 20'000;
  Greedy greedy(instance);
  std::vector<std::uint32_t> order = greedy.hardest_first();
  Bounds bounds;
  std::mt19937 random(1);  // seeded: the same instance gives the same bounds
  for (std::size_t start = 0; start < kStarts; ++start) {
    std::vector<std::uint32_t> block_of = greedy.partition(order);
    if (start == 0) bounds.clique = large_clique(exclusive, 0, blocks_in(block_of));
    while (blocks_in(block_of) > bounds.clique.size()) {
      auto fewer = one_block_fewer(instance, exclusive, block_of);
      if (!fewer) break;
      block_of = std::move(*fewer);
    }
    if (start == 0 || blocks_in(block_of) < blocks_in(bounds.block_of)) bounds.block_of = std::move(block_of);
    if (start == 0 && blocks_in(bounds.block_of) > bounds.clique.size()) {
      bounds.clique = large_clique(exclusive, kCliqueNodes, blocks_in(bounds.block_of));
    }
    if (blocks_in(bounds.block_of) == bounds.clique.size()) break;
    stir(order, random);
  }
  return bounds;
}

}  // namespace ioplan::cover
