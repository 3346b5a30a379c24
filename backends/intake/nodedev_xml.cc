#include "backends/intake/nodedev_xml.h"

#include <fmt/format.h>

#include <algorithm>
#include <pugixml.hpp>

#include "backends/intake/cursor.h"

namespace ioplan::intake {

namespace {

// Lines of one `<device>` element: its own line, and those of its parts by their offsets.
class Lines {
 public:
  Lines(std::string_view text, std::uint32_t first) : text_(text), first_(first) {}
  std::uint32_t of(const pugi::xml_node& node) const {
    const auto offset = std::clamp<std::ptrdiff_t>(node.offset_debug(), 0, static_cast<std::ptrdiff_t>(text_.size()));
    return first_ + static_cast<std::uint32_t>(std::count(text_.begin(), text_.begin() + offset, '\n'));
  }

 private:
  std::string_view text_;
  std::uint32_t first_;
};

// "0x10de" or "12"; libvirt writes both.
std::optional<std::uint64_t> number(std::string_view text) {
  Cursor at(text);
  const auto value = text.starts_with("0x") ? at.hex() : at.decimal();
  return at.at_end() ? value : std::nullopt;
}

std::optional<Noted<std::uint64_t>> noted(const char* text, std::uint32_t line) {
  const auto value = number(text);
  return value ? std::optional(Noted<std::uint64_t>{*value, line}) : std::nullopt;
}

std::optional<std::string> address(const char* domain, const char* bus, const char* slot, const char* function) {
  const auto d = number(domain), b = number(bus), s = number(slot), f = number(function);
  if (!d || !b || !s || !f || *d > 0xffffffff || *b > 0xff || *s > 0x1f || *f > 7) return std::nullopt;
  return fmt::format("{:04x}:{:02x}:{:02x}.{:x}", *d, *b, *s, *f);
}

std::optional<std::string> address_of_members(const pugi::xml_node& node) {
  return address(node.attribute("domain").value(), node.attribute("bus").value(), node.attribute("slot").value(),
                 node.attribute("function").value());
}

void read_group(const pugi::xml_node& group, const Lines& lines, NodeDevice& out) {
  if (!group) return;
  out.group = noted(group.attribute("number").value(), lines.of(group));
  for (const pugi::xml_node& member : group.children("address")) {
    if (auto device = address_of_members(member)) out.group_members.push_back({*device, lines.of(member)});
  }
}

std::optional<NodeDevice> read_device(const pugi::xml_node& node, const Lines& lines) {
  const pugi::xml_node pci = node.find_child_by_attribute("capability", "type", "pci");
  const auto device = address(pci.child_value("domain"), pci.child_value("bus"), pci.child_value("slot"),
                              pci.child_value("function"));
  if (!device) return std::nullopt;
  NodeDevice out;
  out.device = *device;
  out.line = lines.of(node);
  out.driver = node.child("driver").child_value("name");
  out.device_class = noted(pci.child_value("class"), lines.of(pci.child("class")));
  out.vendor = noted(pci.child("vendor").attribute("id").value(), lines.of(pci.child("vendor")));
  out.product = noted(pci.child("product").attribute("id").value(), lines.of(pci.child("product")));
  out.vendor_name = pci.child_value("vendor");
  out.product_name = pci.child_value("product");
  out.numa = noted(pci.child("numa").attribute("node").value(), lines.of(pci.child("numa")));
  read_group(pci.child("iommuGroup"), lines, out);
  return out;
}

constexpr std::string_view kOpen = "<device>", kClose = "</device>";

std::uint32_t lines_in(std::string_view text) { return static_cast<std::uint32_t>(std::ranges::count(text, '\n')); }

}  // namespace

// Each element is parsed on its own: what stands between them (a shell's prompt, an XML declaration) is not XML.
Result<std::vector<NodeDevice>> read_node_devices(std::string_view text, std::string_view file) {
  std::string whole;
  for (const TextLine& line : clean_lines(text)) whole += line.text + "\n";
  std::vector<NodeDevice> out;
  std::uint32_t line = 1;
  for (std::string_view rest = whole; !rest.empty();) {
    const std::size_t begin = rest.find(kOpen);
    if (begin == std::string_view::npos) break;
    const std::size_t close = rest.find(kClose, begin);
    const std::size_t end = close == std::string_view::npos ? rest.size() : close + kClose.size();
    line += lines_in(rest.substr(0, begin));
    const std::string_view element = rest.substr(begin, end - begin);
    pugi::xml_document document;
    const pugi::xml_parse_result parsed = document.load_buffer(element.data(), element.size());
    const Lines lines(element, line);
    if (!parsed) {
      const auto offset = static_cast<std::size_t>(std::clamp<std::ptrdiff_t>(parsed.offset, 0, static_cast<std::ptrdiff_t>(element.size())));
      return failure(fmt::format("bad XML: {}", parsed.description()), "give the output of `virsh nodedev-dumpxml` as it is",
                     {std::string(file), line + lines_in(element.substr(0, offset)), 0});
    }
    if (auto device = read_device(document.child("device"), lines)) out.push_back(std::move(*device));
    line += lines_in(element);
    rest.remove_prefix(end);
  }
  return out;
}

}  // namespace ioplan::intake
