// "The world said no": an error is a value with the user's words, the place and the advice. The other two kinds of no
// are a verdict (engine/model/plan.h), which is an answer, and a broken invariant, which aborts.
//
// Style of messages: lowercase, one line, no final period, the user's words in backticks; what to do goes into `help`.
#pragma once

#include <cstdint>
#include <string>
#include <tl/expected.hpp>
#include <utility>

namespace ioplan {

// Where in the user's files. line and col start at 1; line 0 means the file as a whole.
struct Place {
  std::string file;
  std::uint32_t line = 0;
  std::uint32_t col = 0;

  friend auto operator<=>(const Place&, const Place&) = default;
};

struct Error {
  std::string message;
  std::string help;      // empty when there is nothing to advise
  Place place;           // file empty when no file is to blame
  int errno_value = 0;   // set when a kernel (or the simulator) refused
};

template <class T>
using Result = tl::expected<T, Error>;

inline tl::unexpected<Error> failure(std::string message, std::string help = {}, Place place = {}) {
  return tl::make_unexpected(Error{std::move(message), std::move(help), std::move(place), 0});
}

// "file:line:col: message" and, on a second line, "help: advice".
std::string to_text(const Error& error);

// "file:line:col", or "file", or "".
std::string to_text(const Place& place);

}  // namespace ioplan
