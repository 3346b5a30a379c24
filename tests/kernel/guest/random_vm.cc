#include "tests/kernel/guest/random_vm.h"

namespace ioplan::kernel_test {

namespace {

constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;

}  // namespace

VirtualMachine random_vm(const Host& host, const std::vector<unsigned>& devices, std::mt19937_64& random) {
  VirtualMachine vm;
  vm.name = "vm";
  const std::uint64_t low = (8 + random() % 24) * 2 * kMiB, high = std::uint64_t{1} << 32;
  vm.memory.ranges = {{{0, low - 1}, Access::read_write},
                      {{low, low + kMiB * 2 - 1}, Access::read_only},
                      {{high, high + low - 1}, Access::read_write}};
  vm.memory.backing = random() % 2 == 0 ? 4096 : 2 * kMiB;
  vm.needs.dirty_tracking = random() % 8 == 0 ? Need::required : Need::no;
  for (const unsigned d : devices) {
    if (random() % 3 != 0 && !(vm.devices.empty() && d == devices.back())) continue;
    AssignedDevice assigned;
    assigned.host = DeviceIndex(d);
    assigned.name = host.devices[d].id;
    vm.devices.push_back(assigned);
  }
  return vm;
}

}  // namespace ioplan::kernel_test
