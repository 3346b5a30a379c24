// Text as people paste it into bug reports, brought back to the lines that a program printed.
//
// `clean_lines` undoes what mail and terminals add to any text: carriage returns, colours and other escapes, quote
// marks. `log_lines` also takes the prefixes of kernel logs away (dmesg's raw, -T and -x forms, journalctl's and
// syslog's) and joins what a mailer or a terminal wrapped. Line numbers are those of the text as given, counted from 1.
//
// Wrapping is inferred, never assumed: a line that cannot be a message of its own is joined to the one before it when
// its first word would not have fit there, at the width that explains most of such lines. A file whose lines are cut at
// one column has no wrapped lines; what touches that column is marked, because a number there may lack digits.
// Held by tests/importers_test.cc.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace ioplan::intake {

struct TextLine {
  std::uint32_t number = 0;  // of the first physical line
  std::string text;
  bool cut = false;  // the end is missing, or may be
};

// Every line of the text; tabs stay, other control characters go.
std::vector<TextLine> clean_lines(std::string_view text);

// Messages of a kernel log without their prefixes.
struct LogLine : TextLine {
  std::uint8_t prefixes = 0;  // the kinds that were taken away: lines printed by one program have the same
};
std::vector<LogLine> log_lines(std::string_view text);

}  // namespace ioplan::intake
