// What the guest is asked: cases, one file each. A case puts its question to the guest's kernel and says how it went.
//
// The kernel command line names the cases to run, `ioplan.run=differential,plans`; what a case wants to know of how
// much to do, it takes from there too (boot.h). Each prints what it likes and returns its verdict, which process 1
// (main.cc) prints as one line, `PASS name: summary` or `FAIL name: summary`; run.sh waits for one of every case that
// it named. A case leaves no device bound and nothing open. A new one: a file, its function here, its line in cases.cc.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/model/host.h"

namespace ioplan::kernel_test {

struct Guest {
  Host host;
  std::vector<unsigned> pci;       // devices that vfio-pci has, by index in the host
  std::vector<unsigned> bindable;  // those and the mock ones
  std::uint64_t seed = 1;

  bool is_mock(unsigned device) const { return host.unit(*host.devices[device].unit).driver == Driver::mock; }
};

struct Outcome {
  bool passed = false;
  std::string summary;
};

Outcome differential(const Guest& guest);
Outcome plans(const Guest& guest);
Outcome histories(const Guest& guest);
Outcome type1_plans(const Guest& guest);
Outcome type1_histories(const Guest& guest);
Outcome scan(const Guest& guest);
Outcome edu_dma(const Guest& guest);
Outcome selftest(const Guest& guest);
Outcome isolated_msi(const Guest& guest);
Outcome hazards(const Guest& guest);
Outcome h3_mock_onto_pci(const Guest& guest);
Outcome h3_pci_onto_mock(const Guest& guest);
Outcome killed(const Guest& guest);
Outcome refusals(const Guest& guest);
Outcome dirty(const Guest& guest);
Outcome map_bench(const Guest& guest);

struct Case {
  std::string_view name;
  Outcome (*run)(const Guest&);
};

std::span<const Case> all_cases();

}  // namespace ioplan::kernel_test
