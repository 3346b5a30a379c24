#include "tests/kernel/law/mutants.h"

#include <fmt/format.h>

#include "constraints/kernel_law.h"

namespace ioplan::judged {

namespace {

// Passes everything on but one bit of what a device or a HWPT is.
class Skewed final : public Law {
 public:
  Skewed(const Law& law, std::optional<HwptQ> hwpt, std::optional<DeviceQ> device)
      : law_(law), hwpt_(hwpt), device_(device) {}

  std::span<const Rule* const> rules() const override { return law_.rules(); }
  DeviceQuantities describe(const Host& host, DeviceIndex device) const override {
    DeviceQuantities q = law_.describe(host, device);
    if (device_) q[*device_] ^= 1;
    return q;
  }
  HwptQuantities allocate(const DeviceQuantities& allocator, std::uint8_t flags) const override {
    HwptQuantities h = law_.allocate(allocator, flags);
    if (hwpt_) h[*hwpt_] ^= 1;
    return h;
  }
  std::vector<ReservedRegion> own_regions(const Host& host, DeviceIndex device) const override {
    return law_.own_regions(host, device);
  }
  std::optional<DomainPool> domain_pool(const Host& host, UnitIndex unit, unsigned stage) const override {
    return law_.domain_pool(host, unit, stage);
  }
  bool id_at_allocation(Driver driver) const override { return law_.id_at_allocation(driver); }
  bool automatic_only(Driver driver) const override { return law_.automatic_only(driver); }

 private:
  const Law& law_;
  std::optional<HwptQ> hwpt_;
  std::optional<DeviceQ> device_;
};

LawUnderTest with_rule(const LawUnderTest& law, std::size_t at, std::optional<Rule> instead) {
  LawUnderTest changed = law;
  if (instead) {
    changed.rules[at] = std::make_shared<const Rule>(*instead);
  } else {
    changed.rules.erase(changed.rules.begin() + static_cast<std::ptrdiff_t>(at));
  }
  return changed;
}

LawUnderTest skewed(const LawUnderTest& law, std::optional<HwptQ> hwpt, std::optional<DeviceQ> device) {
  LawUnderTest changed = law;
  changed.law = std::make_shared<Skewed>(kernel_law(), hwpt, device);
  return changed;
}

}  // namespace

LawUnderTest the_law() {
  LawUnderTest law{.law = std::shared_ptr<const Law>(&kernel_law(), [](const Law*) {}), .rules = {}};
  for (const Rule* rule : kernel_law().rules()) law.rules.push_back(std::make_shared<const Rule>(*rule));
  return law;
}

std::vector<Mutant> mutants_of(const LawUnderTest& law, const std::function<bool(const Rule&)>& chosen) {
  std::vector<Mutant> mutants;
  for (std::size_t i = 0; i < law.rules.size(); ++i) {
    Rule rule = *law.rules[i];
    if (!chosen(rule)) continue;
    if (rule.strict) {
      rule.strict = false;
      rule.errno_value = EINVAL;
      mutants.push_back({fmt::format("{}, as if Linux checked it", rule.name), with_rule(law, i, rule)});
      continue;
    }
    mutants.push_back({fmt::format("{} left out", rule.name), with_rule(law, i, std::nullopt)});
    rule.require = {{std::uint64_t{0}, Relation::equal, std::uint64_t{1}}};
    mutants.push_back({fmt::format("{} refusing always", rule.name), with_rule(law, i, rule)});
  }
  for (const HwptQ q : {HwptQ::stage, HwptQ::levels, HwptQ::address_bits, HwptQ::aperture_start, HwptQ::aperture_last,
                        HwptQ::page_sizes, HwptQ::dirty_tracking, HwptQ::nest_parent, HwptQ::enforce_cache_coherency,
                        HwptQ::coherent_walk, HwptQ::sync_map, HwptQ::takes_read_only}) {
    mutants.push_back({fmt::format("HWPT's {} wrong", name_of(q)), skewed(law, q, std::nullopt)});
  }
  for (const DeviceQ q : {DeviceQ::cache_coherency, DeviceQ::enforce_cache_coherency, DeviceQ::dirty_capable}) {
    mutants.push_back({fmt::format("device's {} wrong", name_of(q)), skewed(law, std::nullopt, q)});
  }
  return mutants;
}

}  // namespace ioplan::judged
