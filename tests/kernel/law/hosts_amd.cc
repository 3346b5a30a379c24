// AMD-Vi: the extended feature registers as IVRS announces them, IVRS's widths, and the command line.
//
// The driver is asked after it has booted on that firmware, so the features that it uses are those that all units
// share.
#include "tests/kernel/law/hosts.h"

namespace ioplan::judged {

namespace {

constexpr std::uint64_t bit_of(unsigned n) { return std::uint64_t{1} << n; }

struct Registers {
  std::uint64_t efr, efr2;
};

constexpr std::uint64_t kHats = 0xc00, kGats = 0x3000;
// PPR, GT, GIOSUP, EPHSUP, HDSUP, SNP; SEVSNPIO, GCR3TRPMODE, HT_RANGE_IGNORE.
constexpr std::uint64_t kEfrRead = bit_of(1) | bit_of(4) | bit_of(48) | bit_of(50) | bit_of(52) | bit_of(63);
constexpr std::uint64_t kEfr2Read = bit_of(1) | bit_of(3) | bit_of(11);
constexpr std::uint32_t kEfrAnnounced = 1;  // IVinfo.EFRSup

// Where there is no corpus: Genoa, Phoenix, Cezanne, QEMU.
constexpr Registers kKnown[] = {
    {0x25bf732fa2295afe, 0x1d}, {0x246577efa2254afa, 0}, {0x58f77ef22294a5a, 0}, {0x29d3, 0}};

class AmdHosts final : public Hosts {
 public:
  explicit AmdHosts(std::span<const Unit> real) : registers_(std::begin(kKnown), std::end(kKnown)) {
    for (const Unit& u : real) {
      if (u.driver != Driver::amd || !u.facts[UnitFact::efr]) continue;
      registers_.push_back({*u.facts[UnitFact::efr], u.facts[UnitFact::efr2].value_or(0)});
    }
  }

  judge_host draw(Draw& draw) const override {
    judge_host host{};
    host.one_unit = draw.one_in(16);
    host.v2_tables = draw.one_in(3);
    host.nohugepages = draw.one_in(16);
    host.v2_page_sizes_only = draw.one_in(16);
    host.wants_snp = draw.one_in(4);
    host.la57 = draw.one_in(2);
    host.hatdis = draw.one_in(32);
    host.ivinfo = kEfrAnnounced | static_cast<std::uint32_t>(va_size(draw) << 15);
    const Registers first = one(draw);
    const Registers second = draw.one_in(4) ? one(draw) : near(draw, first, 2);
    host.units[0].efr = first.efr;
    host.units[0].efr2 = first.efr2;
    host.units[1].efr = second.efr;
    host.units[1].efr2 = second.efr2;
    return host;
  }

  // IVHD.HATDis says of the machine what EFR.HATS = 3 says of a unit.
  Host ours(const judge_host& kernel, const std::array<judge_device, JUDGE_UNITS>& booted) const override {
    Host host = host_of_two(Arch::x86_64, Driver::amd, kernel);
    Facts<KernelFact>& facts = host.kernel.facts;
    facts[KernelFact::amd_iommu_pgtbl_v2] = kernel.v2_tables;
    facts[KernelFact::amd_iommu_nohugepages] = kernel.nohugepages;
    facts[KernelFact::amd_iommu_v2_pgsizes_only] = kernel.v2_page_sizes_only;
    facts[KernelFact::amd_snp] = booted[0].snp;
    facts[KernelFact::la57] = kernel.la57;
    for (unsigned i = 0; i < JUDGE_UNITS; ++i) {
      Facts<UnitFact>& unit = host.units[i].facts;
      unit[UnitFact::efr] = kernel.units[i].efr | (kernel.hatdis != 0 ? kHats : 0);
      unit[UnitFact::efr2] = kernel.units[i].efr2;
      if (const std::uint32_t width = kernel.ivinfo >> 15; width != 0) unit[UnitFact::va_size] = width;
    }
    return host;
  }

 private:
  // 0: not stated. Below 14 bits not even the smallest page fits, and iommufd meets a HWPT without page sizes.
  static std::uint64_t va_size(Draw& draw) {
    if (draw.one_in(8)) return 14 + draw.below(114);
    return draw.of({0, 0, 32, 40, 48, 57, 64});
  }

  Registers one(Draw& draw) const {
    if (draw.one_in(3)) return {draw.bits(), draw.bits()};
    return near(draw, draw.of(std::span<const Registers>(registers_)), 4);
  }

  static Registers near(Draw& draw, Registers r, unsigned most) {
    r.efr = draw.flip(r.efr, kEfrRead, most);
    r.efr2 = draw.flip(r.efr2, kEfr2Read, 1);
    if (draw.one_in(4)) r.efr = (r.efr & ~kHats) | draw.below(4) << 10;
    if (draw.one_in(4)) r.efr = (r.efr & ~kGats) | draw.below(4) << 12;
    return r;
  }

  std::vector<Registers> registers_;
};

}  // namespace

std::unique_ptr<Hosts> amd_hosts(std::span<const Unit> real) { return std::make_unique<AmdHosts>(real); }

}  // namespace ioplan::judged
