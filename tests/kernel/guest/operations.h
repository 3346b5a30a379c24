// Calls on a Subject as values, so that they can be drawn at random, performed twice, shrunk and printed.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "engine/model/host.h"
#include "tests/kernel/guest/subject.h"

namespace ioplan::kernel_test {

enum class Call : std::uint8_t {
  bind, unbind, ioas_alloc, allow_iovas, iova_ranges, map, copy, unmap, huge_pages, hwpt_alloc, attach, detach,
  set_dirty_tracking, get_dirty_bitmap, destroy
};
inline constexpr std::size_t kCalls = 15;

struct Operation {
  Call call = Call::ioas_alloc;
  unsigned device = 0;
  unsigned ioas = 0;
  unsigned other = 0;           // a second IOAS, or a HWPT
  Target target;                // attach, destroy
  std::uint32_t flags = 0;      // of map, copy, hwpt_alloc; a PASID; a switch
  std::uint64_t a = 0, b = 0, c = 0;
  std::vector<Range> ranges;
};

std::string to_text(const Operation& operation, const Host& host);

Reply perform(Subject& subject, const Operation& operation);

// Draws operations that make sense now and then; remembers how many handles it has asked for.
class Generator {
 public:
  // `devices`: those that can be bound.
  Generator(std::vector<unsigned> devices, std::uint64_t seed);
  Operation next();
  // What became of the operation just drawn.
  void learn(const Operation& operation, const Reply& reply);

 private:
  unsigned below(std::size_t n);
  bool one_in(unsigned n);
  std::uint64_t address();
  std::uint64_t length();
  unsigned device();
  Target target();
  unsigned ioas();
  struct Mapping {
    unsigned ioas;
    std::uint64_t iova, length;
  };
  void aim(Operation& operation);

  std::vector<unsigned> devices_;
  std::mt19937_64 random_;
  unsigned ioases_ = 0, hwpts_ = 0;
  std::vector<unsigned> bound_;
  std::vector<std::uint64_t> interesting_;
  std::vector<Mapping> mappings_;  // made, and perhaps gone again
};

}  // namespace ioplan::kernel_test
