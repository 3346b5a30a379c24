// YAML -> Tree, on yaml-cpp's events, which cost far less than its node graph and keep `010` and `"010"` apart.
//
// Refused: anchors and aliases (a document says what it means in one place; this also stops alias bombs), tags other
// than the implicit ones, keys that are not plain names. A null between two `---` is no document.
// yaml-cpp marks count bytes from 0, after the byte order mark that Tree has removed.
#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <istream>
#include <streambuf>

#include "engine/document/node.h"

namespace ioplan {

namespace {

// Leaves the parser through yaml-cpp's frames; never leaves parse_yaml.
struct Refused {
  Error error;
};

// An istream's buffer over text that stays where it is.
class TextBuffer : public std::streambuf {
 public:
  explicit TextBuffer(std::string_view text) {
    char* begin = const_cast<char*>(text.data());  // the get area is never written to
    setg(begin, begin, begin + text.size());
  }
};

class TreeBuilder : public YAML::EventHandler {
 public:
  explicit TreeBuilder(Tree& tree) : tree_(tree) {}

  // A token that starts no document (a lone `,` or `}`) stays where it is, and yaml-cpp would see empty documents there
  // for ever.
  void OnDocumentStart(const YAML::Mark& mark) override {
    const std::size_t offset = offset_of(mark);
    if (started_ && offset <= started_at_) {
      refuse(fmt::format("not YAML: unexpected `{}`", tree_.source().substr(offset, 1)), {}, offset);
    }
    started_ = true;
    started_at_ = offset;
    tree_.begin_document();
  }
  void OnDocumentEnd() override {
    if (blank_) tree_.drop_document();
    blank_ = false;
  }

  // A null that is not spelled out is marked at whatever follows; its key is the better place.
  void OnNull(const YAML::Mark& mark, YAML::anchor_t) override {
    const std::size_t offset = begin_node(mark);
    const bool spelled = spelled_null(offset);
    blank_ = tree_.depth() == 0 && !spelled;
    tree_.add_null(spelled || tree_.depth() == 0 ? offset : tree_.last_offset());
  }

  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override { refuse_anchor("alias", offset_of(mark)); }
  void OnAnchor(const YAML::Mark& mark, const std::string&) override { refuse_anchor("anchor", offset_of(mark)); }

  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t, const std::string& value) override {
    const std::size_t offset = offset_of(mark);
    const bool quote = at(offset) == '"' || at(offset) == '\'';
    const bool block = at(offset) == '|' || at(offset) == '>';
    check_tag(tag, quote || block ? "!" : "?", offset);
    begin_node(mark);
    tree_.add_scalar(offset, quote ? offset + 1 : offset, value, quote || block);
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t,
                       YAML::EmitterStyle::value) override {
    open(NodeKind::sequence, mark, tag);
  }
  void OnSequenceEnd() override { tree_.close(); }

  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t, YAML::EmitterStyle::value) override {
    open(NodeKind::map, mark, tag);
  }
  void OnMapEnd() override { tree_.close(); }

 private:
  std::size_t offset_of(const YAML::Mark& mark) const {
    return mark.pos < 0 ? 0 : std::min(static_cast<std::size_t>(mark.pos), tree_.source().size());
  }

  char at(std::size_t offset) const { return offset < tree_.source().size() ? tree_.source()[offset] : '\0'; }

  bool spelled_null(std::size_t offset) const {
    const std::string_view rest = tree_.source().substr(offset);
    const std::string_view word = rest.substr(0, rest.find_first_of(" \t\r\n,]}"));
    return word == "~" || word == "null" || word == "Null" || word == "NULL";
  }

  [[noreturn]] void refuse(std::string message, std::string help, std::size_t offset) const {
    throw Refused{{std::move(message), std::move(help), tree_.place(offset), 0}};
  }

  [[noreturn]] void refuse_anchor(std::string_view what, std::size_t offset) const {
    refuse(fmt::format("YAML {} are not supported", what == "alias" ? "aliases" : "anchors"),
           "write the value out where it is meant", offset);
  }

  void check_tag(const std::string& tag, std::string_view implicit, std::size_t offset) const {
    if (tag.empty() || tag == implicit) return;
    refuse(fmt::format("YAML tag `{}` is not supported", tag), "leave the tag out", offset);
  }

  // What every node has to pass.
  std::size_t begin_node(const YAML::Mark& mark) {
    const std::size_t offset = offset_of(mark);
    if (tree_.node_count() >= kMaxNodes) refuse("too many values in one file", "split the file", offset);
    return offset;
  }

  void open(NodeKind kind, const YAML::Mark& mark, const std::string& tag) {
    const std::size_t offset = begin_node(mark);
    check_tag(tag, "?", offset);
    if (tree_.expects_key()) refuse("a key must be a name, not a list or map", {}, offset);
    if (tree_.depth() >= kMaxDepth) refuse(fmt::format("nested deeper than {} levels", kMaxDepth), {}, offset);
    tree_.open(kind, offset);
  }

  Tree& tree_;
  bool started_ = false;
  std::size_t started_at_ = 0;
  bool blank_ = false;
};

// yaml-cpp's scanner runs ahead of the events while a flow collection may still turn out to be a key, and keeps two
// hundred bytes for every bracket that it has seen open. So brackets are counted first, wherever they stand: no
// document leaves this many open, not even inside of text.
Result<void> check_brackets(const Tree& tree) {
  constexpr std::size_t kMostOpen = 4096;
  std::size_t open = 0;
  for (std::size_t i = 0; i < tree.source().size(); ++i) {
    const char c = tree.source()[i];
    if (c == '[' || c == '{') ++open;
    if ((c == ']' || c == '}') && open > 0) --open;
    if (open > kMostOpen) return failure("more than 4096 brackets are left open", {}, tree.place(i));
  }
  return {};
}

}  // namespace

Result<void> parse_yaml(Tree& tree) {
  if (auto checked = check_brackets(tree); !checked) return checked;
  try {
    TextBuffer buffer(tree.source());
    std::istream in(&buffer);
    YAML::Parser parser(in);
    TreeBuilder builder(tree);
    while (parser.HandleNextDocument(builder)) {
    }
  } catch (const Refused& refused) {
    return tl::make_unexpected(refused.error);
  } catch (const YAML::Exception& e) {
    const std::size_t offset = e.mark.pos < 0 ? 0 : static_cast<std::size_t>(e.mark.pos);
    return failure("not YAML: " + e.msg, {}, tree.place(offset));
  } catch (const std::exception& e) {
    return failure(fmt::format("not YAML: {}", e.what()), {}, {tree.name(), 0, 0});
  }
  return {};
}

}  // namespace ioplan
