// A step on the simulated machine: what to call, and what takes it back. Both simulated interfaces, iommufd's and type1's, are
// made of these, and so are the changes of a running layout. Held by tests/apply_sim_test.cc, tests/lifecycle_test.cc and
// tests/type1_plan_test.cc.
#pragma once

#include <fmt/format.h>

#include <cstring>
#include <functional>
#include <string>
#include <utility>

#include "backends/sim/refusal.h"
#include "engine/apply/backend.h"

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

class SimAction final : public Action {
 public:
  using Work = std::function<Result<void>()>;
  SimAction(std::string subject, Work perform, Work undo)
      : subject_(std::move(subject)), perform_(std::move(perform)), undo_(std::move(undo)) {}

  Result<void> perform(const Progress& /*progress*/) override { return perform_(); }
  Result<void> undo() override { return undo_(); }
  std::string remains() const override { return subject_; }

 private:
  std::string subject_;
  Work perform_, undo_;
};

}  // namespace ioplan::sim
