#include "tests/support/iommufd_trace.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <sstream>
#include <stdexcept>

#include "constraints/kernel_law.h"
#include "engine/base/log2.h"

namespace ioplan::traces {

namespace {

constexpr std::uint64_t kFewIds = 1;

// Registers of real machines, bent where a kind asks for it.
void intel_facts(Unit& unit, UnitKind kind) {
  const bool scalable = kind == UnitKind::intel_scalable || kind == UnitKind::intel_second_only;
  std::uint64_t cap = scalable ? 0x19ed008c40780c66 : 0xd2008c40660462;
  std::uint64_t ecap = scalable ? 0x3ef9ea6f050df : 0xf020df;
  if (kind == UnitKind::intel_narrow) cap = 0x1c0000c40660462;
  if (kind == UnitKind::intel_no_snoop) ecap &= ~pow2(7);
  if (kind == UnitKind::intel_second_only) ecap &= ~pow2(47);
  unit.facts[UnitFact::cap] = cap;
  unit.facts[UnitFact::ecap] = ecap;
}

void smmuv3_facts(Unit& unit, UnitKind kind) {
  unit.facts[UnitFact::idr0] = (kind == UnitKind::smmuv3 ? 3ULL : 1ULL) | 2ULL << 2 | 1ULL << 4 | 2ULL << 6;
  unit.facts[UnitFact::idr1] = 0x0e739d10;
  unit.facts[UnitFact::idr3] = 0;
  unit.facts[UnitFact::idr5] = 5 | 1ULL << 4;
  unit.facts[UnitFact::coherent] = 1;
  unit.facts[UnitFact::httu] = 2;
}

void smmuv2_facts(Unit& unit, UnitKind kind) {
  unit.facts[UnitFact::page_sizes] = 0x40201000;
  unit.facts[UnitFact::stage1] = 1;
  unit.facts[UnitFact::stage2] = 1;
  unit.facts[UnitFact::input_bits] = 48;
  unit.facts[UnitFact::ipa_bits] = 40;
  unit.facts[UnitFact::coherent] = kind == UnitKind::smmuv2;
}

Unit unit_of(const SketchUnit& sketch, std::size_t index) {
  Unit unit;
  unit.id = fmt::format("iommu{}", index);
  switch (sketch.kind) {
    case UnitKind::intel_legacy:
    case UnitKind::intel_no_snoop:
    case UnitKind::intel_narrow:
    case UnitKind::intel_scalable:
    case UnitKind::intel_second_only:
      unit.driver = Driver::intel;
      intel_facts(unit, sketch.kind);
      break;
    case UnitKind::amd:
    case UnitKind::amd_v2:
      unit.driver = Driver::amd;
      unit.facts[UnitFact::efr] = 0x25bf732fa2295afe | (sketch.kind == UnitKind::amd_v2 ? 0xc00 : 0);  // HATS 3
      unit.facts[UnitFact::efr2] = 0x8;
      break;
    case UnitKind::smmuv3:
    case UnitKind::smmuv3_second_only:
      unit.driver = Driver::smmuv3;
      smmuv3_facts(unit, sketch.kind);
      break;
    case UnitKind::smmuv2:
    case UnitKind::smmuv2_incoherent:
      unit.driver = Driver::smmuv2;
      smmuv2_facts(unit, sketch.kind);
      break;
    case UnitKind::virtio:
    case UnitKind::virtio_coarse:
      unit.driver = Driver::virtio;
      unit.facts[UnitFact::page_sizes] = sketch.kind == UnitKind::virtio ? 0x40201000ULL : 0xffffffffffff0000ULL;
      unit.facts[UnitFact::input_last] = last_of_width(48);
      break;
    case UnitKind::riscv:
      unit.driver = Driver::riscv;
      unit.facts[UnitFact::riscv_capabilities] = 0x7f0f10;
      break;
    case UnitKind::s390:
      unit.driver = Driver::s390;
      unit.facts[UnitFact::dma_start] = 0;
      unit.facts[UnitFact::dma_last] = last_of_width(40);
      break;
    case UnitKind::mock:
    case UnitKind::count:
      unit.driver = Driver::mock;
      break;
  }
  return unit;
}

Device device_of(const Sketch& sketch, std::size_t index) {
  const SketchDevice& from = sketch.devices[index];
  Device device;
  device.id = device_name(index);
  device.unit = UnitIndex{static_cast<std::uint32_t>(from.unit)};
  device.group = from.group;
  device.facts[DeviceFact::dma_coherent] = sketch.units[from.unit].kind != UnitKind::smmuv2_incoherent;
  device.facts[DeviceFact::canwbs] = (from.traits & kCanForceWriteBack) != 0;
  device.facts[DeviceFact::pasid_bits] = from.pasid_bits;
  device.facts[DeviceFact::isolated_msi] = (from.traits & kUnsafeInterrupts) == 0;
  device.facts[DeviceFact::no_dirty] = (from.traits & kNoDirty) != 0;
  return device;
}

void add_regions(Host& host, std::uint32_t index, std::uint32_t traits) {
  std::vector<ReservedRegion> regions = kernel_law().own_regions(host, DeviceIndex{index});
  if ((traits & kDirectRegion) != 0) regions.push_back({{0xa0000000, 0xa000ffff}, ReservedType::direct});
  if ((traits & kRelaxableRegion) != 0) regions.push_back({{0x7c000000, 0x7fffffff}, ReservedType::direct_relaxable});
  if ((traits & kOrdinaryRegion) != 0) regions.push_back({{0xf0000000, 0xf00fffff}, ReservedType::reserved});
  if ((traits & kSecondWindow) != 0) regions.push_back({{0x0a000000, 0x0a0fffff}, ReservedType::sw_msi});
  std::ranges::sort(regions);
  host.devices[index].reserved = regions;
}

// The driver's whole stock but one id is taken.
void shrink_pools(Host& host, std::uint32_t unit) {
  for (unsigned stage = 1; stage <= 2; ++stage) {
    const auto pool = kernel_law().domain_pool(host, UnitIndex{unit}, stage);
    if (pool && pool->capacity > kFewIds) host.units[unit].facts[UnitFact::domains_used] = pool->capacity - kFewIds;
  }
}

std::string id_text(std::string_view key, const Id& id) {
  if (id.result >= 0) return fmt::format(" {}=r{}", key, id.result);
  return id.number == 0 ? "" : fmt::format(" {}={}", key, id.number);
}

std::string number_text(std::string_view key, std::uint64_t value) {
  return value == 0 ? "" : fmt::format(" {}={:#x}", key, value);
}

[[noreturn]] void malformed(std::string_view line) {
  throw std::invalid_argument(std::string("trace: ") + std::string(line));
}

std::uint64_t number(std::string_view text) { return std::stoull(std::string(text), nullptr, 0); }

template <class Names>
std::size_t index_of(const Names& names, std::string_view name) {
  const auto at = std::ranges::find(names, name);
  if (at == names.end()) malformed(name);
  return static_cast<std::size_t>(at - names.begin());
}

Id parse_id(std::string_view text) {
  if (text.starts_with('r')) return {static_cast<int>(number(text.substr(1))), 0};
  return {-1, static_cast<std::uint32_t>(number(text))};
}

void parse_va(Call& call, std::string_view text) {
  const std::size_t plus = text.find('+');
  if (text.starts_with('m')) call.memory = static_cast<int>(number(text.substr(1, plus - 1)));
  call.va = number(plus == std::string_view::npos ? text : text.substr(plus + 1));
}

void parse_field(Call& call, std::string_view key, std::string_view value) {
  if (key == "c")
    call.context = static_cast<unsigned>(number(value));
  else if (key == "device")
    call.device = number(value);
  else if (key == "object")
    call.object = parse_id(value);
  else if (key == "other")
    call.other = parse_id(value);
  else if (key == "fault")
    call.fault = parse_id(value);
  else if (key == "flags")
    call.flags = static_cast<std::uint32_t>(number(value));
  else if (key == "option")
    call.option = static_cast<std::uint32_t>(number(value));
  else if (key == "pasid")
    call.pasid = static_cast<std::uint32_t>(number(value));
  else if (key == "va")
    parse_va(call, value);
  else if (key == "length")
    call.length = number(value);
  else if (key == "iova")
    call.iova = number(value);
  else if (key == "source")
    call.source = number(value);
  else if (key == "range")
    call.ranges.push_back({number(value.substr(0, value.find('-'))), number(value.substr(value.find('-') + 1))});
  else
    malformed(key);
}

Call parse_call(std::istringstream& words) {
  Call call;
  std::string word;
  words >> word;
  call.verb = static_cast<Verb>(index_of(kVerbNames, word));
  while (words >> word) {
    const std::size_t equals = word.find('=');
    parse_field(call, std::string_view(word).substr(0, equals), std::string_view(word).substr(equals + 1));
  }
  return call;
}

SketchDevice parse_device(std::istringstream& words) {
  SketchDevice device;
  std::string word;
  words >> device.unit >> word >> device.group;
  while (words >> word) {
    if (word.starts_with("pasid-bits="))
      device.pasid_bits = static_cast<unsigned>(number(word.substr(11)));
    else
      device.traits |= 1U << index_of(kDeviceTraitNames, word);
  }
  return device;
}

}  // namespace

std::string device_name(std::size_t device) { return fmt::format("0000:{:02x}:00.0", device + 1); }

Host host_of(const Sketch& sketch) {
  Host host;
  host.name = "sketch";
  host.kernel.arch = Arch::x86_64;
  host.kernel.facts[KernelFact::page_size] = 4096;
  host.kernel.facts[KernelFact::la57] = 0;
  for (std::size_t u = 0; u < sketch.units.size(); ++u) host.units.push_back(unit_of(sketch.units[u], u));
  for (std::size_t d = 0; d < sketch.devices.size(); ++d) host.devices.push_back(device_of(sketch, d));
  sort_by_id(host);
  for (std::uint32_t u = 0; u < sketch.units.size(); ++u) {
    if (sketch.units[u].few_domain_ids) shrink_pools(host, u);
  }
  for (std::uint32_t d = 0; d < sketch.devices.size(); ++d) add_regions(host, d, sketch.devices[d].traits);
  return host;
}

sim::MachineOptions options_of(const Sketch& sketch) {
  sim::MachineOptions options;
  options.hazards = sketch.hazards;
  options.table_memory = std::uint64_t{256} << 20;
  if (sketch.memlock_pages != 0) options.memlock_limit = sketch.memlock_pages * 4096;
  options.cap_sys_resource = sketch.cap_sys_resource;
  return options;
}

std::string to_text(const Call& call) {
  std::string text(kVerbNames[static_cast<std::size_t>(call.verb)]);
  text += number_text("c", call.context) + number_text("device", call.device);
  text += id_text("object", call.object) + id_text("other", call.other) + id_text("fault", call.fault);
  text += number_text("flags", call.flags) + number_text("option", call.option) + number_text("pasid", call.pasid);
  if (call.memory >= 0)
    text += fmt::format(" va=m{}+{:#x}", call.memory, call.va);
  else
    text += number_text("va", call.va);
  text += number_text("length", call.length) + number_text("iova", call.iova) + number_text("source", call.source);
  for (const Range& r : call.ranges) text += fmt::format(" range={:#x}-{:#x}", r.start, r.last);
  return text;
}

std::string to_text(const Trace& trace) {
  std::string text;
  for (const SketchUnit& u : trace.sketch.units) {
    text += fmt::format("unit {}{}\n", kUnitKindNames[static_cast<std::size_t>(u.kind)],
                        u.few_domain_ids ? " few-ids" : "");
  }
  for (const SketchDevice& d : trace.sketch.devices) {
    text += fmt::format("device {} group {}", d.unit, d.group);
    for (unsigned t = 0; t < kDeviceTraitNames.size(); ++t) {
      if (bit(d.traits, t)) text += " " + std::string(kDeviceTraitNames[t]);
    }
    text += d.pasid_bits == 0 ? "\n" : fmt::format(" pasid-bits={}\n", d.pasid_bits);
  }
  const sim::Hazards& h = trace.sketch.hazards;
  if (trace.sketch.memlock_pages != 0) text += fmt::format("memlock {}\n", trace.sketch.memlock_pages);
  if (!trace.sketch.cap_sys_resource) text += "unprivileged\n";
  if (!h.failed_replace_blocks_dma) text += "without h1\n";
  if (!h.failed_replace_drops_reservations) text += "without h2\n";
  if (!h.replace_across_owners_crashes) text += "without h3\n";
  for (const Call& call : trace.calls) text += "call " + to_text(call) + "\n";
  return text;
}

Trace parse_trace(std::string_view text) {
  Trace trace;
  std::istringstream lines{std::string(text)};
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string word;
    if (!(words >> word)) continue;
    if (word == "unit") {
      words >> word;
      trace.sketch.units.push_back({static_cast<UnitKind>(index_of(kUnitKindNames, word)), line.ends_with("few-ids")});
    } else if (word == "device") {
      trace.sketch.devices.push_back(parse_device(words));
    } else if (word == "memlock") {
      words >> trace.sketch.memlock_pages;
    } else if (word == "unprivileged") {
      trace.sketch.cap_sys_resource = false;
    } else if (word == "without") {
      words >> word;
      if (word == "h1") trace.sketch.hazards.failed_replace_blocks_dma = false;
      if (word == "h2") trace.sketch.hazards.failed_replace_drops_reservations = false;
      if (word == "h3") trace.sketch.hazards.replace_across_owners_crashes = false;
    } else if (word == "call") {
      trace.calls.push_back(parse_call(words));
    } else {
      malformed(line);
    }
  }
  return trace;
}

}  // namespace ioplan::traces
