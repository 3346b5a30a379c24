// Strict typed reading of a Tree: every value has one accepted spelling, everything else is an error with its place.
//
// A Reader keeps the first error and goes quiet: after it, and for fields that are absent, every read returns a
// default. So the code that fills a model reads straight down, without a check a line, and asks ok() once at the end of
// a section (and in loops, to stop early). Messages follow engine/base/error.h; README.md lists the error classes.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "engine/base/error.h"
#include "engine/base/range.h"
#include "engine/document/node.h"

namespace ioplan {

// A value and the key it was written under, which names it in messages. False when absent.
struct Field {
  Node value;
  std::string_view key;

  explicit operator bool() const { return static_cast<bool>(value); }
};

using Names = std::span<const std::string_view>;

// The user's words for a message: in backticks, on one line, shortened when long.
std::string in_backticks(std::string_view words);

// "`a`, `b`, `c`".
std::string list_of(Names names);

// "did you mean `b`?" when a name is near; otherwise "accepted: `a`, `b`, `c`".
std::string advice_for(std::string_view word, Names names);

class Reader {
 public:
  bool ok() const { return !error_; }
  const Error& error() const { return *error_; }  // requires: !ok()

  // Keeps the first failure only.
  void fail(const Node& at, std::string message, std::string help = {});

  // Scalars. Text is any scalar on one line; prose may also hold line breaks.
  std::string text(const Field& field);
  std::string prose(const Field& field);
  bool boolean(const Field& field);                                // `true` or `false`
  std::uint64_t integer(const Field& field, unsigned width = 64);  // decimal or 0x; fits in `width` bits
  std::uint64_t size(const Field& field);                          // bytes: `512GiB`
  std::uint64_t page_size(const Field& field);                     // a size: a power of two, 4KiB or more
  Range range(const Field& field, unsigned width = 64);            // [start, last], start <= last
  std::size_t choice(const Field& field, Names names);             // index into `names`

  template <class E, std::size_t N>
  E enumeration(const Field& field, const std::array<std::string_view, N>& names) {
    return static_cast<E>(choice(field, names));
  }

  // Calls `each(Field)` for the items of a list, until one fails.
  template <class F>
  void items(const Field& field, F each) {
    if (!is_list(field)) return;
    for (Node n = field.value.first(); n && ok(); n = field.value.after(n)) each(Field{n, field.key});
  }

  // The same, where a single value may stand for a list of one. An empty list is an error: it would mean "any".
  template <class F>
  void one_or_more(const Field& field, F each) {
    if (!field || !ok()) return;
    if (!field.value.is_sequence()) return each(field);
    if (field.value.size() == 0) return fail(field.value, in_backticks(field.key) + " is an empty list");
    items(field, each);
  }

 private:
  bool is_scalar(const Field& field, std::string_view wanted);
  bool is_list(const Field& field);
  void wrong_type(const Field& field, std::string_view wanted);
  void explain_integer(const Field& field);
  void explain_size(const Field& field);

  std::optional<Error> error_;
};

// A map with a fixed set of keys. The constructor refuses unknown and duplicate ones.
class MapReader {
 public:
  static constexpr std::size_t kMaxKeys = 32;

  // `where` names the map in messages. `keys` outlives this; at most kMaxKeys.
  MapReader(Reader& reader, Node map, std::string_view where, Names keys);

  Field optional(std::string_view key) const;  // `key` is one of `keys`
  Field required(std::string_view key) const;
  Node node() const { return map_; }

 private:
  void add(Node key, Node value);

  Reader& reader_;
  Node map_;
  std::string_view where_;
  Names keys_;
  std::array<Node, kMaxKeys> values_;
};

}  // namespace ioplan
