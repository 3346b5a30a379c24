// Abstract cover instances in three families, by size and seed.
//
//   R  16 candidates, every element accepts 1 to 4 of them, 5 % of all pairs stay apart
//   S  the same without pairs: hitting set
//   H  platform-like: 48 configurations = 3 formats x 2 widths x dirty tracking x nesting x coherency; 6 kinds of
//   IOMMU;
//      every element has a kind and needs of its own; n/16 VMs, and elements of different VMs stay apart
//
// After performance.md section 9, whose generator was not kept: the same parameters, not the same instances. All costs
// are zero, so that what is compared is the number of blocks and nothing else; `with_costs` adds what HWPTs cost.
#pragma once

#include <cstdint>
#include <string_view>

#include "engine/solve/cover.h"

namespace ioplan::bench {

enum class Family : std::uint8_t { R, S, H };
inline constexpr std::array<std::string_view, 3> kFamilyNames = {"R", "S", "H"};

CoverInstance cover_instance(Family family, std::size_t elements, std::uint64_t seed);

// With costs of coherency, page tables and flags: in H those of the configurations, elsewhere by the candidate's
// number.
CoverInstance with_costs(Family family, CoverInstance instance);

}  // namespace ioplan::bench
