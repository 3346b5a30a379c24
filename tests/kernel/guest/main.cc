// Process 1 of the test guest: hands the devices to vfio-pci, runs the cases that the kernel command line names, and
// turns the machine off. Kernel command line: ioplan.run (cases, comma between them), ioplan.seed, ioplan.devices (how
// many PCI devices vfio-pci must have).
#include <algorithm>
#include <cstdio>
#include <sstream>

#include "tests/kernel/guest/boot.h"
#include "tests/kernel/guest/case.h"
#include "tests/kernel/guest/host_facts.h"

namespace ioplan::kernel_test {

namespace {

Guest gather_guest() {
  const auto vfio = bind_to_vfio();
  Guest guest{.host = gather_host(), .pci = {}, .bindable = {}, .seed = command_line_number("ioplan.seed", 1)};
  for (const Unit& unit : guest.host.units) {
    std::printf("unit %s", unit.id.c_str());
    for (const UnitFact fact : {UnitFact::cap, UnitFact::ecap, UnitFact::efr, UnitFact::efr2}) {
      if (unit.facts[fact]) std::printf(" %s %#llx", row_of(fact).key.data(), static_cast<unsigned long long>(*unit.facts[fact]));
    }
    std::printf("\n");
  }
  for (unsigned i = 0; i < guest.host.devices.size(); ++i) {
    const Device& device = guest.host.devices[i];
    const bool bound = std::ranges::find(vfio, device.id) != vfio.end();
    if (bound) guest.pci.push_back(i);
    if (bound || guest.is_mock(i)) guest.bindable.push_back(i);
    std::printf("device %s unit %s group %u%s\n", device.id.c_str(), guest.host.unit(*device.unit).id.c_str(),
                *device.group, bound ? " vfio-pci" : "");
  }
  return guest;
}

Outcome run_case(const std::string& name, const Guest& guest) {
  const auto cases = all_cases();
  const auto found = std::ranges::find(cases, name, &Case::name);
  return found == cases.end() ? Outcome{false, "there is no such case"} : found->run(guest);
}

void run() {
  const Guest guest = gather_guest();
  const std::uint64_t wanted = command_line_number("ioplan.devices", 0);
  if (guest.pci.size() != wanted) {
    std::printf("FAIL boot: vfio-pci has %zu devices instead of %llu\n", guest.pci.size(),
                static_cast<unsigned long long>(wanted));
    return;
  }
  std::istringstream names(command_line("ioplan.run", ""));
  for (std::string name; std::getline(names, name, ',');) {
    const Outcome outcome = run_case(name, guest);
    std::printf("%s %s: %s\n", outcome.passed ? "PASS" : "FAIL", name.c_str(), outcome.summary.c_str());
  }
}

}  // namespace

}  // namespace ioplan::kernel_test

int main() {
  ioplan::kernel_test::mount_file_systems();
  ioplan::kernel_test::run();
  ioplan::kernel_test::power_off();
}
