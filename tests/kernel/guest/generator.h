// Draws operations for the differential: mostly ones that make sense, often not quite, now and then nonsense.
//
// A sequence has a theme, because what is rare everywhere (a dirty page, a HWPT that a PASID may have) is common where
// one looks for it.
#pragma once

#include <array>
#include <cstdint>
#include <random>
#include <vector>

#include "tests/kernel/guest/operations.h"

namespace ioplan::kernel_test {

class Generator {
 public:
  // `devices`: those that can be bound; `mock`: those of them that are mock ones.
  Generator(std::vector<unsigned> devices, std::vector<unsigned> mock, std::uint64_t seed);
  Operation next();
  // What became of the operation just drawn.
  void learn(const Operation& operation, const Reply& reply);

 private:
  enum class Theme : std::uint8_t { mixed, dirty, pasids };
  struct Objects {
    unsigned made = 0;
    std::vector<unsigned> live;  // handles
  };
  struct Mapping {
    unsigned ioas;
    std::uint64_t iova, length;
    Source source;
    std::uint64_t offset;
  };

  unsigned below(std::size_t n) { return static_cast<unsigned>(random_() % n); }
  bool one_in(unsigned n) { return below(n) == 0; }

  std::uint64_t address();
  std::uint64_t length();
  std::uint32_t pasid();
  unsigned device();
  unsigned recent(const std::vector<unsigned>& handles);  // one of the last more often; 0 when there is none
  unsigned handle(TargetKind kind);                       // mostly of something that is there
  Target attach_target();
  Target any_target();
  Call sensible(Call drawn);
  unsigned made(TargetKind kind);
  void forget(Target target);
  Objects& objects(TargetKind kind) { return objects_[static_cast<std::size_t>(kind)]; }

  void fill(Operation& o);
  void fill_allowed(Operation& o);
  void fill_map(Operation& o);
  void fill_copy(Operation& o);
  void fill_unmap(Operation& o);
  void fill_hwpt(Operation& o);
  void fill_dirty_bitmap(Operation& o);
  void fill_write(Operation& o);
  void fill_check(Operation& o);
  const Mapping* recent_mapping();
  const Mapping* mapping_of(unsigned hwpt);  // a recent one of its IOAS
  std::uint64_t cut() { return one_in(4) ? below(3) * std::uint64_t{4096} : 0; }

  std::vector<unsigned> devices_, mock_;
  std::mt19937_64 random_;
  Theme theme_;
  std::array<Objects, 4> objects_{};  // by kind
  std::vector<unsigned> bound_, accesses_;
  std::vector<std::uint64_t> interesting_;
  std::vector<unsigned> ioas_of_;                           // by HWPT
  std::vector<unsigned> mock_hwpts_, trackable_, tracking_;  // HWPTs
  std::vector<Mapping> mappings_;  // made, and perhaps gone again
};

}  // namespace ioplan::kernel_test
