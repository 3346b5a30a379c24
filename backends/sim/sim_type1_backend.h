// type1 plans carried out on a simulated machine: the executor's seam (engine/apply/backend.h) over type1 containers.
//
// A container a VM; groups join in the plan's order. What Linux keeps to itself is observed here: which domains the
// container has made, of what shape, and what their tables take. Guest memory is allocated as SimBackend does it, and
// seen by the container at its user addresses. The undo of a group's leaving may let newer domains leave and join again
// (engine/apply/container_record.h).
//
// Owns its containers: destroying the backend closes them. The machine must outlive it. Not thread-safe. Held by
// tests/type1_plan_test.cc and tests/type1_lifecycle_test.cc.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "backends/sim/guest_memories.h"
#include "backends/sim/machine.h"
#include "backends/sim/type1.h"
#include "engine/apply/backend.h"
#include "engine/apply/container_record.h"

namespace ioplan::sim {

class SimType1Backend final : public Backend {
 public:
  explicit SimType1Backend(Machine& machine) : machine_(machine), memory_(machine) {}

  std::string_view name() const override { return "sim"; }
  KernelInterface interface() const override { return KernelInterface::type1; }
  Result<void> admit(const Plan& plan) override;
  Result<std::unique_ptr<Action>> prepare(const Plan& plan, const Step& step) override;
  Result<Observation> observe() override;

 private:
  struct Attached {
    std::string ioas, hwpt;
    std::uint32_t group = 0;
  };
  struct Mapped {
    Step step;  // of one piece
    GuestMemories::Wanted wanted;
  };
  struct Space {
    std::unique_ptr<Type1Container> container;
    ContainerRecord record;  // groups by number
    std::vector<Mapped> maps;
  };

  Result<std::unique_ptr<Action>> prepare_space(const Step& step);
  Result<std::unique_ptr<Action>> prepare_space_destroy(const Step& step);
  Result<std::unique_ptr<Action>> prepare_attach(const Plan& plan, const Step& step);
  Result<std::unique_ptr<Action>> prepare_detach(const Step& step);
  Result<std::unique_ptr<Action>> prepare_map(const Plan& plan, const Step& step);
  Result<std::unique_ptr<Action>> prepare_unmap(const Plan& plan, const Step& step);

  Result<void> attach(const Step& step, std::uint32_t group);
  Result<void> detach(const std::string& device);
  Result<void> attach_again(const std::string& device, const Attached& was, const ContainerRecord& record);
  Result<void> join(Space& space, std::uint32_t group, const std::string& hwpt);
  Result<void> leave(Space& space, std::uint32_t group);
  Result<void> map(const Step& step, const GuestMemories::Wanted& wanted);
  Result<void> map_piece(Space& space, const Mapped& piece);
  Result<void> unmap(const Step& step, const GuestMemories::Place& place);
  bool in_use(std::uint32_t group) const;
  ObservedHwpt observe_domain(const std::string& ioas, const Space& space, const Type1Domain& domain) const;

  Machine& machine_;
  GuestMemories memory_;
  // Containers go before the memory that they have pinned.
  std::map<std::string, Space, std::less<>> spaces_;       // by IOAS
  std::map<std::string, Attached, std::less<>> attached_;  // by device
  std::set<std::string, std::less<>> kvm_files_;           // devices whose files are registered
};

}  // namespace ioplan::sim
