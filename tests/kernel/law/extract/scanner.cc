#include "tests/kernel/law/extract/scanner.h"

#include <algorithm>
#include <cctype>

namespace ioplan::extract {

namespace {

bool is_blank(char c) { return std::isspace(static_cast<unsigned char>(c)) != 0; }
bool is_word_char(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_'; }

}  // namespace

Token Scanner::next() {
  skip_blank();
  Token t{Token::end, at_, at_};
  if (at_ >= text_.size()) return t;
  const char c = text_[at_];
  if (c == '#' && line_starts_) {
    t.kind = Token::directive;
    skip_directive();
  } else if (is_word_char(c)) {
    t.kind = Token::word;
    while (at_ < text_.size() && is_word_char(text_[at_])) ++at_;
  } else {
    t.kind = Token::symbol;
    c == '"' || c == '\'' ? skip_string() : void(++at_);
  }
  line_starts_ = false;
  t.last = std::min(at_, text_.size());
  return t;
}

void Scanner::skip_blank() {
  for (; at_ < text_.size(); ++at_) {
    while (at("/*") || at("//")) skip_comment();
    if (at_ >= text_.size() || !is_blank(text_[at_])) return;
    line_starts_ |= text_[at_] == '\n';
  }
}

void Scanner::skip_comment() {
  const bool block = at("/*");
  const std::size_t end = block ? text_.find("*/", at_ + 2) : text_.find('\n', at_);
  at_ = end == text_.npos ? text_.size() : block ? end + 2 : end;
}

void Scanner::skip_directive() {
  while (at_ < text_.size() && text_[at_] != '\n') {
    if (at("/*")) {
      skip_comment();
    } else {
      at_ += at("\\\n") ? 2 : 1;
    }
  }
}

void Scanner::skip_string() {
  const char quote = text_[at_++];
  while (at_ < text_.size() && text_[at_] != quote) at_ += text_[at_] == '\\' ? 2 : 1;
  ++at_;
}

}  // namespace ioplan::extract
