#include "engine/document/document_text.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <string_view>

namespace ioplan {

namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kWidth = 120;

// Bytes that are not UTF-8 (a name that never came from a document) become U+FFFD rather than an exception.
std::string dump(const Json& json, int indent = -1) {
  return json.dump(indent, ' ', false, Json::error_handler_t::replace);
}

// Words that no reader of YAML takes for anything but text may stand without quotes.
bool is_plain(std::string_view s) {
  static constexpr std::string_view letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
  static constexpr std::string_view inner = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./";
  static constexpr std::array<std::string_view, 9> taken = {"true", "false", "null", "yes", "no",
                                                            "on",   "off",   "y",    "n"};
  if (s.empty() || letters.find(s[0]) == std::string_view::npos) return false;
  if (s.find_first_not_of(inner) != std::string_view::npos) return false;
  std::string lower(s);
  for (char& c : lower) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  return std::ranges::find(taken, lower) == taken.end();
}

bool is_hex_number(std::string_view s) {
  return s.size() > 2 && s.starts_with("0x") && s.find_first_not_of("0123456789abcdef", 2) == std::string_view::npos;
}

bool all_scalars(const Json& json) {
  return std::ranges::none_of(json, [](const Json& j) { return j.is_structured(); });
}

class YamlWriter {
 public:
  explicit YamlWriter(YamlStyle style) : style_(style) {}

  // A block map or list. Its first line goes on where "- " of a list has begun one.
  void append(const Json& json, std::size_t indent) {
    for (const auto& [key, value] : json.items()) {
      if (!text_.ends_with(' ')) text_.append(indent, ' ');
      text_ += json.is_object() ? word(key) + ":" : "-";
      if (const std::string line = on_one_line(value, indent); !line.empty()) {
        text_ += " " + line + "\n";
      } else if (json.is_array()) {
        text_ += " ";
        append(value, indent + 2);
      } else {
        text_ += "\n";
        append(value, indent + 2);
      }
    }
  }

  std::string take() { return std::move(text_); }

 private:
  bool compact() const { return style_ == YamlStyle::compact; }

  std::string word(const std::string& s) const {
    return is_plain(s) || (compact() && is_hex_number(s)) ? s : dump(Json(s));
  }

  // Empty when the value needs lines of its own.
  std::string on_one_line(const Json& value, std::size_t indent) const {
    if (!compact()) return !value.is_structured() || value.empty() || (value.is_array() && all_scalars(value)) ? flow(value) : "";
    if (value.is_array() && !value.empty() && !all_scalars(value)) return {};
    std::string line = flow(value);
    return value.is_structured() && !value.empty() && indent + line.size() + 2 > kWidth ? std::string() : line;
  }

  std::string flow(const Json& json) const {
    if (json.is_string()) return word(json.get_ref<const std::string&>());
    if (!json.is_structured()) return dump(json);
    std::string text;
    for (const auto& [key, value] : json.items()) {
      text += text.empty() ? "" : ", ";
      text += json.is_object() ? word(key) + ": " + flow(value) : flow(value);
    }
    return json.is_object() ? "{" + text + "}" : "[" + text + "]";
  }

  YamlStyle style_;
  std::string text_;
};

}  // namespace

std::string json_text(const Json& tree) { return dump(tree, 2) + "\n"; }

std::string yaml_text(const Json& tree, YamlStyle style) {
  YamlWriter writer(style);
  writer.append(tree, 0);
  return writer.take();
}

}  // namespace ioplan
