// What a call on the simulated machine answered, as a step of a plan: for both simulated interfaces, iommufd's and type1's, and
// the changes of a running layout. Held by tests/apply_sim_test.cc, tests/lifecycle_test.cc and tests/type1_plan_test.cc.
#pragma once

#include <fmt/format.h>

#include <cstring>
#include <functional>
#include <memory>
#include <set>
#include <string>

#include "backends/sim/refusal.h"
#include "engine/apply/step_action.h"

namespace ioplan::sim {

// The simulated kernel's no, as a backend reports it.
inline tl::unexpected<Error> failed(const Refusal& refusal) {
  const char* name = strerrorname_np(refusal.errno_value);
  return tl::make_unexpected(
      Error{fmt::format("{}: {}", name == nullptr ? "?" : name, refusal.reason), "", {}, refusal.errno_value});
}

template <class T>
Result<void> done(const Answer<T>& answer) {
  if (!answer) return failed(answer.error());
  return {};
}

// kvm-file-add and -del: KVM is no more than the set of devices whose files it has, which must outlive the action.
Result<std::unique_ptr<Action>> kvm_file_action(std::set<std::string, std::less<>>& files, const Step& step);

}  // namespace ioplan::sim
