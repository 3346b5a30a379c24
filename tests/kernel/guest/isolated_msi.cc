// A machine without isolated MSI, and without `iommufd.allow_unsafe_interrupts`: no PCI device can be bound, mock ones can.
#include <cerrno>

#include "tests/kernel/guest/twins.h"

namespace ioplan::kernel_test {

Outcome isolated_msi(const Guest& guest) {
  Twins twins(guest);
  for (const unsigned d : guest.bindable) twins.expect(guest.is_mock(d) ? 0 : EPERM, bind(d));
  return {twins.agree() && !guest.pci.empty(), "bind of " + std::to_string(guest.pci.size()) + " PCI devices is EPERM"};
}

}  // namespace ioplan::kernel_test
