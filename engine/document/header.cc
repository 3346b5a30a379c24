#include "engine/document/header.h"

#include <fmt/format.h>

#include <string>

namespace ioplan {

DocumentKind read_header(Reader& reader, const Node& root) {
  const std::string start = fmt::format("start it with `apiVersion: {}` and `kind: Host`, for example", kApiVersion);
  if (!root.is_map()) {
    reader.fail(root, fmt::format("a document must be a map, not {}", root.is_sequence() ? "a list" : "a single value"),
                start);
    return {};
  }
  const Field version{root.find("apiVersion"), "apiVersion"};
  if (!version) reader.fail(root, "the document has no `apiVersion`", start);
  reader.choice(version, {&kApiVersion, 1});
  const Field kind{root.find("kind"), "kind"};
  if (!kind) reader.fail(root, "the document has no `kind`", "accepted: " + list_of(kDocumentKindNames));
  return reader.enumeration<DocumentKind>(kind, kDocumentKindNames);
}

void fail_duplicate(Reader& reader, std::string_view what, std::string_view name, const Node& first,
                    const Node& second) {
  reader.fail(second, fmt::format("two {} {}; the first is at {}", what, in_backticks(name), to_text(first.place())));
}

}  // namespace ioplan
