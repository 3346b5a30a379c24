// Programs that the guest holds beside process 1.
#pragma once

#include <string>
#include <vector>

namespace ioplan::kernel_test {

struct ProgramResult {
  int status = -1;     // exit code; -1 when it was killed or is not there
  std::string output;  // standard output and error together
};

// Runs it to its end. `command`: its path, then arguments.
ProgramResult run_program(const std::vector<std::string>& command);

}  // namespace ioplan::kernel_test
