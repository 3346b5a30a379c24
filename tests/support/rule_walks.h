// The walks of backends/sim/walks.h over rules alone: no machine, no attach, nothing but the law read in the walks' order.
//
// The oracle of sim_walks_test and baselines_test. It shares with the product the names of the walks and the law.
// Sources: KR 2.3, 5.1 and QEMU hw/vfio/iommufd.c, as walks.h says. It knows no domain ids and no DIRECT regions: ask it about
// devices that can be bound, with ids to spare.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backends/sim/walks.h"
#include "engine/law/law.h"
#include "engine/model/host.h"

namespace ioplan {

struct RuleTable {
  DeviceIndex allocator;
  HwptQuantities hwpt;
  std::vector<std::uint32_t> groups;  // in the order of plugging
};

struct RuleWalk {
  bool complete = true;
  std::vector<RuleTable> tables;  // in the order of their making
};

// `groups`: the VM's devices by IOMMU group; `order`: indices of groups.
RuleWalk walk_rules(sim::Walk kind, const Host& host, std::span<const std::vector<DeviceIndex>> groups,
                    std::span<const std::uint32_t> order, const Law& law);

}  // namespace ioplan
