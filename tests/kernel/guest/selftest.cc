// The kernel's own selftest of iommufd (tools/testing/selftests/iommu), which run.sh puts into this guest: it shows that
// the kernel under test is sound. It wants 64 huge pages and prints TAP.
#include <cstdio>
#include <sstream>

#include "tests/kernel/guest/boot.h"
#include "tests/kernel/guest/case.h"
#include "tests/kernel/guest/program.h"

namespace ioplan::kernel_test {

Outcome selftest(const Guest&) {
  write_file("/proc/sys/vm/nr_hugepages", "64");
  const ProgramResult result = run_program({"/bin/iommufd"});
  std::string totals = "no totals, exit code " + std::to_string(result.status);
  std::istringstream lines(result.output);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("# Totals:")) totals = line.substr(line.find("pass:"));
    const bool told = line.starts_with("ok ") || line.starts_with("# OK") || line.starts_with("#  RUN") || line.starts_with("#            OK");
    if (!told) std::printf("  %s\n", line.c_str());
  }
  const bool passed = result.status == 0 && totals.starts_with("pass:") && totals.find(" fail:0 ") != std::string::npos;
  return {passed, totals};
}

}  // namespace ioplan::kernel_test
