// SMMUv3: identification registers, what firmware says beside them, and two constants of the kernel's configuration.
//
// A document states the registers, or, for a host known by its boot log, the mask and the width that the driver
// printed; both are asked.
#include "tests/kernel/law/hosts.h"

namespace ioplan::judged {

namespace {

// S2P, S1P, HTTU of IDR0; FWB of IDR3; OAS, granules and VAX of IDR5.
constexpr std::uint32_t kIdr0Read = 0x3 | 0x3 << 6;
constexpr std::uint32_t kIdr3Read = 1 << 8;
constexpr std::uint32_t kIdr5Read = 0x7 | 0x7 << 4 | 0x3 << 10;
constexpr std::uint32_t kTtf = 0x3 << 2, kAarch64 = 0x2 << 2;
constexpr std::uint32_t kEndianness = 0x3 << 21;
// Arm's MMU-600 r0 to r2 and MMU-700 r0, r1, which lose nesting, MMU S3 and nobody.
constexpr std::uint64_t kIidr[] = {0, 0, 0x4830043b, 0x4831143b, 0x4832043b, 0x4870043b, 0x4871143b, 0x4980043b};

struct Registers {
  std::uint32_t idr0, idr1, idr3, idr5;
};

// MMU-600, MMU-700, Grace, QEMU: KR 3.3 and candidate values of engine/model/facts.cc.
constexpr Registers kKnown[] = {{0x0d8ff1ff, 0x0e739d10, 0, 0x476},
                                {0x0d8ff13f, 0x0e739d10, 0x1900, 0x75},
                                {0x0d8ff13e, 0x0e739810, 0, 0x40},
                                {0x0d44101b, 0x02739d10, 0x10, 0x74},
                                {0x0d44100a, 0x02739d10, 0x10, 0x54}};

class Smmuv3Hosts final : public Hosts {
 public:
  explicit Smmuv3Hosts(std::span<const Unit> real) : registers_(std::begin(kKnown), std::end(kKnown)) {
    for (const Unit& u : real) {
      if (u.driver != Driver::smmuv3 || !u.facts[UnitFact::idr0] || !u.facts[UnitFact::idr5]) continue;
      registers_.push_back({register_of(u, UnitFact::idr0), register_of(u, UnitFact::idr1),
                            register_of(u, UnitFact::idr3), register_of(u, UnitFact::idr5)});
    }
  }

  judge_host draw(Draw& draw) const override {
    judge_host host{};
    host.page_size = draw.of({0x1000, 0x1000, 0x4000, 0x10000});
    host.va_bits = static_cast<std::uint32_t>(draw.of({36, 39, 42, 47, 48, 52, 52}));
    host.known_by_boot_log = draw.one_in(4);
    host.one_unit = draw.one_in(2);
    host.units[0] = one(draw);
    host.units[1] = draw.one_in(4) ? one(draw) : near(draw, host.units[0]);
    return host;
  }

  Host ours(const judge_host& kernel, const std::array<judge_device, JUDGE_UNITS>& booted) const override {
    Host host = host_of_two(Arch::aarch64, Driver::smmuv3, kernel);
    host.kernel.facts[KernelFact::page_size] = kernel.page_size;
    host.kernel.facts[KernelFact::va_bits] = kernel.va_bits;
    for (unsigned i = 0; i < JUDGE_UNITS; ++i) {
      const judge_unit& unit = kernel.units[i];
      Facts<UnitFact>& facts = host.units[i].facts;
      facts[UnitFact::idr1] = unit.idr1;
      facts[UnitFact::idr5] = unit.idr5;
      if (kernel.known_by_boot_log != 0) {
        facts[UnitFact::features] = booted[i].features;
        facts[UnitFact::oas] = booted[i].output_bits;
      } else {
        facts[UnitFact::idr0] = unit.idr0;
        facts[UnitFact::idr3] = unit.idr3;
        facts[UnitFact::coherent] = unit.coherent;
        if (unit.device_tree == 0) facts[UnitFact::httu] = unit.firmware_updates;
      }
      const bool both_stages = (unit.idr0 & 3) == 3;
      facts[UnitFact::nesting_erratum] = both_stages && booted[i].nests == 0;
      host.devices[i].facts[DeviceFact::canwbs] = unit.canwbs;
    }
    return host;
  }

 private:
  static std::uint32_t register_of(const Unit& u, UnitFact fact) {
    return static_cast<std::uint32_t>(u.facts[fact].value_or(0));
  }

  judge_unit one(Draw& draw) const {
    const Registers& known = draw.of(std::span<const Registers>(registers_));
    judge_unit u{};
    u.idr0 = (known.idr0 & ~(kTtf | kEndianness)) | kAarch64;
    u.idr1 = known.idr1;
    u.idr3 = known.idr3;
    u.idr5 = draw.one_in(3) ? static_cast<std::uint32_t>(draw.bits()) : known.idr5;
    u.iidr = static_cast<std::uint32_t>(draw.of(std::span<const std::uint64_t>(kIidr)));
    u.coherent = !draw.one_in(4);
    u.device_tree = draw.one_in(2);
    u.firmware_updates = static_cast<std::uint8_t>(draw.below(4));
    u.canwbs = !draw.one_in(3);
    return near(draw, u);
  }

  static judge_unit near(Draw& draw, judge_unit u) {
    u.idr0 = static_cast<std::uint32_t>(draw.flip(u.idr0, kIdr0Read, 2));
    u.idr3 = static_cast<std::uint32_t>(draw.flip(u.idr3, kIdr3Read, 1));
    u.idr5 = static_cast<std::uint32_t>(draw.flip(u.idr5, kIdr5Read, 2));
    u.canwbs ^= draw.one_in(4);
    return u;
  }

  std::vector<Registers> registers_;
};

}  // namespace

std::unique_ptr<Hosts> smmuv3_hosts(std::span<const Unit> real) { return std::make_unique<Smmuv3Hosts>(real); }

}  // namespace ioplan::judged
