// A tree of JSON values as the text of a document. The same tree gives the same bytes, and the readers of this folder
// read them back. Held by tests/document_test.cc and tests/host_document_test.cc.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace ioplan {

// JSON, indented by two, with a final newline.
std::string json_text(const nlohmann::ordered_json& tree);

// YAML with a final newline. `compact`: what people edit by hand: maps and lists that fit go on one line, and hexadecimal
// numbers stand without quotes.
enum class YamlStyle { block, compact };
std::string yaml_text(const nlohmann::ordered_json& tree, YamlStyle style);

}  // namespace ioplan
