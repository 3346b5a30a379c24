#include "engine/base/text.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cctype>
#include <charconv>
#include <vector>

#include <fmt/format.h>

#include "engine/base/log2.h"

namespace ioplan {

namespace {

constexpr std::array<std::string_view, 7> kUnits = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};

bool is_control(char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }

bool all_digits(std::string_view s, int base) {
  return !s.empty() && std::ranges::all_of(s, [&](unsigned char c) {
    return base == 16 ? std::isxdigit(c) != 0 : std::isdigit(c) != 0;
  });
}

std::optional<std::uint64_t> from_digits(std::string_view s, int base) {
  std::uint64_t value = 0;
  if (!all_digits(s, base)) return std::nullopt;
  auto [end, ec] = std::from_chars(s.data(), s.data() + s.size(), value, base);
  if (ec != std::errc() || end != s.data() + s.size()) return std::nullopt;
  return value;
}

// "0000:01:00.0", as Linux prints addresses and nearly all ids are written. All digits are looked at without a branch.
bool is_printed_address(std::string_view id) {
  static constexpr auto kDigit = [] {
    std::array<std::uint8_t, 256> digit{};
    for (const char c : std::string_view("0123456789abcdef")) digit[static_cast<unsigned char>(c)] = 1;
    return digit;
  }();
  if (id.size() != 12 || id[4] != ':' || id[7] != ':' || id[10] != '.') return false;
  int all = 1;
  for (const std::size_t i : {0u, 1u, 2u, 3u, 5u, 6u, 8u, 9u, 11u}) all &= kDigit[static_cast<unsigned char>(id[i])];
  return all != 0;
}

// Segment, bus, device and function of "0000:01:00.0" or "01:00.0" as one number; nothing for other ids.
std::optional<std::uint64_t> pci_key(std::string_view id) {
  std::array<std::uint64_t, 4> part{};
  std::size_t colons = static_cast<std::size_t>(std::ranges::count(id, ':'));
  if (colons != 1 && colons != 2) return std::nullopt;
  std::size_t field = colons == 2 ? 0 : 1;
  for (; field < 4; ++field) {
    const std::string_view separators = field < 2 ? ":" : field == 2 ? "." : "";
    const std::size_t end = separators.empty() ? id.size() : id.find(separators);
    if (end == std::string_view::npos) return std::nullopt;
    const auto value = from_digits(id.substr(0, end), 16);
    if (!value || *value > 0xffff) return std::nullopt;
    part[field] = *value;
    id.remove_prefix(std::min(id.size(), end + 1));
  }
  return part[0] << 48 | part[1] << 32 | part[2] << 16 | part[3];
}

// Insertions, deletions, substitutions and swaps of neighbours (optimal string alignment).
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::vector<std::size_t>> cost(a.size() + 1, std::vector<std::size_t>(b.size() + 1));
  for (std::size_t i = 0; i <= a.size(); ++i) cost[i][0] = i;
  for (std::size_t j = 0; j <= b.size(); ++j) cost[0][j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t differs = a[i - 1] == b[j - 1] ? 0 : 1;
      cost[i][j] = std::min({cost[i - 1][j] + 1, cost[i][j - 1] + 1, cost[i - 1][j - 1] + differs});
      const bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped) cost[i][j] = std::min(cost[i][j], cost[i - 2][j - 2] + 1);
    }
  }
  return cost[a.size()][b.size()];
}

}  // namespace

std::optional<std::uint64_t> parse_integer(std::string_view text) {
  if (text.starts_with("0x") || text.starts_with("0X")) return from_digits(text.substr(2), 16);
  if (looks_octal(text)) return std::nullopt;
  return from_digits(text, 10);
}

bool looks_octal(std::string_view text) {
  if (text.starts_with("0o") || text.starts_with("0O")) return all_digits(text.substr(2), 10);
  return text.size() > 1 && text[0] == '0' && all_digits(text, 10);
}

std::optional<std::uint64_t> parse_size(std::string_view text) {
  const std::size_t digits = std::min(text.find_first_not_of("0123456789."), text.size());
  const auto unit = std::ranges::find(kUnits, text.substr(digits));
  if (digits == 0 || unit == kUnits.end()) return std::nullopt;
  const unsigned lg2 = 10 * static_cast<unsigned>(unit - kUnits.begin());
  std::string_view number = text.substr(0, digits);
  const std::size_t dot = std::min(number.find('.'), number.size());
  const auto whole = from_digits(number.substr(0, dot), 10);
  if (!whole || *whole > (~std::uint64_t{0} >> lg2) || looks_octal(number.substr(0, dot))) return std::nullopt;
  std::uint64_t bytes = *whole << lg2;
  if (dot == number.size()) return bytes;
  // A fraction must come out at whole bytes: 1.5GiB does, 0.3KiB does not.
  std::string_view fraction = number.substr(dot + 1);
  std::uint64_t scale = 1;
  for (std::size_t i = 0; i < fraction.size(); ++i) scale *= 10;
  const auto numerator = from_digits(fraction, 10);
  if (!numerator || fraction.size() > 3 || (*numerator << std::min(lg2, 50U)) % scale != 0 || lg2 > 50) {
    return std::nullopt;
  }
  return bytes + (*numerator << lg2) / scale;
}

std::string format_size(std::uint64_t bytes) {
  std::size_t unit = 0;
  if (bytes != 0) unit = std::min<std::size_t>(static_cast<std::size_t>(std::countr_zero(bytes)) / 10, kUnits.size() - 1);
  return fmt::format("{}{}", bytes >> (10 * unit), kUnits[unit]);
}

std::string format_hex(std::uint64_t value) { return fmt::format("{:#x}", value); }

std::string format_page_sizes(std::uint64_t bitmap) {
  if (bitmap == 0) return "none";
  const bool every_size = std::popcount(bitmap) <= 4;
  std::string text;
  while (bitmap != 0) {
    const int first = std::countr_zero(bitmap);
    const int run = every_size ? 1 : std::countr_one(bitmap >> first);
    if (!text.empty()) text += ' ';
    text += format_size(pow2(static_cast<unsigned>(first)));
    if (run > 1) text += ".." + format_size(pow2(static_cast<unsigned>(first + run - 1)));
    const int end = first + run;
    bitmap = end >= 64 ? 0 : bitmap >> end << end;
  }
  return text;
}

std::string format_ranges(std::span<const Range> ranges) {
  std::string text;
  for (const Range& r : ranges) text += fmt::format("{}{:#x}-{:#x}", text.empty() ? "" : " ", r.start, r.last);
  return text.empty() ? "nothing" : text;
}

std::optional<std::string_view> nearest_name(std::string_view word, std::span<const std::string_view> candidates) {
  std::optional<std::string_view> best;
  std::size_t best_distance = std::max<std::size_t>(1, word.size() / 3) + 1;
  for (std::string_view candidate : candidates) {
    const std::size_t distance = edit_distance(word, candidate);
    if (distance < best_distance) {
      best_distance = distance;
      best = candidate;
    }
  }
  return best;
}

bool is_pci_address(std::string_view id) { return pci_key(id).has_value(); }

bool is_uuid(std::string_view id) {
  static constexpr std::string_view kShape = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
  return std::ranges::equal(id, kShape, [](char c, char wanted) {
    return wanted == '-' ? c == '-' : std::isxdigit(static_cast<unsigned char>(c)) != 0;
  });
}

std::string full_pci_address(std::string_view id) {
  static constexpr std::string_view shape = "xxxx:xx:xx.x";
  const std::string full = id.size() == 7 ? "0000:" + std::string(id) : std::string(id);
  const auto fits = [](char c, char wanted) {
    return wanted == 'x' ? std::isxdigit(static_cast<unsigned char>(c)) != 0 : c == wanted;
  };
  if (!std::equal(full.begin(), full.end(), shape.begin(), shape.end(), fits)) return std::string(id);
  std::string lower = full;
  std::ranges::transform(lower, lower.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return lower;
}

std::size_t utf8_length(std::string_view s) {
  const auto at = [&](std::size_t i) { return i < s.size() ? static_cast<unsigned char>(s[i]) : 0U; };
  const auto tail = [&](std::size_t i) { return (at(i) & 0xc0U) == 0x80U; };
  const unsigned lead = at(0);
  if (lead < 0x80) return 1;
  if (lead >= 0xc2 && lead <= 0xdf) return tail(1) ? 2 : 0;
  if (lead >= 0xe0 && lead <= 0xef) {
    const bool overlong = lead == 0xe0 && at(1) < 0xa0;
    const bool surrogate = lead == 0xed && at(1) > 0x9f;
    return tail(1) && tail(2) && !overlong && !surrogate ? 3 : 0;
  }
  if (lead >= 0xf0 && lead <= 0xf4) {
    const bool overlong = lead == 0xf0 && at(1) < 0x90;
    const bool beyond = lead == 0xf4 && at(1) > 0x8f;
    return tail(1) && tail(2) && tail(3) && !overlong && !beyond ? 4 : 0;
  }
  return 0;
}

bool is_one_line(std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t length = is_control(text[i]) ? 0 : utf8_length(text.substr(i, 4));
    if (length == 0) return false;
    i += length;
  }
  return true;
}

std::string escaped(std::string_view text) {
  std::string line;
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t length = is_control(text[i]) ? 0 : utf8_length(text.substr(i, 4));
    line += length == 0 ? fmt::format("\\x{:02x}", static_cast<unsigned char>(text[i])) : std::string(text.substr(i, length));
    i += std::max<std::size_t>(length, 1);
  }
  return line;
}

bool natural_less(std::string_view a, std::string_view b) {
  if (is_printed_address(a) && is_printed_address(b)) return a < b;  // digits are in order, and large answers sort much
  const auto ka = pci_key(a);
  const auto kb = pci_key(b);
  if (ka && kb && *ka != *kb) return *ka < *kb;
  if (ka.has_value() != kb.has_value()) return ka.has_value();
  std::size_t i = 0;
  std::size_t j = 0;
  const auto digit = [](char c) { return c >= '0' && c <= '9'; };
  while (i < a.size() && j < b.size()) {
    if (digit(a[i]) && digit(b[j])) {
      const std::size_t si = i;
      const std::size_t sj = j;
      while (i < a.size() && digit(a[i])) ++i;
      while (j < b.size() && digit(b[j])) ++j;
      std::string_view na = a.substr(si, i - si);
      std::string_view nb = b.substr(sj, j - sj);
      na.remove_prefix(std::min(na.find_first_not_of('0'), na.size()));
      nb.remove_prefix(std::min(nb.find_first_not_of('0'), nb.size()));
      if (na.size() != nb.size()) return na.size() < nb.size();
      if (na != nb) return na < nb;
    } else {
      if (a[i] != b[j]) return a[i] < b[j];
      ++i;
      ++j;
    }
  }
  if (a.size() - i != b.size() - j) return a.size() - i < b.size() - j;
  return a < b;
}

}  // namespace ioplan
