// Device classes and selectors, as VirtualMachines and Policies write them.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "engine/document/reader.h"
#include "engine/model/host.h"
#include "engine/model/policy.h"

namespace ioplan {

// A base class by name (`network`) or a code of 2, 4 or 6 hex digits (`0x03`, `0x0300`, `0x030000`).
Selector::ClassMatch read_class(Reader& reader, const Field& field);

// The code alone in its shortest form, `0x02` for `network`: the same class reads the same however it was written.
std::string class_code(const Selector::ClassMatch& match);

// A map of selector keys, each with one value or a list. Errors: an unknown device among `host`.
Selector read_selector(Reader& reader, const Field& field, const Host& host);

}  // namespace ioplan
