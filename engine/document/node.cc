#include "engine/document/node.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/base/text.h"

namespace ioplan {

namespace {

constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";

bool continues(char c) { return (static_cast<unsigned char>(c) & 0xc0) == 0x80; }

bool is_text_control(unsigned char c) { return c == '\t' || c == '\n' || c == '\r'; }

// UTF-8 without control characters.
Result<void> check_text(const Tree& tree) {
  const std::string_view s = tree.source();
  for (std::size_t i = 0; i < s.size();) {
    const auto c = static_cast<unsigned char>(s[i]);
    const std::size_t length = utf8_length(s.substr(i, 4));
    if (length == 0 || (c < 0x20 && !is_text_control(c))) {
      const char* what = length == 0 ? "is not UTF-8" : "is a control character";
      return failure(fmt::format("not text: byte `{:#04x}` {}", c, what), "documents are UTF-8 text, YAML or JSON",
                     tree.place(i));
    }
    i += length;
  }
  return {};
}

}  // namespace

NodeKind Node::kind() const { return tree_->records_[id_].kind; }
bool Node::quoted() const { return tree_->records_[id_].quoted; }
std::size_t Node::offset() const { return tree_->records_[id_].offset; }
Place Node::place() const { return tree_->place(offset()); }

std::string_view Node::text() const {
  const Tree::Record& r = tree_->records_[id_];
  if (r.kind != NodeKind::scalar) return {};
  return std::string_view(r.pooled ? tree_->pool_ : tree_->source_).substr(r.begin, r.size);
}

Node Node::first() const {
  const Tree::Record& r = tree_->records_[id_];
  const bool has_children = r.next != id_ + 1;
  return has_children ? Node(tree_, id_ + 1) : Node();
}

Node Node::after(Node child) const {
  const std::uint32_t next = tree_->records_[child.id_].next;
  return next != tree_->records_[id_].next ? Node(tree_, next) : Node();
}

std::size_t Node::size() const {
  const Tree::Record& r = tree_->records_[id_];
  if (r.kind == NodeKind::map) return r.size / 2;
  return r.kind == NodeKind::sequence ? r.size : 0;
}

Node Node::find(std::string_view key) const {
  if (!is_map()) return {};
  for (Node k = first(); k; k = after(after(k))) {
    if (k.text() == key) return after(k);
  }
  return {};
}

Tree::Tree(std::string name, std::string source) : name_(std::move(name)), source_(std::move(source)) {
  if (source_.starts_with(kByteOrderMark)) source_.erase(0, kByteOrderMark.size());
}

// Columns count characters, not bytes.
Place Tree::place(std::size_t offset) const {
  const std::string_view before = std::string_view(source_).substr(0, offset);
  const auto line = static_cast<std::uint32_t>(std::ranges::count(before, '\n'));
  const std::size_t newline = before.rfind('\n');
  const std::string_view head = newline == std::string_view::npos ? before : before.substr(newline + 1);
  const auto col = static_cast<std::uint32_t>(std::ranges::count_if(head, [](char c) { return !continues(c); }));
  return {name_, line + 1, col + 1};
}

std::vector<Node> Tree::documents() const {
  std::vector<Node> nodes;
  for (std::uint32_t root : roots_) nodes.emplace_back(this, root);
  return nodes;
}

void Tree::begin_document() { roots_.push_back(static_cast<std::uint32_t>(records_.size())); }

void Tree::drop_document() {
  records_.resize(roots_.back());
  roots_.pop_back();
}

void Tree::add(Record record) {
  if (!open_.empty()) ++records_[open_.back()].size;
  record.next = static_cast<std::uint32_t>(records_.size() + 1);
  records_.push_back(record);
}

void Tree::add_null(std::size_t offset) { add({.offset = static_cast<std::uint32_t>(offset)}); }

void Tree::add_scalar(std::size_t offset, std::size_t slice, std::string_view value, bool quoted) {
  Record record{.offset = static_cast<std::uint32_t>(offset), .kind = NodeKind::scalar, .quoted = quoted};
  record.size = static_cast<std::uint32_t>(value.size());
  record.begin = static_cast<std::uint32_t>(slice);
  if (slice > source_.size() || std::string_view(source_).substr(slice, value.size()) != value) {
    record.begin = static_cast<std::uint32_t>(pool_.size());
    record.pooled = true;
    pool_.append(value);
  }
  add(record);
}

void Tree::open(NodeKind kind, std::size_t offset) {
  add({.offset = static_cast<std::uint32_t>(offset), .kind = kind});
  open_.push_back(static_cast<std::uint32_t>(records_.size() - 1));
}

void Tree::close() {
  records_[open_.back()].next = static_cast<std::uint32_t>(records_.size());
  open_.pop_back();
}

bool Tree::expects_key() const {
  return !open_.empty() && records_[open_.back()].kind == NodeKind::map && records_[open_.back()].size % 2 == 0;
}

Result<void> parse(Tree& tree) {
  if (auto text = check_text(tree); !text) return text;
  const std::string_view source = tree.source();
  const std::size_t start = source.find_first_not_of(" \t\r\n");
  if (start == std::string_view::npos) {
    return failure("no document: the file is blank", "write a document that starts with `apiVersion: ioplan/v1`",
                   {tree.name(), 0, 0});
  }
  const bool json = source[start] == '{' || source[start] == '[';
  return json ? parse_json(tree) : parse_yaml(tree);
}

}  // namespace ioplan
