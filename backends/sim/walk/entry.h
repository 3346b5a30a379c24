// What one entry of a table says, in the words that all formats share; and the geometry of radix tables.
//
// A format of the walker is a small class that decodes one raw entry at a time, from the figures of its
// specification; the walk itself (backends/sim/walker.cc) is the same for all. A format offers
//
//   unsigned width(unsigned levels) const          input address bits that a table of so many levels translates
//   bool sign_extended() const                     bits above the width repeat its top bit; else they are 0
//   unsigned entry_lg2(unsigned level) const       bytes that one entry of the level spans
//   unsigned index_bits(unsigned level) const      of a table that is not the root
//   Entry decode(raw, level, iova) const           level 1 holds the smallest pages
//   std::uint64_t marked(raw, entry, access) const the raw entry as hardware leaves it: accessed, dirty
//
// Nothing here is shared with the code that writes tables. Held by tests/walker_test.cc.
#pragma once

#include <cstdint>
#include <string_view>

#include "backends/sim/walker.h"
#include "engine/base/log2.h"

namespace ioplan::sim::hardware {

struct Entry {
  enum class Kind : std::uint8_t { fault, table, page };

  Kind kind = Kind::fault;
  std::string_view why;             // of a fault
  std::uint64_t address = 0;        // of the next table, or of the page's first byte
  unsigned next_level = 0;          // of a table
  unsigned page_lg2 = 0;            // of a page; of its whole group where entries stand together
  unsigned group_lg2 = 0;           // so many entries (log2), aligned in their table, are this one page
  std::uint8_t allows = 0;          // kRead | kWrite; a table's are ANDed with those below it
  bool snooped = false;             // of a page
  bool dirty = false;               // of a page

  static Entry fault(std::string_view why) {
    Entry e;
    e.why = why;
    return e;
  }
  static Entry table(std::uint64_t address, unsigned next_level, std::uint8_t allows) {
    Entry e;
    e.kind = Kind::table;
    e.address = address;
    e.next_level = next_level;
    e.allows = allows;
    return e;
  }
  static Entry page(std::uint64_t address, unsigned page_lg2, std::uint8_t allows) {
    Entry e;
    e.kind = Kind::page;
    e.address = address;
    e.page_lg2 = page_lg2;
    e.allows = allows;
    return e;
  }
};

inline constexpr std::uint8_t kReadWrite = kRead | kWrite;

inline constexpr std::string_view kNothingHere = "nothing is mapped";
inline constexpr std::string_view kReservedBits = "a reserved bit is set";
inline constexpr std::string_view kReservedEncoding = "an entry of a reserved kind";
inline constexpr std::string_view kMisaligned = "a page address that is not aligned to the page";
inline constexpr std::string_view kTooWide = "an address wider than the output";

// Bits high..low of an entry as a mask.
constexpr std::uint64_t mask(unsigned high, unsigned low) { return last_of_width(high + 1) & ~last_of_width(low); }
static_assert(mask(11, 9) == 0xe00 && mask(63, 63) == std::uint64_t{1} << 63);

constexpr std::uint8_t permissions(bool read, bool write) {
  return static_cast<std::uint8_t>((read ? kRead : 0) | (write ? kWrite : 0));
}

// Tables of 4 KiB with 512 entries of 8 bytes, as x86 and RISC-V have them.
struct FourKiBTables {
  static constexpr unsigned entry_lg2(unsigned level) { return 12 + 9 * (level - 1); }
  static constexpr unsigned index_bits(unsigned) { return 9; }
  static constexpr unsigned full_width(unsigned levels) { return 12 + 9 * levels; }
};

}  // namespace ioplan::sim::hardware
