// A dense index that cannot be mistaken for another kind of index. Ids are given out from sorted input, so that the
// same facts give the same ids whatever order they were written in (held by tests/plan_determinism_test.cc).
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>

namespace ioplan {

template <class Tag>
struct StrongId {
  std::uint32_t value = 0;

  constexpr StrongId() = default;
  constexpr explicit StrongId(std::size_t v) : value(static_cast<std::uint32_t>(v)) {}
  constexpr std::size_t index() const { return value; }
  friend constexpr auto operator<=>(StrongId, StrongId) = default;
};

using UnitIndex = StrongId<struct UnitTag>;      // Host::units, in the order of their names
using DeviceIndex = StrongId<struct DeviceTag>;  // Host::devices, in the order of their ids
using VmIndex = StrongId<struct VmTag>;          // Request::vms, in the order of their names
using GroupIndex = StrongId<struct GroupTag>;    // Problem::groups, in the order of their lowest device

}  // namespace ioplan
