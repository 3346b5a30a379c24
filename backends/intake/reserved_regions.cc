#include "backends/intake/reserved_regions.h"

#include <algorithm>

#include "backends/intake/cursor.h"
#include "backends/intake/group_listing.h"

namespace ioplan::intake {

namespace {

std::optional<ReservedType> type_of(std::string_view word) {
  const auto it = std::ranges::find(kReservedTypeNames, word);
  if (it == kReservedTypeNames.end()) return std::nullopt;
  return static_cast<ReservedType>(it - kReservedTypeNames.begin());
}

// "0x00000000fee00000 0x00000000feefffff msi"
std::optional<ReservedRegion> take_region(Cursor at) {
  const auto start = at.hex();
  if (!start || !at.skip(" ") || !at.rest().starts_with("0x")) return std::nullopt;
  const auto last = at.hex();
  if (!last || *last < *start || !at.skip(" ")) return std::nullopt;
  const auto type = type_of(at.word());
  return type ? std::optional(ReservedRegion{{*start, *last}, *type}) : std::nullopt;
}

// The first region anywhere in the line, because grep prints the path before it.
std::optional<ReservedRegion> region_in(const TextLine& line) {
  const std::string_view text = line.text;
  for (std::size_t at = text.find("0x"); at != std::string_view::npos; at = text.find("0x", at + 2)) {
    if (const auto region = take_region(Cursor(text.substr(at)))) return region;
  }
  return std::nullopt;
}

}  // namespace

std::vector<RegionLine> read_reserved_regions(std::string_view text) {
  std::vector<RegionLine> out;
  std::optional<std::uint64_t> group;
  for (const TextLine& line : clean_lines(text)) {
    Cursor at(line);
    if (const auto of_path = take_group_of_path(at)) {
      group = of_path;
    } else if (const auto heading = take_group_heading(at)) {
      group = heading;
    }
    if (const auto region = region_in(line)) out.push_back({group, *region, line.number});
  }
  return out;
}

}  // namespace ioplan::intake
