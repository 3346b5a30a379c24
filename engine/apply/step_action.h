// An action made of what to call and what takes it back: what every backend prepares its steps as. Held by the backends'
// tests.
#pragma once

#include <functional>
#include <string>
#include <utility>

#include "engine/apply/backend.h"

namespace ioplan {

class StepAction final : public Action {
 public:
  using Work = std::function<Result<void>()>;
  using Remains = std::function<std::string()>;  // asked when an undo has failed

  StepAction(Remains remains, Work perform, Work undo)
      : remains_(std::move(remains)), perform_(std::move(perform)), undo_(std::move(undo)) {}
  StepAction(std::string remains, Work perform, Work undo)
      : StepAction([text = std::move(remains)] { return text; }, std::move(perform), std::move(undo)) {}

  Result<void> perform(const Progress& /*progress*/) override { return perform_(); }
  Result<void> undo() override { return undo_(); }
  std::string remains() const override { return remains_(); }

 private:
  Remains remains_;
  Work perform_, undo_;
};

}  // namespace ioplan
