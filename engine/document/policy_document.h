// kind: Policy -> Policy.
#pragma once

#include "engine/document/reader.h"
#include "engine/model/host.h"
#include "engine/model/policy.h"

namespace ioplan {

// Rules come out sorted by name. Errors in `reader`; selectors of `host` must name devices of `host`.
Policy read_policy(Reader& reader, const Node& root, const Host& host);

}  // namespace ioplan
