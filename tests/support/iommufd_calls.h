// Draws hosts and calls for the simulator and its model: mostly sensible, often not, and always with a look at what is
// there, so that successes and every refusal are frequent. A sequence has a theme, because what is rare everywhere
// (a full pool of domain ids, a dirty page that two HWPTs know of) is common where one looks for it.
#pragma once

#include <cstdint>
#include <random>

#include "tests/support/iommufd_duel.h"

namespace ioplan::traces {

class CallGenerator {
 public:
  explicit CallGenerator(std::uint64_t seed);

  Sketch sketch();
  Call call(const Duel& duel);

  bool chance(unsigned percent) { return below(100) < percent; }
  std::uint64_t below(std::uint64_t n) { return random_() % n; }

 private:
  enum class Theme : std::uint8_t { mixed, dirty, memory, owners, sharing, pasids, domain_ids };
  enum class Kind : std::uint8_t {
    device,
    ioas,
    mapped_ioas,
    lazy_ioas,
    backed_ioas,
    hwpt,
    automatic_hwpt,
    dirty_hwpt,
    fault,
    access
  };

  template <class T>
  T one_of(std::initializer_list<T> values) {
    return values.begin()[below(values.size())];
  }

  UnitKind unit_kind();
  SketchDevice device_for(const Sketch& sketch, std::size_t unit, std::uint32_t group);
  unsigned weight(Verb verb) const;
  Verb verb();
  Verb sensible(const slow::Context& c, Verb drawn);
  Verb towards_dirty_pages(const slow::Context& c, Verb drawn) const;
  std::size_t unbound_device(const Duel& duel);
  Id unattached_device(const Duel& duel, unsigned context, std::uint32_t pasid);
  Id pick(const Duel& duel, unsigned context, Kind kind);
  Id live(const Duel& duel, unsigned context, Kind kind);
  Id attached_device(const Duel& duel, unsigned context, std::uint32_t pasid);
  const slow::Ioas* ioas(const Duel& duel, unsigned context, const Id& id) const;
  std::uint64_t iova(const slow::Ioas* ioas);
  std::uint64_t length();
  std::uint32_t map_flags();
  std::uint32_t hwpt_flags();
  std::uint32_t pasid();
  void memory(Call& call);
  void target(const Duel& duel, Call& call);
  void fill(const Duel& duel, Call& call);
  void fill_map(const Duel& duel, Call& call);
  void fill_copy(const Duel& duel, Call& call);
  void fill_unmap(const Duel& duel, Call& call);
  void fill_allowed(Call& call);
  void fill_dirty(const Duel& duel, Call& call);
  void fill_dma(const Duel& duel, Call& call);

  std::mt19937_64 random_;
  Theme theme_;
};

}  // namespace ioplan::traces
