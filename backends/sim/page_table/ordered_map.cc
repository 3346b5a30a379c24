#include "backends/sim/page_table/ordered_map.h"

#include <cerrno>

#include "backends/sim/page_table/largest_leaf.h"

namespace ioplan::sim {

int OrderedMap::map(std::uint64_t iova, std::uint64_t pa, std::uint64_t size, std::uint8_t protection) {
  const Extent extent{pa, size};
  return map(iova, std::span(&extent, 1), protection);
}

int OrderedMap::map(std::uint64_t iova, std::span<const Extent> extents, std::uint8_t protection) {
  std::uint64_t last = 0;
  if (const int error = check(iova, extents, protection, last)) return error;
  const std::lock_guard lock(mutex_);
  const auto after = runs_.upper_bound(last);
  if (after != runs_.begin() && std::prev(after)->second.last >= iova) return EADDRINUSE;
  for (std::size_t i = 0; i < extents.size();) {
    Extent run = extents[i];
    while (++i < extents.size() && extents[i].pa == run.pa + run.size) run.size += extents[i].size;
    add(iova, run, protection);
    iova += run.size;
  }
  return 0;
}

int OrderedMap::check(std::uint64_t iova, std::span<const Extent> extents, std::uint8_t protection,
                      std::uint64_t& last) const {
  if (extents.empty() || (protection & (kRead | kWrite)) == 0) return EINVAL;
  std::uint64_t addresses = iova;
  for (const Extent& e : extents) {
    if (e.size == 0) return EINVAL;
    addresses |= e.pa | e.size;
  }
  if ((addresses & (lowest_bit(shape().page_sizes) - 1)) != 0) return EINVAL;

  const auto [start, end] = shape().aperture;
  const std::uint64_t last_pa = last_of_width(shape().output_bits);
  if (iova < start || iova > end) return ERANGE;
  const std::uint64_t room = end - iova;  // one less than the bytes there are
  std::uint64_t used = 0;
  for (const Extent& e : extents) {
    if (used > room || e.size - 1 > room - used || e.pa > last_pa || e.size - 1 > last_pa - e.pa) return ERANGE;
    used += e.size;
  }
  last = iova + (used - 1);
  return 0;
}

void OrderedMap::add(std::uint64_t iova, Extent run, std::uint8_t protection) {
  while (run.size != 0) {
    const unsigned lg2 = largest_leaf_lg2(shape().page_sizes, iova, run);
    const std::uint64_t bytes = bytes_of_leaf_size(shape().page_sizes, iova, run, lg2);
    runs_.emplace(iova, Run{iova + (bytes - 1), run.pa, lg2, protection});
    iova += bytes;
    run = {run.pa + bytes, run.size - bytes};
  }
}

OrderedMap::Runs::const_iterator OrderedMap::run_at(std::uint64_t iova) const {
  const auto after = runs_.upper_bound(iova);
  if (after == runs_.begin() || std::prev(after)->second.last < iova) return runs_.end();
  return std::prev(after);
}

std::uint64_t OrderedMap::unmap(std::uint64_t iova, std::uint64_t size) {
  if (size == 0) return 0;
  const std::uint64_t last = size - 1 > ~iova ? ~std::uint64_t{0} : iova + (size - 1);
  const std::lock_guard lock(mutex_);
  std::uint64_t at = iova;
  for (bool more = true; more;) {
    const auto found = run_at(at);
    if (found == runs_.end()) break;
    const auto [start, run] = *found;
    const std::uint64_t leaf = last_of_width(run.leaf_lg2);
    // Whole leaves between `at` and `last`; the run's last leaf is whole.
    const std::uint64_t upto = run.last <= last ? run.last : ((last + 1) & ~leaf) - 1;
    if ((at & leaf) != 0 || last < at || (run.last > last && last - at < leaf)) break;
    runs_.erase(found);
    if (start < at) runs_.emplace(start, Run{at - 1, run.pa, run.leaf_lg2, run.protection});
    if (upto < run.last) {
      runs_.emplace(upto + 1, Run{run.last, run.pa + (upto + 1 - start), run.leaf_lg2, run.protection});
    }
    at = upto + 1;
    more = upto == run.last && upto < last;
  }
  return at - iova;
}

std::optional<std::uint64_t> OrderedMap::iova_to_phys(std::uint64_t iova) const {
  const std::lock_guard lock(mutex_);
  const auto found = run_at(iova);
  if (found == runs_.end()) return std::nullopt;
  return found->second.pa + (iova - found->first);
}

std::uint8_t OrderedMap::protection(std::uint64_t iova) const {
  const std::lock_guard lock(mutex_);
  const auto found = run_at(iova);
  return found == runs_.end() ? std::uint8_t{0} : found->second.protection;
}

}  // namespace ioplan::sim
