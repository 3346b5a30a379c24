// A host as people read it: units side by side, groups, reserved regions, what cannot be used and what is not known.
#pragma once

#include <string>
#include <vector>

#include "cli/host_report.h"
#include "engine/model/host.h"

namespace ioplan::cli {

enum class Colour { off, on };

std::string host_text(const Host& host, Colour colour);

std::string differences_text(const std::vector<HostDifference>& differences, Colour colour);

}  // namespace ioplan::cli
