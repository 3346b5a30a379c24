#include "engine/document/reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cctype>
#include <charconv>

#include "engine/base/log2.h"
#include "engine/base/text.h"

namespace ioplan {

namespace {

constexpr std::size_t kLongestWords = 80;
constexpr std::size_t kLongestSuggested = 64;  // edit distance costs length times length

bool is_control(char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }

std::string describe(const Node& n) {
  switch (n.kind()) {
    case NodeKind::null:
      return "nothing";
    case NodeKind::sequence:
      return "a list";
    case NodeKind::map:
      return "a map";
    case NodeKind::scalar:
      break;
  }
  return in_backticks(n.text());
}

bool all_of(std::string_view s, std::string_view accepted) {
  return !s.empty() && s.find_first_not_of(accepted) == std::string_view::npos;
}

bool is_number(std::string_view s) {
  if (s.starts_with("0x") || s.starts_with("0X")) return all_of(s.substr(2), "0123456789abcdefABCDEF");
  return all_of(s, "0123456789");
}

// What `010` or `0o10` reads as in decimal and, where its digits allow, in octal.
std::string octal_advice(std::string_view text) {
  std::string_view digits = text.substr(
      text.find_first_not_of("0oO") == std::string_view::npos ? text.size() - 1 : text.find_first_not_of("0oO"));
  std::uint64_t octal = 0;
  const auto [end, ec] = std::from_chars(digits.data(), digits.data() + digits.size(), octal, 8);
  const bool is_octal = ec == std::errc() && end == digits.data() + digits.size();
  if (!is_octal || digits.size() == 1) return fmt::format("write {}", in_backticks(digits));
  return fmt::format("write {} for decimal, or `{:#x}` if octal was meant", in_backticks(digits), octal);
}

// `512G`, `512gb` -> `512GiB`.
std::optional<std::string> with_binary_unit(std::string_view text) {
  const std::size_t digits = std::min(text.find_first_not_of("0123456789."), text.size());
  std::string_view unit = text.substr(digits);
  while (unit.starts_with(' ')) unit.remove_prefix(1);
  if (digits == 0 || unit.empty() || unit.size() > 3) return std::nullopt;
  const char prefix = static_cast<char>(std::toupper(static_cast<unsigned char>(unit[0])));
  if (std::string_view("KMGTPE").find(prefix) == std::string_view::npos) return std::nullopt;
  std::string guess = std::string(text.substr(0, digits)) + prefix + "iB";
  return parse_size(guess) ? std::optional(guess) : std::nullopt;
}

}  // namespace

std::string in_backticks(std::string_view words) {
  std::string text = "`";
  for (std::size_t i = 0; i < words.size(); ++i) {
    // Not in the middle of a UTF-8 character.
    if (i >= kLongestWords && (static_cast<unsigned char>(words[i]) & 0xc0) != 0x80) {
      text += "...";
      break;
    }
    if (is_control(words[i])) {
      fmt::format_to(std::back_inserter(text), "\\x{:02x}", static_cast<unsigned char>(words[i]));
    } else {
      text += words[i];
    }
  }
  return text + "`";
}

std::string list_of(Names names) {
  std::string text;
  for (std::string_view name : names) text += (text.empty() ? "`" : ", `") + std::string(name) + "`";
  return text;
}

std::string advice_for(std::string_view word, Names names) {
  if (word.size() <= kLongestSuggested) {
    if (const auto near = nearest_name(word, names)) return "did you mean `" + std::string(*near) + "`?";
  }
  return names.empty() ? std::string() : "accepted: " + list_of(names);
}

void Reader::fail(const Node& at, std::string message, std::string help) {
  if (!ok()) return;
  error_ = Error{std::move(message), std::move(help), at ? at.place() : Place{}, 0};
}

void Reader::wrong_type(const Field& field, std::string_view wanted) {
  std::string help;
  if (field.value.is_null()) help = "leave the key out when there is nothing to say";
  fail(field.value, fmt::format("{} must be {}, not {}", in_backticks(field.key), wanted, describe(field.value)),
       std::move(help));
}

bool Reader::is_scalar(const Field& field, std::string_view wanted) {
  if (!field || !ok()) return false;
  if (!field.value.is_scalar()) wrong_type(field, wanted);
  return ok();
}

bool Reader::is_list(const Field& field) {
  if (!field || !ok()) return false;
  if (!field.value.is_sequence()) wrong_type(field, "a list");
  return ok();
}

std::string Reader::prose(const Field& field) {
  return is_scalar(field, "text") ? std::string(field.value.text()) : std::string();
}

std::string Reader::text(const Field& field) {
  std::string words = prose(field);
  if (!field || !ok()) return {};
  if (words.empty()) fail(field.value, in_backticks(field.key) + " is empty");
  if (std::ranges::any_of(words, is_control)) {
    fail(field.value, fmt::format("{} holds a control character: {}", in_backticks(field.key), in_backticks(words)));
  }
  return words;
}

bool Reader::boolean(const Field& field) {
  if (!is_scalar(field, "`true` or `false`")) return false;
  const std::string_view words = field.value.text();
  const bool valid = words == "true" || words == "false";
  if (valid && !field.value.quoted()) return words == "true";
  if (valid) {
    fail(field.value, fmt::format("{} must be `true` or `false`, not text", in_backticks(field.key)),
         "leave out the quotes");
  } else {
    wrong_type(field, "`true` or `false`");
  }
  return false;
}

void Reader::explain_integer(const Field& field) {
  const std::string_view words = field.value.text();
  const std::string key = in_backticks(field.key);
  if (looks_octal(words)) {
    fail(field.value,
         fmt::format("{} in {} looks octal, and readers disagree about its value", in_backticks(words), key),
         octal_advice(words));
  } else if (words.starts_with('-') && is_number(words.substr(1))) {
    fail(field.value, fmt::format("{} must not be negative: {}", key, in_backticks(words)));
  } else {
    wrong_type(field, "an integer");
  }
}

std::uint64_t Reader::integer(const Field& field, unsigned width) {
  if (!is_scalar(field, "an integer")) return 0;
  const std::string_view words = field.value.text();
  const auto value = parse_integer(words);
  if (value && *value <= last_of_width(width)) return *value;
  if (value || (is_number(words) && !looks_octal(words))) {
    fail(field.value, fmt::format("{} in {} does not fit in {} bit{}", in_backticks(words), in_backticks(field.key),
                                  width, width == 1 ? "" : "s"));
  } else {
    explain_integer(field);
  }
  return 0;
}

void Reader::explain_size(const Field& field) {
  const std::string_view words = field.value.text();
  if (is_number(words)) {
    const std::string number = words.starts_with('0') ? "512" : std::string(words.substr(0, 12));
    fail(field.value, fmt::format("size {} has no unit", in_backticks(words)),
         fmt::format("write `{0}GiB`, `{0}MiB`, `{0}KiB` or `{0}B`", number));
  } else if (const auto guess = with_binary_unit(words); guess && *guess != words) {
    fail(field.value, fmt::format("size {} has no binary unit", in_backticks(words)), "write `" + *guess + "`");
  } else {
    fail(field.value, fmt::format("{} is not a size below 16EiB", in_backticks(words)),
         "write a number and a unit, `512GiB` or `4KiB`");
  }
}

std::uint64_t Reader::size(const Field& field) {
  if (!is_scalar(field, "a size")) return 0;
  const auto bytes = parse_size(field.value.text());
  if (!bytes) explain_size(field);
  return bytes.value_or(0);
}

std::uint64_t Reader::page_size(const Field& field) {
  const std::uint64_t bytes = size(field);
  if (!field || !ok()) return 0;
  if (!std::has_single_bit(bytes) || bytes < 4096) {
    fail(field.value, fmt::format("{} must be a power of two of at least 4KiB, not {}", in_backticks(field.key),
                                  in_backticks(field.value.text())));
  }
  return bytes;
}

Range Reader::range(const Field& field, unsigned width) {
  if (!field || !ok()) return {};
  if (!field.value.is_sequence() || field.value.size() != 2) {
    fail(field.value, fmt::format("{} must be a range `[start, last]`", in_backticks(field.key)),
         "both addresses are inclusive: `[0xfee00000, 0xfeefffff]`");
    return {};
  }
  const Node first = field.value.first();
  const Range range{integer({first, field.key}, width), integer({field.value.after(first), field.key}, width)};
  if (ok() && range.last < range.start) {
    fail(field.value,
         fmt::format("range `[{:#x}, {:#x}]` is empty or wraps: it ends below its start", range.start, range.last),
         "ranges are `[start, last]`, both inclusive");
  }
  return ok() ? range : Range{};
}

std::size_t Reader::choice(const Field& field, Names names) {
  if (!is_scalar(field, "one of " + list_of(names))) return 0;
  const std::string_view words = field.value.text();
  const auto it = std::ranges::find(names, words);
  if (it != names.end()) return static_cast<std::size_t>(it - names.begin());
  fail(field.value, fmt::format("unknown value {} of {}", in_backticks(words), in_backticks(field.key)),
       advice_for(words, names));
  return 0;
}

MapReader::MapReader(Reader& reader, Node map, std::string_view where, Names keys)
    : reader_(reader), map_(map), where_(where), keys_(keys) {
  if (!map || !reader.ok()) return;
  if (!map.is_map()) {
    reader.fail(map, fmt::format("{} must be a map, not {}", in_backticks(where), describe(map)));
    return;
  }
  for (Node k = map.first(); k && reader.ok(); k = map.after(map.after(k))) add(k, map.after(k));
}

void MapReader::add(Node key, Node value) {
  const auto it = std::ranges::find(keys_, key.text());
  if (it == keys_.end()) {
    reader_.fail(key, fmt::format("unknown key {} in {}", in_backticks(key.text()), in_backticks(where_)),
                 advice_for(key.text(), keys_));
    return;
  }
  Node& slot = values_[static_cast<std::size_t>(it - keys_.begin())];
  if (slot) {
    const Node first = [&] {
      Node k = map_.first();
      while (k.text() != key.text()) k = map_.after(map_.after(k));
      return k;
    }();
    reader_.fail(key,
                 fmt::format("duplicate key {}; the first is at {}", in_backticks(key.text()), to_text(first.place())));
  }
  slot = value;
}

Field MapReader::optional(std::string_view key) const {
  const auto it = std::ranges::find(keys_, key);
  if (!reader_.ok() || it == keys_.end()) return {{}, key};
  return {values_[static_cast<std::size_t>(it - keys_.begin())], key};
}

Field MapReader::required(std::string_view key) const {
  const Field field = optional(key);
  if (!field) reader_.fail(map_, fmt::format("{} has no {}", in_backticks(where_), in_backticks(key)));
  return field;
}

}  // namespace ioplan
