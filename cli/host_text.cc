#include "cli/host_text.h"

#include <fmt/format.h>

#include <algorithm>

#include "cli/plan_text.h"
#include "engine/base/text.h"

namespace ioplan::cli {

namespace {

constexpr std::size_t kMostListed = 6;  // ids on one line

std::string highlighted(const std::string& text, Colour colour) {
  return colour == Colour::on ? "\x1b[1;33m" + text + "\x1b[0m" : text;
}

// "dmar0, dmar2-dmar5": runs of units that follow one another.
std::string unit_names(const UnitKind& kind, const Host& host) {
  std::string text;
  for (std::size_t i = 0, end = 0; i < kind.units.size(); i = end) {
    for (end = i + 1; end < kind.units.size() && kind.units[end].value == kind.units[end - 1].value + 1;) ++end;
    const std::string& first = host.unit(kind.units[i]).id;
    text += (text.empty() ? "" : ", ") + first;
    if (end - i > 1) text += (end - i == 2 ? ", " : "-") + host.unit(kind.units[end - 1]).id;
  }
  return text;
}

std::string device_names(const std::vector<DeviceIndex>& devices, const Host& host) {
  if (devices.size() == host.devices.size() && devices.size() > 1) return fmt::format("all {} devices", devices.size());
  std::string text;
  for (std::size_t i = 0; i < devices.size() && i < kMostListed; ++i) text += (i == 0 ? "" : " ") + host.device(devices[i]).id;
  return devices.size() > kMostListed ? text + fmt::format(" and {} more", devices.size() - kMostListed) : text;
}

class HostText {
 public:
  HostText(const Host& host, Colour colour) : host_(host), report_(report_on(host)), colour_(colour) {}

  std::string write() {
    kernel();
    units();
    groups();
    regions();
    unusable();
    unknown();
    return std::move(text_);
  }

 private:
  template <class... Args>
  void line(fmt::format_string<Args...> format, Args&&... args) {
    text_ += fmt::format(format, std::forward<Args>(args)...);
    while (text_.ends_with(' ')) text_.pop_back();
    text_ += '\n';
  }

  void section(std::string_view title) { text_ += (text_.empty() ? "" : "\n") + std::string(title) + "\n"; }

  void kernel() {
    const Kernel& k = host_.kernel;
    std::string what = std::string(name_of(arch_of(host_)));
    if (k.release) what += ", Linux " + *k.release;
    if (!k.cpu_vendor.empty()) what += ", " + k.cpu_vendor;
    if (const auto bits = k.facts[KernelFact::phys_bits]) what += fmt::format(" with {} physical bits", *bits);
    if (const auto kib = k.facts[KernelFact::memory_kib]) what += ", " + approximate_size(*kib << 10);
    line("{}: {}", host_.name.empty() ? "host" : host_.name, what);
    if (!k.command_line.empty()) line("  options    {}", k.command_line);
    for (const HugePages& p : k.hugepages) {
      if (p.total > 0) line("  hugepages  {} of {}, {} free", p.total, format_size(p.size), p.free);
    }
  }

  void units() {
    for (const UnitTable& table : report_.tables) {
      section(fmt::format("{} units", name_of(table.driver)));
      for (const UnitKind& kind : table.kinds) kind_line(kind);
      if (!table.rows.empty()) field_lines(table);
    }
    if (host_.units.empty()) section("no IOMMU");
  }

  void kind_line(const UnitKind& kind) {
    std::string facts;
    const Facts<UnitFact>& f = kind.example->facts;
    for (std::size_t i = 0; i < kFactCount<UnitFact>; ++i) {
      const FactRow& row = ioplan::row_of(static_cast<UnitFact>(i));
      const auto value = f[static_cast<UnitFact>(i)];
      if (value) facts += fmt::format("  {} {}", row.key, row.kind == FactKind::hex ? format_hex(*value) : std::to_string(*value));
    }
    const auto behind = std::ranges::count_if(host_.devices, [&](const Device& d) {
      return d.unit && std::ranges::binary_search(kind.units, *d.unit);
    });
    line("  {}  {} device{}{}", unit_names(kind, host_), behind, behind == 1 ? "" : "s", facts);
  }

  // A column for each kind of unit, headed by its first unit.
  void field_lines(const UnitTable& table) {
    std::string head = fmt::format("    {:<10}", "");
    for (const UnitKind& kind : table.kinds) head += fmt::format(" {:>8}", kind.example->id);
    if (table.kinds.size() > 1) line("{}", head);
    for (const FieldRow& row : table.rows) {
      std::string cells;
      for (const auto& v : row.values) cells += fmt::format(" {:>8}", v ? std::to_string(*v) : "?");
      const std::string text = fmt::format("  {} {:<10}{}  {}", row.differs ? "!" : " ", row.field->name, cells, row.field->meaning);
      line("{}", row.differs ? highlighted(text, colour_) : text);
    }
  }

  void groups() {
    if (!report_.groups.empty()) section("groups");
    for (const GroupRow& group : report_.groups) {
      std::string number = std::to_string(group.number);
      for (DeviceIndex d : group.devices) {
        line("  {:>4}  {}", number, device_line(host_.device(d)));
        number.clear();
      }
    }
    if (!report_.ungrouped.empty()) section("no group");
    for (DeviceIndex d : report_.ungrouped) line("        {}", device_line(host_.device(d)));
  }

  std::string device_line(const Device& d) const {
    const auto digits = [](std::optional<std::uint64_t> v, int n) { return v ? fmt::format("{:0{}x}", *v, n) : std::string("?"); };
    std::string text = fmt::format("{:<13} {:<8}", d.id, d.unit ? host_.unit(*d.unit).id : "?");
    if (d.facts[DeviceFact::device_class]) {
      text += fmt::format(" {} {}:{}", digits(d.facts[DeviceFact::device_class], 6), digits(d.facts[DeviceFact::vendor], 4),
                          digits(d.facts[DeviceFact::device], 4));
    }
    if (const auto node = d.facts[DeviceFact::numa]) text += fmt::format(" node {}", *node);
    if (!d.group_type.empty()) text += " " + d.group_type;
    for (const std::string& feature : features(d)) text += " " + feature;
    if (!d.bound_driver.empty()) text += " [" + d.bound_driver + "]";
    return d.name.empty() ? text : text + "  " + d.name;
  }

  static std::vector<std::string> features(const Device& d) {
    std::vector<std::string> found;
    const auto has = [&](DeviceFact f) { return d.facts[f].value_or(0) != 0; };
    if (has(DeviceFact::ats)) found.emplace_back("ats");
    if (has(DeviceFact::pri)) found.emplace_back("pri");
    if (has(DeviceFact::pasid_bits)) found.push_back(fmt::format("pasid{}", d.facts.at(DeviceFact::pasid_bits)));
    if (has(DeviceFact::no_snoop)) found.emplace_back("no-snoop");
    if (has(DeviceFact::acs_enabled)) found.push_back("acs" + format_hex(d.facts.at(DeviceFact::acs_enabled)));
    if (has(DeviceFact::sriov_total_vfs)) found.push_back(fmt::format("vfs{}", d.facts.at(DeviceFact::sriov_total_vfs)));
    if (!d.physical_function.empty()) found.push_back("vf-of " + d.physical_function);
    return found;
  }

  void regions() {
    if (!report_.regions.empty()) section("reserved regions");
    for (const RegionRow& row : report_.regions) {
      line("  {:#x}-{:#x}  {}  {}", row.region.range.start, row.region.range.last,
           kReservedTypeNames[static_cast<std::size_t>(row.region.type)], device_names(row.devices, host_));
    }
  }

  void unusable() {
    section("not for passthrough");
    for (const UnusableDevice& u : report_.unusable) line("  {}{}", u.because, u.rule.empty() ? "" : "  [" + u.rule + "]");
    if (report_.unusable.empty()) line("  none: bridges aside, every device could be given to a VM");
  }

  void unknown() {
    if (!host_.unknown.empty()) section("unknown");
    for (const Gap& gap : host_.unknown) {
      line("  {}: {}", gap.fact, gap.why);
      if (!gap.subjects.empty()) line("    of {}", subjects(gap.subjects));
      if (!gap.supply.empty()) line("    would help: {}", gap.supply);
    }
  }

  static std::string subjects(const std::vector<std::string>& ids) {
    std::string text;
    for (std::size_t i = 0; i < ids.size() && i < kMostListed; ++i) text += (i == 0 ? "" : " ") + ids[i];
    return ids.size() > kMostListed ? text + fmt::format(" and {} more", ids.size() - kMostListed) : text;
  }

  const Host& host_;
  HostReport report_;
  Colour colour_;
  std::string text_;
};

}  // namespace

std::string host_text(const Host& host, Colour colour) { return HostText(host, colour).write(); }

std::string differences_text(const std::vector<HostDifference>& differences, Colour colour) {
  if (differences.empty()) return "no difference\n";
  std::string text;
  for (const HostDifference& d : differences) {
    text += highlighted(d.fact, colour) + fmt::format("  {} -> {}\n", d.first.value_or("unknown"), d.second.value_or("unknown"));
    for (const std::string& field : d.fields) text += "    " + field + "\n";
  }
  return text;
}

}  // namespace ioplan::cli
