// JSON -> Tree, on nlohmann's SAX events. A file may hold several documents, separated by lines `---`.
//
// The events carry no positions. They come in the order of writing and only for tokens that the lexer has accepted, so
// a cursor that skips blanks, commas, colons and brackets finds each token again, and with it the place and the raw
// text.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "engine/document/node.h"

namespace ioplan {

namespace {

class TreeBuilder : public nlohmann::json_sax<nlohmann::json> {
 public:
  TreeBuilder(Tree& tree, std::size_t begin, std::size_t end) : tree_(tree), cursor_(begin), begin_(begin), end_(end) {}

  bool null() override { return literal(); }
  bool boolean(bool) override { return literal(); }
  bool number_integer(number_integer_t) override { return literal(); }
  bool number_unsigned(number_unsigned_t) override { return literal(); }
  bool number_float(number_float_t, const string_t&) override { return literal(); }
  bool string(string_t& value) override { return quoted(value); }
  bool key(string_t& value) override { return quoted(value); }
  bool binary(binary_t&) override { return fail("not JSON", {}, cursor_); }
  bool start_object(std::size_t) override { return open(NodeKind::map); }
  bool start_array(std::size_t) override { return open(NodeKind::sequence); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  // `position` counts the bytes read, those of the offending token included.
  bool parse_error(std::size_t position, const std::string&, const nlohmann::json::exception& e) override {
    const std::string_view what = e.what();
    const std::size_t dash = what.find(" - ");
    std::string_view text = dash == std::string_view::npos ? what.substr(what.find("] ") + 2) : what.substr(dash + 3);
    text = text.substr(0, text.find("; last read"));
    const bool at_end = text.find("unexpected end of input") != std::string_view::npos;
    return fail(fmt::format("not JSON: {}", text), {}, at_end ? end_ : offending_token(begin_ + position));
  }

  const Error& error() const { return error_; }

 private:
  bool fail(std::string message, std::string help, std::size_t offset) {
    error_ = Error{std::move(message), std::move(help), tree_.place(offset), 0};
    return false;
  }

  std::string_view source() const { return tree_.source().substr(0, end_); }

  // The offset of the next token.
  std::size_t seek() {
    cursor_ = std::min(source().find_first_not_of(" \t\r\n,:]}", cursor_), end_);
    return cursor_;
  }

  // Where the token starts that was refused after `read` bytes: the first that is neither accepted nor punctuation.
  std::size_t offending_token(std::size_t read) const {
    const std::size_t start = std::min(source().find_first_not_of(" \t\r\n,:]}", cursor_), end_);
    return std::min(start, std::max<std::size_t>(read, 1) - 1);
  }

  bool room() {
    if (tree_.node_count() < kMaxNodes) return true;
    return fail("too many values in one file", "split the file", cursor_);
  }

  bool literal() {
    const std::size_t start = seek();
    cursor_ = std::min(source().find_first_of(" \t\r\n,]}", start), end_);
    const std::string_view text = source().substr(start, cursor_ - start);
    if (text == "null") {
      tree_.add_null(start);
    } else {
      tree_.add_scalar(start, start, text, false);
    }
    return room();
  }

  bool quoted(const std::string& value) {
    const std::size_t start = seek();
    cursor_ = start + 1;
    while (cursor_ < end_ && source()[cursor_] != '"') cursor_ += source()[cursor_] == '\\' ? 2 : 1;
    cursor_ = std::min(cursor_ + 1, end_);
    tree_.add_scalar(start, start + 1, value, true);
    return room();
  }

  bool open(NodeKind kind) {
    const std::size_t start = seek();
    if (tree_.depth() >= kMaxDepth) return fail(fmt::format("nested deeper than {} levels", kMaxDepth), {}, start);
    tree_.open(kind, start);
    ++cursor_;
    return room();
  }

  bool close() {
    tree_.close();
    return true;
  }

  Tree& tree_;
  std::size_t cursor_;
  std::size_t begin_;
  std::size_t end_;
  Error error_;
};

bool is_separator(std::string_view line) {
  return line.starts_with("---") && line.find_first_not_of(" \t\r", 3) == std::string_view::npos;
}

// The end of the document that starts at `begin`: the start of the next separator line, or the end of the text.
std::size_t end_of_document(std::string_view source, std::size_t begin) {
  for (std::size_t dash = begin; (dash = source.find("---", dash)) != std::string_view::npos; dash += 3) {
    const bool line_start = dash == begin || source[dash - 1] == '\n';
    if (line_start && is_separator(source.substr(dash, source.find('\n', dash) - dash))) return dash;
  }
  return source.size();
}

Result<void> parse_document(Tree& tree, std::size_t begin, std::size_t end) {
  const std::string_view text = tree.source().substr(begin, end - begin);
  if (text.find_first_not_of(" \t\r\n") == std::string_view::npos) return {};
  TreeBuilder builder(tree, begin, end);
  tree.begin_document();
  if (nlohmann::json::sax_parse(text.begin(), text.end(), &builder)) return {};
  return tl::make_unexpected(builder.error());
}

}  // namespace

Result<void> parse_json(Tree& tree) {
  try {
    const std::string_view source = tree.source();
    for (std::size_t begin = 0; begin < source.size();) {
      const std::size_t end = end_of_document(source, begin);
      if (auto done = parse_document(tree, begin, end); !done) return done;
      begin = std::min(source.find('\n', end), source.size() - 1) + 1;
    }
    return {};
  } catch (const std::exception& e) {
    return failure(fmt::format("not JSON: {}", e.what()), {}, {tree.name(), 0, 0});
  }
}

}  // namespace ioplan
