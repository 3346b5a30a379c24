#include "bench/cover_families.h"

#include <random>

namespace ioplan::bench {

namespace {

class Dice {
 public:
  explicit Dice(std::uint64_t seed) : engine_(seed) {}
  std::size_t below(std::size_t n) { return static_cast<std::size_t>(engine_() % n); }
  bool chance(unsigned percent) { return below(100) < percent; }

 private:
  std::mt19937_64 engine_;
};

CoverInstance empty_instance(std::size_t elements, std::size_t candidates) {
  CoverInstance instance;
  instance.elements = elements;
  instance.enforceable.assign(elements, 0);
  instance.candidates.assign(candidates, CoverCandidate{ElementSet(elements)});
  return instance;
}

CoverInstance random_accepts(std::size_t elements, unsigned apart_percent, Dice& dice) {
  constexpr std::size_t kCandidates = 16;
  CoverInstance instance = empty_instance(elements, kCandidates);
  for (std::size_t e = 0; e < elements; ++e) {
    for (std::size_t wanted = 1 + dice.below(4); wanted > 0;) {
      ElementSet::reference accepts = instance.candidates[dice.below(kCandidates)].accepts[e];
      if (accepts) continue;
      accepts = true;
      --wanted;
    }
  }
  for (std::uint32_t a = 0; a < elements; ++a) {
    for (std::uint32_t b = a + 1; b < elements; ++b) {
      if (dice.chance(apart_percent)) instance.apart.emplace_back(a, b);
    }
  }
  return instance;
}

// What a kind of IOMMU can do. Formats are bits: 1 second stage, 2 first stage, 4 another vendor's.
struct Kind {
  unsigned formats;
  bool wide, dirty, nesting, coherency;
};
constexpr std::array<Kind, 6> kKinds = {{
    {1, false, false, false, true},   // a client's unit
    {1, false, false, false, false},  // its graphics unit: cannot block no-snoop
    {3, true, true, true, true},      // a server's, both stages
    {2, false, false, false, true},   // first stage only
    {4, true, true, true, true},      // another vendor's
    {4, false, false, false, true},   // its predecessor
}};

struct Configuration {
  unsigned format;
  bool wide, dirty, nesting, coherency;
};

Configuration configuration(std::size_t i) {
  return {1U << (i / 16), (i & 8) != 0, (i & 4) != 0, (i & 2) != 0, (i & 1) != 0};
}

bool accepts(const Kind& kind, const Kind& needs, const Configuration& c) {
  const auto fits = [](bool can, bool needed, bool is) { return is ? can : !needed; };
  return (kind.formats & c.format) != 0 && fits(kind.wide, needs.wide, c.wide) &&
         fits(kind.dirty, needs.dirty, c.dirty) && fits(kind.nesting, needs.nesting, c.nesting) &&
         fits(kind.coherency, needs.coherency, c.coherency);
}

CoverInstance platform_like(std::size_t elements, Dice& dice) {
  CoverInstance instance = empty_instance(elements, 48);
  std::vector<std::size_t> vm_of;
  const std::size_t vms = std::max<std::size_t>(1, elements / 16);
  for (std::size_t e = 0; e < elements; ++e) {
    const Kind& kind = kKinds[dice.below(kKinds.size())];
    const Kind needs{0, kind.wide && dice.chance(25), kind.dirty && dice.chance(30), kind.nesting && dice.chance(20),
                     kind.coherency && dice.chance(30)};
    for (std::size_t c = 0; c < instance.candidates.size(); ++c) {
      instance.candidates[c].accepts[e] = accepts(kind, needs, configuration(c));
    }
    vm_of.push_back(dice.below(vms));
  }
  for (std::uint32_t a = 0; a < elements; ++a) {
    for (std::uint32_t b = a + 1; b < elements; ++b) {
      if (vm_of[a] != vm_of[b]) instance.apart.emplace_back(a, b);
    }
  }
  return instance;
}

}  // namespace

CoverInstance cover_instance(Family family, std::size_t elements, std::uint64_t seed) {
  Dice dice(seed * 1'000'003 + elements * 31 + static_cast<std::uint64_t>(family));
  switch (family) {
    case Family::R:
      return random_accepts(elements, 5, dice);
    case Family::S:
      return random_accepts(elements, 0, dice);
    case Family::H:
      break;
  }
  return platform_like(elements, dice);
}

CoverInstance with_costs(Family family, CoverInstance instance) {
  ElementSet enforced(instance.elements);
  for (std::size_t c = 0; c < instance.candidates.size(); ++c) {
    CoverCandidate& candidate = instance.candidates[c];
    if (family == Family::H) {
      const Configuration is = configuration(c);
      candidate.page_table_bytes = is.wide ? 16384 : 12288;
      candidate.unneeded_flags = (is.dirty ? 1U : 0U) + (is.nesting ? 1U : 0U);
      candidate.enforces = is.coherency;
    } else {
      candidate.page_table_bytes = 4096 * (c % 3 + 1);
      candidate.unneeded_flags = c % 2;
      candidate.enforces = c % 5 != 0;
    }
    if (candidate.enforces) enforced |= candidate.accepts;
  }
  for (std::size_t e = 0; e < instance.elements; ++e) instance.enforceable[e] = enforced[e] ? 1 : 0;
  return instance;
}

}  // namespace ioplan::bench
