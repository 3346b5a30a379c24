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
  CliqueSearch(const std::vector<ElementSet>& adjacent, std::uint64_t nodes) : adjacent_(adjacent), nodes_(nodes) {}

  Clique run() {
    seed_greedily();
    ElementSet all(adjacent_.size());
    all.set();
    extend(all);
    std::ranges::sort(best_);
    return {best_, nodes_ > 0};
  }

 private:
  void seed_greedily() {
    std::vector<std::uint32_t> by_degree(adjacent_.size());
    std::iota(by_degree.begin(), by_degree.end(), 0U);
    std::ranges::stable_sort(by_degree, [&](auto a, auto b) { return adjacent_[a].count() > adjacent_[b].count(); });
    const std::size_t seeds = std::min<std::size_t>(by_degree.size(), 64);
    for (std::size_t s = 0; s < seeds; ++s) {
      std::vector<std::uint32_t> clique{by_degree[s]};
      ElementSet candidates = adjacent_[by_degree[s]];
      while (candidates.any()) {
        std::uint32_t pick = 0;
        std::size_t most = 0;
        for (auto v = candidates.find_first(); v != ElementSet::npos; v = candidates.find_next(v)) {
          const std::size_t kept = (candidates & adjacent_[v]).count() + 1;
          if (kept > most) {
            most = kept;
            pick = static_cast<std::uint32_t>(v);
          }
        }
        clique.push_back(pick);
        candidates &= adjacent_[pick];
      }
      if (clique.size() > best_.size()) best_ = clique;
      if (adjacent_.size() > 512) break;  // one seed is enough on large graphs; the search below improves it
    }
  }

  void extend(const ElementSet& candidates) {
    if (nodes_ == 0) return;
    --nodes_;
    // Colour classes, in order; vertices of late classes are tried first, because their bound is largest.
    std::vector<std::pair<std::uint32_t, std::uint32_t>> coloured;  // (vertex, colours used so far)
    ElementSet left = candidates;
    for (std::uint32_t colour = 1; left.any(); ++colour) {
      ElementSet independent = left;
      for (auto v = independent.find_first(); v != ElementSet::npos; v = independent.find_next(v)) {
        independent -= adjacent_[v];
        left.reset(v);
        coloured.emplace_back(static_cast<std::uint32_t>(v), colour);
      }
    }
    ElementSet open = candidates;
    for (auto it = coloured.rbegin(); it != coloured.rend(); ++it) {
      if (current_.size() + it->second <= best_.size() || nodes_ == 0) return;
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
  std::vector<std::uint32_t> current_, best_;
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

  bool possible() const {
    return std::ranges::all_of(accepted_by_, [](const ElementSet& s) { return s.any(); });
  }

  // Elements with few candidates and many enemies first.
  std::vector<std::uint32_t> hardest_first() const {
    std::vector<std::uint32_t> order(instance_.elements);
    std::iota(order.begin(), order.end(), 0U);
    std::ranges::stable_sort(order, [&](auto a, auto b) {
      const auto key = [&](auto e) { return std::pair(accepted_by_[e].count(), instance_.elements - apart_[e].count()); };
      return key(a) < key(b);
    });
    return order;
  }

  std::vector<std::uint32_t> partition(const std::vector<std::uint32_t>& order, std::size_t give_up_at) {
    std::vector<std::uint32_t> block_of(instance_.elements, 0);
    std::vector<ElementSet> candidates, members;
    for (std::uint32_t e : order) {
      std::size_t best = candidates.size();
      std::size_t most = 0;
      for (std::size_t b = 0; b < candidates.size(); ++b) {
        if (members[b].intersects(apart_[e])) continue;
        const std::size_t left = (candidates[b] & accepted_by_[e]).count();
        if (left > most) {
          most = left;
          best = b;
        }
      }
      if (best == candidates.size()) {
        if (candidates.size() + 1 >= give_up_at) return {};
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
};

}  // namespace

Clique large_clique(const std::vector<ElementSet>& exclusive, std::uint64_t nodes) {
  if (exclusive.empty()) return {{}, true};
  return CliqueSearch(exclusive, nodes).run();
}

std::optional<std::vector<std::uint32_t>> greedy_partition(const CoverInstance& instance, std::size_t starts,
                                                           std::size_t enough) {
  Greedy greedy(instance);
  if (!greedy.possible()) return std::nullopt;
  std::vector<std::uint32_t> order = greedy.hardest_first();
  std::vector<std::uint32_t> best = greedy.partition(order, instance.elements + 1);
  const auto blocks = [](const auto& p) { return p.empty() ? 0 : *std::ranges::max_element(p) + std::size_t{1}; };
  std::mt19937 random(1);  // seeded: the same instance gives the same partition
  for (std::size_t s = 1; s < starts && blocks(best) > enough; ++s) {
    // A partial shuffle: hard elements stay near the front.
    for (std::size_t i = 0; i + 1 < order.size(); ++i) {
      const std::size_t reach = std::min(order.size() - 1, i + 1 + order.size() / 8);
      std::swap(order[i], order[i + random() % (reach - i + 1)]);
    }
    auto next = greedy.partition(order, blocks(best));
    if (!next.empty()) best = std::move(next);
  }
  return best;
}

}  // namespace ioplan::cover
