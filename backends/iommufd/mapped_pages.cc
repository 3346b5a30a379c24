#include "backends/iommufd/mapped_pages.h"

#include <fmt/format.h>

#include <algorithm>

namespace ioplan::iommufd {

namespace {

std::uint64_t end(const FileStretch& s) { return s.offset + s.bytes; }  // files end before 2^63

bool overlap(const FileStretch& a, const FileStretch& b) {
  return a.file == b.file && a.offset < end(b) && b.offset < end(a);
}

}  // namespace

void MappedPages::add(const std::string& ioas, std::uint64_t iova, const FileStretch& stretch, Access pinned) {
  pieces_[{ioas, iova}] = {stretch, pinned};
  by_file_.emplace(std::pair(stretch.file, stretch.offset), Where(ioas, iova));
  longest_ = std::max(longest_, stretch.bytes);
}

void MappedPages::remove(const std::string& ioas, std::uint64_t iova) {
  const auto piece = pieces_.find({ioas, iova});
  const FileStretch& stretch = piece->second.stretch;
  auto [at, last] = by_file_.equal_range({stretch.file, stretch.offset});
  while (at->second != piece->first) ++at;
  by_file_.erase(at);
  pieces_.erase(piece);
}

RangeSet MappedPages::mapped(const std::string& ioas) const {
  RangeSet ranges;
  for (auto piece = pieces_.lower_bound({ioas, 0}); piece != pieces_.end() && piece->first.first == ioas; ++piece)
    ranges.add({piece->first.second, piece->first.second + (piece->second.stretch.bytes - 1)});
  return ranges;
}

std::vector<Range> MappedPages::pieces(const std::string& ioas, const Range& in) const {
  std::vector<Range> found;
  for (auto piece = pieces_.lower_bound({ioas, in.start}); piece != pieces_.end() && piece->first.first == ioas; ++piece) {
    const Range range{piece->first.second, piece->first.second + (piece->second.stretch.bytes - 1)};
    if (range.last > in.last) break;
    found.push_back(range);
  }
  return found;
}

// The piece that goes on where another one ends, in its IOAS and in its file.
MappedPages::Pieces::const_iterator MappedPages::next(Pieces::const_iterator piece) const {
  const auto& [where, p] = *piece;
  const auto follower = std::next(piece);
  if (follower == pieces_.end()) return follower;
  const bool goes_on =
      follower->first.first == where.first && follower->first.second - where.second == p.stretch.bytes &&
      follower->second.stretch.file == p.stretch.file && follower->second.stretch.offset == end(p.stretch);
  return goes_on ? follower : pieces_.end();
}

// What begins with the piece, if that is a source for all of the stretch; else why it is not.
tl::expected<MappedPages::Source, std::string> MappedPages::source(Pieces::const_iterator first,
                                                                   const FileStretch& stretch, Access access) const {
  const auto& [ioas, iova] = first->first;
  const FileStretch& start = first->second.stretch;
  if (start.offset > stretch.offset) return tl::make_unexpected(fmt::format("{} has only a part of it", ioas));
  Source found{ioas, iova + (stretch.offset - start.offset)};
  for (auto piece = first; piece != pieces_.end(); piece = next(piece)) {
    if (piece->second.pinned == Access::read_only) found.pinned = Access::read_only;
    if (found.pinned == Access::read_only && access == Access::read_write)
      return tl::make_unexpected(fmt::format("{} has it pinned for reading only", ioas));
    if (end(piece->second.stretch) >= end(stretch)) return found;
  }
  return tl::make_unexpected(fmt::format("{} has only a part of it", ioas));
}

tl::expected<MappedPages::Source, std::string> MappedPages::find(const FileStretch& stretch, Access access) const {
  std::string why;
  const std::uint64_t reach = std::min(stretch.offset, longest_);  // no piece that begins before overlaps
  for (auto at = by_file_.lower_bound({stretch.file, stretch.offset - reach}); at != by_file_.end(); ++at) {
    if (at->first >= std::pair(stretch.file, end(stretch))) break;
    const auto piece = pieces_.find(at->second);
    if (!overlap(piece->second.stretch, stretch)) continue;
    auto found = source(piece, stretch, access);
    if (found) return found;
    if (why.empty()) why = found.error();
  }
  return tl::make_unexpected(why);
}

}  // namespace ioplan::iommufd
