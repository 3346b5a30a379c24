// Plan <-> its document (kind: Plan), which `ioplan plan -o json` prints and other tools rely on.
//
// Writing is a pure function of the Plan: the same Plan gives the same bytes, and reading them back gives the same
// Plan. Every top-level key is always there, empty lists included, so that consumers need no existence checks.
// Addresses are hex strings, ranges [start, last] inclusive, quantities integers in bytes. Reading is strict about
// structure and types; whether the plan is *right* is the judge's question, not asked here. Held by
// tests/document_test.cc.
#pragma once

#include <string>

#include "engine/base/error.h"
#include "engine/model/plan.h"

namespace ioplan {

// JSON, indented by two, with a final newline.
std::string to_json(const Plan& plan);

// The same document as YAML, with a final newline.
std::string to_yaml(const Plan& plan);

// The Plan in `text`, YAML or JSON, which holds one document. `name` is the file's name in errors.
// Errors: those of load.h; a document of another kind.
Result<Plan> read_plan(std::string name, std::string text);

// read_plan of a file's text.
Result<Plan> read_plan_file(const std::string& path);

}  // namespace ioplan
