// Plans carried out through VFIO type1: the executor's seam (engine/apply/backend.h) over containers and groups.
//
// Every VM of a plan gets a container of its own. A group joins when the first of its devices is attached, in the plan's
// order, and leaves when the last is detached: which domains come out is type1's choice, which the plan has predicted
// (engine/solve/container.h). After every group the page sizes that the domains have in common, whether all of them
// enforce cache coherency, and the usable IOVA are read back and compared with the prediction; at the end also the
// process's locked memory with what the plan pins. More the kernel does not tell of its domains.
//
// Owns what it opens: destroying the backend closes its descriptors, and with them all that was applied goes. Not
// thread-safe. Held by tests/type1_backend_test.cc, which replaces the system, and in QEMU by tests/kernel.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backends/type1/calls.h"
#include "backends/vfio/guest_memories.h"
#include "backends/vfio/system.h"
#include "engine/apply/backend.h"

namespace ioplan::type1 {

struct Type1Options {
  GuestMemories::Source memory;  // of one range of a VM; without it, a memfd of the plan's backing pages
};

class Type1Backend final : public Backend {
 public:
  // The system must outlive the backend.
  explicit Type1Backend(System& system, Type1Options options = {});
  ~Type1Backend() override;

  std::string_view name() const override { return "type1"; }
  KernelInterface interface() const override { return KernelInterface::type1; }
  Result<void> admit(const Plan& plan) override;
  Result<std::unique_ptr<Action>> prepare(const Plan& plan, const Step& step) override;
  Result<Observation> observe() override;

  // An attached device's descriptor, for its regions and interrupts; stays the backend's.
  std::optional<int> device_descriptor(std::string_view device) const;

 private:

  struct Container {
    Descriptor file;
    std::vector<std::string> groups;  // their nodes, in the order of joining
  };
  struct Group {
    Descriptor file;
    std::string ioas;
  };
  struct Device {
    Descriptor file;
    std::string group;  // its node
    std::string ioas, hwpt;
  };

  Result<void> admit_devices(const Plan& plan);
  Result<void> admit_mappings(const Plan& plan);

  std::unique_ptr<Action> prepare_container(const Step& step);
  Result<std::unique_ptr<Action>> prepare_attach(const Plan& plan, const Step& step);
  std::unique_ptr<Action> prepare_map(const Plan& plan, const Step& step);

  Result<void> open_container(const std::string& ioas);
  Result<void> attach(const Plan& plan, const Step& step, const std::string& node);
  Result<void> join(const Plan& plan, const Step& step, const std::string& node);
  Result<void> enter(Container& container, Group& group, const std::string& node);
  Result<void> leave(const std::string& node);
  void abandon(const std::string& node);
  Result<void> detach(const std::string& id);
  Result<void> verify_join(const Plan& plan, const Step& step);
  Result<void> map(const Step& step, const PlannedIoas& space, const MemoryRange& range);
  Result<void> unmap(const Step& step, const Range& range);

  std::vector<std::string> attached_to(const std::string& hwpt) const;
  Result<ObservedIoas> observe_container(const std::string& ioas, const Container& container,
                                         std::vector<ObservedHwpt>& hwpts);

  System& system_;
  std::optional<std::uint64_t> locked_before_;  // bytes of this process; nothing where /proc does not tell
  GuestMemories memory_;
  std::map<std::string, Container, std::less<>> containers_;  // by IOAS
  std::map<std::string, Group, std::less<>> groups_;          // by node
  std::map<std::string, Device, std::less<>> devices_;        // attached
};

}  // namespace ioplan::type1
