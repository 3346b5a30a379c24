// kind: Host -> Host. The keys of facts are those of the tables in engine/model/facts.cc; only groupings of several
// facts under one key (`idr`, `input_range`, ...) are named here.
#pragma once

#include <string_view>

#include "engine/document/reader.h"
#include "engine/model/host.h"

namespace ioplan {

// Units and devices come out sorted, references resolved. Errors in `reader`.
Host read_host(Reader& reader, const Node& root);

// The value of `key` in a unit or device, or the part of a grouped key that holds the fact of that name
// (`idr1` -> the second word of `idr`); an empty Node when it is not written.
Node find_fact(const Node& entry, std::string_view key);

// A device by what a document calls it. Errors: unknown, with the nearest id.
std::optional<DeviceIndex> find_device(Reader& reader, const Field& field, const Host& host);

}  // namespace ioplan
