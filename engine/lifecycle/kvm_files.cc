#include "engine/lifecycle/kvm_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "engine/base/text.h"
#include "engine/lifecycle/layout.h"
#include "engine/model/features.h"

namespace ioplan {

namespace {

class Files {
 public:
  Files(const Plan& running, const Request& request, const VirtualMachine& vm, HotplugPolicy mode, const Law& law)
      : running_(running), host_(request.host), policy_(request.policy), vm_(vm), mode_(mode), law_(law) {
    for (const AssignedDevice& d : vm.devices) {
      if (!d.expected) present_.insert(present_.end(), d.host ? host_.device(*d.host).id : d.mdev);  // mostly ascending
    }
    if ((ioas_ = space_of(running, vm.name)) == nullptr) return;
    for (const auto& list : {attached_devices(running, ioas_->id), mediated_devices(running, ioas_->id)}) {
      before_.insert(before_.end(), list.begin(), list.end());
    }
  }

  KvmFiles decide() const {
    const bool was = (ioas_ != nullptr && !ioas_->retained.empty()) || any_noncoherent(before_);
    const bool is = any_noncoherent({present_.begin(), present_.end()});
    if (mode_ == HotplugPolicy::frozen && ioas_ != nullptr && is && !was) return {{}, becomes_noncoherent()};
    const bool must_stay = was && !is && (mode_ == HotplugPolicy::frozen || someone_unprotected_stays());
    if (!must_stay) return {};
    return retain();
  }

 private:
  bool is_noncoherent(const std::string& device) const {
    const auto index = host_.find_device(device);
    return !index || law_.describe(host_, *index)[DeviceQ::enforce_cache_coherency] == 0;
  }

  bool any_noncoherent(const std::vector<std::string>& devices) const {
    return std::ranges::any_of(devices, [&](const auto& d) { return is_noncoherent(d); });
  }

  bool someone_unprotected_stays() const {
    return std::ranges::any_of(running_.hwpts, [&](const PlannedHwpt& h) {
      return h.ioas == ioas_->id && !h.enforce_cache_coherency &&
             std::ranges::any_of(h.devices, [&](const auto& d) { return present_.contains(d); });
    });
  }

  // A file that is kept already goes on being kept; else the lowest device that leaves, if the policy says so.
  KvmFiles retain() const {
    for (const std::string& d : ioas_->retained) {
      if (!present_.contains(d)) return {{d}, std::nullopt};
    }
    for (const std::string& d : before_) {
      if (present_.contains(d) || !is_noncoherent(d)) continue;
      if (policy_.noncoherent_unplug == NoncoherentUnplug::retain) return {{d}, std::nullopt};
      return {{}, becomes_coherent(d)};
    }
    return {};
  }

  Conflict becomes_noncoherent() const {
    const auto cause = std::ranges::find_if(present_, [&](const auto& d) { return is_noncoherent(d); });
    return {"lifecycle.kvm-verdict",
            {*cause},
            fmt::format("{} would make KVM non-coherent, and frozen mode keeps what the guest of {} sees", *cause,
                        vm_.name)};
  }

  Conflict becomes_coherent(const std::string& device) const {
    if (mode_ == HotplugPolicy::frozen) {
      return {"lifecycle.kvm-verdict",
              {device},
              fmt::format("without {} KVM would be coherent, and frozen mode keeps what the guest of {} sees", device,
                          vm_.name)};
    }
    return {"lifecycle.unplug-coherency",
            {device},
            fmt::format("without {} KVM would be coherent while devices of {} stay in HWPTs that do not block no-snoop",
                        device, vm_.name)};
  }

  const Plan& running_;
  const Host& host_;
  const Policy& policy_;
  const VirtualMachine& vm_;
  HotplugPolicy mode_;
  const Law& law_;
  const PlannedIoas* ioas_ = nullptr;
  std::vector<std::string> before_;  // host devices, then mediated ones
  std::set<std::string, bool (*)(std::string_view, std::string_view)> present_{natural_less};
};

}  // namespace

KvmFiles kvm_files_after(const Plan& running, const Request& request, const VirtualMachine& vm, HotplugPolicy mode,
                         const Law& law) {
  return Files(running, request, vm, mode, law).decide();
}

}  // namespace ioplan
