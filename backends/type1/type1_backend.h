// Plans carried out through VFIO type1: the executor's seam (engine/apply/backend.h) over containers and groups.
//
// Every VM of a plan gets a container of its own. A group joins when the first of its devices is attached, in the plan's
// order, and leaves when the last is detached: which domains come out is type1's choice, which the plan has predicted
// (engine/solve/container.h). After every group the page sizes that the domains have in common, whether all of them
// enforce cache coherency, and the usable IOVA are read back and compared with the prediction; at the end also the
// process's locked memory with what the plan pins. More the kernel does not tell of its domains. A group that has left
// can only be brought back with all that are newer, which leave and join again for it: then their devices are closed and
// opened, too (engine/apply/container_record.h).
//
// Owns what it opens: destroying the backend closes its descriptors, and with them all that was applied goes. Not
// thread-safe. Held by tests/type1_backend_test.cc, which replaces the system, and in QEMU by tests/kernel.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "backends/type1/calls.h"
#include "backends/vfio/guest_memories.h"
#include "backends/vfio/kvm_file.h"
#include "backends/vfio/system.h"
#include "engine/apply/backend.h"
#include "engine/apply/container_record.h"

namespace ioplan::type1 {

struct Type1Options {
  GuestMemories::Source memory;  // of one range of a VM; without it, a memfd of the plan's backing pages
  // KVM's VFIO device of the VM, a descriptor: files of groups are registered with it. Without it they are only noted.
  std::optional<int> kvm;
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
  struct Mapped {
    Step step;  // of one piece
    PlannedIoas space;
    MemoryRange range;
  };
  struct Container {
    Descriptor file;
    ContainerRecord record;  // groups by node
    std::vector<Mapped> maps;
  };
  // Open while it is in a container, or while KVM has its file.
  struct Group {
    Descriptor file;
    std::string ioas;                 // empty: in no container
    std::set<std::string> with_kvm;  // devices for whose sake KVM has the file
  };
  struct Device {
    Descriptor file;
    std::string group;  // its node
    std::string ioas, hwpt;
  };

  Result<void> admit_devices(const Plan& plan);
  Result<void> admit_mappings(const Plan& plan);
  bool has_opened(const Plan& plan, const Step& step) const;
  Plan not_yet_mapped(const Plan& plan) const;

  Result<std::unique_ptr<Action>> prepare_container(const Step& step);
  Result<std::unique_ptr<Action>> prepare_attach(const Plan& plan, const Step& step);
  std::unique_ptr<Action> prepare_map(const Plan& plan, const Step& step);
  // changes.cc
  Result<std::unique_ptr<Action>> prepare_container_close(const Step& step);
  Result<std::unique_ptr<Action>> prepare_kvm_file(const Step& step);
  Result<std::unique_ptr<Action>> prepare_detach(const Step& step);
  Result<std::unique_ptr<Action>> prepare_unmap(const Plan& plan, const Step& step);

  Result<void> open_container(const std::string& ioas);
  Result<void> close_container(const std::string& ioas);
  Result<void> open_group(const std::string& node, const std::string& device);
  void close_unused(const std::string& node);
  Result<void> attach(const Plan& plan, const Step& step, const std::string& node);
  Result<void> open_device(const std::string& id, Device device);
  Result<void> join(const std::string& node, const std::string& ioas, const std::string& hwpt);
  Result<void> start(const std::string& node, const std::string& ioas);
  Result<void> leave(const std::string& node);
  void abandon(const std::string& node);
  Result<void> detach(const std::string& id);
  Result<void> regroup(Container& container, const std::string& ioas, const ContainerRecord& was);
  Result<void> return_to(const Regrouping& way, const std::string& ioas);
  Result<void> attach_again(const std::string& id, const std::string& node, const std::string& ioas, const std::string& hwpt,
                            const ContainerRecord& was);
  Result<void> set_kvm(const std::string& id, const std::string& node, KvmFile what);
  Result<void> verify_join(const Plan& plan, const Step& step);
  Result<void> map(const Mapped& piece);
  Result<void> map_piece(const Container& container, const Mapped& piece);
  Result<void> unmap(const Step& step, const Range& range);

  std::vector<std::string> attached_to(const std::string& hwpt) const;
  Result<ObservedIoas> observe_container(const std::string& ioas, const Container& container,
                                         std::vector<ObservedHwpt>& hwpts);

  System& system_;
  std::optional<std::uint64_t> locked_before_;  // bytes of this process; nothing where /proc does not tell
  GuestMemories memory_;
  std::map<std::string, Container, std::less<>> containers_;  // by IOAS
  std::optional<int> kvm_;
  std::map<std::string, Group, std::less<>> groups_;    // by node
  std::map<std::string, Device, std::less<>> devices_;  // attached
};

}  // namespace ioplan::type1
