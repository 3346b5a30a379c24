#include "tests/kernel/law/extract/pieces.h"

#include <algorithm>
#include <array>

#include "tests/kernel/law/extract/scanner.h"

namespace ioplan::extract {

namespace {

bool is_tag_keyword(std::string_view word) { return word == "struct" || word == "union" || word == "enum"; }

// Words that may stand behind a variable's name.
bool is_section(std::string_view word) {
  constexpr std::array<std::string_view, 4> kSections = {"__initdata", "__initconst", "__ro_after_init",
                                                         "__read_mostly"};
  return std::ranges::find(kSections, word) != kSections.end();
}

// What a declaration looks like from outside its brackets.
struct Outline {
  std::vector<std::string> words;  // tokens at depth 0; opening brackets among them, closing ones not
  std::vector<std::string> enumerators;
  std::string pointer_name;  // the word behind the first `(*`
  std::size_t start = 0, last = 0, body = 0;

  // The first of this symbol; size() when there is none. The bracket of an __attribute__ does not count.
  std::size_t find(std::string_view symbol) const {
    for (std::size_t i = 0; i < words.size(); ++i) {
      if (words[i] == symbol && (i == 0 || words[i - 1] != "__attribute__")) return i;
    }
    return words.size();
  }
  std::string word(std::size_t i) const { return i < words.size() ? words[i] : std::string(); }
};

class Parser {
 public:
  Parser(const std::string& file, const std::string& text) : file_(file), text_(text), scanner_(text_) {}

  std::vector<Piece> parse() {
    token_ = scanner_.next();
    while (token_.kind != Token::end) {
      if (token_.kind == Token::directive) {
        take_directive(std::string(scanner_.spelled(token_)));
        token_ = scanner_.next();
      } else {
        take_declaration();
      }
    }
    return std::move(pieces_);
  }

 private:
  Piece& add(Piece::Kind kind, std::vector<std::string> names, std::size_t start, std::size_t last) {
    Piece& piece = pieces_.emplace_back();
    piece.kind = kind;
    piece.names = std::move(names);
    piece.text = text_.substr(start, last - start);
    piece.conditions = conditions_;
    piece.file = file_;
    line_ += static_cast<std::size_t>(std::count(text_.data() + counted_, text_.data() + start, '\n'));
    counted_ = start;
    piece.line = line_;
    return piece;
  }

  void take_directive(const std::string& text) {
    Scanner words(std::string_view(text).substr(1));
    const std::string_view verb = words.spelled(words.next());
    if (verb == "if" || verb == "ifdef" || verb == "ifndef") {
      conditions_.push_back(text);
    } else if ((verb == "elif" || verb == "else") && !conditions_.empty()) {
      conditions_.back() += "\n" + text;
    } else if (verb == "endif" && !conditions_.empty()) {
      conditions_.pop_back();
    } else if (verb == "define") {
      add(Piece::macro, {std::string(words.spelled(words.next()))}, token_.start, token_.last);
    }
  }

  void take_declaration() {
    Outline o;
    o.start = token_.start;
    bool enumeration = false;
    int depth = 0;
    Token before, before_that;
    for (; token_.kind != Token::end; token_ = scanner_.next()) {
      if (token_.kind == Token::directive) continue;
      if (depth == 0) {
        if (scanner_.is(token_, '{') && scanner_.is(before, ')')) o.body = token_.start - o.start;
        o.words.emplace_back(scanner_.spelled(token_));
        enumeration |= o.words.back() == "enum";
      } else if (token_.kind == Token::word && depth == 1) {
        const bool first = scanner_.is(before, '{') || scanner_.is(before, ',');
        if (enumeration && first) o.enumerators.emplace_back(scanner_.spelled(token_));
        const bool pointer = scanner_.is(before, '*') && scanner_.is(before_that, '(');
        if (pointer && o.pointer_name.empty()) o.pointer_name = scanner_.spelled(token_);
      }
      depth += change_of_depth();
      before_that = before;
      before = token_;
      if (depth == 0 && (scanner_.is(token_, ';') || (o.body != 0 && scanner_.is(token_, '}')))) break;
    }
    o.last = token_.last;
    token_ = scanner_.next();
    classify(o);
  }

  int change_of_depth() const {
    if (token_.kind != Token::symbol) return 0;
    const char c = text_[token_.start];
    return c == '{' || c == '(' || c == '[' ? 1 : c == '}' || c == ')' || c == ']' ? -1 : 0;
  }

  void classify(const Outline& o) {
    const std::size_t paren = o.find("("), equals = o.find("="), brace = o.find("{");
    const bool tagged = is_tag_keyword(o.word(0));
    if (o.word(0) == "typedef") {
      add(Piece::type, {o.pointer_name.empty() ? o.word(o.words.size() - 2) : o.pointer_name}, o.start, o.last);
    } else if (o.body != 0 && paren > 0) {
      add_function(o, paren);
    } else if (tagged && brace <= 2 && brace < equals) {
      std::vector<std::string> names = o.enumerators;
      if (brace == 2) names.push_back(o.word(0) + " " + o.word(1));
      add(Piece::type, std::move(names), o.start, o.last);
    } else if (tagged && o.words.size() == 3) {
      add(Piece::forward, {o.word(0) + " " + o.word(1)}, o.start, o.last);
    } else if (paren > 0 && paren < equals) {
      add(Piece::prototype, {o.word(paren - 1)}, o.start, o.last);
    } else {
      add_variable(o, std::min({equals, o.find("["), o.find(";")}));
    }
  }

  void add_function(const Outline& o, std::size_t paren) {
    Piece& piece = add(Piece::function, {o.word(paren - 1)}, o.start, o.last);
    piece.body = o.body;
    piece.is_inline = std::any_of(o.words.begin(), o.words.begin() + static_cast<std::ptrdiff_t>(paren),
                                  [](const std::string& w) { return w == "inline" || w == "__always_inline"; });
  }

  void add_variable(const Outline& o, std::size_t behind_name) {
    while (behind_name > 1 && is_section(o.word(behind_name - 1))) --behind_name;
    if (behind_name > 0) add(Piece::variable, {o.word(behind_name - 1)}, o.start, o.last);
  }

  const std::string& file_;
  const std::string& text_;
  Scanner scanner_;
  Token token_;
  std::vector<std::string> conditions_;
  std::vector<Piece> pieces_;
  std::size_t line_ = 1, counted_ = 0;  // lines up to an offset, so that each is counted once
};

}  // namespace

std::vector<Piece> pieces_of(const std::string& file, const std::string& text) { return Parser(file, text).parse(); }

std::set<std::string> names_in(const std::string& text) {
  std::set<std::string> names;
  Scanner scanner(text);
  std::string keyword;
  Token before, before_that;
  for (Token t = scanner.next(); t.kind != Token::end; t = scanner.next()) {
    const std::string spelled(scanner.spelled(t));
    const bool member = scanner.is(before, '.') || (scanner.is(before, '>') && scanner.is(before_that, '-'));
    if (t.kind == Token::directive) names.merge(names_in(spelled.substr(1)));
    if (t.kind == Token::word && !member) names.insert(keyword.empty() ? spelled : keyword + " " + spelled);
    keyword = is_tag_keyword(spelled) ? spelled : std::string();
    before_that = before;
    before = t;
  }
  return names;
}

}  // namespace ioplan::extract
