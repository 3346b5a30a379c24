// What others make of the same devices: the kernel's automatic attach, QEMU's loop, type1's walk.
//
// Each takes devices in the order in which they are plugged, asks the kernel by attaching for real, and never looks
// back. The kernel here is the simulated one, so every errno that ends or continues a walk is the one that Linux would
// give. Whether the outcome also meets needs, policy and the rules that Linux does not check is not asked here
// (engine/solve/broken_rule.h). Nothing is mapped: the walks are about who may share.
//   kernel  KR 2.3 (iommufd_device_auto_get_domain): the IOAS's automatic HWPTs, oldest first; EINVAL means the next one,
//           any other errno ends it.
//   qemu    hw/vfio/iommufd.c iommufd_cdev_autodomains_get: the HWPTs that QEMU allocated in an IOAS, newest first, EINVAL as
//           above; else a new HWPT, with dirty tracking where the device can. What fails in every IOAS gets a new IOAS.
//   type1   KR 5.1 (vfio_iommu_type1_attach_group) in one container (type1.h).
// (Walks of page tables are the business of walker.h.)
// Held by tests/sim_walks_test.cc (hand-made hosts; walks over rules alone on random hosts) and tests/baselines_test.cc.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "backends/sim/machine.h"
#include "backends/sim/refusal.h"
#include "engine/base/strong_id.h"

namespace ioplan::sim {

enum class Walk : std::uint8_t { kernel, qemu, type1 };
inline constexpr std::array<std::string_view, 3> kWalkNames = {"kernel", "qemu", "type1"};

struct WalkedHwpt {
  DeviceIndex allocator;
  std::uint8_t flags = 0;  // HwptFlag
  bool enforce_cache_coherency = false;
  std::size_t ioas = 0;              // which address space of the walk: only QEMU opens a second one
  std::vector<DeviceIndex> devices;  // in the order of plugging
};

struct WalkOutcome {
  std::vector<WalkedHwpt> hwpts;    // in the order of their making
  std::optional<Refusal> refusal;   // an attach that failed for good, and ended the walk
  std::optional<DeviceIndex> refused;

  bool complete() const { return !refusal; }
};

// Plugs the devices one after the other, looks, and unplugs them all: the machine is as before.
// Requires: devices of machine.host(), each once, none in use by another context or container.
WalkOutcome walk(Walk kind, Machine& machine, std::span<const DeviceIndex> devices);

// A VM's devices of one IOMMU group, plugged one after the other in this order.
using PluggedGroup = std::vector<DeviceIndex>;

// The same outcome for whole groups, fast for large hosts: a group that nothing but its name tells from one plugged before
// is not asked again until there is a new HWPT, because its answer would be the same. (Where domain ids are scarce every group
// is asked.) `order`: indices of groups, each once.
WalkOutcome walk_groups(Walk kind, Machine& machine, const Law& law, std::span<const PluggedGroup> groups,
                        std::span<const std::uint32_t> order);

// Outcomes over many orders of plugging.
struct WalkStatistics {
  std::size_t orders = 0;
  std::map<std::size_t, std::size_t> valid;                           // HWPTs -> orders
  std::map<std::pair<std::size_t, std::string>, std::size_t> unsafe;  // (HWPTs, broken rule) -> orders
  std::size_t failed = 0;                                             // an attach failed for good
};

// The first rule that a complete outcome breaks; empty when it is good.
using WalkJudge = std::function<std::string(const WalkOutcome&)>;

// Walks `orders` seeded random orders of the groups, as walk_groups does, or all of them when there are fewer.
WalkStatistics walk_orders(Walk kind, Machine& machine, const Law& law, std::span<const PluggedGroup> groups,
                           std::size_t orders, std::uint64_t seed, const WalkJudge& judge);

}  // namespace ioplan::sim
