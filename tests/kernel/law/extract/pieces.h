// A C file as pieces: its macros, types, variables, functions and declarations, each with its name and its text.
//
// The parser knows the kernel's style, not the language: a piece ends at a `;` outside all brackets, or with a
// function's body. Conditionals around a piece are kept, so that both sides of an #ifdef are pieces and can be written
// out again.
#pragma once

#include <cstddef>
#include <set>
#include <string>
#include <vector>

namespace ioplan::extract {

struct Piece {
  enum Kind { macro, type, forward, variable, function, prototype } kind = macro;
  std::vector<std::string> names;  // tags with their keyword: `struct device`; enumerations with their members
  std::string text;
  std::size_t body = 0;                 // functions: where the body starts in `text`
  bool is_inline = false;               // functions
  std::vector<std::string> conditions;  // for every #if around it the directives up to here
  std::string file;
  std::size_t line = 0;
};

std::vector<Piece> pieces_of(const std::string& file, const std::string& text);

// Every name that a text could mean: not the members behind `.` and `->`.
std::set<std::string> names_in(const std::string& text);

}  // namespace ioplan::extract
