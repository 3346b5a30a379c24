// Numbers, sizes and names as the user writes and reads them.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "engine/base/range.h"

namespace ioplan {

// Decimal or 0x hexadecimal; nothing else: `010`, `1_000`, `+5`, ` 5` are refused.
std::optional<std::uint64_t> parse_integer(std::string_view text);

// Looks like a C or YAML 1.1 octal (`010`, `0o10`): refused, because readers disagree about its value.
bool looks_octal(std::string_view text);

// `512GiB`, `4KiB`, `1.5TiB`, `4096B`; binary units only. Result in bytes.
std::optional<std::uint64_t> parse_size(std::string_view text);

// The largest unit that divides: 4096 -> "4KiB", 1073741824 -> "1GiB", 1000 -> "1000B".
std::string format_size(std::uint64_t bytes);

// "0x..." without leading zeros.
std::string format_hex(std::uint64_t value);

// A bitmap of page sizes as "4KiB 2MiB 1GiB"; where there are more than four, runs of powers as "4KiB..256GiB 1TiB".
std::string format_page_sizes(std::uint64_t bitmap);

// "0x0-0xfedfffff 0xfef00000-0xffffffff"; "nothing" when there are none.
std::string format_ranges(std::span<const Range> ranges);

// The candidate nearest to `word` by edit distance, when it is near enough to be a slip.
std::optional<std::string_view> nearest_name(std::string_view word, std::span<const std::string_view> candidates);

// "0000:01:00.0" or "01:00.0".
bool is_pci_address(std::string_view id);

// One spelling for a PCI function: "01:00.0" and capital digits become "0000:01:00.0"; other ids stay as they are.
std::string full_pci_address(std::string_view id);

// Bytes of the UTF-8 character at the start of `text`; 0 when it is none (RFC 3629: no overlong forms, no surrogates).
std::size_t utf8_length(std::string_view text);

// UTF-8 without control characters: what a document can hold as text.
bool is_one_line(std::string_view text);

// The same text on one line for messages: bytes that would not be are written `\x0a`.
std::string escaped(std::string_view text);

// 8-4-4-4-12 hexadecimal digits: what a mediated device is named by.
bool is_uuid(std::string_view id);

// Orders ids as people count: runs of digits by value, PCI ids (hexadecimal) by segment, bus, device, function.
bool natural_less(std::string_view a, std::string_view b);

}  // namespace ioplan
