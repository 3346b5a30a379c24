// Sources::find: looks a fact up again in the trees. Nothing is indexed, because places are asked for a few times at
// most, when an answer is printed for people.
#include <algorithm>

#include "engine/document/header.h"
#include "engine/document/host_document.h"
#include "engine/document/load.h"
#include "engine/document/node.h"

namespace ioplan {

namespace {

bool says(const Node& map, std::string_view key, std::string_view value) {
  const Node found = map.find(key);
  return found && found.is_scalar() && found.text() == value;
}

// Mdev UUIDs are kept in lower case.
bool says_uuid(const Node& map, std::string_view uuid) {
  const Node found = map.find("mdev");
  if (!found || !found.is_scalar()) return false;
  return std::ranges::equal(found.text(), uuid,
                            [](char a, char b) { return (a >= 'A' && a <= 'F' ? a + 32 : a) == b; });
}

// The first item of a list that `matches`.
template <class Match>
Node find_item(const Node& list, Match matches) {
  if (!list || !list.is_sequence()) return {};
  for (Node item = list.first(); item; item = list.after(item)) {
    if (matches(item)) return item;
  }
  return {};
}

// The value at a path of keys; where the path leaves what is written, the last map that is.
Node follow(Node node, std::string_view path) {
  while (!path.empty() && node.is_map()) {
    const std::size_t dot = std::min(path.find('.'), path.size());
    const Node next = node.find(path.substr(0, dot));
    if (!next) break;
    node = next;
    path.remove_prefix(std::min(dot + 1, path.size()));
  }
  return node;
}

Node find_in_host(const Node& root, std::string_view id, std::string_view key) {
  if (id.empty()) return follow(root, key);
  if (id == "kernel") {
    const Node kernel = root.find("kernel");
    return kernel ? follow(kernel, key) : root;
  }
  for (std::string_view list : {"iommus", "devices"}) {
    const Node entry = find_item(root.find(list), [&](const Node& n) { return says(n, "id", id); });
    if (!entry) continue;
    const Node fact = find_fact(entry, key);
    return fact ? fact : follow(entry, key);
  }
  return {};
}

Node find_in_vm(const Node& root, std::string_view name, std::string_view key) {
  if (!says(root, "name", name)) return {};
  const Node device = find_item(root.find("devices"), [&](const Node& n) {
    return says(n, "host", key) || says(n, "name", key) || says_uuid(n, key);
  });
  return device && !key.empty() ? device : follow(root, key);
}

Node find_in_policy(const Node& root, std::string_view rule, std::string_view key) {
  if (rule.empty()) return follow(root, key);
  const Node entry = find_item(root.find("rules"), [&](const Node& n) { return says(n, "name", rule); });
  return entry ? follow(entry, key) : Node();
}

Node find_in_document(const Node& root, std::string_view kind, std::string_view id, std::string_view key) {
  if (!says(root, "kind", kind)) return {};
  if (kind == name_of(DocumentKind::host)) return find_in_host(root, id, key);
  if (kind == name_of(DocumentKind::virtual_machine)) return find_in_vm(root, id, key);
  return kind == name_of(DocumentKind::policy) ? find_in_policy(root, id, key) : Node();
}

}  // namespace

Place Sources::find(std::string_view kind, std::string_view id, std::string_view key) const {
  for (const auto& tree : trees_) {
    for (const Node& root : tree->documents()) {
      if (const Node found = find_in_document(root, kind, id, key)) return found.place();
    }
  }
  return {};
}

std::vector<std::string> Sources::files() const {
  std::vector<std::string> names;
  for (const auto& tree : trees_) names.push_back(tree->name());
  return names;
}

}  // namespace ioplan
