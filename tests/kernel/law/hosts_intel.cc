// VT-d: CAP_REG, ECAP_REG and three switches of the kernel.
#include "tests/kernel/law/hosts.h"

namespace ioplan::judged {

namespace {

constexpr std::uint64_t bit_of(unsigned n) { return std::uint64_t{1} << n; }

struct Registers {
  std::uint64_t cap, ecap;
};

constexpr std::uint64_t kSagaw = 0x1f00, kMgaw = 0x3f0000, kSslps = std::uint64_t{0xf} << 34;
// RWBF, CM, SAGAW, MGAW, SSLPS, FS1GP, FS5LP; C, SC, NEST, PASID, SMTS, SSADS, SSTS, FSTS, SMPWC.
constexpr std::uint64_t kCapRead = bit_of(4) | bit_of(7) | kSagaw | kMgaw | kSslps | bit_of(56) | bit_of(60);
constexpr std::uint64_t kEcapRead =
    bit_of(0) | bit_of(7) | bit_of(26) | bit_of(40) | bit_of(43) | bit_of(45) | bit_of(46) | bit_of(47) | bit_of(48);

// Where there is no corpus: Skylake client's two units, Sapphire Rapids, Panther Lake's two (KR 3.1), QEMU's.
constexpr Registers kKnown[] = {{0x1c0000c40660462, 0x19e2ff0505e},     {0xd2008c40660462, 0xf050da},
                                {0x19ed008c40780c66, 0x3ef9ea6f050df},  {0x19ed008c40780c66, 0x1aca9a00f0ef5e},
                                {0x19ed008c40780c66, 0x1ac89804f0efda}, {0xd2008c222f0606, 0xf00f4a}};

class IntelHosts final : public Hosts {
 public:
  explicit IntelHosts(std::span<const Unit> real) : registers_(std::begin(kKnown), std::end(kKnown)) {
    for (const Unit& u : real) {
      if (u.driver != Driver::intel || !u.facts[UnitFact::cap] || !u.facts[UnitFact::ecap]) continue;
      registers_.push_back({*u.facts[UnitFact::cap], *u.facts[UnitFact::ecap]});
    }
  }

  judge_host draw(Draw& draw) const override {
    judge_host host{};
    host.one_unit = draw.one_in(16);
    host.scalable_mode = !draw.one_in(4);
    host.superpages_off = draw.one_in(32);
    host.rwbf_quirk = draw.one_in(32);
    const Registers first = one(draw);
    const Registers second = draw.one_in(4) ? one(draw) : near(draw, first, 3);
    host.units[0].cap = first.cap;
    host.units[0].ecap = first.ecap;
    host.units[1].cap = second.cap;
    host.units[1].ecap = second.ecap;
    return host;
  }

  Host ours(const judge_host& kernel, const std::array<judge_device, JUDGE_UNITS>&) const override {
    Host host = host_of_two(Arch::x86_64, Driver::intel, kernel);
    host.kernel.facts[KernelFact::intel_iommu_sm] = kernel.scalable_mode;
    host.kernel.facts[KernelFact::intel_iommu_sp_off] = kernel.superpages_off;
    for (unsigned i = 0; i < JUDGE_UNITS; ++i) {
      Facts<UnitFact>& facts = host.units[i].facts;
      facts[UnitFact::cap] = kernel.units[i].cap;
      facts[UnitFact::ecap] = kernel.units[i].ecap;
      facts[UnitFact::rwbf_quirk] = kernel.rwbf_quirk;
    }
    return host;
  }

 private:
  Registers one(Draw& draw) const {
    if (draw.one_in(3)) return narrowed({draw.bits(), draw.bits()}, draw);
    return near(draw, draw.of(std::span<const Registers>(registers_)), 4);
  }

  // The widths are fields: changed as one, to what hardware has.
  static Registers near(Draw& draw, Registers r, unsigned most) {
    r.cap = draw.flip(r.cap, kCapRead & ~(kSagaw | kMgaw), most);
    r.ecap = draw.flip(r.ecap, kEcapRead, most);
    if (draw.one_in(4)) r.cap = (r.cap & ~kMgaw) | draw.of({38, 41, 45, 47, 51, 56, 63}) << 16;
    if (draw.one_in(4)) r.cap = (r.cap & ~kSagaw) | draw.of({1, 2, 4, 6, 8, 12, 14, 16}) << 8;
    return r;
  }

  // Below 36 bits Linux shifts by a negative number where a root lies above the width (pt_top_memsize_lg2): what comes
  // out is the compiler's choice, and no hardware is like that. Not above 30 bits there are no second-stage tables at
  // all, and units without ECAP.FSTS can be asked.
  static Registers narrowed(Registers r, Draw& draw) {
    const std::uint64_t mgaw = (r.cap & kMgaw) >> 16;
    if (mgaw < 30) r.ecap &= ~bit_of(47);
    if (mgaw >= 30 && mgaw < 35) r.cap = (r.cap & ~kMgaw) | (35 + draw.below(29)) << 16;
    return r;
  }

  std::vector<Registers> registers_;
};

}  // namespace

std::unique_ptr<Hosts> intel_hosts(std::span<const Unit> real) { return std::make_unique<IntelHosts>(real); }

}  // namespace ioplan::judged
