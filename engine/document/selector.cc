#include "engine/document/selector.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <vector>

#include "engine/base/text.h"
#include "engine/document/host_document.h"

namespace ioplan {

namespace {

// PCI base classes (PCI Code and ID Assignment, section 1).
struct BaseClass {
  std::string_view name;
  std::uint64_t code;
};
constexpr std::array<BaseClass, 14> kBaseClasses = {{{"storage", 0x01},
                                                     {"network", 0x02},
                                                     {"display", 0x03},
                                                     {"multimedia", 0x04},
                                                     {"memory", 0x05},
                                                     {"bridge", 0x06},
                                                     {"communication", 0x07},
                                                     {"system", 0x08},
                                                     {"input", 0x09},
                                                     {"serial", 0x0c},
                                                     {"wireless", 0x0d},
                                                     {"encryption", 0x10},
                                                     {"signal", 0x11},
                                                     {"accelerator", 0x12}}};

// Names and ids read the same however often and in whatever order they were written.
template <class T>
void sort_unique(std::vector<T>& values) {
  std::ranges::sort(values);
  values.erase(std::unique(values.begin(), values.end()), values.end());
}

void read_words(Reader& reader, const Field& field, std::vector<std::string>& words) {
  reader.one_or_more(field, [&](const Field& f) { words.push_back(reader.text(f)); });
  sort_unique(words);
}

void read_integers(Reader& reader, const Field& field, DeviceFact fact, std::vector<std::uint64_t>& values) {
  reader.one_or_more(field, [&](const Field& f) { values.push_back(reader.integer(f, row_of(fact).width)); });
  sort_unique(values);
}

}  // namespace

Selector::ClassMatch read_class(Reader& reader, const Field& field) {
  const std::string words = reader.text(field);
  if (!field || !reader.ok()) return {};
  const auto named = std::ranges::find(kBaseClasses, words, &BaseClass::name);
  if (named != kBaseClasses.end()) return {named->code << 16, 0xff0000};
  const auto code = words.starts_with("0x") ? parse_integer(words) : std::nullopt;
  const std::size_t digits = words.size() - std::min<std::size_t>(words.size(), 2);
  if (code && (digits == 2 || digits == 4 || digits == 6)) {
    const auto missing = static_cast<unsigned>(4 * (6 - digits));
    return {*code << missing, std::uint64_t{0xffffff} >> missing << missing};
  }
  std::vector<std::string_view> names;
  for (const BaseClass& c : kBaseClasses) names.push_back(c.name);
  reader.fail(
      field.value, fmt::format("unknown class {}", in_backticks(words)),
      parse_integer(words) ? "write 2, 4 or 6 hex digits: `0x03`, `0x0300` or `0x030000`" : advice_for(words, names));
  return {};
}

std::string class_code(const Selector::ClassMatch& match) {
  const auto missing = static_cast<unsigned>(std::countr_zero(match.mask | 0x1000000));
  return fmt::format("0x{:0{}x}", match.code >> missing, (24 - missing) / 4);
}

Selector read_selector(Reader& reader, const Field& field, const Host& host) {
  static constexpr std::array<std::string_view, 7> keys = {"host", "class", "vendor", "device",
                                                           "name", "numa",  "label"};
  Selector selector;
  if (!field) return selector;
  const MapReader map(reader, field.value, field.key, keys);
  reader.one_or_more(map.optional("host"), [&](const Field& f) {
    find_device(reader, f, host);
    selector.host.push_back(reader.text(f));
  });
  sort_unique(selector.host);
  read_words(reader, map.optional("name"), selector.name);
  read_words(reader, map.optional("label"), selector.label);
  read_integers(reader, map.optional("vendor"), DeviceFact::vendor, selector.vendor);
  read_integers(reader, map.optional("device"), DeviceFact::device, selector.device);
  read_integers(reader, map.optional("numa"), DeviceFact::numa, selector.numa);
  reader.one_or_more(map.optional("class"),
                     [&](const Field& f) { selector.device_class.push_back(read_class(reader, f)); });
  std::ranges::sort(selector.device_class, {}, [](const auto& c) { return std::pair(c.code, c.mask); });
  return selector;
}

}  // namespace ioplan
