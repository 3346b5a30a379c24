// Cuts functions out of Linux's source by name, with everything of the named files that they need, into one C file.
//
//   extract SOURCE_TREE RECIPE [SHIM...]      the C text goes to stdout
//
// A recipe has two kinds of lines (`#` starts a comment): `from FILE` names a file of the tree, in the order in which
// the pieces are written out; `take NAME...` names the functions that are judged. They come with their bodies, and with
// the macros, types, constants, tables and inline functions that they lead to, as far as the recipe's files define them.
// What a SHIM (a C file of ours) defines is left to it. Every other function that is reached becomes one that says its
// name and ends the program: a judged function cannot quietly run into nothing.
//
// The parser knows as much of C as the kernel's style needs: comments, strings, directives, brackets. Conditionals are
// kept around each piece, and `#line` makes the compiler speak of the kernel's own lines. A name that is not there, or a
// file that is not, ends the program with what was looked for and where. Line numbers are never used.
#include <algorithm>
#include <cctype>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <map>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace {

[[noreturn]] void fail(const std::string& message) {
  std::cerr << "extract: " << message << "\n";
  std::exit(1);
}

// ---------------------------------------------------------------------------------------------------------- tokens

struct Token {
  enum Kind { word, symbol, directive, end } kind = end;
  std::size_t start = 0, last = 0;  // [start, last)
};

bool is_word_char(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_'; }

// Words, single symbols and whole directive lines; comments and the insides of strings are skipped.
class Scanner {
 public:
  explicit Scanner(std::string_view text) : text_(text) {}

  Token next() {
    skip_blank();
    if (at_ >= text_.size()) return {};
    const std::size_t start = at_;
    if (text_[at_] == '#' && line_start_) return {Token::directive, start, skip_directive()};
    line_start_ = false;
    if (text_[at_] == '"' || text_[at_] == '\'') return {Token::symbol, start, skip_string()};
    if (!is_word_char(text_[at_])) return {Token::symbol, start, ++at_};
    while (at_ < text_.size() && is_word_char(text_[at_])) ++at_;
    return {Token::word, start, at_};
  }

 private:
  bool at(std::string_view what) const { return text_.substr(at_, what.size()) == what; }

  void skip_blank() {
    while (at_ < text_.size()) {
      if (at("/*")) {
        at_ = std::min(text_.size(), text_.find("*/", at_ + 2) + 2);
      } else if (at("//")) {
        at_ = std::min(text_.size(), text_.find('\n', at_));
      } else if (std::isspace(static_cast<unsigned char>(text_[at_])) != 0) {
        line_start_ |= text_[at_++] == '\n';
      } else {
        return;
      }
    }
  }

  std::size_t skip_directive() {
    while (at_ < text_.size() && text_[at_] != '\n') {
      if (at("\\\n")) {
        at_ += 2;
      } else if (at("/*")) {
        at_ = std::min(text_.size(), text_.find("*/", at_ + 2) + 2);
      } else {
        ++at_;
      }
    }
    return at_;
  }

  std::size_t skip_string() {
    const char quote = text_[at_++];
    while (at_ < text_.size() && text_[at_] != quote) at_ += text_[at_] == '\\' ? 2 : 1;
    return ++at_;
  }

  std::string_view text_;
  std::size_t at_ = 0;
  bool line_start_ = true;
};

// ---------------------------------------------------------------------------------------------------------- pieces

// A macro, a type, a variable, a function or its declaration, at the top level of a file. Names of structures, unions
// and enumerations are written with their keyword: `struct device`.
struct Piece {
  enum Kind { macro, type, forward, variable, function, prototype } kind = macro;
  std::vector<std::string> names;
  std::string text;
  std::size_t body = 0;                    // functions: where the body starts in `text`
  std::vector<std::string> conditions;     // the directives that lead here, one string for every open #if
  std::string file;
  std::size_t line = 0;
  bool is_inline = false;
};

bool is_tag_keyword(std::string_view word) { return word == "struct" || word == "union" || word == "enum"; }

// Words that may stand behind a variable's name.
bool is_section(std::string_view word) {
  return word == "__initdata" || word == "__initconst" || word == "__ro_after_init" || word == "__read_mostly";
}

class Parser {
 public:
  Parser(std::string file, std::string text) : file_(std::move(file)), text_(std::move(text)), scanner_(text_) {}

  std::vector<Piece> parse() {
    for (token_ = scanner_.next(); token_.kind != Token::end;) {
      if (token_.kind == Token::directive) {
        directive(spelled(token_));
        token_ = scanner_.next();
      } else {
        declaration();
      }
    }
    return std::move(pieces_);
  }

 private:
  std::string spelled(const Token& t) const { return text_.substr(t.start, t.last - t.start); }
  bool is(const Token& t, char c) const { return t.kind == Token::symbol && text_[t.start] == c; }

  Piece& add(Piece::Kind kind, std::vector<std::string> names, std::size_t start, std::size_t last) {
    Piece piece{.kind = kind, .names = std::move(names), .text = text_.substr(start, last - start),
                .conditions = conditions_, .file = file_};
    piece.line = 1 + static_cast<std::size_t>(std::count(text_.begin(), text_.begin() + static_cast<long>(start), '\n'));
    pieces_.push_back(std::move(piece));
    return pieces_.back();
  }

  void directive(const std::string& text) {
    Scanner words(std::string_view(text).substr(1));
    const std::string rest = text.substr(1);
    const Token verb = words.next();
    const std::string name = rest.substr(verb.start, verb.last - verb.start);
    if (name == "if" || name == "ifdef" || name == "ifndef") {
      conditions_.push_back(text);
    } else if (name == "elif" || name == "else") {
      if (!conditions_.empty()) conditions_.back() += "\n" + text;
    } else if (name == "endif") {
      if (!conditions_.empty()) conditions_.pop_back();
    } else if (name == "define") {
      const Token macro = words.next();
      add(Piece::macro, {rest.substr(macro.start, macro.last - macro.start)}, token_.start, token_.last);
    }
  }

  // From here to the `;` or the end of a function's body.
  void declaration() {
    std::vector<Token> tokens;  // at depth 0, and those of an enumeration's body
    const std::size_t start = token_.start;
    std::size_t body = 0;
    int depth = 0;
    bool enumeration = false;
    std::vector<std::string> enumerators;
    Token previous;
    for (; token_.kind != Token::end; token_ = scanner_.next()) {
      if (token_.kind == Token::directive) continue;
      const bool opens = is(token_, '{') || is(token_, '(') || is(token_, '[');
      const bool closes = is(token_, '}') || is(token_, ')') || is(token_, ']');
      if (depth == 0) {
        if (is(token_, '{')) {
          if (is(previous, ')')) body = token_.start - start;
          enumeration = std::any_of(tokens.begin(), tokens.end(), [&](const Token& t) { return spelled(t) == "enum"; });
        }
        tokens.push_back(token_);
      } else if (depth == 1 && enumeration && token_.kind == Token::word && (is(previous, '{') || is(previous, ','))) {
        enumerators.push_back(spelled(token_));
      }
      depth += opens ? 1 : closes ? -1 : 0;
      const bool body_ends = body != 0 && depth == 0 && is(token_, '}');
      const bool ends = depth == 0 && (body_ends || is(token_, ';'));
      previous = token_;
      if (!ends) continue;
      finish(tokens, std::move(enumerators), start, token_.last, body);
      token_ = scanner_.next();
      return;
    }
  }

  void finish(const std::vector<Token>& tokens, std::vector<std::string> enumerators, std::size_t start,
              std::size_t last, std::size_t body) {
    const auto word = [&](std::size_t i) { return i < tokens.size() ? spelled(tokens[i]) : std::string(); };
    std::size_t paren = tokens.size(), brace = tokens.size(), equals = tokens.size(), bracket = tokens.size();
    for (std::size_t i = tokens.size(); i-- > 0;) {
      if (is(tokens[i], '(') && (i == 0 || word(i - 1) != "__attribute__")) paren = i;
      if (is(tokens[i], '{')) brace = i;
      if (is(tokens[i], '=')) equals = i;
      if (is(tokens[i], '[')) bracket = i;
    }
    if (word(0) == "typedef") {
      add(Piece::type, {typedef_name(tokens)}, start, last);
    } else if (body != 0) {
      Piece& piece = add(Piece::function, {word(paren - 1)}, start, last);
      piece.body = body;
      piece.is_inline = std::any_of(tokens.begin(), tokens.begin() + static_cast<long>(paren), [&](const Token& t) {
        return spelled(t) == "inline" || spelled(t) == "__always_inline";
      });
    } else if (is_tag_keyword(word(0)) && brace <= 2 && brace < equals) {
      std::vector<std::string> names = std::move(enumerators);
      if (brace == 2) names.push_back(word(0) + " " + word(1));
      add(Piece::type, std::move(names), start, last);
    } else if (is_tag_keyword(word(0)) && tokens.size() == 3) {
      add(Piece::forward, {word(0) + " " + word(1)}, start, last);
    } else if (paren < equals && paren > 0 && paren < tokens.size()) {
      add(Piece::prototype, {word(paren - 1)}, start, last);
    } else {
      std::size_t name = std::min({equals, bracket, tokens.size() - 1});
      while (name > 1 && is_section(word(name - 1))) --name;
      if (name > 0) add(Piece::variable, {word(name - 1)}, start, last);
    }
  }

  // The last word, or the one behind the first `(*`.
  std::string typedef_name(const std::vector<Token>& tokens) const {
    for (const Token& t : tokens) {
      if (!is(t, '(')) continue;
      const std::string_view rest = std::string_view(text_).substr(t.start + 1);
      Scanner inside(rest);
      if (const Token star = inside.next(); star.kind != Token::symbol || rest[star.start] != '*') break;
      const Token name = inside.next();
      return std::string(rest.substr(name.start, name.last - name.start));
    }
    std::size_t i = tokens.size() - 2;
    while (i > 0 && tokens[i].kind != Token::word) --i;
    return spelled(tokens[i]);
  }

  std::string file_, text_;
  Scanner scanner_;
  Token token_;
  std::vector<std::string> conditions_;
  std::vector<Piece> pieces_;
};

// Every name that a piece of text could mean: not the members behind `.` and `->`.
std::set<std::string> references(const std::string& text) {
  std::set<std::string> names;
  Scanner scanner(text);
  std::string keyword;
  char before = 0, before_that = 0;
  for (Token t = scanner.next(); t.kind != Token::end; t = scanner.next()) {
    std::string spelled = text.substr(t.start, t.last - t.start);
    if (t.kind == Token::directive) {
      const std::string inner = spelled.substr(1);
      names.merge(references(inner));
      continue;
    }
    const bool member = before == '.' || (before == '>' && before_that == '-');
    before_that = before;
    before = spelled.back();
    if (t.kind == Token::word && !member) {
      names.insert(keyword.empty() ? spelled : keyword + " " + spelled);
    }
    keyword = is_tag_keyword(spelled) ? spelled : std::string();
  }
  return names;
}

// ------------------------------------------------------------------------------------------------------ extraction

struct Recipe {
  std::vector<std::string> files, taken;
};

std::string read_file(const std::string& path, const std::string& why) {
  std::ifstream in(path);
  if (!in) fail("`" + path + "` is not there (" + why + ")");
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

Recipe read_recipe(const std::string& path) {
  std::istringstream lines(read_file(path, "the recipe"));
  Recipe recipe;
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line.substr(0, line.find('#')));
    std::string verb, word;
    if (!(words >> verb)) continue;
    if (verb != "from" && verb != "take") fail(path + ": no such line: `" + line + "`");
    while (words >> word) {
      std::replace(word.begin(), word.end(), ':', ' ');  // `struct:device`
      (verb == "from" ? recipe.files : recipe.taken).push_back(word);
    }
  }
  return recipe;
}

class Extraction {
 public:
  Extraction(const Recipe& recipe, const std::string& tree) : recipe_(recipe) {
    for (const std::string& file : recipe.files) {
      for (Piece& piece : Parser(file, read_file(tree + "/" + file, "a recipe takes from it")).parse()) {
        pieces_.push_back(std::move(piece));
      }
    }
    for (std::size_t i = 0; i < pieces_.size(); ++i) {
      for (const std::string& name : pieces_[i].names) by_name_[name].push_back(i);
    }
  }

  void leave_to_shim(const std::string& path) {
    for (const Piece& piece : Parser(path, read_file(path, "a shim")).parse()) {
      if (piece.kind == Piece::forward || piece.kind == Piece::prototype) continue;
      for (const std::string& name : piece.names) shimmed_[name] = piece.kind;
    }
  }

  void run() {
    for (const std::string& name : recipe_.taken) {
      if (!by_name_.contains(name)) fail("`" + name + "` is not in " + file_list() + ": Linux has changed it");
      want(name);
    }
    while (!open_.empty()) {
      const std::size_t i = open_.back();
      open_.pop_back();
      const Piece& piece = pieces_[i];
      const std::string& text = piece.text;
      for (const std::string& name : references(has_body(piece) ? text : text.substr(0, piece.body))) want(name);
    }
  }

  void write(std::ostream& out) const {
    out << "/* Cut out of Linux's source for a test; not to be distributed with this project. */\n#pragma once\n";
    for (std::size_t i = 0; i < pieces_.size(); ++i) {
      if (wanted_.contains(i)) write(out, pieces_[i]);
    }
  }

 private:
  bool is_taken(const Piece& piece) const {
    return std::find(recipe_.taken.begin(), recipe_.taken.end(), piece.names.front()) != recipe_.taken.end();
  }
  bool has_body(const Piece& piece) const {
    return piece.kind != Piece::function || piece.is_inline || is_taken(piece);
  }
  bool has_definition(const std::string& name) const {
    if (shimmed_.contains(name)) return true;
    const auto& all = by_name_.at(name);
    return std::any_of(all.begin(), all.end(), [&](std::size_t i) { return pieces_[i].kind == Piece::function; });
  }

  std::string file_list() const {
    std::string list;
    for (const std::string& file : recipe_.files) list += (list.empty() ? "" : ", ") + file;
    return list;
  }

  void want(const std::string& name) {
    const auto found = by_name_.find(name);
    if (found == by_name_.end()) return;
    const auto shim = shimmed_.find(name);
    if (shim != shimmed_.end() && shim->second != Piece::function) return;
    for (const std::size_t i : found->second) {
      if (shim != shimmed_.end() && pieces_[i].kind != Piece::prototype) continue;
      if (wanted_.insert(i).second) open_.push_back(i);
    }
  }

  void write(std::ostream& out, const Piece& piece) const {
    for (const std::string& condition : piece.conditions) out << condition << "\n";
    out << "#line " << piece.line << " \"" << piece.file << "\"\n";
    if (piece.kind == Piece::prototype && !has_definition(piece.names.front())) {
      out << "__attribute__((weak)) " << stub(piece.text.substr(0, piece.text.size() - 1), piece) << "\n";
    } else if (has_body(piece)) {
      out << piece.text << "\n";
    } else {
      out << stub(piece.text.substr(0, piece.body), piece) << "\n";
    }
    for (std::size_t i = 0; i < piece.conditions.size(); ++i) out << "#endif\n";
  }

  static std::string stub(std::string head, const Piece& piece) {
    if (head.starts_with("extern ")) head.erase(0, 7);
    return head + "{ judge_missing(\"" + piece.names.front() + "\", \"" + piece.file + "\"); }";
  }

  const Recipe& recipe_;
  std::vector<Piece> pieces_;
  std::map<std::string, std::vector<std::size_t>> by_name_;
  std::map<std::string, Piece::Kind> shimmed_;
  std::set<std::size_t> wanted_;
  std::vector<std::size_t> open_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) fail("usage: extract SOURCE_TREE RECIPE [SHIM...]");
  const Recipe recipe = read_recipe(argv[2]);
  Extraction extraction(recipe, argv[1]);
  for (int i = 3; i < argc; ++i) extraction.leave_to_shim(argv[i]);
  extraction.run();
  extraction.write(std::cout);
}
