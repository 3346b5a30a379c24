// Where a map may be copied from (backends/iommufd/mapped_pages.h), against a table with a row for every page of every
// IOAS, searched page by page as the kernel would.
//
// IOPLAN_SCALE multiplies the random questions.
#include "backends/iommufd/mapped_pages.h"

#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <random>

#include "tests/support/seeds.h"

namespace ioplan::iommufd {
namespace {

constexpr std::uint64_t kPage = 4096;

vfio::FileIdentity file(std::uint64_t inode) { return {1, inode, 0}; }

// Every mapped page: what it holds, and how it is pinned.
struct Table {
  struct Row {
    vfio::FileIdentity file;
    std::uint64_t offset = 0;
    Access pinned = Access::read_write;
  };
  std::map<std::pair<std::string, std::uint64_t>, Row> rows;

  void add(const std::string& ioas, std::uint64_t iova, const FileStretch& s, Access pinned) {
    for (std::uint64_t at = 0; at < s.bytes; at += kPage) rows[{ioas, iova + at}] = {s.file, s.offset + at, pinned};
  }
  void remove(const std::string& ioas, std::uint64_t iova, std::uint64_t bytes) {
    for (std::uint64_t at = 0; at < bytes; at += kPage) rows.erase({ioas, iova + at});
  }
  bool holds(const std::string& ioas, std::uint64_t iova, const FileStretch& s, Access access) const {
    for (std::uint64_t at = 0; at < s.bytes; at += kPage) {
      const auto row = rows.find({ioas, iova + at});
      if (row == rows.end() || row->second.file != s.file || row->second.offset != s.offset + at) return false;
      if (access == Access::read_write && row->second.pinned == Access::read_only) return false;
    }
    return true;
  }
  Access weakest(const std::string& ioas, std::uint64_t iova, const FileStretch& s) const {
    return holds(ioas, iova, s, Access::read_write) ? Access::read_write : Access::read_only;
  }
  bool has_source(const FileStretch& s, Access access) const {
    for (const auto& [where, row] : rows) {
      if (row.file == s.file && row.offset == s.offset && holds(where.first, where.second, s, access)) return true;
    }
    return false;
  }
  bool has_any(const FileStretch& s) const {
    for (const auto& [where, row] : rows) {
      if (row.file == s.file && row.offset >= s.offset && row.offset < s.offset + s.bytes) return true;
    }
    return false;
  }
};

struct Mapped {
  std::string ioas;
  std::uint64_t iova, bytes;
};

class Trial {
 public:
  explicit Trial(std::uint64_t seed) : random_(seed) {}

  void run(unsigned steps) {
    for (unsigned i = 0; i < steps; ++i) {
      if (random_() % 4 == 0 && !mapped_.empty()) {
        unmap();
      } else {
        map();
      }
      if (testing::Test::HasFailure()) return;
    }
  }
  std::size_t copied = 0, partly = 0, unwritable = 0, untouched = 0;

 private:
  std::uint64_t below(std::uint64_t n) { return random_() % n; }

  void map() {
    const std::string ioas = "ioas" + std::to_string(below(3));
    const FileStretch s{file(below(2)), below(8) * kPage, (1 + below(6)) * kPage};
    const std::uint64_t iova = below(16) * kPage;
    const Access access = below(3) == 0 ? Access::read_only : Access::read_write;
    for (std::uint64_t at = 0; at < s.bytes; at += kPage) {
      if (table_.rows.contains({ioas, iova + at})) return;  // taken
    }
    const auto source = pages_.find(s, access);
    ASSERT_EQ(source.has_value(), table_.has_source(s, access));
    Access pinned = access;
    if (source) {
      ++copied;
      ASSERT_TRUE(table_.holds(source->ioas, source->iova, s, access));
      pinned = source->pinned;
      ASSERT_EQ(pinned, table_.weakest(source->ioas, source->iova, s));
    } else {
      count(source.error(), s);
    }
    pages_.add(ioas, iova, s, pinned);
    table_.add(ioas, iova, s, pinned);
    mapped_.push_back({ioas, iova, s.bytes});
  }

  void count(const std::string& why, const FileStretch& s) {
    ASSERT_EQ(why.empty(), !table_.has_any(s));
    ++(why.empty() ? untouched : why.ends_with("reading only") ? unwritable : partly);
  }

  void unmap() {
    const auto which = mapped_.begin() + static_cast<std::ptrdiff_t>(below(mapped_.size()));
    pages_.remove(which->ioas, which->iova);
    table_.remove(which->ioas, which->iova, which->bytes);
    mapped_.erase(which);
  }

  std::mt19937_64 random_;
  MappedPages pages_;
  Table table_;
  std::vector<Mapped> mapped_;
};

TEST(MappedPages, FindsASourceExactlyWhereThePagesAre) {
  std::size_t copied = 0, partly = 0, unwritable = 0, untouched = 0;
  for (std::uint64_t seed = 1; seed <= scaled(3000); ++seed) {
    Trial trial(seed);
    trial.run(40);
    ASSERT_FALSE(HasFailure()) << "seed " << seed;
    copied += trial.copied;
    partly += trial.partly;
    unwritable += trial.unwritable;
    untouched += trial.untouched;
  }
  std::printf("%zu copied, %zu partly there, %zu read-only there, %zu nowhere\n", copied, partly, unwritable,
              untouched);
  EXPECT_GE(copied, scaled(5000));
  EXPECT_GE(partly, scaled(5000));
  EXPECT_GE(unwritable, scaled(500));
  EXPECT_GE(untouched, scaled(2000));
}

TEST(MappedPages, PiecesOfOneMapAreOneSource) {
  MappedPages pages;
  pages.add("ioas0", 0x100000, {file(1), 0, 0x4000}, Access::read_write);
  pages.add("ioas0", 0x104000, {file(1), 0x4000, 0x4000}, Access::read_write);
  const auto source = pages.find({file(1), 0x1000, 0x6000}, Access::read_write);
  ASSERT_TRUE(source);
  EXPECT_EQ(source->ioas, "ioas0");
  EXPECT_EQ(source->iova, 0x101000U);
}

TEST(MappedPages, SaysWhyItMustBePinnedAgain) {
  MappedPages pages;
  EXPECT_EQ(pages.find({file(1), 0, 0x1000}, Access::read_only).error(), "");
  pages.add("ioas0", 0, {file(1), 0, 0x1000}, Access::read_only);
  EXPECT_EQ(pages.find({file(1), 0, 0x1000}, Access::read_write).error(), "ioas0 has it pinned for reading only");
  EXPECT_EQ(pages.find({file(1), 0, 0x2000}, Access::read_only).error(), "ioas0 has only a part of it");
  EXPECT_EQ(pages.find({file(2), 0, 0x1000}, Access::read_only).error(), "");
}

// A copy may only be written to when the pages were pinned for writing, whatever its source may do.
TEST(MappedPages, ACopyHasItsPagesFromItsSource) {
  MappedPages pages;
  pages.add("ioas0", 0, {file(1), 0, 0x1000}, Access::read_write);
  pages.add("ioas1", 0, {file(1), 0, 0x1000}, pages.find({file(1), 0, 0x1000}, Access::read_only)->pinned);
  pages.remove("ioas0", 0);
  EXPECT_TRUE(pages.find({file(1), 0, 0x1000}, Access::read_write));
}

}  // namespace
}  // namespace ioplan::iommufd
