// C text as words, symbols and directives: as much of C's lexis as finding names takes.
#pragma once

#include <cstddef>
#include <string_view>

namespace ioplan::extract {

struct Token {
  enum Kind { word, symbol, directive, end } kind = end;
  std::size_t start = 0, last = 0;  // [start, last)
};

// Comments are skipped; a string is one symbol, a directive with its continuation lines one token. The text outlives
// this.
class Scanner {
 public:
  explicit Scanner(std::string_view text) : text_(text) {}

  Token next();
  std::string_view spelled(const Token& t) const { return text_.substr(t.start, t.last - t.start); }
  bool is(const Token& t, char c) const { return t.kind == Token::symbol && text_[t.start] == c; }

 private:
  bool at(std::string_view what) const { return text_.substr(at_, what.size()) == what; }
  void skip_blank();
  void skip_comment();
  void skip_directive();
  void skip_string();

  std::string_view text_;
  std::size_t at_ = 0;
  bool line_starts_ = true;
};

}  // namespace ioplan::extract
