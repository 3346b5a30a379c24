#include <cstdio>

#include "cli/app.h"

int main(int argc, char** argv) {
  const ioplan::cli::Outcome outcome = ioplan::cli::run({argv + 1, argv + argc});
  std::fputs(outcome.err.c_str(), stderr);
  std::fputs(outcome.out.c_str(), stdout);
  if (std::fflush(stdout) != 0) {
    std::perror("ioplan: cannot write the result");
    return ioplan::cli::kBadInput;
  }
  return outcome.code;
}
