#include "tests/kernel/guest/kernel_log.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>

namespace ioplan::kernel_test {

KernelLog::KernelLog() : fd_(open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC)) { lseek(fd_, 0, SEEK_END); }
KernelLog::~KernelLog() { close(fd_); }

// One read is one line: `priority,number,time,flags;text`.
std::string KernelLog::wait_for(std::string_view first, std::string_view second) {
  for (unsigned tries = 0; tries < 200; ++tries) {
    std::array<char, 2048> line;  // NOLINT(cppcoreguidelines-pro-type-member-init)
    for (ssize_t n = 0; (n = read(fd_, line.data(), line.size())) > 0;) {
      const std::string_view text(line.data(), static_cast<std::size_t>(n));
      if (text.find(first) == std::string_view::npos || text.find(second) == std::string_view::npos) continue;
      const std::size_t start = text.find(';') + 1;
      return std::string(text.substr(start, text.find('\n') - start));
    }
    usleep(10'000);
  }
  return {};
}

}  // namespace ioplan::kernel_test
