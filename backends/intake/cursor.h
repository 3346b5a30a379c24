// Reads a line from left to right: literals, numbers, words. A blank in a literal stands for any run of blanks, because
// wrapping and tabs change them. Numbers that may lack digits (the end of a cut line) are not read.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "backends/intake/pasted_text.h"

namespace ioplan::intake {

class Cursor {
 public:
  explicit Cursor(std::string_view text) : rest_(text) {}
  explicit Cursor(const TextLine& line) : rest_(line.text), cut_(line.cut) {}

  // Takes the literal when it comes next.
  bool skip(std::string_view literal);
  // Takes everything up to and with the literal when it comes at all.
  bool skip_past(std::string_view literal);
  void skip_blanks();

  // The next number, hexadecimal with or without 0x, or decimal; nothing (and nothing taken) when there is none, when
  // it does not fit, and when it may be cut.
  std::optional<std::uint64_t> hex();
  std::optional<std::uint64_t> decimal();
  // The next word, up to a blank; empty at the end.
  std::string_view word();
  // Up to `end`, which is taken too; everything when it does not come.
  std::string_view until(char end);

  std::string_view rest() const { return rest_; }
  bool cut() const { return cut_; }
  bool at_end() const { return rest_.empty(); }

 private:
  std::optional<std::uint64_t> number(int base);

  std::string_view rest_;
  bool cut_ = false;
};

// "0000:01:00.0" when the text begins with a PCI address, with or without a segment; nothing otherwise. Segments may
// have more than four digits (Intel VMD: 10000). Takes it from the cursor.
std::optional<std::string> take_pci_address(Cursor& cursor);

// The same for a text that is nothing else.
std::optional<std::string> pci_address(std::string_view text);

// Four hexadecimal digits, a colon, four digits: "8086:9a49".
struct PciIds {
  std::uint16_t vendor = 0;
  std::uint16_t device = 0;

  friend bool operator==(const PciIds&, const PciIds&) = default;
};
std::optional<PciIds> take_pci_ids(Cursor& cursor);

}  // namespace ioplan::intake
