// Every way to place groups of devices into HWPTs that exist and into new ones, and the best of them.
//
// Tries every placement, and for each new HWPT every template, stage by stage (domain ids ask for the stage only). The
// placements are tried in the canonical order of engine/lifecycle/README.md 3 (existing HWPTs in the order given, then
// new ones), so the first of equal cost is the canonical one; templates are chosen as engine/README.md 8 says.
#pragma once

#include <optional>
#include <vector>

#include "tests/support/layout_rules.h"

namespace ioplan::oracle {

struct Loose {  // what is to be placed: the devices of a group, there or promised
  std::vector<DeviceIndex> devices;
  std::vector<DeviceIndex> ghosts;
  std::optional<std::size_t> home;  // the existing HWPT that it must join
};

enum class NewHwpts : bool { refused, allowed };

struct Arena {
  Scene scene;
  std::vector<Placed> existing;  // with what stays in them
  std::vector<Loose> loose;      // in canonical order
  NewHwpts new_hwpts = NewHwpts::refused;
  std::vector<Placed> elsewhere;  // of other VMs: they draw domain ids
};

struct Found {
  ObjectiveValues cost;          // of this VM's HWPTs
  std::vector<Placed> existing;  // with all devices, in the order given
  std::vector<Placed> made;      // in the order in which they were opened
};

std::optional<Found> best_placement(const Arena& arena);

}  // namespace ioplan::oracle
