#include <algorithm>

#include "bench/baselines/baseline.h"

namespace ioplan::bench {

std::uint64_t first_fit_cover(const CoverInstance& instance) {
  std::vector<std::vector<std::uint32_t>> apart(instance.elements);
  for (const auto& [a, b] : instance.apart) apart[b].push_back(a);  // a < b: plugged before
  struct Block {
    const CoverCandidate* candidate;
    ElementSet members;
  };
  std::vector<Block> blocks;
  for (std::uint32_t e = 0; e < instance.elements; ++e) {
    const auto takes = [&](const Block& block) {
      return block.candidate->accepts[e] && std::ranges::none_of(apart[e], [&](auto f) { return block.members[f]; });
    };
    auto block = std::ranges::find_if(blocks, takes);
    if (block == blocks.end()) {
      const auto preferred = std::ranges::find_if(instance.candidates, [&](const auto& c) { return c.accepts[e]; });
      block = blocks.insert(block, {&*preferred, ElementSet(instance.elements)});
    }
    block->members.set(e);
  }
  return blocks.size();
}

}  // namespace ioplan::bench
