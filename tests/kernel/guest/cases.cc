#include <array>

#include "tests/kernel/guest/case.h"

namespace ioplan::kernel_test {

std::span<const Case> all_cases() {
  static constexpr std::array kCases = {
      Case{"differential", differential},
      Case{"plans", plans},
      Case{"histories", histories},
      Case{"type1_plans", type1_plans},
      Case{"type1_histories", type1_histories},
      Case{"scan", scan},
      Case{"edu_dma", edu_dma},
      Case{"selftest", selftest},
      Case{"isolated_msi", isolated_msi},
      Case{"hazards", hazards},
      Case{"h3_mock_onto_pci", h3_mock_onto_pci},
      Case{"h3_pci_onto_mock", h3_pci_onto_mock},
      Case{"killed", killed},
      Case{"refusals", refusals},
      Case{"dirty", dirty},
      Case{"map_bench", map_bench},
  };
  return kCases;
}

}  // namespace ioplan::kernel_test
