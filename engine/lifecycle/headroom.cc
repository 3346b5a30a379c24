#include "engine/lifecycle/headroom.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "engine/lifecycle/hotplug.h"
#include "engine/lifecycle/layout.h"
#include "engine/solve/problem.h"

namespace ioplan {

namespace {

constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;

// A text that is equal for devices that no rule and no policy can tell apart.
class Likeness {
 public:
  Likeness(const Plan& running, const Request& request, const VirtualMachine& vm)
      : request_(request), vm_(vm) {
    for (const Device& d : request.host.devices) {
      if (d.group) members_[*d.group].push_back(&d);
    }
    for (const PlannedHwpt& h : running.hwpts) {
      for (const std::string& d : h.devices) home_[d] = h.id;
    }
    for (const Promise& p : running.promises) {
      if (p.vm == vm.name && !p.device.empty()) home_[p.device] = "promised " + p.hwpt;
    }
    for (const AssignedDevice& d : vm.devices) {
      if (d.host) expected_.erase(request.host.device(*d.host).id);
    }
    expected_.insert(vm.hotplug.hosts.begin(), vm.hotplug.hosts.end());
  }

  std::string of(const Device& device) const {
    std::string text = alone(device) + chosen_by_policy(device);
    if (!device.group) return text + " " + device.id;
    for (const Device* member : members_.at(*device.group)) {
      if (member != &device) text += " with " + alone(*member);
    }
    return text;
  }

 private:
  std::string alone(const Device& d) const {
    std::string text = fmt::format("{}", d.unit ? d.unit->value : ~0U);
    for (const DeviceFact fact : {DeviceFact::dma_coherent, DeviceFact::canwbs, DeviceFact::isolated_msi,
                                  DeviceFact::no_dirty, DeviceFact::pasid_bits}) {
      text += d.facts[fact] ? fmt::format(",{}", *d.facts[fact]) : ",?";
    }
    text += d.dma_coherent_source ? fmt::format(",{}", static_cast<int>(*d.dma_coherent_source)) : ",?";
    if (d.reserved) {
      for (const ReservedRegion& r : *d.reserved) {
        text += fmt::format(" {:#x}-{:#x}:{}", r.range.start, r.range.last, static_cast<int>(r.type));
      }
    }
    if (const auto home = home_.find(d.id); home != home_.end()) text += " in " + home->second;
    if (expected_.contains(d.id)) text += " " + d.id;  // plugging it changes what is still expected
    return text;
  }

  std::string chosen_by_policy(const Device& device) const {
    AssignedDevice assigned;
    assigned.host = request_.host.find_device(device.id);
    std::string bits;
    const auto ask = [&](const Selector& s) { bits += chosen(s, request_.host, vm_, assigned) ? '1' : '0'; };
    for (const PolicyRule& rule : request_.policy.rules) {
      if (const auto* r = std::get_if<SeparateRule>(&rule.what)) {
        ask(r->a);
        ask(r->b);
      } else if (const auto* t = std::get_if<TogetherRule>(&rule.what)) {
        ask(t->which);
      } else if (const auto* q = std::get_if<RequireRule>(&rule.what)) {
        ask(q->which);
      }
    }
    return bits;
  }

  const Request& request_;
  const VirtualMachine& vm_;
  std::map<std::uint32_t, std::vector<const Device*>> members_;
  std::map<std::string, std::string> home_;
  std::set<std::string> expected_;
};

class Survey {
 public:
  Survey(const Plan& running, Request now, std::size_t vm, const Law& law)
      : running_(running), now_(std::move(now)), vm_(vm), law_(law) {
    options_.advice = Advice::none;
    for (const VirtualMachine& v : now_.vms) {
      for (const AssignedDevice& d : v.devices) {
        if (!d.host) continue;
        taken_.insert(*d.host);
        if (v.name != name() && now_.host.device(*d.host).group) foreign_[*now_.host.device(*d.host).group] = v.name;
      }
    }
  }

  Headroom take() {
    Headroom found;
    found.vm = name();
    const Likeness likeness(running_, now_, now_.vms[vm_]);
    std::map<std::string, DeviceHeadroom> known;
    for (std::size_t i = 0; i < now_.host.devices.size(); ++i) {
      const Device& device = now_.host.devices[i];
      if (taken_.contains(DeviceIndex(i))) continue;
      const auto [it, fresh] = known.try_emplace(likeness.of(device));
      if (fresh) it->second = ask(DeviceIndex(i));
      found.devices.push_back(it->second);
      found.devices.back().device = device.id;
    }
    found.memory_frozen = memory_in_usable_ranges();
    found.memory_converge = std::max(found.memory_frozen, memory_after_moves());
    return found;
  }

 private:
  const std::string& name() const { return now_.vms[vm_].name; }

  DeviceHeadroom ask(DeviceIndex index) {
    DeviceHeadroom room;
    const Device& device = now_.host.device(index);
    if (const auto owner = device.group ? foreign_.find(*device.group) : foreign_.end(); owner != foreign_.end()) {
      room.rule = "core.group";
      room.because = fmt::format("{} has its IOMMU group", owner->second);
      return room;
    }
    VirtualMachine& vm = now_.vms[vm_];
    const VirtualMachine as_it_is = vm;
    AssignedDevice added;
    added.host = index;
    const auto at = std::ranges::find_if(vm.devices, [&](const auto& d) { return !d.host || index < *d.host; });
    vm.devices.insert(at, added);
    std::erase(vm.hotplug.hosts, device.id);
    ask_modes(device.id, room);
    vm = as_it_is;
    return room;
  }

  void ask_modes(const std::string& id, DeviceHeadroom& room) {
    constexpr std::array<std::pair<HotplugPolicy, Room>, 3> kModes = {{{HotplugPolicy::frozen, Room::joins},
                                                                       {HotplugPolicy::additive, Room::new_hwpt},
                                                                       {HotplugPolicy::converge, Room::after_moves}}};
    for (const auto& [mode, kind] : kModes) {
      const HotplugAnswer answer = hotplug_in(running_, now_, vm_, mode, law_, options_);
      if (answer.verdict != Verdict::feasible) {
        if (mode == HotplugPolicy::frozen && !answer.conflict.empty()) continue;
        remember_why(answer, room);
        continue;
      }
      const PlannedHwpt* home = home_of(answer.plan, id);
      room.room = kind;
      if (kind == Room::new_hwpt && find_hwpt(running_, home->id) != nullptr)
        room.room = Room::joins;  // KVM's verdict changes
      room.hwpt = home->id;
      room.interrupted = answer.transition.interrupted.size();
      room.rule = "";
      room.because = noticed(answer.guest);
      return;
    }
  }

  static std::string noticed(const std::vector<FeatureChange>& guest) {
    std::string text;
    for (const FeatureChange& c : guest) {
      text += fmt::format("{}{}: {} -> {}", text.empty() ? "" : ", ", c.feature, c.before, c.after);
    }
    return text;
  }

  static void remember_why(const HotplugAnswer& answer, DeviceHeadroom& room) {
    if (!answer.conflict.empty()) {
      room.rule = answer.conflict.front().rule;
      room.because = answer.conflict.front().because;
    } else if (!answer.unknown.empty()) {
      room.rule = "unknown";
      room.because = fmt::format("`{}` is unknown", answer.unknown.front().fact);
    }
  }

  // What lies in the usable range where the next memory would begin.
  std::uint64_t memory_in_usable_ranges() const {
    const PlannedIoas* ioas = space_of(running_, name());
    if (ioas == nullptr) return 0;
    const Range next = hotplug_range(ioas->memory, ioas->backing, ioas->backing);
    for (const Range& usable : ioas->ranges) {
      if (usable.contains(next)) return (usable.last - next.start) / ioas->backing * ioas->backing;
    }
    return 0;
  }

  std::uint64_t memory_after_moves() {
    if (space_of(running_, name()) == nullptr) return 0;
    constexpr std::uint64_t kMost = std::uint64_t{1} << 27;  // GiB: no table reaches beyond 2^57
    std::uint64_t fits = 0, fails = 1;
    while (fails <= kMost && converges_with(fails * kGiB)) {
      fits = fails;
      fails *= 2;
    }
    while (fits + 1 < fails) {
      const std::uint64_t middle = fits + (fails - fits) / 2;
      (converges_with(middle * kGiB) ? fits : fails) = middle;
    }
    return fits * kGiB;
  }

  bool converges_with(std::uint64_t size) {
    VirtualMachine& vm = now_.vms[vm_];
    const std::uint64_t backing = vm.memory.backing.value_or(4096);
    if (size % backing != 0) return false;
    const VirtualMachine as_it_is = vm;
    vm.memory.ranges.push_back({hotplug_range(vm.memory.ranges, backing, size), Access::read_write});
    vm.hotplug.memory = vm.hotplug.memory > size ? vm.hotplug.memory - size : 0;
    const HotplugAnswer answer = hotplug_in(running_, now_, vm_, HotplugPolicy::converge, law_, options_);
    vm = as_it_is;
    return answer.verdict == Verdict::feasible;
  }

  const Plan& running_;
  Request now_;
  std::size_t vm_;
  const Law& law_;
  HotplugOptions options_;
  std::set<DeviceIndex> taken_;
  std::map<std::uint32_t, std::string> foreign_;  // groups of other VMs
};

}  // namespace

Result<Headroom> headroom(const Plan& running, const Request& request, const std::string& vm, const Law& law) {
  Change change;
  change.vm = vm;
  const auto index = vm_of(request, change);
  if (!index) return tl::make_unexpected(index.error());
  return Survey(running, running_request(running, request), *index, law).take();
}

}  // namespace ioplan
