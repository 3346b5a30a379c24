// Plans carried out on Linux: the executor's seam (engine/apply/backend.h) over /dev/iommu and VFIO cdevs.
//
// Every VM of a plan gets its address space in one context. Devices are attached to explicit HWPTs, never by the kernel's
// own walk, save where the driver leaves no choice (smmuv2). Transitions between running layouts (changes.cc) may replace,
// which is only asked for where it is predicted to be accepted; where the kernel refuses after all, the group is detached
// and attached again to where it was, because a failed replace leaves reservations lost and DMA blocked (KR 2.4 H1). After a bind
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
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "backends/iommufd/calls.h"
#include "backends/iommufd/dirty_bitmap.h"
#include "backends/iommufd/guest_maps.h"
#include "backends/vfio/kvm_file.h"
#include "backends/vfio/system.h"
#include "engine/apply/backend.h"
#include "engine/apply/step_action.h"
#include "engine/model/host.h"

namespace ioplan::iommufd {

// Whose locked memory is counted against RLIMIT_MEMLOCK (IOMMU_OPTION_RLIMIT_MODE): all of a user's processes, the
// kernel's default, or this process alone, which needs CAP_SYS_RESOURCE to choose.
enum class Accounting : std::uint8_t { per_user, per_process };

struct IommufdOptions {
  std::optional<int> iommu;                         // a descriptor of /dev/iommu; lent
  std::map<std::string, int, std::less<>> devices;  // descriptors of VFIO cdevs by host device id, not bound; lent
  Accounting accounting = Accounting::per_user;
  GuestMaps::Lender memory;  // without it, memfds of the plan's backing pages
  // KVM's VFIO device of the VM (KVM_CREATE_DEVICE with KVM_DEV_TYPE_VFIO); lent. Files are registered with it before
  // they are bound. Requires: the plan has one VM. Without it nobody is told, and nothing observed of it.
  std::optional<int> kvm;
};

// Whether reading a dirty bit clears it, as a round of a migration does, or leaves it for the next reader.
enum class DirtyRead : std::uint8_t { clear, keep };

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
  // Maps whose pages are pinned, and counted, a second time though another IOAS has them, each with the reason.
  const std::vector<std::string>& pinned_again() const { return maps_.pinned_again(); }

  // Dirty tracking of one HWPT of the plan: what devices write, seen by their IOMMU. Turning it on forgets what was
  // dirty before. Errors: the HWPT is not there, or was allocated without `dirty-tracking`.
  Result<void> track_dirty(std::string_view hwpt, DirtyTracking tracking);
  // Adds what was written to in the bitmap's range; which must be a whole mapped range. When this fails, bits that were read
  // (and cleared) so far are in the bitmap.
  Result<void> read_dirty(std::string_view hwpt, DirtyRead read, DirtyBitmap& into);
  // The same of all HWPTs of a VM: tracking begins in all or in none, and a page is dirty when one of them says so.
  Result<void> track_dirty_of_vm(std::string_view vm, DirtyTracking tracking);
  Result<void> read_dirty_of_vm(std::string_view vm, DirtyRead read, std::vector<DirtyBitmap>& into);
  // Clean bitmaps for all that a VM has mapped now, a bit for every `page` bytes.
  Result<std::vector<DirtyBitmap>> dirty_bitmaps(std::string_view vm, std::uint64_t page) const;

  // A bound device's descriptor, for its regions and interrupts; stays the backend's.
  std::optional<int> device_descriptor(std::string_view device) const;

 private:
  enum class HwptOrigin : std::uint8_t { allocated, automatic };  // automatic: the kernel's, gone with its last device
  using Work = StepAction::Work;

  struct Ioas {
    ObjectId id = 0;
    std::string vm;
    std::vector<Range> allowed;
  };
  struct Hwpt {
    ObjectId id = 0;
    std::string ioas;
    HwptOrigin origin = HwptOrigin::allocated;
    std::uint8_t flags = 0;  // HwptFlag
    std::string allocator;
  };
  struct Device {
    Descriptor file;
    ObjectId id = 0;
    std::string attached;  // HWPT, or the IOAS of a mediated device; empty: to nothing
  };
  enum class Opened : std::uint8_t { by_bind, by_step };  // a VFIO file: with its bind, or by a step of its own before it

  Result<void> open_iommu();
  Result<int> context();  // opened, and its accounting chosen
  Result<void> admit_device(const std::string& id);

  std::unique_ptr<Action> action(const std::string& name, std::string remains, Work perform, Work undo);
  Result<std::unique_ptr<Action>> prepare_bind(const Step& step);
  Result<std::unique_ptr<Action>> prepare_ioas(const Plan& plan, const Step& step);
  std::unique_ptr<Action> prepare_allow(const Step& step, const Ioas& ioas);
  Result<std::unique_ptr<Action>> prepare_hwpt(const Step& step);
  Result<std::unique_ptr<Action>> prepare_attach(const Plan& plan, const Step& step);
  std::unique_ptr<Action> prepare_map(const Plan& plan, const Step& step);

  Result<std::string> cdev_of(const std::string& id);  // empty: lent
  Result<void> open_file(const std::string& id, const std::string& cdev);
  Result<void> close_file(const std::string& id);
  Result<void> bind(const std::string& id, const std::string& cdev);
  Result<void> unbind(const std::string& id, const std::string& cdev, Opened opened);
  Result<void> release(const std::string& id, const std::string& cdev, Opened opened);
  Result<void> set_kvm(const std::string& id, KvmFile what);
  Result<void> verify_registers(const std::string& id, const Device& device);
  PlannedIoas predicted_space(const Plan& plan, const std::string& ioas) const;
  Result<void> attach(const Step& step, const PlannedIoas& space);
  Result<void> verify_attach(const Step& step, const PlannedIoas& space, ObjectId result);
  Result<void> detach(const std::string& id);
  void note_detached(Device& device);
  // changes.cc
  struct Home {
    std::string hwpt, ioas;
  };
  Result<std::unique_ptr<Action>> prepare_change(const Plan& plan, const Step& step);
  Result<std::unique_ptr<Action>> prepare_unbind(const Step& step);
  Result<std::unique_ptr<Action>> prepare_kvm_file(const Step& step);
  Result<std::unique_ptr<Action>> prepare_replace(const Plan& plan, const Step& step);
  Result<std::unique_ptr<Action>> prepare_detach(const Step& step);
  Result<std::unique_ptr<Action>> prepare_hwpt_destroy(const Step& step);
  Result<std::unique_ptr<Action>> prepare_ioas_destroy(const Step& step);
  Result<std::unique_ptr<Action>> prepare_unmap(const Plan& plan, const Step& step);
  Result<void> replace(const Step& step, const PlannedIoas& space);
  Result<void> attach_again(const std::string& id, const Home& home);
  Result<void> move_back(const std::vector<std::string>& devices, const Home& home);
  Result<void> allocate_again(const std::string& name, const Hwpt& was);
  Home home_of(const Device& device) const;

  Result<void> allocate_ioas(const std::string& name, const std::string& vm);
  Result<void> allocate_hwpt(const Step& step);
  Result<void> destroy_ioas(const std::string& name);
  Result<void> destroy_hwpt(const std::string& name);
  template <class Objects>
  Result<void> destroy(Objects& objects, const std::string& name);
  Result<void> allow(const std::string& ioas, const std::vector<Range>& ranges);
  std::vector<std::string> hwpts_of_vm(std::string_view vm) const;
  Result<const Hwpt*> tracked(std::string_view hwpt) const;
  Result<void> read_mapped(const std::string& hwpt, DirtyRead read, DirtyBitmap& into);
  std::vector<std::string> attached_to(const std::string& hwpt) const;

  System& system_;
  Host host_;
  IommufdOptions options_;
  Descriptor iommu_;
  bool accounting_chosen_ = false;
  std::map<std::string, Ioas, std::less<>> ioas_;
  std::map<std::string, Hwpt, std::less<>> hwpts_;
  std::map<std::string, Descriptor, std::less<>> files_;  // opened, not bound
  std::set<std::string, std::less<>> with_kvm_;           // devices whose files are registered
  std::map<std::string, Device, std::less<>> devices_;    // bound
  GuestMaps maps_;
  std::vector<std::string> left_behind_;  // lent devices whose bind failed when it was too late to take it back
};

}  // namespace ioplan::iommufd
