// What every document starts with: `apiVersion: ioplan/v1` and a `kind`.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "engine/document/reader.h"

namespace ioplan {

enum class DocumentKind : std::uint8_t { host, virtual_machine, policy, plan };
inline constexpr std::array<std::string_view, 4> kDocumentKindNames = {"Host", "VirtualMachine", "Policy", "Plan"};
constexpr std::string_view name_of(DocumentKind k) { return kDocumentKindNames[static_cast<std::size_t>(k)]; }

inline constexpr std::string_view kApiVersion = "ioplan/v1";

// The kind of a document. Errors (in `reader`): not a map, missing or unknown apiVersion or kind.
DocumentKind read_header(Reader& reader, const Node& root);

// Two things of one name: "two devices with the id `a`; the first is at host.yaml:3:5".
void fail_duplicate(Reader& reader, std::string_view what, std::string_view name, const Node& first,
                    const Node& second);

}  // namespace ioplan
