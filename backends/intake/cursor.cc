#include "backends/intake/cursor.h"

#include <algorithm>
#include <charconv>

namespace ioplan::intake {

namespace {

bool blank(char c) { return c == ' ' || c == '\t'; }

bool hex_digit(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }

std::string_view hex_digits(std::string_view text) {
  std::size_t n = 0;
  while (n < text.size() && hex_digit(text[n])) ++n;
  return text.substr(0, n);
}

// What is left of `text` after the literal, or nothing.
std::optional<std::string_view> after(std::string_view text, std::string_view literal) {
  for (const char wanted : literal) {
    if (text.empty()) return std::nullopt;
    if (wanted != ' ') {
      if (text[0] != wanted) return std::nullopt;
      text.remove_prefix(1);
      continue;
    }
    if (!blank(text[0])) return std::nullopt;
    while (!text.empty() && blank(text[0])) text.remove_prefix(1);
  }
  return text;
}

// As many lower-case hexadecimal digits as there are, between `least` and `most`; empty otherwise.
std::string take_digits(Cursor& cursor, std::size_t least, std::size_t most) {
  const std::string_view digits = hex_digits(cursor.rest());
  if (digits.size() < least || digits.size() > most) return {};
  std::string out(digits);
  std::ranges::transform(out, out.begin(), [](char c) { return c >= 'A' && c <= 'F' ? static_cast<char>(c + 32) : c; });
  cursor.skip(digits);
  return out;
}

}  // namespace

bool Cursor::skip(std::string_view literal) {
  const auto left = after(rest_, literal);
  if (left) rest_ = *left;
  return left.has_value();
}

bool Cursor::skip_past(std::string_view literal) {
  for (std::string_view text = rest_; !text.empty(); text.remove_prefix(1)) {
    if (const auto left = after(text, literal)) {
      rest_ = *left;
      return true;
    }
  }
  return false;
}

void Cursor::skip_blanks() {
  while (!rest_.empty() && blank(rest_[0])) rest_.remove_prefix(1);
}

std::optional<std::uint64_t> Cursor::number(int base) {
  std::string_view text = rest_;
  if (base == 16 && (text.starts_with("0x") || text.starts_with("0X"))) text.remove_prefix(2);
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  const auto taken = static_cast<std::size_t>(end - text.data());
  if (error != std::errc{} || (cut_ && taken == text.size())) return std::nullopt;
  rest_ = text.substr(taken);
  return value;
}

std::optional<std::uint64_t> Cursor::hex() { return number(16); }
std::optional<std::uint64_t> Cursor::decimal() { return number(10); }

std::string_view Cursor::word() {
  skip_blanks();
  const std::size_t n = std::min(rest_.size(), rest_.find_first_of(" \t"));
  const std::string_view out = rest_.substr(0, n);
  rest_.remove_prefix(n);
  return out;
}

std::string_view Cursor::until(char end) {
  const std::size_t n = rest_.find(end);
  const std::string_view out = rest_.substr(0, n);
  rest_.remove_prefix(n == std::string_view::npos ? rest_.size() : n + 1);
  return out;
}

std::optional<std::string> take_pci_address(Cursor& cursor) {
  Cursor ahead = cursor;
  const std::string first = take_digits(ahead, 2, 8);
  if (first.empty() || !ahead.skip(":")) return std::nullopt;
  std::string segment = "0000", bus = first, slot = take_digits(ahead, 2, 2);
  if (slot.empty()) return std::nullopt;
  if (ahead.skip(":")) {
    segment = first;
    bus = slot;
    slot = take_digits(ahead, 2, 2);
  }
  if (segment.size() < 4 || bus.size() != 2 || slot.empty() || slot > "1f" || !ahead.skip(".")) return std::nullopt;
  const std::string function = take_digits(ahead, 1, 1);
  if (function.empty() || function > "7") return std::nullopt;
  cursor = ahead;
  return segment + ":" + bus + ":" + slot + "." + function;
}

std::optional<std::string> pci_address(std::string_view text) {
  Cursor cursor(text);
  auto out = take_pci_address(cursor);
  return cursor.at_end() ? out : std::nullopt;
}

std::optional<PciIds> take_pci_ids(Cursor& cursor) {
  Cursor ahead = cursor;
  const std::string vendor = take_digits(ahead, 4, 4);
  if (vendor.empty() || !ahead.skip(":")) return std::nullopt;
  const std::string device = take_digits(ahead, 4, 4);
  if (device.empty()) return std::nullopt;
  cursor = ahead;
  const auto value = [](const std::string& digits) {
    std::uint16_t out = 0;
    std::from_chars(digits.data(), digits.data() + digits.size(), out, 16);
    return out;
  };
  return PciIds{value(vendor), value(device)};
}

}  // namespace ioplan::intake
