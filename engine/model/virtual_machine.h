// What a VM needs from the host's IOMMUs.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/base/range.h"
#include "engine/base/strong_id.h"

namespace ioplan {

enum class Need : std::uint8_t { no, preferred, required };
inline constexpr std::array<std::string_view, 3> kNeedNames = {"no", "preferred", "required"};

enum class Access : std::uint8_t { read_write, read_only };

// A range of guest physical addresses that devices must reach; IOVA = GPA, because there is no vIOMMU.
struct MemoryRange {
  Range gpa;
  Access access = Access::read_write;

  friend auto operator<=>(const MemoryRange&, const MemoryRange&) = default;
};

enum class MachineType : std::uint8_t { q35, pc, virt, s390 };
inline constexpr std::array<std::string_view, 4> kMachineTypeNames = {"q35", "pc", "virt", "s390-ccw-virtio"};

enum class CpuVendor : std::uint8_t { intel, amd };
inline constexpr std::array<std::string_view, 2> kCpuVendorNames = {"intel", "amd"};

// Either `size`, laid out by the machine's rules, or explicit `ranges`.
struct Memory {
  std::optional<std::uint64_t> size;
  std::vector<MemoryRange> ranges;         // sorted, disjoint
  std::optional<std::uint64_t> backing;    // page size of the backing memory, bytes
};

struct Machine {
  std::optional<MachineType> type;
  std::optional<CpuVendor> cpu_vendor;
  std::optional<std::uint64_t> pci_hole64_size;
};

// A host device, or a mediated device (no IOMMU of its own: an access to the IOAS).
struct AssignedDevice {
  std::optional<DeviceIndex> host;
  std::string mdev;  // UUID, when `host` is absent
  std::string name;
  std::vector<std::string> labels;
  bool expected = false;  // not there: its place among the HWPTs is kept for it (the planner's foresight)
};

enum class ViommuModel : std::uint8_t { none, intel, amd, smmuv3, virtio };
inline constexpr std::array<std::string_view, 5> kViommuModelNames = {"none", "intel", "amd", "smmuv3", "virtio"};

struct Needs {
  Need dirty_tracking = Need::no;
  Need nest_parent = Need::no;
  Need pasid = Need::no;
  std::vector<std::pair<std::string, std::string>> p2p;  // names or host ids of devices that reach each other's BARs
};

struct HotplugExpectation {
  std::vector<std::string> hosts;  // device ids
  std::vector<std::string> classes;
  std::uint64_t memory = 0;
};

struct VirtualMachine {
  std::string name;
  Memory memory;
  Machine machine;
  std::vector<AssignedDevice> devices;  // host devices by index, then mdevs by UUID
  ViommuModel viommu = ViommuModel::none;
  Needs needs;
  HotplugExpectation hotplug;
  bool guest_cache_maintenance = false;
  std::optional<Range> expected_memory;  // not mapped: nothing may stand in its way (the planner's foresight)
  bool retains_noncoherent = false;      // a file of an unplugged device keeps KVM non-coherent (engine/lifecycle)
};

// What QEMU's board code makes of `size` on a machine (hw/i386/pc.c, hw/i386/pc_q35.c, hw/arm/virt.c), RAM only.
// `hotplug_memory` counts towards the 64-bit PCI hole's place. Requires: type and, on q35 and pc, vendor known.
std::vector<MemoryRange> machine_layout(MachineType type, CpuVendor vendor, std::uint64_t size,
                                        std::uint64_t pci_hole64_size, std::uint64_t hotplug_memory);

// Where memory of this size is plugged: after what is mapped, at a multiple of 1 GiB and of the backing.
// Requires: size above 0. Ends before it starts when 2^64 is too near.
Range hotplug_range(const std::vector<MemoryRange>& mapped, std::uint64_t backing, std::uint64_t size);

// QEMU's default size of the 64-bit PCI hole.
std::uint64_t default_pci_hole64_size(MachineType type);

}  // namespace ioplan
