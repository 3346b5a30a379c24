// A document as it was written: a read-only tree of scalars, sequences and maps, the same for YAML and JSON.
//
// Scalars stay text: what `010` or `yes` means is decided by whoever reads it (reader.h), never by a parser. Nodes sit
// in one vector in the order of writing: the first child of a collection follows it, `next` jumps over a whole subtree,
// a map's children alternate key and value. A scalar's text is a slice of the file wherever it was written as it reads,
// and of `pool` where escapes or folding changed it. A node remembers its byte offset; line and column are counted only
// when somebody asks, which is when there is an error to report.
//
// A Tree owns everything; Nodes point into it and are as cheap as two words. Read-only after parsing, so any number of
// threads may read one. Held by tests/document_test.cc.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/error.h"

namespace ioplan {

enum class NodeKind : std::uint8_t { null, scalar, sequence, map };

// Files above this size are refused before they are read.
inline constexpr std::size_t kMaxFileBytes = std::size_t{64} << 20;
// Documents nest five deep; this leaves room and stops attacks on the stack.
inline constexpr std::size_t kMaxDepth = 64;
// As much as a machine of a million devices needs.
inline constexpr std::size_t kMaxNodes = std::size_t{16} << 20;

class Tree;

// A node of a tree. The tree outlives it.
class Node {
 public:
  Node() = default;
  Node(const Tree* tree, std::uint32_t id) : tree_(tree), id_(id) {}

  explicit operator bool() const { return tree_ != nullptr; }
  NodeKind kind() const;
  bool is_null() const { return kind() == NodeKind::null; }
  bool is_scalar() const { return kind() == NodeKind::scalar; }
  bool is_sequence() const { return kind() == NodeKind::sequence; }
  bool is_map() const { return kind() == NodeKind::map; }

  bool quoted() const;            // a scalar in quotes, or a YAML block
  std::string_view text() const;  // of a scalar; empty for others
  std::size_t offset() const;
  Place place() const;

  // Children: for (Node c = n.first(); c; c = n.after(c)). Of a map: key, value, key, value, ...
  Node first() const;
  Node after(Node child) const;
  std::size_t size() const;  // items of a sequence, entries of a map

  // The value of the first `key` of a map; an empty Node when there is none.
  Node find(std::string_view key) const;

 private:
  const Tree* tree_ = nullptr;
  std::uint32_t id_ = 0;
};

class Tree {
 public:
  Tree(std::string name, std::string source);
  Tree(const Tree&) = delete;
  Tree& operator=(const Tree&) = delete;

  const std::string& name() const { return name_; }
  std::string_view source() const { return source_; }
  Place place(std::size_t offset) const;

  std::vector<Node> documents() const;

  // --- for the parsers: nodes are added in the order of writing, collections opened and closed.
  void begin_document();
  void add_null(std::size_t offset);
  // `slice` is where the text may stand in the source as it reads; `value` what it reads.
  void add_scalar(std::size_t offset, std::size_t slice, std::string_view value, bool quoted);
  void open(NodeKind kind, std::size_t offset);
  void close();
  void drop_document();  // forget the document begun last
  std::size_t depth() const { return open_.size(); }
  std::size_t node_count() const { return records_.size(); }
  std::size_t last_offset() const { return records_.empty() ? 0 : records_.back().offset; }
  // The next node would be the key of a map.
  bool expects_key() const;

 private:
  friend class Node;
  struct Record {
    std::uint32_t offset = 0;
    std::uint32_t begin = 0;  // of a scalar's text
    std::uint32_t size = 0;   // bytes of text, or the number of children
    std::uint32_t next = 0;   // the node after this subtree
    NodeKind kind = NodeKind::null;
    bool quoted = false;
    bool pooled = false;
  };
  void add(Record record);

  std::string name_;
  std::string source_;
  std::string pool_;
  std::vector<Record> records_;
  std::vector<std::uint32_t> roots_;
  std::vector<std::uint32_t> open_;
};

// Parses `tree.source()` into the tree: JSON when the first byte that is not blank is `{` or `[`, YAML otherwise.
// Errors: not text, not YAML or JSON, anchors, tags, too deep. No exception escapes.
Result<void> parse(Tree& tree);
Result<void> parse_yaml(Tree& tree);
Result<void> parse_json(Tree& tree);

}  // namespace ioplan
