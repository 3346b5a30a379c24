// What a machine has: IOMMU units with their registers, devices, groups and reserved regions.
//
// Units are sorted by id and devices by id (numerically: segment, bus, device, function), so an index is an order that
// does not depend on how the documents were written. Nothing here is derived; the law derives (engine/law/law.h).
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "engine/base/range.h"
#include "engine/base/strong_id.h"
#include "engine/model/facts.h"

namespace ioplan {

enum class Arch : std::uint8_t { x86_64, aarch64, riscv64, s390x };
inline constexpr std::array<std::string_view, 4> kArchNames = {"x86_64", "aarch64", "riscv64", "s390x"};
constexpr std::string_view name_of(Arch a) { return kArchNames[static_cast<std::size_t>(a)]; }

// The host's pool of huge pages of one size.
struct HugePages {
  std::uint64_t size = 0;  // bytes
  std::uint64_t total = 0, free = 0;

  friend auto operator<=>(const HugePages&, const HugePages&) = default;
};

struct Kernel {
  std::optional<Arch> arch;
  std::optional<std::string> release;
  Facts<KernelFact> facts;
  std::string cpu_vendor;            // as /proc/cpuinfo has it: "GenuineIntel"
  std::string command_line;          // the options that concern IOMMUs
  std::vector<HugePages> hugepages;  // by size

  friend bool operator==(const Kernel&, const Kernel&) = default;
};

// One IOMMU instance.
struct Unit {
  std::string id;
  Driver driver = Driver::intel;
  Facts<UnitFact> facts;
  std::optional<std::uint64_t> address{};  // of its registers
  std::string version{};                   // "6:0"

  friend bool operator==(const Unit&, const Unit&) = default;
};

// The kernel's enum iommu_resv_type. sysfs prints a software MSI window as `msi` too.
enum class ReservedType : std::uint8_t { direct, direct_relaxable, reserved, msi, sw_msi };
inline constexpr std::array<std::string_view, 5> kReservedTypeNames = {"direct", "direct-relaxable", "reserved", "msi",
                                                                       "sw-msi"};

struct ReservedRegion {
  Range range;
  ReservedType type = ReservedType::reserved;

  friend auto operator<=>(const ReservedRegion&, const ReservedRegion&) = default;
};

struct Bar {
  unsigned index = 0;
  std::uint64_t size = 0;

  friend auto operator<=>(const Bar&, const Bar&) = default;
};

struct Device {
  std::string id;                       // PCI address, or any other name for a platform device
  std::optional<UnitIndex> unit;        // absent: unknown
  std::optional<std::uint32_t> group;   // the kernel's group number; absent: unknown
  std::string name;
  std::vector<std::string> labels;
  Facts<DeviceFact> facts;
  std::optional<CoherencySource> dma_coherent_source;
  std::optional<std::vector<ReservedRegion>> reserved;  // absent: the driver's own regions; sorted when present
  std::vector<Bar> bars;                                // by index
  std::string bound_driver;                             // "vfio-pci"
  std::string physical_function;                        // of a virtual function: the id of its physical one
  std::string group_type;                               // the group's default domain as sysfs says it: "DMA-FQ"

  friend bool operator==(const Device&, const Device&) = default;
};

// A fact that nobody could tell, and what would. Without subjects the fact holds for everything that its path names.
struct Gap {
  std::string fact;  // "kernel.va_bits"; "devices.pasid_bits" with the devices as subjects
  std::string why;
  std::string supply;
  std::vector<std::string> subjects;

  friend auto operator<=>(const Gap&, const Gap&) = default;
};

struct Host {
  std::string name;
  Kernel kernel;
  std::vector<Unit> units;      // sorted by id
  std::vector<Device> devices;  // sorted by id

  // Where facts come from, by path; a `*` in the path stands for any id, and in the text for the same id. The path
  // itself goes before the pattern. Neither these nor the gaps are facts: nothing plans by them.
  std::map<std::string, std::string> sources;
  std::vector<Gap> unknown;  // sorted

  const Unit& unit(UnitIndex i) const { return units[i.index()]; }
  const Device& device(DeviceIndex i) const { return devices[i.index()]; }
  std::optional<DeviceIndex> find_device(std::string_view id) const;
  std::optional<UnitIndex> find_unit(std::string_view id) const;

  friend bool operator==(const Host&, const Host&) = default;
};

// A name for the facts of a host that plans can depend on (not for its text): equal facts, equal fingerprint. 128 bits
// as a UUID.
std::string fingerprint(const Host& host);

// The architecture stated, or the one that the units' drivers imply.
Arch arch_of(const Host& host);

// Orders units and devices by id and makes references follow. Called once by whoever builds a host.
void sort_by_id(Host& host);

}  // namespace ioplan
