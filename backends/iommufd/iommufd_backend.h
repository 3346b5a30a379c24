// Plans carried out on Linux: the executor's seam (engine/apply/backend.h) over /dev/iommu and VFIO cdevs.
//
// Every VM of a plan gets its address space in one context. Devices are attached to explicit HWPTs, never by replacing
// (KR 2.4 H1 to H3) and never by the kernel's own walk, save where the driver leaves no choice (smmuv2). After a bind
// the IOMMU's registers are compared with the host document, after every attach the IOAS's ranges with the plan's: they
// shrink as devices are attached, and may never be less than what was predicted.
//
// Owns what it opens: destroying the backend closes its descriptors, and with them all that was applied goes, unless
// the context was lent. What is lent (options) is left open; a lent device cannot be unbound, so taking back its bind
// fails and says so. Not thread-safe. Held by tests/iommufd_backend_test.cc, which replaces the system.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "backends/iommufd/calls.h"
#include "backends/vfio/guest_memory.h"
#include "backends/vfio/system.h"
#include "engine/apply/backend.h"
#include "engine/model/host.h"

namespace ioplan::iommufd {

// Whose locked memory is counted against RLIMIT_MEMLOCK (IOMMU_OPTION_RLIMIT_MODE): all of a user's processes, the
// kernel's default, or this process alone, which needs CAP_SYS_RESOURCE to choose.
enum class Accounting : std::uint8_t { per_user, per_process };

struct IommufdOptions {
  std::optional<int> iommu;                         // a descriptor of /dev/iommu; lent
  std::map<std::string, int, std::less<>> devices;  // descriptors of VFIO cdevs by host device id, not bound; lent
  Accounting accounting = Accounting::per_user;
  // Gives the memory of one range of a VM; without it, a memfd of the plan's backing pages.
  std::function<Result<LentMemory>(const PlannedIoas&, const MemoryRange&)> memory;
};

class IommufdBackend final : public Backend {
 public:
  // The system must outlive the backend; of the host, units' registers are used.
  IommufdBackend(System& system, Host host, IommufdOptions options = {});
  ~IommufdBackend() override;

  std::string_view name() const override { return "iommufd"; }
  Result<void> admit(const Plan& plan) override;
  Result<std::unique_ptr<Action>> prepare(const Plan& plan, const Step& step) override;
  // Ranges, alignment, and who is attached where; the kernel tells no more. Fails when a step that failed has left
  // something behind that only its lender can take back.
  Result<Observation> observe() override;

  // The kernel's id behind a name of the plan: "ioas0", "hwpt1", a device that is bound.
  std::optional<ObjectId> object(std::string_view name) const;
  // A bound device's descriptor, for its regions and interrupts; stays the backend's.
  std::optional<int> device_descriptor(std::string_view device) const;

 private:
  class StepAction;
  enum class HwptOrigin : std::uint8_t { allocated, automatic };  // automatic: the kernel's, gone with its last device
  using Work = std::function<Result<void>()>;
  using Place = std::pair<std::string, Range>;  // IOAS and memory range

  struct Ioas {
    ObjectId id = 0;
    std::vector<Range> allowed;
  };
  struct Hwpt {
    ObjectId id = 0;
    std::string ioas;
    HwptOrigin origin = HwptOrigin::allocated;
  };
  struct Device {
    Descriptor file;
    ObjectId id = 0;
    std::string attached;  // HWPT, or the IOAS of a mediated device; empty: to nothing
  };
  struct Backing {  // of one place
    GuestMemory memory;
    unsigned pieces = 0;  // mapped
  };

  Result<void> open_iommu();
  Result<int> context();  // opened, and its accounting chosen
  Result<void> admit_device(const std::string& id);

  std::unique_ptr<Action> action(const std::string& name, std::string remains, Work perform, Work undo);
  Result<std::unique_ptr<Action>> prepare_bind(const Step& step);
  Result<std::unique_ptr<Action>> prepare_ioas(const Step& step);
  std::unique_ptr<Action> prepare_allow(const Step& step, const Ioas& ioas);
  Result<std::unique_ptr<Action>> prepare_hwpt(const Step& step, const Ioas& ioas);
  Result<std::unique_ptr<Action>> prepare_attach(const Plan& plan, const Step& step);
  std::unique_ptr<Action> prepare_map(const Plan& plan, const Step& step);

  Result<void> bind(const std::string& id, const std::string& cdev);
  Result<void> unbind(const std::string& id);
  Result<void> verify_registers(const std::string& id, const Device& device);
  Result<void> attach(const Step& step, const PlannedIoas& space);
  Result<void> verify_attach(const Step& step, const PlannedIoas& space, ObjectId result);
  Result<void> detach(const std::string& id);
  void note_detached(Device& device);
  template <class Objects>
  Result<void> destroy(Objects& objects, const std::string& name);
  Result<void> allow(const std::string& ioas, const std::vector<Range>& ranges);
  Result<void> map(const Step& step, const PlannedIoas& space, const MemoryRange& range);
  Result<void> unmap(const Step& step, const Range& range);
  Result<Backing*> backing(const PlannedIoas& space, const MemoryRange& range);
  Reply<void> map_backing(const Step& step, Backing& backing);
  void release(const Place& place);
  std::vector<std::string> attached_to(const std::string& hwpt) const;

  System& system_;
  Host host_;
  IommufdOptions options_;
  Descriptor iommu_;
  bool accounting_chosen_ = false;
  bool maps_files_ = true;  // until the kernel says that it does not know IOMMU_IOAS_MAP_FILE (Linux 6.13)
  std::map<std::string, Ioas, std::less<>> ioas_;
  std::map<std::string, Hwpt, std::less<>> hwpts_;
  std::map<std::string, Device, std::less<>> devices_;  // bound
  std::map<Place, Backing> memory_;
  std::vector<std::string> left_behind_;  // lent devices whose bind failed when it was too late to take it back
};

}  // namespace ioplan::iommufd
