// Arm SMMUs and virtio-iommu: drivers/iommu/arm/arm-smmu-v3/arm-smmu-v3.c, drivers/iommu/arm/arm-smmu/arm-smmu.c,
// drivers/iommu/virtio-iommu.c. Each message begins with the driver's name and the unit's.
#include <algorithm>
#include <string>

#include "backends/intake/kernel_log.h"

namespace ioplan::intake {

namespace {

constexpr std::uint64_t kHardwareAccess = std::uint64_t{1} << 21;  // ARM_SMMU_FEAT_HA
constexpr std::uint64_t kHardwareDirty = std::uint64_t{1} << 22;   // ARM_SMMU_FEAT_HD

template <class Unit>
Unit& unit_of(std::vector<Unit>& units, const std::string& name) {
  const auto it = std::ranges::find(units, name, &Unit::name);
  if (it != units.end()) return *it;
  units.push_back({});
  units.back().name = name;
  return units.back();
}

// "ias 48-bit, oas 48-bit (features 0x001e1fbf)"; since 6.15 without ias
bool sizes(Cursor at, std::uint32_t line, Smmuv3Lines& unit) {
  if (at.skip("ias ") && !(at.decimal() && at.skip("-bit, "))) return false;
  if (!at.skip("oas ")) return false;
  const auto bits = at.decimal();
  if (!bits || !at.skip("-bit")) return true;
  unit.oas = {*bits, line};
  if (!at.skip(" (features ")) return true;
  if (const auto features = at.hex()) unit.features = {*features, line};
  return true;
}

// "IDR0.HTTU features(0x600000) overridden by FW configuration (0x0)"
bool httu(Cursor at, std::uint32_t line, Smmuv3Lines& unit) {
  if (!at.skip("IDR0.HTTU features") || !at.skip_past("FW configuration (")) return false;
  const auto features = at.hex();
  if (!features) return true;
  const std::uint64_t level = (*features & kHardwareDirty) != 0 ? 2 : (*features & kHardwareAccess) != 0 ? 1 : 0;
  unit.httu = {level, line};
  return true;
}

bool read_v3(Cursor at, const std::string& name, std::uint32_t line, SmmuLog& log) {
  Smmuv3Lines unit;
  if (!sizes(at, line, unit) && !httu(at, line, unit) && !at.skip("option mask ")) return false;
  Smmuv3Lines& known = unit_of(log.v3, name);
  if (known.line == 0) known.line = line;
  if (unit.features) known.features = unit.features;
  if (unit.oas) known.oas = unit.oas;
  if (unit.httu) known.httu = unit.httu;
  return true;
}

void note_number(std::optional<Noted<std::uint64_t>>& fact, std::optional<std::uint64_t> value, std::uint32_t line) {
  if (value) fact = {*value, line};
}

bool read_v2(Cursor at, const std::string& name, std::uint32_t line, SmmuLog& log) {
  at.skip_blanks();
  if (at.skip("SMMUv1 with:") || at.skip("SMMUv2 with:")) {
    unit_of(log.v2, name).line = line;
    return true;
  }
  const auto it = std::ranges::find(log.v2, name, &Smmuv2Lines::name);
  if (it == log.v2.end()) return false;
  Smmuv2Lines& unit = *it;
  if (at.skip("stage 1 translation")) return unit.stage1 = true;
  if (at.skip("stage 2 translation")) return unit.stage2 = true;
  if (at.skip("coherent table walk")) unit.coherent = {true, line};
  if (at.skip("non-coherent table walk")) unit.coherent = {false, line};
  if (at.skip("Supported page sizes: ")) note_number(unit.page_sizes, at.hex(), line);
  if (at.skip("Stage-1: ")) {
    note_number(unit.input_bits, at.decimal(), line);
    if (at.skip("-bit VA -> ") && !unit.ipa_bits) note_number(unit.ipa_bits, at.decimal(), line);
  }
  if (at.skip("Stage-2: ")) note_number(unit.ipa_bits, at.decimal(), line);
  Cursor banks = at;
  const auto count = banks.decimal();
  if (count && banks.skip(" context banks")) note_number(unit.context_banks, count, line);
  return true;
}

bool read_virtio(Cursor at, const std::string& name, std::uint32_t line, SmmuLog& log) {
  if (at.skip("input address: ")) {
    note_number(unit_of(log.virtio, name).input_bits, at.decimal(), line);
  } else if (at.skip("page mask: ")) {
    note_number(unit_of(log.virtio, name).page_mask, at.hex(), line);
  } else {
    return false;
  }
  return true;
}

}  // namespace

bool read_smmu_message(const LogLine& line, SmmuLog& log) {
  Cursor at(line);
  const std::string_view driver = at.word();
  std::string name(at.word());
  if (!name.ends_with(':')) return false;
  name.pop_back();
  at.skip_blanks();
  if (driver == "arm-smmu-v3") return read_v3(at, name, line.number, log);
  if (driver == "arm-smmu") return read_v2(at, name, line.number, log);
  return driver == "virtio_iommu" && read_virtio(at, name, line.number, log);
}

}  // namespace ioplan::intake
