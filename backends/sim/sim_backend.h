// Plans carried out on a simulated machine: the executor's seam (engine/apply/backend.h) over one iommufd context.
//
// Every VM of a plan gets its address space in the same context. Guest memory is allocated here, a file for each range
// that is mapped, backed by pages of the plan's size that are aligned like the guest's addresses; it lives as long as
// it is mapped by this backend. Mediated devices are known by their UUID and become accesses that pin.
//
// Owns its context: destroying the backend closes it, and all that was applied goes. The machine must outlive it.
// Not thread-safe. Held by tests/apply_sim_test.cc.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "backends/sim/guest_memories.h"
#include "backends/sim/iommufd.h"
#include "backends/sim/machine.h"
#include "engine/apply/backend.h"

namespace ioplan::sim {

class SimBackend final : public Backend {
 public:
  explicit SimBackend(Machine& machine);
  ~SimBackend() override;

  std::string_view name() const override { return "sim"; }
  Result<void> admit(const Plan& plan) override;
  Result<std::unique_ptr<Action>> prepare(const Plan& plan, const Step& step) override;
  Result<Observation> observe() override;

  // Inspection: the context, and the object behind a name of the plan ("ioas0", "hwpt1", a device's id).
  Context& context() { return *context_; }
  std::optional<ObjectId> object(std::string_view name) const;

 private:
  using Place = GuestMemories::Place;

  std::unique_ptr<Action> prepare_ioas(const Step& step);
  std::unique_ptr<Action> prepare_allow(const Step& step, ObjectId ioas);
  Result<std::unique_ptr<Action>> prepare_bind(const Step& step);
  Result<std::unique_ptr<Action>> prepare_hwpt(const Step& step, ObjectId ioas);
  Result<std::unique_ptr<Action>> prepare_attach(const Step& step, ObjectId target);
  Result<std::unique_ptr<Action>> prepare_access(const Step& step, ObjectId ioas);
  Result<std::unique_ptr<Action>> prepare_map(const Plan& plan, const Step& step, ObjectId ioas);

  // Steps between running layouts (engine/lifecycle/README.md 6). Their undo goes by names: taking back a destroy gives
  // the object a new id.
  Result<std::unique_ptr<Action>> prepare_change(const Step& step);
  Result<std::unique_ptr<Action>> prepare_unbind(const Step& step);
  Result<std::unique_ptr<Action>> prepare_replace(const Step& step);
  Result<std::unique_ptr<Action>> prepare_detach(const Step& step);
  Result<std::unique_ptr<Action>> prepare_hwpt_destroy(const Step& step);
  Result<std::unique_ptr<Action>> prepare_unmap(const Step& step);
  Result<std::unique_ptr<Action>> prepare_ioas_destroy(const Step& step);

  Result<void> replace_or_repair(const std::string& device, const std::string& from, const std::string& to);
  Result<void> attach_again(const std::string& device, const std::string& hwpt, const std::string& ioas);
  Result<void> allocate_again(const std::string& name, const HwptView& was, const std::string& ioas);

  Result<void> bind(const std::string& id);
  Result<void> unbind(const std::string& id);
  Result<void> attach(const Step& step, ObjectId device, ObjectId target);
  Result<void> map(const Step& step, ObjectId ioas, const GuestMemories::Wanted& wanted);
  Result<void> unmap(const Step& step, ObjectId ioas, const Place& place);
  std::string name_of_object(ObjectId id) const;
  std::optional<Driver> driver_of(const std::string& device) const;

  Machine& machine_;
  GuestMemories memory_;
  std::unique_ptr<Context> context_;  // goes before the memory that it has pinned
  std::map<std::string, ObjectId, std::less<>> ioas_, hwpts_, devices_;
  std::map<std::string, std::optional<ObjectId>, std::less<>> mediated_;  // bound; its access when it has one
  std::map<std::string, std::string, std::less<>> access_to_;             // by mediated device, its IOAS
  std::map<ObjectId, std::vector<Range>> allowed_;                        // by IOAS
  std::set<std::string, std::less<>> kvm_files_;  // bound devices are with KVM, as a VMM registers them
};

}  // namespace ioplan::sim
