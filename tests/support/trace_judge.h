// The judge of traces: replays a list of steps over a running layout and names everything that is wrong with it.
//
// Written from engine/lifecycle/README.md 6 and the kernel rules (oracle_kernel.h) alone; it keeps a world of its own
// and its own arithmetic of ranges. A violation names the obligation:
//   "attach.group"       a step's requirement, by step and requirement (the table of README 6)
//   "S1" .. "S4"         safety, in the first world (step 0) and after every step (counted from 1)
//   "target.mapped" ...  where the last world is not the target layout
// After a violation the step's effect still takes place as far as it can, so that one mistake does not hide the next.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/model/plan.h"
#include "engine/model/request.h"
#include "tests/support/running_layout.h"

namespace ioplan::trace_judge {

enum class Act : std::uint8_t {
  kvm_file_add,
  bind,
  ioas_alloc,
  allow_iovas,
  hwpt_alloc,
  attach,
  attach_ioas,
  replace,
  detach,
  hwpt_destroy,
  kvm_file_del,
  unbind,
  map,
  unmap,
  ioas_destroy
};
inline constexpr std::array<std::string_view, 15> kActNames = {
    "kvm-file-add", "bind",         "ioas-alloc",   "allow-iovas", "hwpt-alloc", "attach", "attach-ioas", "replace",
    "detach",       "hwpt-destroy", "kvm-file-del", "unbind",      "map",        "unmap",  "ioas-destroy"};

// A step as README 6 writes it; unused fields are empty.
struct TraceStep {
  Act act = Act::bind;
  std::string device;
  std::string ioas;
  std::string hwpt;
  std::uint8_t flags = 0;
  std::vector<Range> ranges;
  Range iova;
  bool writeable = true;
};

// "attach 0000:01:00.0 hwpt0"
std::string to_text(const TraceStep& step);

// Reads the names of the steps, so that it holds for whatever the model's enumeration has.
std::vector<TraceStep> trace_of(std::span<const Step> steps);

struct Violation {
  std::size_t step = 0;  // 0: the first world, before any step
  std::string obligation;
  std::string sentence;
};
std::string to_text(const Violation& violation);
std::string to_text(std::span<const Violation> violations);  // one a line

// `request` gives the host, the policy and each VM's word about cache maintenance; its VMs' devices are not looked at.
// Requires: all facts that the drivers read are present.
std::vector<Violation> judge_trace(const Request& request, const oracle::Layout& running,
                                   std::span<const TraceStep> steps, const oracle::Layout& target);

// Does the obligation occur among the violations?
bool names(std::span<const Violation> violations, std::string_view obligation);

}  // namespace ioplan::trace_judge
