// The fields of the capability registers by the names that specifications give them, for people who compare units.
// What they mean to a plan is decided in the driver's own file, not here.
//
// Sources: Intel VT-d specification 5.0, 11.4.2 and 11.4.3; AMD I/O Virtualization Technology 3.10, 3.4.10 (MMIO offsets
// 30h and 1A0h); Arm SMMUv3 (IHI 0070), 6.3.1-6.3.6; RISC-V IOMMU 1.0, 5.3. Held by tests/fields_test.cc, against the
// differences between units that the corpus states.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "engine/model/facts.h"

namespace ioplan::drivers {

struct Field {
  std::string_view name;
  UnitFact word;  // the register
  std::uint8_t low, bits;
  std::string_view meaning;  // empty where no plan depends on it
};

constexpr std::uint64_t value_of(const Field& field, std::uint64_t word) {
  return word >> field.low & (~std::uint64_t{0} >> (64 - field.bits));
}

// In the order of registers and bits; empty for drivers whose facts are no registers.
std::span<const Field> fields_of(Driver driver);

}  // namespace ioplan::drivers
