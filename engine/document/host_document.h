// kind: Host <-> Host. The keys of facts are those of the tables in engine/model/facts.cc; only groupings of several
// facts under one key (`idr`, `input_range`, ...) are named here.
//
// Writing is a pure function of the Host, and reading what was written gives an equal Host, if it is one that a document
// could hold: registers of a group known up to some word, text that is text. Held by tests/host_document_test.cc.
#pragma once

#include <string>
#include <string_view>

#include "engine/document/reader.h"
#include "engine/model/host.h"

namespace ioplan {

// Units and devices come out sorted, references resolved. Errors in `reader`.
Host read_host(Reader& reader, const Node& root);

// The document of a host, with a final newline. Nothing in it depends on when or where it is written.
std::string to_json(const Host& host);
std::string to_yaml(const Host& host);

// The value of `key` in a unit or device, or the part of a grouped key that holds the fact of that name
// (`idr1` -> the second word of `idr`); an empty Node when it is not written.
Node find_fact(const Node& entry, std::string_view key);

// A device by what a document calls it. Errors: unknown, with the nearest id.
std::optional<DeviceIndex> find_device(Reader& reader, const Field& field, const Host& host);

}  // namespace ioplan
