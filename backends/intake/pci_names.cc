#include "backends/intake/pci_names.h"

#include <algorithm>
#include <charconv>
#include <optional>

namespace ioplan::intake {

namespace {

// "10de  NVIDIA Corporation" -> 0x10de; nothing for lines of another form, subsystems ("\t\t") and classes ("C ") among
// them.
std::optional<std::uint64_t> leading_id(std::string_view line) {
  std::uint64_t id = 0;
  if (line.size() < 7 || line.substr(4, 2) != "  ") return std::nullopt;
  const auto [end, ec] = std::from_chars(line.data(), line.data() + 4, id, 16);
  return ec == std::errc() && end == line.data() + 4 ? std::optional(id) : std::nullopt;
}

constexpr std::uint64_t kNone = ~std::uint64_t{0};

bool wants_vendor(const std::set<PciId>& wanted, std::uint64_t vendor) {
  const auto first = wanted.lower_bound({vendor, 0});
  return first != wanted.end() && first->first == vendor;
}

// Calls `each(vendor line, device line, id)` for what is wanted. Vendors start a line, their devices follow after a tab.
template <class F>
void find(std::string_view file, const std::set<PciId>& wanted, F each) {
  std::string_view vendor_line;
  std::uint64_t vendor = kNone;
  while (!file.empty()) {
    const std::size_t end = std::min(file.find('\n'), file.size());
    const std::string_view line = file.substr(0, end);
    file.remove_prefix(std::min(end + 1, file.size()));
    if (!line.empty() && line[0] != '\t' && line[0] != '#') {
      vendor = leading_id(line).value_or(kNone);
      vendor_line = line;
      if (!wants_vendor(wanted, vendor)) vendor = kNone;
    } else if (vendor != kNone && line.size() > 1 && line[1] != '\t') {
      const std::uint64_t device = leading_id(line.substr(1)).value_or(kNone);
      if (wanted.contains({vendor, device})) each(vendor_line, line, PciId{vendor, device});
    }
  }
}

}  // namespace

std::map<PciId, std::string> pci_names(std::string_view file, const std::set<PciId>& wanted) {
  std::map<PciId, std::string> names;
  find(file, wanted, [&](std::string_view, std::string_view line, PciId id) { names.try_emplace(id, line.substr(7)); });
  return names;
}

std::string pci_names_excerpt(std::string_view file, const std::set<PciId>& wanted) {
  std::string kept;
  std::string_view last;
  find(file, wanted, [&](std::string_view vendor, std::string_view line, PciId) {
    if (vendor.data() != last.data()) (kept += vendor) += '\n';
    last = vendor;
    (kept += line) += '\n';
  });
  return kept;
}

}  // namespace ioplan::intake
