// What the guest's kernel logs from now on (/dev/kmsg).
#pragma once

#include <string>
#include <string_view>

namespace ioplan::kernel_test {

class KernelLog {
 public:
  KernelLog();
  ~KernelLog();
  KernelLog(const KernelLog&) = delete;

  // The first new line that holds both texts; waits for it up to two seconds, empty when none came.
  std::string wait_for(std::string_view first, std::string_view second);

 private:
  int fd_ = -1;
};

}  // namespace ioplan::kernel_test
