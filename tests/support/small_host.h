// A host small enough to know every answer by hand: two VT-d units with the same second-stage tables, which differ in
// snoop control only.
//
//   dmar0 enforces coherency     0000:01:00.0  0000:03:00.0 (two coherent devices)
//   dmar1 does not               0000:02:00.0  0000:04:00.0 (two non-coherent devices)
//
// A HWPT that a coherent device allocates takes coherent devices only; one that a non-coherent device allocates takes
// all four. Each device is a group of its own, and reserves the MSI window 0xfee00000-0xfeefffff.
#pragma once

#include <string>
#include <vector>

#include "engine/model/request.h"

namespace ioplan::small_host {

inline constexpr const char* kCoherent = "0000:01:00.0";
inline constexpr const char* kNonCoherent = "0000:02:00.0";
inline constexpr const char* kCoherent2 = "0000:03:00.0";
inline constexpr const char* kNonCoherent2 = "0000:04:00.0";
inline constexpr const char* kMediated = "4b20d080-1b54-4048-85b3-a6a62d165c01";

// One VM, "vm0", with 1 GiB from 0 on; mediated devices by UUID.
Request request_with(const std::vector<std::string>& devices);

// Adds a `separate` rule for the two devices.
void keep_apart(Request& request, const std::string& a, const std::string& b);

}  // namespace ioplan::small_host
