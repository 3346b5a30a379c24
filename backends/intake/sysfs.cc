#include "backends/intake/sysfs.h"

#include <fmt/format.h>

#include <charconv>

#include "engine/base/text.h"

namespace ioplan::intake {

namespace {

// A page: the most that an attribute of sysfs shows.
constexpr std::size_t kAttribute = 4096;

std::string whole(std::string_view text) { return std::string(text); }

std::string shortened(const std::string& text) {
  return text.size() <= 60 ? escaped(text) : escaped(text.substr(0, 60)) + "...";
}

}  // namespace

std::optional<std::string> Sysfs::text(const std::string& path) { return text(path, kAttribute, whole); }

std::optional<std::string> Sysfs::text(const std::string& path, std::size_t most, const Excerpt& excerpt) {
  auto read = bytes(path, most, excerpt);
  while (read && read->ends_with('\n')) read->pop_back();
  return read;
}

std::optional<std::string> Sysfs::bytes(const std::string& path, std::size_t most, const Excerpt& excerpt) {
  auto read = files_.read(path, most, excerpt);
  return read ? std::optional(std::move(*read)) : std::nullopt;
}

std::optional<std::uint64_t> Sysfs::decimal(const std::string& path) {
  const auto line = text(path);
  return line ? number_of(*line, 10) : std::nullopt;
}

std::optional<std::string> Sysfs::link(const std::string& path) {
  auto target = files_.link(path);
  return target ? std::optional(std::move(*target)) : std::nullopt;
}

std::vector<std::string> Sysfs::list(const std::string& path) {
  auto names = files_.list(path);
  return names ? std::move(*names) : std::vector<std::string>();
}

std::optional<std::uint64_t> Sysfs::state_hex(FactName name, const std::string& path) {
  const auto line = text(path);
  const auto value = line ? number_of(*line, 16) : std::nullopt;
  if (value) {
    findings_.state(std::move(name), *value, path);
  } else {
    findings_.miss(std::move(name), line ? fmt::format("{} holds `{}`", path, shortened(*line)) : path + " cannot be read", {});
  }
  return value;
}

void Sysfs::state_text(FactName name, const std::string& path) {
  if (auto line = text(path); line && !line->empty()) findings_.state(std::move(name), std::move(*line), path);
}

void Sysfs::state_link(FactName name, const std::string& path) {
  if (auto target = link(path)) findings_.state(std::move(name), std::move(*target), path);
}

std::optional<std::uint64_t> number_of(std::string_view text, int base) {
  if (base == 16 && text.starts_with("0x")) text.remove_prefix(2);
  std::uint64_t value = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  return text.empty() || ec != std::errc() || end != text.data() + text.size() ? std::nullopt : std::optional(value);
}

std::vector<std::string_view> words_of(std::string_view text) {
  constexpr std::string_view blanks = " \t\n";
  std::vector<std::string_view> words;
  for (std::size_t at = text.find_first_not_of(blanks); at != std::string_view::npos;) {
    const std::size_t end = std::min(text.find_first_of(blanks, at), text.size());
    words.push_back(text.substr(at, end - at));
    at = text.find_first_not_of(blanks, end);
  }
  return words;
}

}  // namespace ioplan::intake
