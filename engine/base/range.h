// Inclusive address ranges and sets of them.
//
// An IOVA may be 2^64-1, so `start + size` cannot name every range: a range is {start, last}, both inclusive, and is
// never empty. A RangeSet keeps its ranges sorted, disjoint and not touching, so that equal sets compare equal.
// Held by tests/base_test.cc (against a bitmap of a small space).
#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>
#include <vector>

namespace ioplan {

struct Range {
  std::uint64_t start = 0;
  std::uint64_t last = 0;  // inclusive, >= start

  friend constexpr auto operator<=>(const Range&, const Range&) = default;
  constexpr bool contains(const Range& other) const { return start <= other.start && other.last <= last; }
  constexpr bool overlaps(const Range& other) const { return start <= other.last && other.start <= last; }
  // last - start: one less than the size, because 2^64 does not fit.
  constexpr std::uint64_t extent() const { return last - start; }
};

class RangeSet {
 public:
  RangeSet() = default;
  RangeSet(std::initializer_list<Range> ranges) {
    for (const Range& r : ranges) add(r);
  }

  void add(const Range& range);
  void subtract(const Range& range);

  bool contains(const Range& range) const;  // every address of `range` is in the set
  bool overlaps(const Range& range) const;  // some address of `range` is in the set
  bool empty() const { return ranges_.empty(); }
  std::span<const Range> ranges() const { return ranges_; }

  friend bool operator==(const RangeSet&, const RangeSet&) = default;

 private:
  std::vector<Range> ranges_;
};

}  // namespace ioplan
