// Log2 arithmetic on sizes and addresses. Each helper's static_assert is its documentation, example and test.
#pragma once

#include <bit>
#include <cstdint>

namespace ioplan {

// 2^lg2; lg2 is 0..63.
constexpr std::uint64_t pow2(unsigned lg2) { return std::uint64_t{1} << lg2; }
static_assert(pow2(12) == 4096);

// The last address of a space of `bits` bits; bits is 0..64.
constexpr std::uint64_t last_of_width(unsigned bits) { return bits >= 64 ? ~std::uint64_t{0} : pow2(bits) - 1; }
static_assert(last_of_width(39) == 0x7fffffffff && last_of_width(64) == ~std::uint64_t{0} && last_of_width(0) == 0);

// How many bits are needed to name every address up to `last`.
constexpr unsigned width_of_last(std::uint64_t last) { return static_cast<unsigned>(std::bit_width(last)); }
static_assert(width_of_last(0x7fffffffff) == 39 && width_of_last(~std::uint64_t{0}) == 64);

// The lowest set bit as a mask; 0 for 0.
constexpr std::uint64_t lowest_bit(std::uint64_t v) { return v & (~v + 1); }
static_assert(lowest_bit(0x3000) == 0x1000 && lowest_bit(0) == 0);

// The highest set bit as a mask; 0 for 0.
constexpr std::uint64_t highest_bit(std::uint64_t v) { return v == 0 ? 0 : std::bit_floor(v); }
static_assert(highest_bit(0x40201000) == 0x40000000);

// A field of a register: bits low..high inclusive.
constexpr std::uint64_t bits(std::uint64_t reg, unsigned high, unsigned low) {
  return (reg >> low) & last_of_width(high - low + 1);
}
static_assert(bits(0xd2008c40660462, 12, 8) == 4 && bits(0xd2008c40660462, 21, 16) == 38);

constexpr bool bit(std::uint64_t reg, unsigned n) { return (reg >> n & 1) != 0; }

}  // namespace ioplan
