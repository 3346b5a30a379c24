// engine/base against oracles: RangeSet against a bitmap of a small space, sizes against their own text, the order of
// ids against the order of their numbers.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <bitset>
#include <limits>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "engine/base/digest.h"
#include "engine/base/error.h"
#include "engine/base/range.h"
#include "engine/base/text.h"

namespace ioplan {
namespace {

constexpr std::uint64_t kTop = std::numeric_limits<std::uint64_t>::max();
constexpr std::size_t kSpace = 64;
using Bitmap = std::bitset<kSpace>;

// Addresses of the small space lie at the top of the 64-bit one, where additions wrap.
std::uint64_t address(std::size_t i) { return kTop - (kSpace - 1) + i; }

Bitmap bitmap_of(const Range& range) {
  Bitmap map;
  for (std::size_t i = 0; i < kSpace; ++i) map[i] = range.start <= address(i) && address(i) <= range.last;
  return map;
}

Bitmap bitmap_of(const RangeSet& set) {
  Bitmap map;
  for (const Range& r : set.ranges()) map |= bitmap_of(r);
  return map;
}

Range random_range(std::mt19937& random) {
  const std::size_t a = random() % kSpace;
  const std::size_t b = random() % kSpace;
  return {address(std::min(a, b)), address(std::max(a, b))};
}

void expect_canonical(const RangeSet& set) {
  const auto ranges = set.ranges();
  for (std::size_t i = 0; i < ranges.size(); ++i) {
    EXPECT_LE(ranges[i].start, ranges[i].last);
    if (i == 0) continue;
    EXPECT_GT(ranges[i].start - ranges[i - 1].last, 1U) << "touching or overlapping";
  }
}

TEST(RangeSet, AgreesWithABitmap) {
  std::mt19937 random(20260807);
  for (int round = 0; round < 300; ++round) {
    RangeSet set;
    Bitmap map;
    for (int step = 0; step < 20; ++step) {
      const Range range = random_range(random);
      if (random() % 2 == 0) {
        set.add(range);
        map |= bitmap_of(range);
      } else {
        set.subtract(range);
        map &= ~bitmap_of(range);
      }
      ASSERT_EQ(bitmap_of(set), map);
      expect_canonical(set);
      EXPECT_EQ(set.empty(), map.none());
      const Range asked = random_range(random);
      EXPECT_EQ(set.contains(asked), (bitmap_of(asked) & ~map).none());
      EXPECT_EQ(set.overlaps(asked), (bitmap_of(asked) & map).any());
    }
  }
}

TEST(RangeSet, HoldsTheWholeSpace) {
  RangeSet all{{0, kTop}};
  EXPECT_TRUE(all.contains({0, kTop}));
  all.subtract({0x1000, 0x1fff});
  EXPECT_EQ(all, (RangeSet{{0, 0xfff}, {0x2000, kTop}}));
  all.add({0x1000, 0x1fff});
  EXPECT_EQ(all, (RangeSet{{0, kTop}}));
  all.subtract({0, kTop});
  EXPECT_TRUE(all.empty());
}

TEST(RangeSet, DoesNotDependOnTheOrderOfAdding) {
  EXPECT_EQ((RangeSet{{0, 9}, {20, 29}, {10, 19}}), (RangeSet{{0, 29}}));
  EXPECT_EQ((RangeSet{{20, 29}, {0, 9}}), (RangeSet{{0, 9}, {20, 29}}));
}

TEST(Text, IntegersHaveOneSpelling) {
  EXPECT_EQ(parse_integer("0"), 0U);
  EXPECT_EQ(parse_integer("18446744073709551615"), kTop);
  EXPECT_EQ(parse_integer("0xffffffffffffffff"), kTop);
  EXPECT_EQ(parse_integer("0XfF"), 255U);
  for (const char* bad : {"", "-1", "+1", " 1", "1 ", "1_000", "010", "0o10", "0x", "0xg", "1.0", "1e3", "0b1",
                          "18446744073709551616", "0x10000000000000000"}) {
    EXPECT_FALSE(parse_integer(bad)) << bad;
  }
}

TEST(Text, OctalLooksAreRecognised) {
  for (const char* octal : {"010", "00", "089", "0o10", "0O7"}) EXPECT_TRUE(looks_octal(octal)) << octal;
  for (const char* not_octal : {"0", "10", "0x10", "", "0o", "o10"}) EXPECT_FALSE(looks_octal(not_octal)) << not_octal;
}

TEST(Text, SizesHaveABinaryUnit) {
  EXPECT_EQ(parse_size("4096B"), 4096U);
  EXPECT_EQ(parse_size("4KiB"), 4096U);
  EXPECT_EQ(parse_size("1.5GiB"), 1610612736U);
  EXPECT_EQ(parse_size("15EiB"), std::uint64_t{15} << 60);
  for (const char* bad : {"", "512", "4kib", "4K", "4KB", "KiB", ".5GiB", "1.GiB", "0.3KiB", "16EiB", "-1KiB", "4 KiB",
                          "010KiB", "1.2.3GiB", "99999999999999999999B"}) {
    EXPECT_FALSE(parse_size(bad)) << bad;
  }
}

TEST(Text, FormattedSizesReadBack) {
  EXPECT_EQ(format_size(0), "0B");
  EXPECT_EQ(format_size(1000), "1000B");
  EXPECT_EQ(format_size(4096), "4KiB");
  EXPECT_EQ(format_size(std::uint64_t{1} << 30), "1GiB");
  std::mt19937_64 random(7);
  for (int i = 0; i < 10000; ++i) {
    const std::uint64_t bytes = random() >> (random() % 64) << (random() % 64);
    ASSERT_EQ(parse_size(format_size(bytes)), bytes) << format_size(bytes);
  }
}

TEST(Text, PageSizes) {
  EXPECT_EQ(format_page_sizes(0), "none");
  EXPECT_EQ(format_page_sizes(0x40201000), "4KiB 2MiB 1GiB");
  EXPECT_EQ(format_page_sizes(0xfffffffffffff000), "4KiB..8EiB");
}

// Segment, bus, device and function count as numbers, written with or without a segment.
TEST(NaturalLess, PciIdsSortByTheirNumbers) {
  std::vector<std::string> ids = {"0001:00:00.0",  "0000:01:00.0", "0000:af:00.0", "0000:0a:1f.7",
                                  "10000:00:00.0", "0000:01:00.1", "0000:01:0a.0"};
  const std::vector<std::string> sorted = {"0000:01:00.0", "0000:01:00.1", "0000:01:0a.0", "0000:0a:1f.7",
                                           "0000:af:00.0", "0001:00:00.0", "10000:00:00.0"};
  std::sort(ids.begin(), ids.end(), natural_less);
  EXPECT_EQ(ids, sorted);
}

TEST(NaturalLess, DigitsCountByValue) {
  EXPECT_TRUE(natural_less("dmar2", "dmar10"));
  EXPECT_FALSE(natural_less("dmar10", "dmar2"));
  EXPECT_TRUE(natural_less("smmu3.9", "smmu3.10"));
  EXPECT_TRUE(natural_less("a", "b"));
  EXPECT_FALSE(natural_less("same", "same"));
}

// A strict weak order, total on distinct texts: std::sort may be trusted with it.
TEST(NaturalLess, IsATotalOrder) {
  const std::vector<std::string> pieces = {"0", "1", "01", "a", "af", ":", ".", "0000:01:00.0", "-"};
  std::mt19937 random(11);
  std::vector<std::string> words;
  for (int i = 0; i < 60; ++i) {
    std::string word;
    for (std::size_t n = random() % 4; n > 0; --n) word += pieces[random() % pieces.size()];
    words.push_back(word);
  }
  for (const auto& a : words) {
    for (const auto& b : words) {
      EXPECT_EQ(natural_less(a, b) || natural_less(b, a), a != b) << a << " | " << b;
      EXPECT_FALSE(natural_less(a, b) && natural_less(b, a)) << a << " | " << b;
      for (const auto& c : words) {
        if (natural_less(a, b) && natural_less(b, c)) {
          EXPECT_TRUE(natural_less(a, c)) << a << " | " << b << " | " << c;
        }
      }
    }
  }
}

TEST(NearestName, FindsSlipsOnly) {
  constexpr std::array<std::string_view, 3> names = {"dirty_tracking", "nest_parent", "pasid"};
  EXPECT_EQ(nearest_name("dirty_trackin", names), "dirty_tracking");
  EXPECT_EQ(nearest_name("passid", names), "pasid");
  EXPECT_FALSE(nearest_name("memory", names));
  EXPECT_FALSE(nearest_name("", names));
  EXPECT_FALSE(nearest_name("pasid", {}));
}

std::string digest_of(const std::vector<std::string>& texts) {
  Digest digest;
  for (const std::string& text : texts) digest.add(text);
  return digest.uuid();
}

TEST(Digest, TellsSequencesApart) {
  EXPECT_NE(digest_of({"ab", "c"}), digest_of({"a", "bc"}));
  EXPECT_NE(digest_of({"ab", ""}), digest_of({"ab"}));
  EXPECT_NE(digest_of({std::string("a\0", 2)}), digest_of({"a"}));
  Digest word;
  word.add(std::uint64_t{0x61});
  EXPECT_NE(word.uuid(), digest_of({"a"}));
  std::set<std::string> seen;
  for (std::uint64_t a = 0; a < 64; ++a) {
    for (std::uint64_t b = 0; b < 64; ++b) {
      Digest digest;
      digest.add(std::uint64_t{1} << a);
      digest.add(std::uint64_t{1} << b);
      EXPECT_TRUE(seen.insert(digest.uuid()).second) << a << ' ' << b;
    }
  }
}

// Plans name hosts by it: a change here makes every written plan a plan for another host.
TEST(Digest, IsTheSameEverywhere) {
  EXPECT_EQ(digest_of({"dmar0", "a text longer than sixteen bytes"}), "5f8b49a6-38f5-8c25-904f-bf0578c45f5f");
  EXPECT_EQ(digest_of({}), "00000000-0000-8000-8000-000000000000");
}

TEST(Error, IsTextWithAPlaceAndAdvice) {
  EXPECT_EQ(to_text(Error{"no", "", {}, 0}), "error: no");
  EXPECT_EQ(to_text(Error{"no", "try", {"a.yaml", 3, 5}, 0}), "a.yaml:3:5: error: no\nhelp: try");
  EXPECT_EQ(to_text(Error{"no", "", {"a.yaml", 0, 0}, 0}), "a.yaml: error: no");
}

}  // namespace
}  // namespace ioplan
