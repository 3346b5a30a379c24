#include "tests/kernel/guest/program.h"

#include <sys/wait.h>
#include <unistd.h>

#include <array>

namespace ioplan::kernel_test {

namespace {

[[noreturn]] void become(const std::vector<std::string>& command, int output) {
  std::vector<char*> arguments;
  for (const std::string& word : command) arguments.push_back(const_cast<char*>(word.c_str()));  // NOLINT
  arguments.push_back(nullptr);
  dup2(output, STDOUT_FILENO);
  dup2(output, STDERR_FILENO);
  execv(arguments[0], arguments.data());
  _exit(127);
}

}  // namespace

ProgramResult run_program(const std::vector<std::string>& command) {
  std::array<int, 2> ends{};
  if (pipe(ends.data()) != 0) return {};
  const pid_t child = fork();
  if (child == 0) become(command, ends[1]);
  close(ends[1]);
  ProgramResult result;
  std::array<char, 4096> part;  // NOLINT(cppcoreguidelines-pro-type-member-init)
  for (ssize_t n = 0; (n = read(ends[0], part.data(), part.size())) > 0;) result.output.append(part.data(), static_cast<std::size_t>(n));
  close(ends[0]);
  int status = 0;
  if (child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status)) result.status = WEXITSTATUS(status);
  return result;
}

}  // namespace ioplan::kernel_test
