#include "engine/model/virtual_machine.h"

#include <algorithm>

namespace ioplan {

namespace {

constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;
constexpr std::uint64_t kFourGiB = 4 * kGiB;
constexpr std::uint64_t kAmdHtStart = 0xfd00000000;
constexpr std::uint64_t kAboveHole = 0x10000000000;  // 1 TiB

std::uint64_t round_up(std::uint64_t v, std::uint64_t to) { return (v + to - 1) / to * to; }

MemoryRange ram(std::uint64_t start, std::uint64_t size) { return {{start, start + size - 1}, Access::read_write}; }

// How much RAM stays below 4 GiB (pc_q35_init, pc_init1 with their default max-ram-below-4g).
std::uint64_t low_memory(MachineType type, std::uint64_t size) {
  if (type == MachineType::q35) return size >= 0xb0000000 ? 0x80000000 : 0xb0000000;
  return size >= 0xe0000000 ? 0xc0000000 : 0xe0000000;
}

// pc_memory_init: an AMD guest whose 64-bit PCI hole would reach the HyperTransport range gets its high RAM at 1 TiB.
std::uint64_t high_memory_start(CpuVendor vendor, std::uint64_t high, std::uint64_t hole64, std::uint64_t hotplug) {
  if (vendor != CpuVendor::amd) return kFourGiB;
  const std::uint64_t hole_start = round_up(round_up(kFourGiB + high, kGiB) + hotplug, kGiB);
  return hole_start + hole64 - 1 >= kAmdHtStart ? kAboveHole : kFourGiB;
}

}  // namespace

std::uint64_t default_pci_hole64_size(MachineType type) {
  return type == MachineType::q35 ? 32 * kGiB : 2 * kGiB;
}

std::vector<MemoryRange> machine_layout(MachineType type, CpuVendor vendor, std::uint64_t size,
                                        std::uint64_t pci_hole64_size, std::uint64_t hotplug_memory) {
  if (type == MachineType::virt) return {ram(kGiB, size)};
  if (type == MachineType::s390) return {ram(0, size)};
  const std::uint64_t low = std::min(size, low_memory(type, size));
  if (size == low) return {ram(0, low)};
  const std::uint64_t high = size - low;
  return {ram(0, low), ram(high_memory_start(vendor, high, pci_hole64_size, hotplug_memory), high)};
}

Range hotplug_range(const std::vector<MemoryRange>& mapped, std::uint64_t backing, std::uint64_t size) {
  const std::uint64_t unit = std::max(std::uint64_t{1} << 30, backing);
  std::uint64_t end = 0;
  for (const MemoryRange& m : mapped) end = std::max(end, m.gpa.last + 1);
  const std::uint64_t start = (end + (unit - 1)) / unit * unit;
  return {start, start + (size - 1)};
}

}  // namespace ioplan
