#include "engine/lifecycle/container_transition.h"

#include <algorithm>
#include <map>
#include <set>

#include "engine/base/text.h"
#include "engine/lifecycle/container_domains.h"
#include "engine/lifecycle/layout.h"

namespace ioplan {

namespace {

using Ids = std::set<std::string, decltype(&natural_less)>;

class Writer {
 public:
  Writer(const Plan& running, const Plan& target, const Host& host, const Law& law)
      : running_(running), target_(target), law_(host, law), before_(&natural_less), after_(&natural_less) {
    for (const PlannedHwpt& h : running.hwpts) {
      for (const std::string& d : h.devices) before_[d] = h.ioas;
    }
    for (const PlannedHwpt& h : target.hwpts) after_.insert(h.devices.begin(), h.devices.end());
    note_staying();
  }

  Transition write() {
    const Ids bound = ids_of(bound_devices(running_)), wanted = ids_of(bound_devices(target_));
    for (const PlannedIoas& old : running_.ioas) unmap(old);
    each_missing(wanted, bound, StepKind::kvm_file_add);
    for (const auto& [d, ioas] : before_) {
      if (!staying_.contains(d)) leave(d, ioas);
    }
    for (const PlannedIoas& next : target_.ioas) join(next);
    each_missing(bound, wanted, StepKind::kvm_file_del);
    for (const PlannedIoas& next : target_.ioas) map(next);
    for (const PlannedIoas& old : running_.ioas) {
      if (find_ioas(target_, old.id) == nullptr) step(StepKind::ioas_destroy).ioas = old.id;
    }
    return std::move(out_);
  }

 private:
  static Ids ids_of(const std::vector<std::string>& devices) {
    return {devices.begin(), devices.end(), &natural_less};
  }

  Step& step(StepKind kind) {
    out_.steps.emplace_back().kind = kind;
    return out_.steps.back();
  }

  void each_missing(const Ids& these, const Ids& from, StepKind kind) {
    for (const std::string& d : these) {
      if (!from.contains(d)) step(kind).device = d;
    }
  }

  // Devices of groups that have a device in the same HWPT throughout, in that HWPT.
  void note_staying() {
    for (const PlannedHwpt& old : running_.hwpts) {
      const PlannedHwpt* next = find_hwpt(target_, old.id);
      if (next == nullptr) continue;
      for (const std::string& d : old.devices) {
        if (std::ranges::find(next->devices, d) == next->devices.end()) continue;
        staying_.insert(d);
        kept_containers_.insert(old.ioas);
      }
    }
  }

  // The last group takes all mappings with it: they go before, and come back.
  bool stays_mapped(const PlannedIoas& there, const Plan& other, const MemoryRange& m) const {
    const PlannedIoas* counterpart = kept_containers_.contains(there.id) ? find_ioas(other, there.id) : nullptr;
    return counterpart != nullptr && std::ranges::find(counterpart->memory, m) != counterpart->memory.end();
  }

  void unmap(const PlannedIoas& old) {
    for (const MemoryRange& m : old.memory) {
      if (!stays_mapped(old, target_, m)) out_.steps.push_back(map_step(StepKind::unmap, old.id, m));
    }
  }

  void map(const PlannedIoas& next) {
    for (const MemoryRange& m : next.memory) {
      if (!stays_mapped(next, running_, m)) out_.steps.push_back(map_step(StepKind::map, next.id, m));
    }
  }

  void leave(const std::string& device, const std::string& ioas) {
    Step& s = step(StepKind::detach);
    s.device = device;
    s.ioas = ioas;
    if (!after_.contains(device)) return;
    out_.interrupted.push_back(device);
    out_.stopped.push_back(device);
  }

  // HWPT by HWPT in the order of their making: in what is kept, whoever is not there yet.
  void join(const PlannedIoas& next) {
    if (find_ioas(running_, next.id) == nullptr) step(StepKind::ioas_alloc).ioas = next.id;
    const ContainerDomains domains(law_, target_, next.id);
    for (const ContainerDomain& domain : domains.in_order()) {
      const PlannedHwpt& hwpt = *find_hwpt(target_, domain.hwpt);
      std::vector<std::string> joining;
      std::ranges::copy_if(hwpt.devices, std::back_inserter(joining), [&](const auto& d) { return !staying_.contains(d); });
      const bool is_there = joining.size() < hwpt.devices.size();
      for (Step& s : joining_steps(hwpt, joining, law_)) {
        const bool of_guest = s.device == hwpt.allocator && std::ranges::find(joining, s.device) == joining.end();
        if (!is_there || !of_guest) out_.steps.push_back(std::move(s));
      }
    }
  }

  const Plan& running_;
  const Plan& target_;
  GroupLaw law_;
  std::map<std::string, std::string, decltype(&natural_less)> before_;  // attached devices and their IOASes
  Ids after_;                                                           // attached devices
  std::set<std::string> staying_;          // devices that nothing happens to
  std::set<std::string> kept_containers_;  // IOASes that have a group throughout
  Transition out_;
};

}  // namespace

Transition make_container_transition(const Plan& running, const Plan& target, const Host& host, const Law& law) {
  return Writer(running, target, host, law).write();
}

}  // namespace ioplan
