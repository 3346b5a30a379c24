#include "backends/sim/sim_action.h"

namespace ioplan::sim {

Result<std::unique_ptr<Action>> kvm_file_action(std::set<std::string, std::less<>>& files, const Step& step) {
  const std::string& id = step.device;
  const bool adds = step.kind == StepKind::kvm_file_add;
  if (files.contains(id) == adds) return failure(fmt::format("the file of `{}` is {} KVM", id, adds ? "with" : "not with"));
  const auto add = [&files, id]() -> Result<void> {
    files.insert(id);
    return {};
  };
  const auto take = [&files, id]() -> Result<void> {
    files.erase(id);
    return {};
  };
  if (adds) return std::make_unique<StepAction>(id + " (with KVM)", add, take);
  return std::make_unique<StepAction>(id + " (not with KVM)", take, add);
}

}  // namespace ioplan::sim
