#include "backends/intake/lspci.h"

#include <algorithm>
#include <array>
#include <map>

namespace ioplan::intake {

namespace {

// --- one function's text ---

// The lines of one function, joined by blanks, so that a line that was wrapped reads as it was printed.
class Body {
 public:
  void add(const TextLine& line) {
    starts_.push_back({text_.size(), line.number});
    text_ += line.text;
    text_ += ' ';
  }

  // What follows `label`, and its line; nothing when the label does not come.
  struct Found {
    Cursor at;
    std::uint32_t line;
  };
  std::optional<Found> after(std::string_view label) const { return after(label, text_); }
  // The same within one capability: from its title to the next one.
  std::optional<Found> after(std::string_view label, std::string_view capability) const {
    Cursor at(capability);
    if (!at.skip_past(label)) return std::nullopt;
    const auto offset = static_cast<std::size_t>(at.rest().data() - text_.data());
    const auto next = std::ranges::upper_bound(starts_, offset, {}, &Start::offset);
    return Found{at, next == starts_.begin() ? 0 : std::prev(next)->line};
  }
  // The text of a capability; empty when the function has none of that title.
  std::string_view capability(std::string_view title) const {
    const std::string_view all = text_;
    for (std::size_t at = all.find(kTitle); at != std::string_view::npos; at = all.find(kTitle, at + 1)) {
      const std::string_view one = all.substr(at, all.find(kTitle, at + 1) - at);
      Cursor cursor(one);
      if (cursor.skip_past("] ") && cursor.rest().starts_with(title)) return one;
    }
    return {};
  }
  std::string_view before_capabilities() const { return std::string_view(text_).substr(0, text_.find(kTitle)); }

 private:
  static constexpr std::string_view kTitle = "Capabilities: [";
  struct Start {
    std::size_t offset;
    std::uint32_t line;
  };
  std::string text_;
  std::vector<Start> starts_;
};

std::optional<Noted<std::uint64_t>> decimal_after(const Body& body, std::string_view label) {
  auto found = body.after(label);
  if (!found) return std::nullopt;
  found->at.skip_blanks();
  const auto value = found->at.decimal();
  return value ? std::optional(Noted<std::uint64_t>{*value, found->line}) : std::nullopt;
}

// "NoSnoop+" -> true
std::optional<bool> flag(const Body& body, std::string_view capability, std::string_view name) {
  const auto found = body.after(name, capability);
  if (!found || found->at.at_end()) return std::nullopt;
  const char sign = found->at.rest()[0];
  return sign == '+' || sign == '-' ? std::optional(sign == '+') : std::nullopt;
}

// "SrcValid+ TransBlk+ ReqRedir-": the words with a sign that follow the label.
std::string flags_after(const Body& body, std::string_view capability, std::string_view label) {
  auto found = body.after(label, capability);
  std::string out;
  while (found) {
    const std::string_view word = found->at.word();
    if (!word.ends_with('+') && !word.ends_with('-')) break;
    out += (out.empty() ? "" : " ") + std::string(word);
  }
  return out;
}

// "[size=16M]": a power of two in bytes, K, M, G or T.
std::optional<std::uint64_t> bar_size(Cursor at) {
  if (!at.skip_past("[size=")) return std::nullopt;
  const auto count = at.decimal();
  static constexpr std::string_view kUnits = "KMGT";
  const char unit = at.at_end() ? ']' : at.rest()[0];
  const std::size_t shift = unit == ']' ? 0 : 10 * (kUnits.find(unit) + 1);
  if (!count || *count == 0 || *count > 1024 * 1024 || shift > 40) return std::nullopt;
  return *count << shift;
}

// "Region 0: Memory at 603c000000 (64-bit, non-prefetchable) [size=16M]"; those below a capability are a VF's.
void read_bars(const Body& body, LspciFunction& out) {
  std::string_view text = body.before_capabilities();
  while (const auto found = body.after("Region ", text)) {
    Cursor at = found->at;
    text = at.rest();
    const auto index = at.decimal();
    if (!index || *index > 5 || !at.skip(": Memory at ")) continue;
    const std::size_t next = at.rest().find("Region ");
    if (const auto size = bar_size(Cursor(at.rest().substr(0, next)))) {
      out.bars.push_back({static_cast<unsigned>(*index), *size, found->line});
    }
  }
}

// "Express (v2) Root Port (Slot+), MSI 00": what stands between the version and the comma.
std::string express_type(std::string_view capability) {
  Cursor at(capability);
  if (!at.skip_past("Express ")) return {};
  if (at.skip("(v")) static_cast<void>(at.until(')'));
  at.skip_blanks();
  const std::string_view type = at.rest().substr(0, std::min(at.rest().find(','), at.rest().find("DevCap")));
  return std::string(type.substr(0, type.find_last_not_of(" \t") + 1));
}

void read_express(const Body& body, LspciFunction& out) {
  std::string_view express = body.capability("Express");
  if (express.empty()) return;
  out.express_type = express_type(express);
  // FLReset is in DevCap whether the function has it, in DevCtl an order.
  const std::size_t control = express.find("DevCtl:");
  out.flr = flag(body, express.substr(0, control), "FLReset");
  if (control == std::string_view::npos) return;
  out.no_snoop = flag(body, express.substr(control), "NoSnoop");
  out.relaxed_ordering = flag(body, express.substr(control), "RlxdOrd");
}

// "Max PASID Width: 14": hexadecimal.
void read_pasid(const Body& body, LspciFunction& out) {
  const std::string_view pasid = body.capability("Process Address Space ID");
  out.pasid = !pasid.empty();
  auto found = body.after("Max PASID Width: ", pasid);
  if (!found) return;
  const auto width = found->at.hex();
  if (width && *width <= 31) out.pasid_bits = Noted<std::uint64_t>{*width, found->line};
}

// "Initial VFs: 7, Total VFs: 7, Number of VFs: 0, ..." and "VF offset: 1, stride: 1, Device ID: 46a6"
void read_sriov(const Body& body, LspciFunction& out) {
  const std::string_view text = body.capability("Single Root I/O Virtualization");
  if (text.empty()) return;
  const auto number = [&](std::string_view label, bool hexadecimal) {
    auto found = body.after(label, text);
    if (!found) return std::uint64_t{0};
    return (hexadecimal ? found->at.hex() : found->at.decimal()).value_or(0);
  };
  out.sriov = LspciFunction::Sriov{number("Initial VFs: ", false), number("Total VFs: ", false),
                                   number("Number of VFs: ", false), number("VF offset: ", false),
                                   number("stride: ", false),        number("Device ID: ", true)};
}

void read_bus_numbers(const Body& body, LspciFunction& out) {
  const auto hex = [&](std::string_view label) -> std::optional<Noted<std::uint64_t>> {
    auto found = body.after(label, body.before_capabilities());
    const auto value = found ? found->at.hex() : std::nullopt;
    return value ? std::optional(Noted<std::uint64_t>{*value, found->line}) : std::nullopt;
  };
  out.secondary = hex("secondary=");
  out.subordinate = hex("subordinate=");
}

void read_body(const Body& body, LspciFunction& out) {
  out.numa = decimal_after(body, "NUMA node:");
  if (!out.numa) out.numa = decimal_after(body, "NUMA node ");
  out.group = decimal_after(body, "IOMMU group:");
  if (!out.group) out.group = decimal_after(body, "IOMMU group ");
  if (auto driver = body.after("Kernel driver in use: ")) out.driver = driver->at.word();
  out.verbose = body.after("Control: ") || body.after("Flags: ");
  read_bars(body, out);
  read_bus_numbers(body, out);
  read_express(body, out);
  read_pasid(body, out);
  read_sriov(body, out);
  out.ats = !body.capability("Address Translation Service").empty();
  out.pri = !body.capability("Page Request Interface").empty();
  const std::string_view acs = body.capability("Access Control Services");
  out.acs_capabilities = flags_after(body, acs, "ACSCap:");
  out.acs_control = flags_after(body, acs, "ACSCtl:");
}

// --- its first line ---

// "(prog-if 30 [XHCI])"
void read_interface(std::string_view text, std::uint32_t line, LspciFunction& out) {
  Cursor at(text);
  if (!at.skip_past("(prog-if ")) return;
  const auto value = at.hex();
  if (value && *value <= 0xff) out.interface = Noted<std::uint64_t>{*value, line};
}

// The last "[8086:9a49]" of a description; what is in front of it is the name.
std::optional<PciIds> take_last_ids(std::string_view& text) {
  for (std::size_t at = text.rfind('['); at != std::string_view::npos && at != 0; at = text.rfind('[', at - 1)) {
    Cursor cursor(text.substr(at + 1));
    const auto ids = take_pci_ids(cursor);
    if (!ids || !cursor.skip("]")) continue;
    text = text.substr(0, at);
    return ids;
  }
  return std::nullopt;
}

std::string trimmed(std::string_view text) {
  const std::size_t first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) return {};
  return std::string(text.substr(first, text.find_last_not_of(" \t") + 1 - first));
}

// "Host bridge [0600]" or "0600" or "Host bridge"
void read_class(std::string_view text, std::uint32_t line, LspciFunction& out) {
  const std::size_t bracket = text.rfind('[');
  Cursor digits(bracket == std::string_view::npos ? text : text.substr(bracket + 1));
  const bool whole = bracket == std::string_view::npos ? text.size() == 4 : digits.rest().find(']') == 4;
  const auto code = whole ? digits.hex() : std::nullopt;
  if (code && *code <= 0xffff) out.class_code = Noted<std::uint64_t>{*code, line};
  if (bracket != std::string_view::npos) text = text.substr(0, bracket);
  if (!code || bracket != std::string_view::npos) out.class_name = trimmed(text);
}

// Where "class: name" splits: the first colon with a blank behind it.
std::size_t class_end(std::string_view text) { return std::min(text.find(": "), text.find(":\t")); }

}  // namespace

bool read_description(std::string_view text, std::uint32_t line, LspciFunction& out) {
  const std::size_t colon = class_end(text);
  if (colon == std::string_view::npos) return false;
  read_class(text.substr(0, colon), line, out);
  std::string_view name = text.substr(colon + 2);
  read_interface(name, line, out);
  name = name.substr(0, std::min(name.find(" (rev "), name.find(" (prog-if ")));
  Cursor numeric(name);
  numeric.skip_blanks();
  if (const auto ids = take_pci_ids(numeric)) {
    out.ids = ids;
    return true;
  }
  if (const auto ids = take_last_ids(name)) out.ids = ids;
  out.name = trimmed(name);
  return true;
}

namespace {

// --- machine-readable forms ---

// "Intel Corporation [8086]" -> 0x8086, or "8086"
std::optional<std::uint16_t> last_id(std::string_view text) {
  const std::size_t bracket = text.rfind('[');
  Cursor at(bracket == std::string_view::npos ? text : text.substr(bracket + 1));
  const std::string_view digits = at.rest();
  const auto value = at.hex();
  const bool whole = digits.size() - at.rest().size() == 4 && (at.at_end() || at.rest() == "]");
  return value && whole ? std::optional(static_cast<std::uint16_t>(*value)) : std::nullopt;
}

std::string without_id(std::string_view text) { return trimmed(last_id(text) ? text.substr(0, text.rfind('[')) : text); }

void set_names(std::string_view vendor, std::string_view device, LspciFunction& out) {
  const auto v = last_id(vendor), d = last_id(device);
  if (v && d) out.ids = PciIds{*v, *d};
  if (v && !vendor.ends_with(']')) return;  // -n
  out.name = without_id(vendor) + " " + without_id(device);
}

using Fields = std::map<std::string, Noted<std::string>, std::less<>>;

std::optional<Noted<std::uint64_t>> number_field(const Fields& fields, std::string_view name, int base) {
  const auto field = fields.find(name);
  if (field == fields.end()) return std::nullopt;
  Cursor at(field->second.value);
  const auto value = base == 16 ? at.hex() : at.decimal();
  return value && at.at_end() ? std::optional(Noted<std::uint64_t>{*value, field->second.line}) : std::nullopt;
}

// One record of -vmm: "Slot:\t00:02.0", "Class:\tVGA compatible controller [0300]", ...
std::optional<LspciFunction> from_fields(const Fields& fields) {
  const auto slot = fields.find("Slot");
  const auto device = slot == fields.end() ? std::nullopt : pci_address(slot->second.value);
  if (!device) return std::nullopt;
  LspciFunction out;
  out.device = *device;
  out.line = slot->second.line;
  if (const auto f = fields.find("Class"); f != fields.end()) read_class(f->second.value, f->second.line, out);
  const auto vendor = fields.find("Vendor"), product = fields.find("Device");
  if (vendor != fields.end() && product != fields.end()) set_names(vendor->second.value, product->second.value, out);
  out.interface = number_field(fields, "ProgIf", 16);
  out.numa = number_field(fields, "NUMANode", 10);
  out.group = number_field(fields, "IOMMUGroup", 10);
  if (const auto f = fields.find("Driver"); f != fields.end()) out.driver = f->second.value;
  return out;
}

// A field's line; "Device:\t00:02.0" begins a record of -vm, as "Slot:" does of -vmm.
std::optional<std::pair<std::string, std::string>> field_of(std::string_view text) {
  static constexpr std::array<std::string_view, 12> kNames = {"Slot",     "Class",    "Vendor", "Device",  "SVendor", "SDevice",
                                                              "ProgIf",   "Rev",      "Driver", "NUMANode", "IOMMUGroup", "Module"};
  const std::size_t colon = text.find(':');
  if (colon == std::string_view::npos) return std::nullopt;
  std::string_view name = text.substr(0, colon);
  const std::string value = trimmed(text.substr(colon + 1));
  if (std::ranges::find(kNames, name) == kNames.end()) return std::nullopt;
  if (name == "Device" && pci_address(value)) name = "Slot";
  return std::pair(std::string(name), value);
}

// `00:02.0 "VGA compatible controller [0300]" "Intel Corporation [8086]" "TigerLake-LP GT2 [9a49]" -r01 -p00 ...` (-m)
bool read_quoted(Cursor at, std::uint32_t line, LspciFunction& out) {
  std::array<std::string_view, 3> fields;
  for (std::string_view& field : fields) {
    at.skip_blanks();
    if (!at.skip("\"")) return false;
    field = at.until('"');
  }
  read_class(fields[0], line, out);
  set_names(fields[1], fields[2], out);
  return true;
}

// --- the tree ---

// "[0000:00]", "[04]", "[02-49]" behind the opening bracket; the segment is kept where it is not printed.
struct BusRange {
  std::string segment;
  std::uint64_t first = 0, last = 0;
};

std::optional<BusRange> take_buses(Cursor& at, const std::string& segment) {
  Cursor inside(at.until(']'));
  BusRange out{segment, 0, 0};
  const std::size_t colon = inside.rest().find(':');
  if (colon != std::string_view::npos) out.segment = inside.until(':');
  const auto first = inside.hex();
  if (!first || *first > 0xff || out.segment.size() > 8) return std::nullopt;
  out.first = out.last = *first;
  if (inside.skip("-")) out.last = inside.hex().value_or(*first);
  return inside.at_end() ? std::optional(out) : std::nullopt;
}

std::string on_bus(const BusRange& bus, std::string_view slot_function) {
  static constexpr std::string_view kDigits = "0123456789abcdef";
  const std::string number = {kDigits[(bus.first >> 4) & 15], kDigits[bus.first & 15]};
  return bus.segment + ":" + number + ":" + std::string(slot_function);
}

// Draws the tree again: a branch ("+-", "\-", "-+-") belongs to the bus that was opened before it in its column.
class TreeReader {
 public:
  void read(const TextLine& line, LspciTree& out) {
    Cursor at(line.text);
    std::optional<BusRange> bus;
    std::string device;
    while (!at.at_end()) {
      const auto column = static_cast<std::size_t>(line.text.size() - at.rest().size());
      const char c = at.rest()[0];
      if (c == '+' || c == '\\') {
        if (bus) branches_[column] = *bus;
        else if (const auto known = branches_.find(column); known != branches_.end()) bus = known->second;
      } else if (c == '[') {
        at.skip("[");
        const auto buses = take_buses(at, bus ? bus->segment : "0000");
        if (!buses) return;
        if (!device.empty()) out.bridges.push_back({device, buses->first, buses->last, line.number});
        bus = buses;
        continue;
      } else if (bus && slot_function(at.rest())) {
        device = on_bus(*bus, at.rest().substr(0, 4));
        if (pci_address(device)) out.devices.push_back({device, line.number});
        at.skip(at.rest().substr(0, 4));
        continue;
      } else if (c != '-' && c != '|' && c != ' ') {
        return;  // a name
      } else if (c == ' ' && !device.empty()) {
        return;
      }
      at.skip(at.rest().substr(0, 1));
    }
  }

 private:
  static bool slot_function(std::string_view text) {
    return text.size() >= 4 && text[2] == '.' && (text.size() == 4 || text[4] == '-' || text[4] == ' ') &&
           std::isxdigit(static_cast<unsigned char>(text[0])) != 0 && std::isxdigit(static_cast<unsigned char>(text[1])) != 0;
  }

  std::map<std::size_t, BusRange> branches_;
};

bool is_tree_line(std::string_view text) {
  const std::size_t first = text.find_first_not_of(" |");
  if (first == std::string_view::npos) return false;
  const std::string_view rest = text.substr(first);
  return rest.starts_with("-[") || rest.starts_with("-+-[") || rest.starts_with("+-") || rest.starts_with("\\-");
}

// --- the whole ---

// Lines of the first part that mailers wrapped end where the indented part, or any "label: value", begins.
bool continues_description(std::string_view text) {
  return !text.empty() && text[0] != '\t' && text[0] != ' ' && class_end(text) == std::string_view::npos &&
         !text.ends_with(':');
}

class Reader {
 public:
  void read(const TextLine& line) {
    if (is_tree_line(line.text)) return tree_.read(line, out_.tree);
    if (read_field(line)) return;
    if (begins_function(line)) return;
    if (!current_) return;
    if (in_description_ && continues_description(line.text)) {
      description_ += " " + line.text;
    } else {
      in_description_ = false;
      body_.add(line);
    }
  }

  LspciListing finish() {
    end_function();
    end_record();
    return std::move(out_);
  }

 private:
  bool read_field(const TextLine& line) {
    const auto field = field_of(line.text);
    if (!field) {
      if (line.text.empty()) end_record();
      return false;
    }
    if (field->first == "Slot") {
      end_function();
      end_record();
    } else if (fields_.empty()) {
      return false;
    }
    fields_.try_emplace(field->first, Noted<std::string>{field->second, line.number});
    return true;
  }

  bool begins_function(const TextLine& line) {
    Cursor at(line);
    const auto device = take_pci_address(at);
    if (!device || !at.skip(" ")) return false;
    end_function();
    LspciFunction function;
    function.device = *device;
    function.line = line.number;
    if (read_quoted(at, line.number, function)) {
      out_.functions.push_back(std::move(function));
      return true;
    }
    current_ = std::move(function);
    description_ = at.rest();
    in_description_ = true;
    return true;
  }

  void end_function() {
    if (!current_) return;
    if (read_description(description_, current_->line, *current_)) {
      read_body(body_, *current_);
      out_.functions.push_back(std::move(*current_));
    }
    current_.reset();
    body_ = {};
  }

  void end_record() {
    if (auto function = from_fields(fields_)) out_.functions.push_back(std::move(*function));
    fields_.clear();
  }

  LspciListing out_;
  TreeReader tree_;
  std::optional<LspciFunction> current_;
  std::string description_;
  bool in_description_ = false;
  Body body_;
  Fields fields_;
};

}  // namespace

LspciListing read_lspci(std::string_view text) {
  Reader reader;
  for (const TextLine& line : clean_lines(text)) reader.read(line);
  return reader.finish();
}

}  // namespace ioplan::intake
