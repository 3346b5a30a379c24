// A step of the simulator as two closures, shared by sim_backend.cc and sim_changes.cc and by nobody else.
#pragma once

#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <functional>
#include <string>
#include <utility>

#include "backends/sim/sim_backend.h"

namespace ioplan::sim {

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

class SimBackend::SimAction final : public Action {
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
