// Calls on a Subject as values, so that they can be drawn at random, performed twice, shrunk and printed.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/model/host.h"
#include "tests/kernel/guest/subject.h"

namespace ioplan::kernel_test {

enum class Call : std::uint8_t {
  bind, unbind, ioas_alloc, allow_iovas, iova_ranges, map, copy, unmap, set_huge_pages, get_huge_pages, set_rlimit_mode,
  hw_info, fault_queue_alloc, hwpt_alloc, attach, detach, set_dirty_tracking, get_dirty_bitmap, destroy, reserve,
  access_create, access_destroy, check_map, write_pages, dma_write
};
inline constexpr std::size_t kCalls = 25;

struct Operation {
  Call call = Call::ioas_alloc;
  unsigned device = 0;
  unsigned ioas = 0;
  unsigned other = 0;              // a second IOAS, a HWPT, a fault queue or an access
  Target target;                   // attach, hwpt_alloc, destroy
  Source source = Source::memory;  // map
  std::uint32_t flags = 0;         // as the call has them; a PASID; a switch
  std::uint64_t a = 0, b = 0, c = 0;
  std::vector<Range> ranges;
};

std::string_view name_of(Call call);
std::string to_text(const Operation& operation, const Host& host);

Reply perform(Subject& subject, const Operation& operation);

}  // namespace ioplan::kernel_test
