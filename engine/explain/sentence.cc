#include "engine/explain/sentence.h"

#include <algorithm>

#include <fmt/format.h>

#include "engine/base/text.h"
#include "engine/model/plan.h"

namespace ioplan {

namespace {

std::string show_flags(std::uint64_t flags) {
  if (flags == 0) return "none";
  std::string text;
  for (std::size_t f = 0; f < kHwptFlagNames.size(); ++f) {
    if ((flags >> f & 1) != 0) text += (text.empty() ? "" : ", ") + std::string(kHwptFlagNames[f]);
  }
  return text;
}

std::string show_hwpt(HwptQ q, std::uint64_t v) {
  switch (q) {
    case HwptQ::page_sizes: return format_page_sizes(v);
    case HwptQ::smallest_page:
    case HwptQ::largest_page: return format_size(v);
    case HwptQ::aperture_start:
    case HwptQ::aperture_last: return format_hex(v);
    case HwptQ::flags: return show_flags(v);
    case HwptQ::driver: return std::string(name_of(static_cast<Driver>(v)));
    default: return std::to_string(v);
  }
}

std::string show_device(DeviceQ q, std::uint64_t v) {
  switch (q) {
    case DeviceQ::first_stage_pages:
    case DeviceQ::second_stage_pages:
    case DeviceQ::stage1_page_sizes:
    case DeviceQ::stage2_page_sizes: return format_page_sizes(v);
    case DeviceQ::kernel_page_size:
    case DeviceQ::required_page: return format_size(v);
    case DeviceQ::dma_start: return format_hex(v);
    case DeviceQ::driver: return std::string(name_of(static_cast<Driver>(v)));
    default: return std::to_string(v);
  }
}

std::string show_vm(VmQ q, std::uint64_t v) {
  switch (q) {
    case VmQ::memory_first:
    case VmQ::memory_last: return format_hex(v);
    case VmQ::memory_alignment:
    case VmQ::page_size: return format_size(v);
    default: return std::to_string(v);
  }
}

// "{device}" -> value of the placeholder.
std::string fill(std::string_view key, const Values& values, const Names& names, const Atom* failing) {
  const auto name = [](const std::string& s) { return s.empty() ? std::string("it") : s; };
  if (key == "device") return name(names.device);
  if (key == "unit") return name(names.unit);
  if (key == "vm") return name(names.vm);
  if (key == "rule") return name(names.rule);
  if (key == "other") return name(names.other);
  if (key == "fact") return name(names.fact);
  if (key == "left" && failing != nullptr) return show_quantity(failing->left, values(failing->left));
  if (key == "right" && failing != nullptr) return show_quantity(failing->right, values(failing->right));
  const auto shown = [&](const Term& t) { return show_quantity(t, values(t)); };
  if (key == "hwpt.flags") return shown(HwptQ::flags);
  if (key == "hwpt.levels") return shown(HwptQ::levels);
  if (key == "hwpt.driver") return shown(HwptQ::driver);
  if (key == "device.driver") return shown(DeviceQ::driver);
  return "it";
}

}  // namespace

std::string show_quantity(const Term& term, std::uint64_t value) {
  switch (term.subject) {
    case Subject::hwpt: return show_hwpt(static_cast<HwptQ>(term.index), value);
    case Subject::device: return show_device(static_cast<DeviceQ>(term.index), value);
    case Subject::vm: return show_vm(static_cast<VmQ>(term.index), value);
    case Subject::constant: break;
  }
  return std::to_string(value);
}

std::string refusal(const Rule& rule, const Values& values, const Names& names) {
  const auto* const it = std::ranges::find_if(rule.require, [&](const Atom& a) { return !holds(a, values); });
  const Atom* failing = it == rule.require.end() ? nullptr : it;
  std::string text;
  std::string_view rest = rule.refusal;
  for (std::size_t open = rest.find('{'); open != std::string_view::npos; open = rest.find('{')) {
    const std::size_t close = rest.find('}', open);
    text += rest.substr(0, open);
    text += fill(rest.substr(open + 1, close - open - 1), values, names, failing);
    rest.remove_prefix(close + 1);
  }
  return text + std::string(rest);
}

}  // namespace ioplan
