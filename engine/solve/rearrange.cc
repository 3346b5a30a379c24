// A little local search over partitions: it finds most of the rearrangements that exist, much faster than SAT would.

#include <algorithm>

#include "engine/solve/cover_parts.h"

namespace ioplan::cover {

namespace {

// Each element moves at most once: what has been moved is settled.
class Rearrangement {
 public:
  Rearrangement(const CoverInstance& instance, const std::vector<ElementSet>& exclusive,
                const std::vector<std::uint32_t>& block_of)
      : instance_(instance), exclusive_(exclusive), block_of_(block_of), settled_(instance.elements) {
    blocks_.assign(blocks_in(block_of), ElementSet(instance.elements));
    for (std::uint32_t e = 0; e < block_of.size(); ++e) blocks_[block_of[e]].set(e);
  }

  // Elements before `element` stay where they are.
  bool move_into(std::uint32_t element, std::uint32_t block) {
    for (std::uint32_t e = 0; e < element; ++e) settled_.set(e);
    blocks_[block_of_[element]].reset(element);
    if (!find_intruders(element, block, ElementSet::npos)) return false;
    move(element, block);
    return settle_homeless();
  }

  bool dissolve(std::uint32_t block) {
    closed_ = block;
    for (auto e = blocks_[block].find_first(); e != ElementSet::npos; e = blocks_[block].find_next(e)) {
      homeless_.push_back(static_cast<std::uint32_t>(e));
    }
    return settle_homeless();
  }

  std::vector<std::uint32_t> block_of() && { return std::move(block_of_); }

 private:
  bool settle_homeless() {
    while (!homeless_.empty()) {
      const std::uint32_t next = homeless_.back();
      homeless_.pop_back();
      if (!settle_anywhere(next)) return false;
    }
    return true;
  }

  bool settle_anywhere(std::uint32_t element) {
    std::size_t fewest = ElementSet::npos;
    std::uint32_t best = 0;
    ElementSet out;
    for (std::uint32_t b = 0; b < blocks_.size() && fewest > 0; ++b) {
      if (b == closed_ || !find_intruders(element, b, fewest)) continue;
      fewest = intruders_.count();
      best = b;
      out = intruders_;
    }
    if (fewest == ElementSet::npos) return false;
    intruders_ = std::move(out);
    move(element, best);
    return true;
  }

  // Members of the block that would have to leave for the element; false when settled ones would, or not fewer than
  // `limit`.
  bool find_intruders(std::uint32_t element, std::uint32_t block, std::size_t limit) {
    enemies_ = blocks_[block];
    enemies_ &= exclusive_[element];
    if (enemies_.intersects(settled_)) return false;
    std::size_t fewest = limit;
    for (const CoverCandidate& c : instance_.candidates) {
      if (!c.accepts.test(element)) continue;
      scratch_ = blocks_[block];
      scratch_ -= c.accepts;
      if (scratch_.intersects(settled_)) continue;
      scratch_ |= enemies_;
      if (const std::size_t count = scratch_.count(); count < fewest) {
        fewest = count;
        intruders_ = scratch_;
      }
      if (fewest == 0) break;
    }
    return fewest < limit;
  }

  void move(std::uint32_t element, std::uint32_t block) {
    for (auto e = intruders_.find_first(); e != ElementSet::npos; e = intruders_.find_next(e)) {
      homeless_.push_back(static_cast<std::uint32_t>(e));
    }
    blocks_[block] -= intruders_;
    blocks_[block].set(element);
    block_of_[element] = block;
    settled_.set(element);
  }

  const CoverInstance& instance_;
  const std::vector<ElementSet>& exclusive_;
  std::vector<std::uint32_t> block_of_;
  std::vector<ElementSet> blocks_;
  std::uint32_t closed_ = ~0U;
  ElementSet settled_, intruders_, enemies_, scratch_;
  std::vector<std::uint32_t> homeless_;
};

}  // namespace

std::size_t blocks_in(const std::vector<std::uint32_t>& block_of) {
  return block_of.empty() ? 0 : *std::ranges::max_element(block_of) + std::size_t{1};
}

std::optional<std::vector<std::uint32_t>> rearranged(const CoverInstance& instance,
                                                     const std::vector<ElementSet>& exclusive,
                                                     const std::vector<std::uint32_t>& block_of, std::uint32_t element,
                                                     std::uint32_t block) {
  Rearrangement search(instance, exclusive, block_of);
  if (!search.move_into(element, block)) return std::nullopt;
  return std::move(search).block_of();
}

std::optional<std::vector<std::uint32_t>> one_block_fewer(const CoverInstance& instance,
                                                          const std::vector<ElementSet>& exclusive,
                                                          const std::vector<std::uint32_t>& block_of) {
  for (std::uint32_t b = 0; b < blocks_in(block_of); ++b) {
    Rearrangement search(instance, exclusive, block_of);
    if (!search.dissolve(b)) continue;
    auto found = std::move(search).block_of();
    number_by_lowest_element(found);
    return found;
  }
  return std::nullopt;
}

}  // namespace ioplan::cover
