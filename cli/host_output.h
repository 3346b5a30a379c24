// Where a Host that a command found goes: a document on stdout or in a file, or text for people. For scan and import.
#pragma once

#include <string>

#include "backends/intake/findings.h"
#include "cli/app.h"

namespace ioplan::cli {

struct HostOutput {
  Format format = Format::yaml;
  std::string file;  // empty: stdout
};

// The host, and on stderr what sources disagree about and how much is unknown.
Outcome put_out(const intake::Settled& found, const HostOutput& output);

}  // namespace ioplan::cli
