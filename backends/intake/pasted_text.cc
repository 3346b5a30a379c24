#include "backends/intake/pasted_text.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <optional>

#include "backends/intake/cursor.h"

namespace ioplan::intake {

namespace {

// --- characters ---

// Past one escape sequence of a terminal: CSI (colours, cursor), OSC (titles), or two characters.
std::string_view after_escape(std::string_view text) {
  text.remove_prefix(1);
  if (text.empty()) return text;
  const char kind = text[0];
  text.remove_prefix(1);
  if (kind == '[') {
    while (!text.empty() && (text[0] < '@' || text[0] > '~')) text.remove_prefix(1);
    if (!text.empty()) text.remove_prefix(1);
  } else if (kind == ']') {
    while (!text.empty() && text[0] != '\a' && text[0] != '\x1b') text.remove_prefix(1);
    if (!text.empty() && text[0] == '\a') text.remove_prefix(1);
  }
  return text;
}

std::string printable(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const auto c = static_cast<unsigned char>(text[0]);
    if (c == 0x1b) {
      text = after_escape(text);
      continue;
    }
    if ((c >= 0x20 && c != 0x7f) || c == '\t') out += text[0];
    text.remove_prefix(1);
  }
  return out;
}

// "> > text" -> "text"; blanks that are not a part of a quote mark stay.
std::string_view unquoted(std::string_view text) {
  while (true) {
    const std::size_t mark = text.find_first_not_of(' ');
    if (mark == std::string_view::npos || text[mark] != '>') return text;
    text.remove_prefix(mark + 1);
    if (text.starts_with(' ')) text.remove_prefix(1);
  }
}

void drop_last_blanks(std::string& text) { text.resize(text.find_last_not_of(" \t") + 1); }

// A pager's mark where it cut a line.
bool take_cut_mark(std::string& text) {
  for (const std::string_view mark : {">", "\xe2\x80\xa6"}) {
    if (!text.ends_with(mark)) continue;
    text.resize(text.size() - mark.size());
    return true;
  }
  return false;
}

// --- prefixes of kernel logs ---

enum Prefix : std::uint8_t { kLevel = 1, kFacility = 2, kUptime = 4, kCaller = 8, kWallClock = 16, kJournal = 32 };

bool digits_only(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, [](char c) { return c >= '0' && c <= '9'; });
}

// "<6>"
bool skip_level(Cursor& at) {
  Cursor ahead = at;
  if (!ahead.skip("<") || !ahead.decimal() || !ahead.skip(">")) return false;
  at = ahead;
  return true;
}

// "kern  :info  : " (dmesg -x)
bool skip_facility(Cursor& at) {
  static constexpr std::array<std::string_view, 5> kFacilities = {"kern", "user", "daemon", "syslog", "auth"};
  Cursor ahead = at;
  const std::string_view facility = ahead.until(':');
  const std::string_view name = facility.substr(0, facility.find(' '));
  if (std::ranges::find(kFacilities, name) == kFacilities.end() || facility.size() > 8) return false;
  const std::string_view level = ahead.until(':');
  if (level.size() > 8 || level.find_first_not_of("abcdefghijklmnopqrstuvwxyz ") != std::string_view::npos) return false;
  at = ahead;
  return true;
}

// "[    0.078407] "
bool skip_uptime(Cursor& at) {
  Cursor ahead = at;
  if (!ahead.skip("[")) return false;
  ahead.skip_blanks();
  const std::string_view stamp = ahead.until(']');
  const std::size_t dot = stamp.find('.');
  if (dot == std::string_view::npos || stamp.size() - dot != 7) return false;
  if (!digits_only(stamp.substr(0, dot)) || !digits_only(stamp.substr(dot + 1))) return false;
  at = ahead;
  return true;
}

// "[    T0] " (CONFIG_PRINTK_CALLER)
bool skip_caller(Cursor& at) {
  Cursor ahead = at;
  if (!ahead.skip("[")) return false;
  ahead.skip_blanks();
  const std::string_view who = ahead.until(']');
  if (who.empty() || (who[0] != 'T' && who[0] != 'C') || !digits_only(who.substr(1))) return false;
  at = ahead;
  return true;
}

constexpr std::array<std::string_view, 12> kMonths = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                                      "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};

bool is_month(std::string_view word) { return std::ranges::find(kMonths, word) != kMonths.end(); }

bool is_time_of_day(std::string_view word) {  // 02:51:00, 02:51:00.123456
  return word.size() >= 8 && word[2] == ':' && word[5] == ':' && digits_only(word.substr(0, 2)) &&
         digits_only(word.substr(3, 2)) && digits_only(word.substr(6, 2));
}

// "[Mon Nov 17 01:30:27 2025] " (dmesg -T)
bool skip_wall_clock(Cursor& at) {
  Cursor ahead = at;
  if (!ahead.skip("[")) return false;
  Cursor inside(ahead.until(']'));
  if (inside.word().size() != 3 || !is_month(inside.word()) || !digits_only(inside.word())) return false;
  if (!is_time_of_day(inside.word()) || !digits_only(inside.word())) return false;
  at = ahead;
  return true;
}

// "Nov 17 01:30:27" or "2025-11-17T01:30:27.123456+0100".
bool skip_date(Cursor& at) {
  Cursor ahead = at;
  const std::string_view first = ahead.word();
  if (is_month(first)) {
    if (!digits_only(ahead.word()) || !is_time_of_day(ahead.word())) return false;
  } else if (first.size() < 10 || first[4] != '-' || first[7] != '-' || !digits_only(first.substr(0, 4))) {
    return false;
  } else if (first.size() == 10) {
    if (!is_time_of_day(ahead.word())) return false;
  } else if (!is_time_of_day(first.substr(11))) {
    return false;
  }
  at = ahead;
  return true;
}

// "host kernel: ", "host INFO kernel[123]: ", "kernel: "
bool skip_kernel_name(Cursor& at) {
  Cursor ahead = at;
  for (int words = 0; words < 3; ++words) {
    const std::string_view word = ahead.word();
    if (word == "kernel:" || (word.starts_with("kernel[") && word.ends_with("]:"))) {
      at = ahead;
      return true;
    }
    if (word.empty() || word.ends_with(':')) return false;
  }
  return false;
}

bool skip_journal(Cursor& at) {
  const bool dated = skip_date(at);
  return skip_kernel_name(at) || dated;
}

// "drivers/iommu/dmar.c parse_dmar_table ": some kernels are built to say where each message comes from.
void skip_source_place(Cursor& at) {
  Cursor ahead = at;
  const std::string_view file = ahead.word();
  if (!file.ends_with(".c") || file.find('/') == std::string_view::npos || ahead.word().empty()) return;
  ahead.skip_blanks();
  at = ahead;
}

// The text from its first uptime on, whatever stands before it: "dmesg.txt:12:[    0.078407] DMAR: ...".
std::string_view from_uptime(std::string_view text) {
  static constexpr std::size_t kFar = 100;
  for (std::size_t at = text.find('['); at < kFar; at = text.find('[', at + 1)) {
    Cursor cursor(text.substr(at));
    if (skip_uptime(cursor)) return text.substr(at);
  }
  return text;
}

struct Peeled {
  std::string_view message;
  std::uint8_t prefixes = 0;
};

Peeled peel(std::string_view line) {
  struct Kind {
    Prefix bit;
    bool (*skip)(Cursor&);
  };
  static constexpr std::array<Kind, 6> kKinds = {{{kLevel, skip_level},
                                                  {kFacility, skip_facility},
                                                  {kUptime, skip_uptime},
                                                  {kCaller, skip_caller},
                                                  {kWallClock, skip_wall_clock},
                                                  {kJournal, skip_journal}}};
  Cursor at(from_uptime(line));
  std::uint8_t prefixes = 0;
  for (bool more = true; more;) {
    more = false;
    at.skip_blanks();
    for (const Kind& kind : kKinds) {
      if ((prefixes & kind.bit) != 0 || !kind.skip(at)) continue;
      prefixes = static_cast<std::uint8_t>(prefixes | kind.bit);
      at.skip_blanks();
      more = true;
    }
  }
  skip_source_place(at);
  return {at.rest(), prefixes};
}

// --- wrapping ---

struct Physical {
  LogLine line;             // without prefix
  std::size_t width = 0;    // with prefix, without quote marks
  bool may_continue = false;  // cannot be a message of its own
};

// "DMAR: ...", "pci 0000:00:02.0: ...": what the messages that are read begin with. Logs without prefixes have nothing
// else that tells a message from the rest of the one before.
bool begins_message(std::string_view text) {
  static constexpr std::array<std::string_view, 20> kBeginnings = {
      "DMAR",          "dmar",   "IOMMU ",       "AMD-Vi", "iommu:",    "ACPI:",     "Linux version", "Command line:",
      "Kernel command", "DMI:",  "Machine model:", "PCI",  "BIOS-e820:", "Booting Linux", "Memory:",  "x86",
      "perf/",         "[Firmware", "Hardware",    "IVMD"};
  if (std::ranges::any_of(kBeginnings, [&](std::string_view b) { return text.starts_with(b); })) return true;
  Cursor words(text);
  const std::string_view driver = words.word(), device = words.word();
  return !driver.ends_with(':') && device.size() > 2 && device.ends_with(':');
}

std::size_t first_word_size(std::string_view text) { return Cursor(text).word().size(); }

// A line break between two physical lines that wrapping would explain: for every width from `from` up to below `below`.
struct Break {
  std::size_t from = 0, below = 0;
};

std::vector<Break> possible_breaks(const std::vector<Physical>& lines) {
  std::vector<Break> out;
  for (std::size_t i = 1; i < lines.size(); ++i) {
    if (!lines[i].may_continue || lines[i - 1].line.text.empty()) continue;
    const std::size_t width = lines[i - 1].width;
    out.push_back({width, width + 1 + first_word_size(lines[i].line.text)});
  }
  return out;
}

constexpr std::size_t kNarrowest = 40, kWidest = 200;

// The width that explains most breaks, with hardly any wider line; the widest of such.
std::optional<std::size_t> wrap_width(const std::vector<Physical>& lines) {
  std::array<std::ptrdiff_t, kWidest + 2> change{};
  for (const Break& b : possible_breaks(lines)) {
    if (b.from > kWidest || b.below <= kNarrowest) continue;
    ++change[std::max(b.from, kNarrowest)];
    --change[std::min(b.below, kWidest + 1)];
  }
  std::array<std::ptrdiff_t, kWidest + 2> of_width{};
  for (const Physical& p : lines) ++of_width[std::min(p.width, kWidest + 1)];
  std::ptrdiff_t explained = 0, most = 0;
  std::ptrdiff_t wider = std::accumulate(of_width.begin() + kNarrowest, of_width.end(), std::ptrdiff_t{0});
  std::optional<std::size_t> best;
  for (std::size_t width = kNarrowest; width <= kWidest; ++width) {
    explained += change[width];
    wider -= of_width[width];
    const std::ptrdiff_t score = explained - 4 * wider;
    if (score <= 0 || score < most) continue;
    most = score;
    best = width;
  }
  return best;
}

// The message's first two words without digits: "DMAR: dmar: ".
std::string kind_of(std::string_view message) {
  Cursor words(message);
  static_cast<void>(words.word());
  static_cast<void>(words.word());
  std::string kind(message.substr(0, message.size() - words.rest().size()));
  std::erase_if(kind, [](char c) { return c >= '0' && c <= '9'; });
  return kind;
}

bool of_one_kind(const std::vector<const Physical*>& lines) {
  return std::ranges::all_of(lines, [&](const Physical* p) { return kind_of(p->line.text) == kind_of(lines[0]->line.text); });
}

// Whether the break before a line is what wrapping at `width` makes. A word wider than that has a line of its own.
bool is_wrapped(const Physical& before, const Physical& line, std::size_t width) {
  if (!line.may_continue || before.line.text.empty()) return false;
  const bool one_word = before.may_continue && before.line.text.find(' ') == std::string::npos;
  return (before.width <= width || one_word) && before.width + 1 + first_word_size(line.line.text) > width;
}

// A terminal breaks messages of all kinds at one column, within words too; a mailer breaks between words, at many.
bool broken_at_one_column(const std::vector<Physical>& lines, std::size_t width) {
  std::vector<const Physical*> broken;
  for (std::size_t i = 1; i < lines.size(); ++i) {
    if (is_wrapped(lines[i - 1], lines[i], width)) broken.push_back(&lines[i - 1]);
  }
  if (broken.size() < 3 || of_one_kind(broken)) return false;
  return std::ranges::all_of(broken, [&](const Physical* p) { return p->width == broken[0]->width; });
}

std::vector<LogLine> joined(std::vector<Physical> lines, std::size_t width) {
  const std::string_view between = broken_at_one_column(lines, width) ? "" : " ";
  std::vector<bool> continues(lines.size());
  for (std::size_t i = 1; i < lines.size(); ++i) continues[i] = is_wrapped(lines[i - 1], lines[i], width);
  std::vector<LogLine> out;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    LogLine& line = lines[i].line;
    if (continues[i]) {
      out.back().text.append(between).append(line.text);
      out.back().cut = line.cut;
    } else {
      out.push_back(std::move(line));
    }
  }
  return out;
}

// --- lines cut at one column ---

// Several lines, not all of one kind, that end at the widest column: what printed them cut them there.
void mark_cut_lines(std::vector<Physical>& lines) {
  std::size_t widest = 0;
  for (const Physical& p : lines) widest = std::max(widest, p.width);
  std::vector<const Physical*> at_edge;
  for (const Physical& p : lines) {
    if (p.width == widest) at_edge.push_back(&p);
  }
  if (widest < kNarrowest || widest > kWidest || at_edge.size() < 3 || of_one_kind(at_edge)) return;
  for (Physical& p : lines) p.line.cut |= p.width == widest;
}

std::vector<Physical> physical_lines(std::string_view text) {
  std::vector<Physical> lines;
  std::size_t with_prefix = 0;
  for (TextLine& clean : clean_lines(text)) {
    Physical p;
    p.line.cut = take_cut_mark(clean.text);
    p.width = clean.text.size();
    p.line.number = clean.number;
    const Peeled peeled = peel(clean.text);
    p.line.prefixes = peeled.prefixes;
    p.line.text = peeled.message;
    if (peeled.prefixes != 0) ++with_prefix;
    lines.push_back(std::move(p));
  }
  const bool prefixed = with_prefix * 4 >= lines.size();
  for (Physical& p : lines) {
    p.may_continue = !p.line.text.empty() && p.line.prefixes == 0 && (prefixed || !begins_message(p.line.text));
  }
  return lines;
}

}  // namespace

std::vector<TextLine> clean_lines(std::string_view text) {
  std::vector<TextLine> out;
  std::uint32_t number = 0;
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    const std::string line = printable(text.substr(0, end));
    out.push_back({++number, std::string(unquoted(line)), false});
    drop_last_blanks(out.back().text);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  }
  return out;
}

std::vector<LogLine> log_lines(std::string_view text) {
  std::vector<Physical> lines = physical_lines(text);
  if (const auto width = wrap_width(lines)) return joined(std::move(lines), *width);
  mark_cut_lines(lines);
  std::vector<LogLine> out;
  for (Physical& p : lines) out.push_back(std::move(p.line));
  return out;
}

}  // namespace ioplan::intake
