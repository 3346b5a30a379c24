// The command line: arguments -> a short composition of the library -> text or a document.
//
// Exit codes are a contract (README.md): 0 yes, 1 no, 2 usage or bad input, 3 undecided, 4 apply failed and
// was rolled back, 5 rollback incomplete, 70 internal.
#pragma once

#include <span>
#include <string>
#include <vector>

namespace ioplan::cli {

enum ExitCode : int {
  kYes = 0,
  kNo = 1,
  kBadInput = 2,
  kUndecided = 3,
  kRolledBack = 4,
  kIncomplete = 5,
  kInternal = 70
};

// What a command printed and how it ended. stdout holds the result, stderr the diagnostics.
struct Outcome {
  int code = kYes;
  std::string out, err;
};

// `arguments` without the program's name.
Outcome run(std::vector<std::string> arguments);

enum class Format { text, json, yaml };

}  // namespace ioplan::cli
