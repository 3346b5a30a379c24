#include "backends/iommufd/registers.h"

#include <fmt/format.h>

#include "engine/base/text.h"

namespace ioplan::iommufd {

namespace {

constexpr std::uint64_t bits(unsigned high, unsigned low) {
  return (~std::uint64_t{0} >> (63 - high)) & ~((std::uint64_t{1} << low) - 1);
}
constexpr std::uint64_t bit(unsigned n) { return bits(n, n); }

// PPRSup, GTSup, GASup, GATS, GLX, PASmax, GioSup, EPHSup.
constexpr std::uint64_t kAmdEfr =
    bit(1) | bit(4) | bit(7) | bits(13, 12) | bits(15, 14) | bits(36, 32) | bit(48) | bit(50);
// TTF, ASID16, CD2L, TTENDIAN, STALL_MODEL, TERM_MODEL, ST_LEVEL.
constexpr std::uint64_t kIdr0 = bits(3, 2) | bit(12) | bit(19) | bits(22, 21) | bits(25, 24) | bit(26) | bits(28, 27);
constexpr std::uint64_t kIdr1 = bits(5, 0) | bits(10, 6);   // SIDSIZE, SSIDSIZE
constexpr std::uint64_t kIdr3 = bit(10) | bits(12, 11);     // RIL, BBML
constexpr std::uint64_t kIdr5 = bits(6, 4) | bits(11, 10);  // GRAN4K, GRAN16K, GRAN64K, VAX
constexpr std::uint64_t kEveryBit = ~std::uint64_t{0};

struct Register {
  UnitFact fact;
  std::uint64_t seen;
  std::uint64_t reliable;  // mask
};

// The registers that the answer holds, and the driver that gives such an answer.
struct Told {
  std::optional<Driver> driver;
  std::vector<Register> registers;
};

Told told_by(const HwInfo& info) {
  if (info.type == uapi::IOMMU_HW_INFO_TYPE_INTEL_VTD) {
    const auto vtd = info.as<uapi::iommu_hw_info_vtd>();
    return {Driver::intel, {{UnitFact::cap, vtd.cap_reg, kEveryBit}, {UnitFact::ecap, vtd.ecap_reg, kEveryBit}}};
  }
  if (info.type == uapi::IOMMU_HW_INFO_TYPE_AMD) {
    return {Driver::amd, {{UnitFact::efr, info.as<uapi::iommu_hw_info_amd>().efr, kAmdEfr}}};
  }
  if (info.type == uapi::IOMMU_HW_INFO_TYPE_ARM_SMMUV3) {
    const auto smmu = info.as<uapi::iommu_hw_info_arm_smmuv3>();
    return {Driver::smmuv3,
            {{UnitFact::idr0, smmu.idr[0], kIdr0},
             {UnitFact::idr1, smmu.idr[1], kIdr1},
             {UnitFact::idr3, smmu.idr[3], kIdr3},
             {UnitFact::idr5, smmu.idr[5], kIdr5}}};
  }
  return {};
}

// What the document leads us to expect; AMD's is common to all units (init.c get_global_efr).
std::optional<std::uint64_t> documented(const Host& host, const Unit& unit, UnitFact fact) {
  if (unit.driver != Driver::amd) return unit.facts[fact];
  std::uint64_t common = kEveryBit;
  for (const Unit& u : host.units) {
    if (u.driver != Driver::amd) continue;
    if (!u.facts[fact]) return std::nullopt;
    common &= *u.facts[fact];
  }
  return common;
}

constexpr std::string_view kAdvice =
    "the document is not this machine's, or out of date: capture it again and plan again";

}  // namespace

Result<void> compare_registers(const HwInfo& seen, const Host& host, std::string_view device) {
  const auto index = host.find_device(device);
  if (!index || !host.device(*index).unit) return {};
  const Unit& unit = host.unit(*host.device(*index).unit);
  const Told told = told_by(seen);
  if (told.driver && *told.driver != unit.driver) {
    return failure(fmt::format("the IOMMU of {} is of driver {}, and `{}` of the host document is of driver {}", device,
                               name_of(*told.driver), unit.id, name_of(unit.driver)),
                   std::string(kAdvice));
  }
  for (const Register& r : told.registers) {
    const auto stated = documented(host, unit, r.fact);
    if (!stated || ((*stated ^ r.seen) & r.reliable) == 0) continue;
    return failure(fmt::format("the IOMMU of {} has {} {}, and the host document says {} of `{}`", device,
                               row_of(r.fact).key, format_hex(r.seen), format_hex(*stated), unit.id),
                   std::string(kAdvice));
  }
  return {};
}

}  // namespace ioplan::iommufd
