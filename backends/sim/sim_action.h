// A step on the simulated machine: what to call, and what takes it back. Both simulated interfaces, iommufd's and type1's, are
// made of these. Held by tests/apply_sim_test.cc and tests/type1_plan_test.cc.
#pragma once

#include <functional>
#include <string>
#include <utility>

#include "engine/apply/backend.h"

namespace ioplan::sim {

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
