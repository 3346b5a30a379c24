#include "backends/intake/group_listing.h"

#include <algorithm>
#include <array>

namespace ioplan::intake {

namespace {

// Past what listings draw or print before a device: bullets, tree branches in ASCII and UTF-8, "[R]" (can be reset),
// "[RESET]".
void skip_decoration(Cursor& at) {
  static constexpr std::array<std::string_view, 12> kMarks = {"\xe2\x94\x9c", "\xe2\x94\x82", "\xe2\x94\x94", "\xe2\x94\x80",
                                                              "\xc2\xa0",     "|",            "`",            "-",
                                                              "*",            "+",            "[R]",          "[RESET]"};
  for (bool more = true; more;) {
    at.skip_blanks();
    more = std::ranges::any_of(kMarks, [&](std::string_view mark) { return at.skip(mark); });
  }
}

// "[8086:1901]"
std::optional<PciIds> take_bracketed_ids(Cursor& at) {
  Cursor ahead = at;
  if (!ahead.skip("[")) return std::nullopt;
  const auto ids = take_pci_ids(ahead);
  if (!ids || !ahead.skip("]")) return std::nullopt;
  at = ahead;
  return ids;
}

// "00:01.0 PCI bridge [0604]: ... [8086:1901]", "[8086:1901] [R] 00:01.0  PCI bridge ...", "00:01.0 [8086:1901] ..."
std::optional<LspciFunction> take_function(Cursor at, std::uint32_t line) {
  LspciFunction out;
  out.line = line;
  skip_decoration(at);
  out.ids = take_bracketed_ids(at);
  skip_decoration(at);
  const auto device = take_pci_address(at);
  if (!device || !(at.at_end() || at.rest()[0] == ' ' || at.rest()[0] == '\t' || at.rest()[0] == ':')) return std::nullopt;
  out.device = *device;
  at.skip_blanks();
  if (!out.ids) out.ids = take_bracketed_ids(at);
  return out;
}

// A device's name as the last part of a path or as what a link is called.
bool is_device_name(std::string_view name) {
  return !name.empty() && name.size() <= 64 && name.find_first_of(" \t/") == std::string_view::npos;
}

class Reader {
 public:
  void read(const TextLine& line) {
    if (path(line) || group_link(line) || device_link(line) || tree_number(line)) return end_description();
    Cursor at(line);
    if (const auto group = take_group_heading(at)) {
      group_ = *group;
      in_tree_ = false;
    }
    if (const auto function = group_ ? take_function(at, line.number) : std::nullopt) return begin(*function, line, at);
    if (open_ && !out_.empty() && at.rest() == line.text) continue_description(line);
  }

  std::vector<GroupMember> finish() {
    end_description();
    return std::move(out_);
  }

 private:
  void add(std::uint64_t group, std::string device, std::uint32_t line) {
    LspciFunction function;
    function.device = pci_address(device).value_or(device);
    function.line = line;
    out_.push_back({group, std::move(function)});
  }

  // ".../iommu_groups/7/devices/0000:01:00.0", ".../iommu_groups/7/devices:", ".../iommu_groups/7"
  bool path(const TextLine& line) {
    Cursor at(line);
    const auto group = take_group_of_path(at);
    if (!group) {
      if (line.text.find("/iommu_groups") != std::string::npos) in_tree_ = true;
      return false;
    }
    if (line.text.find("/iommu_group ->") != std::string::npos) return false;
    group_ = *group;
    if (at.skip("/devices/")) {
      const std::string name(at.word());
      if (is_device_name(name)) add(*group, name, line.number);
    }
    return true;
  }

  // "/sys/bus/pci/devices/0000:01:00.0/iommu_group -> ../../../kernel/iommu_groups/7"
  bool group_link(const TextLine& line) {
    const std::size_t link = line.text.find("/iommu_group -> ");
    if (link == std::string::npos) return false;
    const std::string_view before = std::string_view(line.text).substr(0, link);
    const std::string device(before.substr(before.find_last_of("/ \t") + 1));
    Cursor at(std::string_view(line.text).substr(link));
    const auto group = take_group_of_path(at);
    if (group && is_device_name(device)) add(*group, device, line.number);
    return true;
  }

  // "0000:01:00.0 -> ../../../../devices/pci0000:00/0000:01:00.0" below a group's folder
  bool device_link(const TextLine& line) {
    const std::size_t arrow = line.text.find(" -> ");
    if (arrow == std::string::npos || !group_ || line.text.find("devices/") == std::string::npos) return false;
    const std::string_view before = std::string_view(line.text).substr(0, arrow);
    std::string_view name = before.substr(before.find_last_of(" \t") + 1);
    for (const std::string_view mark : {"\xe2\x94\x80", "\xc2\xa0"}) {  // tree draws them right before the name
      if (const std::size_t at = name.rfind(mark); at != std::string_view::npos) name = name.substr(at + mark.size());
    }
    if (!is_device_name(name)) return false;
    add(*group_, std::string(name), line.number);
    return true;
  }

  // "├── 7" in a tree of the folder
  bool tree_number(const TextLine& line) {
    if (!in_tree_) return false;
    Cursor at(line);
    skip_decoration(at);
    if (at.rest().size() == line.text.size()) return false;
    const auto group = at.decimal();
    if (!group || !at.at_end()) return false;
    group_ = *group;
    return true;
  }

  void begin(const LspciFunction& function, const TextLine& line, Cursor at) {
    end_description();
    out_.push_back({*group_, function});
    open_ = true;
    description_ = line.text.substr(line.text.size() - at.rest().size());
  }

  // What a mailer wrapped: the rest of a description that has no ids yet.
  void continue_description(const TextLine& line) {
    static constexpr std::size_t kLongest = 400;
    const bool complete = description_.ends_with(')') || description_.ends_with(']');
    if (line.text.empty() || description_.size() > kLongest || (complete && !line.text.starts_with("(rev"))) {
      return end_description();
    }
    description_ += " " + line.text;
  }

  void end_description() {
    if (!open_) return;
    open_ = false;
    LspciFunction& function = out_.back().function;
    Cursor at(description_);
    skip_decoration(at);
    static_cast<void>(take_bracketed_ids(at));
    skip_decoration(at);
    static_cast<void>(take_pci_address(at));
    at.skip_blanks();
    const auto ids = function.ids;
    static_cast<void>(read_description(at.rest(), function.line, function));
    if (ids) function.ids = ids;
  }

  std::optional<std::uint64_t> group_;
  bool in_tree_ = false;
  bool open_ = false;
  std::string description_;
  std::vector<GroupMember> out_;
};

}  // namespace

std::optional<std::uint64_t> take_group_of_path(Cursor& at) {
  Cursor ahead = at;
  if (!ahead.skip_past("iommu_groups/")) return std::nullopt;
  const auto group = ahead.decimal();
  if (!group || *group > 0xffffffff) return std::nullopt;
  at = ahead;
  return group;
}

std::optional<std::uint64_t> take_group_heading(Cursor& at) {
  for (const std::string_view word : {"Group", "group", "GROUP"}) {
    Cursor ahead = at;
    if (!ahead.skip_past(word)) continue;
    static_cast<void>(ahead.skip(":") || ahead.skip(" #") || ahead.skip("="));
    ahead.skip_blanks();
    const auto group = ahead.decimal();
    if (!group || *group > 0xffffffff) continue;
    if (!ahead.at_end() && ahead.rest()[0] != ' ' && ahead.rest()[0] != '\t' && !ahead.skip(":") && !ahead.skip(",")) continue;
    at = ahead;
    return group;
  }
  return std::nullopt;
}

std::vector<GroupMember> read_group_listing(std::string_view text) {
  Reader reader;
  for (const TextLine& line : clean_lines(text)) reader.read(line);
  return reader.finish();
}

}  // namespace ioplan::intake
