#include <array>

#include "tests/kernel/guest/case.h"

namespace ioplan::kernel_test {

std::span<const Case> all_cases() {
  static constexpr std::array kCases = {
      Case{"differential", differential},
      Case{"plans", plans},
  };
  return kCases;
}

}  // namespace ioplan::kernel_test
