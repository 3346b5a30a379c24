#include "backends/intake/import.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <tuple>

#include "backends/intake/amd_units.h"
#include "backends/intake/listing_facts.h"
#include "backends/intake/log_facts.h"
#include "backends/intake/placement.h"
#include "engine/base/text.h"

namespace ioplan::intake {

namespace {

// --- texts ---

struct Format {
  std::string_view holds;    // nothing: what the error says
  std::string_view looked_for;
};

constexpr std::array<Format, 5> kFormats = {{
    {"nothing about IOMMUs or PCI functions of a Linux boot log",
     "looked for lines such as `DMAR: dmar0: reg_base_addr ...`, `AMD-Vi: ...`, `arm-smmu-v3 ...`, `pci 0000:00:02.0: Adding to iommu group 0`"},
    {"no PCI function that lspci printed", "looked for lines such as `00:02.0 VGA compatible controller [0300]: ...`, `Slot: 00:02.0`, `-[0000:00]-+-00.0`"},
    {"no IOMMU group with a device", "looked for `IOMMU Group 1:` before device lines, or paths such as `/sys/kernel/iommu_groups/1/devices/0000:01:00.0`"},
    {"no reserved region", "looked for lines such as `0x00000000fee00000 0x00000000feefffff msi`"},
    {"no PCI device of libvirt", "looked for `<device>` elements with `<capability type='pci'>`, as `virsh nodedev-dumpxml` prints them"},
}};

tl::unexpected<Error> holds_nothing(const ImportText& text) {
  const Format& format = kFormats[static_cast<std::size_t>(text.kind)];
  return failure(fmt::format("the text holds {}", format.holds), std::string(format.looked_for), {text.file, 0, 0});
}

// Adds what `read` found, if that is anything.
template <class T, class IsEmpty>
bool keep(std::vector<Pasted<T>>& all, const ImportText& text, T content, IsEmpty is_empty) {
  if (is_empty(content)) return false;
  all.push_back({text.file, std::move(content)});
  return true;
}

Result<void> read_text(const ImportText& text, PastedTexts& out) {
  const auto empty = [](const auto& list) { return list.empty(); };
  bool found = false;
  switch (text.kind) {
    case TextKind::dmesg:
      found = keep(out.logs, text, read_kernel_log(text.text), empty);
      break;
    case TextKind::lspci:
      found = keep(out.listings, text, read_lspci(text.text),
                   [](const LspciListing& l) { return l.functions.empty() && l.tree.devices.empty(); });
      break;
    case TextKind::groups:
      found = keep(out.groups, text, read_group_listing(text.text), empty);
      break;
    case TextKind::reserved:
      found = keep(out.regions, text, read_reserved_regions(text.text), empty);
      break;
    case TextKind::libvirt_nodedev: {
      auto devices = read_node_devices(text.text, text.file);
      if (!devices) return tl::make_unexpected(std::move(devices.error()));
      found = keep(out.node_devices, text, std::move(*devices), empty);
    }
  }
  if (!found) return holds_nothing(text);
  return {};
}

// --- conclusions ---

// Where whole classes are known: listings without programming interfaces are compared with them.
void note_whole_classes(const PastedTexts& texts, Ledger& ledger) {
  for (const auto& log : texts.logs) {
    for (const PciFunctionLine& f : log.content.devices.functions) ledger.seen[f.device].whole_class = f.device_class;
  }
  for (const auto& devices : texts.node_devices) {
    for (const NodeDevice& d : devices.content) {
      if (d.device_class) ledger.seen[d.device].whole_class = d.device_class->value;
    }
  }
  for (const auto& listing : texts.listings) {
    for (const LspciFunction& f : listing.content.functions) {
      if (const auto whole = whole_class(f)) ledger.seen[f.device].whole_class = *whole;
    }
  }
}

void place_devices(const PastedTexts& texts, const std::vector<std::string>& amd_units, Ledger& ledger) {
  for (const auto& log : texts.logs) {
    const auto conclude = [&](const std::string& id, const Placement& place) {
      ledger.findings.state(device(id, "iommu"), place.unit, log.at(place.line), Standing::concluded);
    };
    if (const auto only = single_unit(log.content, ledger.units)) {
      for (const auto& [id, seen] : ledger.seen) {
        if (seen.group) conclude(id, *only);
      }
    }
    for (const auto& [id, place] : units_by_order(log.content, amd_units)) conclude(id, place);
  }
}

// --- what is not known ---

std::string why_regions_unknown(const PastedTexts& texts) {
  std::string regions;
  for (const auto& log : texts.logs) {
    for (const DirectRegionLine& r : log.content.dmar.rmrrs) {
      if (!r.device.empty()) continue;
      regions += fmt::format("{}{:#x}-{:#x} ({})", regions.empty() ? "" : ", ", r.range.start, r.range.last, log.at(r.line));
    }
  }
  if (regions.empty()) return "no text shows the group's regions";
  return "the boot log does not say to which devices the RMRRs belong: " + regions;
}

void list_unknown_device(const std::string& id, bool grouped, const std::string& why_regions, Ledger& ledger) {
  Findings& findings = ledger.findings;
  findings.miss(device(id, "group"), "no text says in which group it is, if in any",
                "give `--groups` (find /sys/kernel/iommu_groups -type l)");
  if (grouped && ledger.units.empty()) findings.miss(device(id, "iommu"), "no text tells of an IOMMU", "give `--dmesg`");
  if (grouped && !ledger.units.empty()) {
    findings.miss(device(id, "iommu"), "no text proves which unit it is behind", "run `ioplan scan` on the machine");
  }
  findings.miss(device(id, "reserved"), why_regions, "give `--reserved` (grep . /sys/kernel/iommu_groups/*/reserved_regions)");
  if (!pci_address(id)) return;
  findings.miss(device(id, DeviceFact::device_class), "no text says it", "give `--lspci` (lspci -nnvv)");
  findings.miss(device(id, DeviceFact::pasid_bits), "no text shows its capabilities", "give `--lspci` (sudo lspci -nnvv)");
}

void list_unknown(const PastedTexts& texts, Ledger& ledger) {
  const bool logs = !texts.logs.empty();
  ledger.findings.miss(kernel("release"), logs ? "the boot log has no beginning" : "no boot log was given",
                       logs ? "give the log from `Linux version` on" : "give `--dmesg`");
  if (logs) {
    ledger.findings.miss(kernel(KernelFact::isolated_msi), "no line says whether interrupts are remapped",
                         "give the log from `Linux version` on");
  }
  if (ledger.units.empty()) ledger.note("no text tells of an IOMMU: give `--dmesg`");
  const std::string why_regions = why_regions_unknown(texts);
  for (const auto& [id, seen] : ledger.seen) list_unknown_device(id, seen.group.has_value(), why_regions, ledger);
  if (!ledger.partial_classes.empty()) {
    ledger.note("{} classes come from listings without programming interfaces, which are taken to be 0; `lspci -nnv` has them",
                ledger.partial_classes.size());
  }
}

Imported import_read(const PastedTexts& texts) {
  Ledger ledger;
  note_whole_classes(texts, ledger);
  for (const auto& log : texts.logs) state_log(log, ledger);
  for (const auto& listing : texts.listings) state_lspci(listing, ledger);
  for (const auto& devices : texts.node_devices) state_node_devices(devices, ledger);
  for (const auto& listing : texts.groups) state_groups(listing, ledger);
  const auto amd_units = state_amd_units(texts, ledger);
  place_devices(texts, amd_units, ledger);
  for (const auto& dump : texts.regions) state_regions(dump, ledger);
  list_unknown(texts, ledger);
  std::ranges::sort(ledger.notes, natural_less);
  return {std::move(ledger.findings).settle(), std::move(ledger.notes)};
}

}  // namespace

Result<Imported> import_host(std::span<const ImportText> texts) {
  if (texts.empty()) return failure("there is nothing to import", "give at least one of `--dmesg`, `--lspci`, `--groups`, `--reserved`, `--libvirt-nodedev`");
  std::vector<const ImportText*> sorted;
  for (const ImportText& text : texts) sorted.push_back(&text);
  std::ranges::sort(sorted, [](const auto* a, const auto* b) { return std::tie(a->kind, a->file, a->text) < std::tie(b->kind, b->file, b->text); });
  PastedTexts read;
  for (const ImportText* text : sorted) {
    if (auto done = read_text(*text, read); !done) return tl::make_unexpected(std::move(done.error()));
  }
  return import_read(read);
}

}  // namespace ioplan::intake
