// What a running VM can still take: every device of the host that no VM has, each alone, and memory (README.md 7).
//
// Devices that nothing tells apart are asked about once. Held by tests/foresight_test.cc.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/base/error.h"
#include "engine/law/law.h"
#include "engine/model/plan.h"
#include "engine/model/request.h"

namespace ioplan {

enum class Room : std::uint8_t { joins, new_hwpt, after_moves, none };
inline constexpr std::array<std::string_view, 4> kRoomNames = {"joins", "new-hwpt", "after-moves", "no"};

struct DeviceHeadroom {
  std::string device;
  Room room = Room::none;
  std::string hwpt;             // that it would be in
  std::size_t interrupted = 0;  // devices, when after_moves
  std::string rule;             // that refuses, when there is no room
  std::string because;          // why not, or what the guest would notice
};

struct Headroom {
  std::string vm;
  std::vector<DeviceHeadroom> devices;  // in the host's order
  std::uint64_t memory_frozen = 0;      // bytes that `+SIZE` could add at most
  std::uint64_t memory_converge = 0;    // the same when devices may move; a multiple of 1 GiB, or memory_frozen
};

// `vm`: empty for the request's only one. Errors: no such VM.
Result<Headroom> headroom(const Plan& running, const Request& request, const std::string& vm, const Law& law);

}  // namespace ioplan
