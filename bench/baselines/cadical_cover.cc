#include <algorithm>
#include <cadical.hpp>
#include <numeric>
#include <random>

#include "bench/baselines/baseline.h"

namespace ioplan::bench {

namespace {

constexpr std::size_t kStarts = 200;
constexpr std::size_t kCliques = 500;

class CadicalCover {
 public:
  explicit CadicalCover(const CoverInstance& instance) : instance_(instance), order_(instance.elements) {
    apart_.assign(instance.elements, ElementSet(instance.elements));
    accepted_by_.assign(instance.elements, ElementSet(instance.candidates.size()));
    for (const auto& [a, b] : instance.apart) {
      apart_[a].set(b);
      apart_[b].set(a);
    }
    for (std::size_t c = 0; c < instance.candidates.size(); ++c) {
      for (std::size_t e = 0; e < instance.elements; ++e) accepted_by_[e][c] = instance.candidates[c].accepts[e];
    }
    std::iota(order_.begin(), order_.end(), 0U);
  }

  Counted run() {
    const std::vector<std::uint32_t> clique = best_clique();
    std::uint64_t upper = instance_.elements;
    for (std::size_t s = 0; s < kStarts && upper > clique.size(); ++s) {
      upper = std::min(upper, first_fit_with_open_choice());
    }
    if (clique.size() == upper) return {upper, true};
    build(upper - 1, clique);
    while (upper > clique.size() && solver_.solve() == 10) {
      upper = used_slots();
      while (slots_ > upper - 1 && slots_ > 0) forbid_slot(--slots_);
    }
    return {upper, true};
  }

 private:
  // In a random order; every block keeps all candidates that still accept it.
  std::uint64_t first_fit_with_open_choice() {
    std::ranges::shuffle(order_, random_);
    std::vector<std::pair<ElementSet, ElementSet>> blocks;  // members, candidates
    for (std::uint32_t e : order_) {
      const auto takes = [&](const auto& b) {
        return !b.first.intersects(apart_[e]) && b.second.intersects(accepted_by_[e]);
      };
      auto block = std::ranges::find_if(blocks, takes);
      if (block == blocks.end()) {
        block = blocks.insert(block, {ElementSet(instance_.elements), accepted_by_[e]});
      }
      block->first.set(e);
      block->second &= accepted_by_[e];
    }
    return blocks.size();
  }

  // Greedy cliques of pairwise exclusive elements, in random orders.
  std::vector<std::uint32_t> best_clique() {
    std::vector<ElementSet> exclusive = apart_;
    for (std::size_t a = 0; a < instance_.elements; ++a) {
      for (std::size_t b = 0; b < instance_.elements; ++b) {
        if (a != b && !accepted_by_[a].intersects(accepted_by_[b])) exclusive[a].set(b);
      }
    }
    std::vector<std::uint32_t> best;
    for (std::size_t s = 0; s < kCliques; ++s) {
      std::ranges::shuffle(order_, random_);
      std::vector<std::uint32_t> clique;
      ElementSet open(instance_.elements);
      open.set();
      for (std::uint32_t e : order_) {
        if (!open[e]) continue;
        clique.push_back(e);
        open &= exclusive[e];
      }
      if (clique.size() > best.size()) best = std::move(clique);
    }
    return best;
  }

  // In some slot: x[e][h]; some candidate for every slot: y[h][c]. An element in two slots may leave either.
  void build(std::uint64_t slots, const std::vector<std::uint32_t>& clique) {
    slots_ = slots;
    solver_.set("quiet", 1);
    configuration_base_ = static_cast<int>(instance_.elements * slots);
    stride_ = slots;
    for (std::size_t e = 0; e < instance_.elements; ++e) {
      for (std::size_t h = 0; h < slots; ++h) solver_.add(x(e, h));
      solver_.add(0);
      for (std::size_t h = 0; h < slots; ++h) {
        for (std::size_t c = 0; c < instance_.candidates.size(); ++c) {
          if (!accepted_by_[e][c]) clause({-x(e, h), -y(h, c)});
        }
      }
    }
    for (std::size_t h = 0; h < slots; ++h) {
      for (std::size_t c = 0; c < instance_.candidates.size(); ++c) solver_.add(y(h, c));
      solver_.add(0);
      for (const auto& [a, b] : instance_.apart) clause({-x(a, h), -x(b, h)});
    }
    for (std::size_t i = 0; i < clique.size() && i < slots; ++i) clause({x(clique[i], i)});
  }

  // Slots that are left when every element keeps only its lowest.
  std::uint64_t used_slots() {
    std::vector<bool> used(slots_);
    for (std::size_t e = 0; e < instance_.elements; ++e) {
      std::size_t h = 0;
      while (solver_.val(x(e, h)) <= 0) ++h;
      used[h] = true;
    }
    return static_cast<std::uint64_t>(std::ranges::count(used, true));
  }

  void forbid_slot(std::size_t h) {
    for (std::size_t e = 0; e < instance_.elements; ++e) clause({-x(e, h)});
  }

  int x(std::size_t e, std::size_t h) const { return static_cast<int>(e * stride_ + h) + 1; }
  int y(std::size_t h, std::size_t c) const {
    return configuration_base_ + static_cast<int>(h * instance_.candidates.size() + c) + 1;
  }
  void clause(std::initializer_list<int> literals) {
    for (int l : literals) solver_.add(l);
    solver_.add(0);
  }

  const CoverInstance& instance_;
  std::vector<std::uint32_t> order_;
  std::vector<ElementSet> apart_, accepted_by_;
  std::mt19937 random_{1};
  CaDiCaL::Solver solver_;
  std::size_t slots_ = 0, stride_ = 0;
  int configuration_base_ = 0;
};

}  // namespace

Counted cadical_cover(const CoverInstance& instance) { return CadicalCover(instance).run(); }

}  // namespace ioplan::bench
