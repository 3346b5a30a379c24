// Candidates that another makes superfluous. Exchanging a dominated candidate for its better never costs anything, in
// any order of objectives, on the same partition: so partitions may be sought among the rest alone.

#include <algorithm>
#include <numeric>
#include <tuple>

#include "engine/solve/cover_parts.h"

namespace ioplan::cover {

namespace {

bool no_dearer(const CoverCandidate& a, const CoverCandidate& b) {
  return a.page_table_bytes <= b.page_table_bytes && a.unneeded_flags <= b.unneeded_flags &&
         (a.enforces || !b.enforces) && a.stage == b.stage;
}

bool dominates(const CoverCandidate& a, const CoverCandidate& b) {
  return no_dearer(a, b) && b.accepts.is_subset_of(a.accepts);
}

}  // namespace

std::vector<std::uint32_t> undominated(const std::vector<CoverCandidate>& candidates) {
  // Whatever dominates a candidate comes before it in this order, so one pass against what is kept suffices.
  std::vector<std::uint32_t> order(candidates.size());
  std::iota(order.begin(), order.end(), 0U);
  std::vector<std::size_t> size(candidates.size());
  for (std::size_t i = 0; i < candidates.size(); ++i) size[i] = candidates[i].accepts.count();
  std::ranges::stable_sort(order, [&](auto a, auto b) {
    const auto key = [&](auto i) {
      const CoverCandidate& c = candidates[i];
      return std::tuple(~size[i], c.page_table_bytes, c.unneeded_flags, !c.enforces);
    };
    return key(a) < key(b);
  });
  std::vector<std::uint32_t> kept;
  for (std::uint32_t c : order) {
    if (size[c] == 0) continue;
    if (std::ranges::none_of(kept, [&](auto k) { return dominates(candidates[k], candidates[c]); })) kept.push_back(c);
  }
  std::ranges::sort(kept);
  return kept;
}

}  // namespace ioplan::cover
