// The judge's picture of a machine between two steps: who is bound, what KVM was told, what is mapped, who is where.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "engine/check/interval.h"
#include "engine/check/scene.h"
#include "engine/model/plan.h"

namespace ioplan::check {

struct RunningSpace {
  std::string vm;
  std::vector<Range> allowed;
  std::vector<MemoryRange> mapped;
  std::vector<std::string> made;  // under type1: its HWPTs in the order of their making
};

struct RunningHwpt {
  std::string ioas;
  HwptQuantities what;
  bool automatic = false;
  std::size_t maker = 0;  // the device that it was made for

  // Equal objects may have been made for different devices.
  friend bool operator==(const RunningHwpt& a, const RunningHwpt& b) {
    return a.ioas == b.ioas && a.what == b.what && a.automatic == b.automatic;
  }
};

// Plain data; replays change it, everybody else reads it.
struct RunningWorld {
  std::set<std::string> bound, registered;
  std::map<std::string, RunningSpace> spaces;
  std::map<std::string, RunningHwpt> hwpts;
  std::map<std::string, std::string> home;    // host device -> HWPT
  std::map<std::string, std::string> access;  // mediated device -> IOAS
};

// The world that a layout describes. Requires: allocators are devices of the host.
RunningWorld world_of(const Plan& layout, const Host& host, const Law& law);

// Which VM each device of the layout belongs to, retained ones too.
std::map<std::string, std::string> vm_of_devices(const Plan& layout);

}  // namespace ioplan::check
