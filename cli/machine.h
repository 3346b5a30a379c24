// A machine as a command line names it: this one, a copy of its files, a capture, or a Host document.
#pragma once

#include <memory>
#include <string>

#include "backends/intake/machine_files.h"
#include "engine/model/host.h"

namespace ioplan::cli {

// `root`: a directory ("/" is this machine) or a capture in a tar archive.
Result<std::unique_ptr<intake::MachineFiles>> open_machine(const std::string& root);

// A Host document, or a capture, which is scanned.
Result<Host> read_machine(const std::string& file);

}  // namespace ioplan::cli
