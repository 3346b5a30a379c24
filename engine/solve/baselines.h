// What others make of the same devices: the kernel's automatic attach, QEMU's loop, type1's walk.
//
// Each takes groups in the order in which they are plugged and never looks back. They ask the kernel, so they see the
// kernel's rules without the strict ones; whether the outcome meets needs, policy and the strict rules is judged
// afterwards. Sources: KR 2.3 (iommufd_device_auto_get_domain, oldest first), KR 5.1 (vfio_iommu_type1_attach_group),
// QEMU hw/vfio/iommufd.c iommufd_cdev_autodomains_get (newest first). Held by tests/baselines_test.cc.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "engine/solve/solver.h"

namespace ioplan {

enum class Walk : std::uint8_t { kernel, qemu, type1 };
inline constexpr std::array<std::string_view, 3> kWalkNames = {"kernel", "qemu", "type1"};

struct WalkOutcome {
  std::size_t hwpts = 0;
  bool complete = true;   // false: an attach failed for good
  std::string broken;     // the first rule that the outcome breaks; empty when it meets needs, policy and strict rules
};

// `order`: indices of Problem::groups.
WalkOutcome walk(Walk kind, const VmModel& model, const std::vector<std::uint32_t>& order, const Law& law);

// Outcomes over seeded random orders; all orders when there are fewer.
struct WalkStatistics {
  std::size_t orders = 0;
  std::map<std::size_t, std::size_t> valid;                          // HWPTs -> orders
  std::map<std::pair<std::size_t, std::string>, std::size_t> unsafe;  // (HWPTs, broken rule) -> orders
  std::size_t failed = 0;
};
WalkStatistics walk_orders(Walk kind, const VmModel& model, std::size_t orders, std::uint64_t seed, const Law& law);

}  // namespace ioplan
