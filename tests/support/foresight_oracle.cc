// L7 of lifecycle_oracle.h: what can be promised, at which cost, and whether promises are kept.
#include <algorithm>
#include <charconv>
#include <map>
#include <set>

#include "engine/base/text.h"
#include "tests/support/layout_rules.h"
#include "tests/support/lifecycle_oracle.h"
#include "tests/support/placement_search.h"

namespace ioplan::oracle {

namespace {

// A class code as documents write it: the leading digits of six.
bool of_class(const Device& device, const std::string& code) {
  const auto value = parse_integer(code);
  const auto own = device.facts[DeviceFact::device_class];
  if (!value || !own || code.size() < 3 || code.size() > 8) return false;
  return *own >> (4 * (8 - code.size())) == *value;
}

// A VM at boot, with what is promised to it.
class Boot {
 public:
  explicit Boot(const Request& request) : request_(request), vm_(request.vms.front()) {
    memory_ = memory_of(vm_);
    std::ranges::sort(memory_);
    for (const AssignedDevice& a : vm_.devices) {
      if (a.host) attached_.push_back(*a.host);
      if (!a.host) mediated_.push_back(a.mdev);
    }
    std::ranges::sort(attached_);
  }

  Foresight run() {
    Foresight f;
    if (!best()) return f;
    f.feasible = true;
    promise_memory(f);
    for (const std::string& d : expected_devices(request_, vm_)) promise_device(f, d);
    adopt_preferences(f);
    const auto found = best();
    f.objectives = found->cost;
    f.objectives[Objective::ioas] = 1;
    write(f, *found);
    return f;
  }

 private:
  const Host& host() const { return request_.host; }

  std::optional<Found> best() const { return best_placement(arena()); }

  bool non_coherent() const {
    return !mediated_.empty() ||
           std::ranges::any_of(attached_, [&](DeviceIndex d) { return !can_enforce(host(), host().device(d)); });
  }

  Arena arena() const {
    Arena a;
    Scene& s = a.scene;
    s.request = &request_;
    s.vm = &vm_;
    s.memory = s.held = memory_;
    if (promised_memory_) s.held.push_back({*promised_memory_, Access::read_write});
    s.allowed = ranges_of(s.held);
    s.backing = vm_.memory.backing.value_or(4096);
    s.attached = attached_;
    s.ghosts = ghosts_;
    s.mediated = !mediated_.empty();
    s.kvm_non_coherent = non_coherent();
    s.needed = static_cast<std::uint8_t>(needs_of(vm_, Need::required) | adopted_);
    a.new_hwpts = NewHwpts::allowed;
    a.loose = groups();
    return a;
  }

  std::vector<Loose> groups() const {
    std::map<std::uint32_t, Loose> by_group;
    for (DeviceIndex d : attached_) by_group[host().device(d).group.value()].devices.push_back(d);
    for (DeviceIndex d : ghosts_) by_group[host().device(d).group.value()].ghosts.push_back(d);
    std::vector<Loose> all;
    for (auto& [group, loose] : by_group) all.push_back(std::move(loose));
    std::ranges::sort(all, {}, [](const Loose& l) {
      return std::pair(l.devices.empty(), l.devices.empty() ? l.ghosts.front() : l.devices.front());
    });
    return all;
  }

  void promise_memory(Foresight& f) {
    if (vm_.hotplug.memory == 0) return;
    const std::uint64_t backing = vm_.memory.backing.value_or(4096);
    promised_memory_ = place_memory(memory_, backing, vm_.hotplug.memory);
    const bool whole = promised_memory_ && (promised_memory_->last + 1) % backing == 0;
    if (!whole || !best()) promised_memory_.reset();
    f.memory = promised_memory_;
    if (!f.memory) f.refused.push_back("memory");
  }

  void promise_device(Foresight& f, const std::string& id) {
    const auto before = ghosts_;
    const auto index = host().find_device(id);
    const bool coherent_enough = index && (non_coherent() || can_enforce(host(), host().device(*index)));
    if (index) ghosts_.push_back(*index);
    std::ranges::sort(ghosts_);
    const bool kept = coherent_enough && best().has_value();
    if (!kept) ghosts_ = before;
    (kept ? f.devices : f.refused).push_back(id);
  }

  // D7, with all promises in place.
  void adopt_preferences(Foresight& f) {
    constexpr std::array<std::uint8_t, 7> kSets = {7, 3, 5, 6, 1, 2, 4};
    const std::uint8_t preferred = needs_of(vm_, Need::preferred);
    const ObjectiveValues without = best()->cost;
    for (std::uint8_t set : kSets) {
      if ((set & ~preferred) != 0) continue;
      adopted_ = set;
      const auto with = best();
      if (with && costs_nothing(with->cost, without)) break;
      adopted_ = 0;
    }
    constexpr std::array<const char*, 3> kNames = {".dirty_tracking", ".nest_parent", ".pasid"};
    for (unsigned flag = 0; flag < 3; ++flag) {
      if ((adopted_ >> flag & 1) != 0) f.preferences.push_back(vm_.name + kNames[flag]);
    }
  }

  bool costs_nothing(const ObjectiveValues& with, const ObjectiveValues& without) const {
    for (Objective o : request_.policy.objectives) {
      if (with[o] != without[o]) return with[o] < without[o];
      if (o == Objective::hwpts) break;
    }
    return true;
  }

  void write(Foresight& f, const Found& found) const {
    Space s;
    s.id = "ioas0";
    s.vm = vm_.name;
    s.mediated = mediated_;
    s.memory = memory_;
    s.backing = vm_.memory.backing.value_or(4096);
    s.allowed = ranges_of(memory_);
    if (promised_memory_) s.allowed.push_back(*promised_memory_);
    s.promised_memory = promised_memory_;
    for (const Placed& p : found.made) {
      const std::string id = "hwpt" + std::to_string(s.hwpts.size());
      s.hwpts.push_back({id, host().device(p.table.allocator).id, p.table.flags, p.table.driver == Driver::smmuv2,
                         names_of(host(), p.devices)});
      for (const std::string& ghost : names_of(host(), p.ghosts)) s.promised.push_back({ghost, id});
    }
    std::ranges::sort(s.promised, natural_less, &PromisedDevice::device);
    f.layout.preferences = f.preferences;
    f.layout.spaces.push_back(std::move(s));
  }

  const Request& request_;
  const VirtualMachine& vm_;
  std::vector<MemoryRange> memory_;
  std::vector<DeviceIndex> attached_, ghosts_;
  std::vector<std::string> mediated_;
  std::optional<Range> promised_memory_;
  std::uint8_t adopted_ = 0;
};

// Plugs in every order. What was plugged decides the layout, whatever the order: that is checked, and then each set is
// gone on from once.
class Plugger {
 public:
  Plugger(const Request& request, const Layout& booted)
      : request_(request), space_(booted.spaces.front()), plugs_(space_.promised) {
    if (space_.promised_memory) plugs_.push_back({"memory", ""});
    reached_[0] = booted;
  }

  std::vector<std::string> run() {
    for (std::size_t set = 0; set < std::size_t{1} << plugs_.size(); ++set) {
      for (std::size_t next = 0; reached_.contains(set) && next < plugs_.size(); ++next) {
        if ((set >> next & 1) == 0) plug_one(set, next);
      }
    }
    return std::move(broken_);
  }

 private:
  void plug_one(std::size_t set, std::size_t next) {
    const PromisedDevice& p = plugs_[next];
    PlugChange change;
    change.vm = space_.vm;
    if (p.hwpt.empty()) {
      change.memory.push_back(*space_.promised_memory);
    } else {
      change.add.push_back(p.device);
    }
    const PlugAnswer answer = plug(request_, reached_.at(set), change, HotplugPolicy::frozen, Unplug::release);
    if (answer.outcome != Outcome::feasible) {
      broken_.push_back(p.device + " is refused" + (answer.why.empty() ? "" : ": " + answer.why.front()));
      return;
    }
    if (!p.hwpt.empty() && !landed(answer.layout, p)) broken_.push_back(p.device + " is not in " + p.hwpt);
    const auto [at, is_new] = reached_.emplace(set | std::size_t{1} << next, answer.layout);
    if (!is_new && at->second != answer.layout) broken_.push_back(p.device + ": the order matters");
  }

  bool landed(const Layout& layout, const PromisedDevice& p) const {
    const auto& hwpts = space_of(layout, space_.vm)->hwpts;
    const auto it = std::ranges::find(hwpts, p.hwpt, &RunningHwpt::id);
    return it != hwpts.end() && std::ranges::count(it->devices, p.device) == 1;
  }

  const Request& request_;
  const Space& space_;
  std::vector<PromisedDevice> plugs_;  // memory has no HWPT
  std::map<std::size_t, Layout> reached_;
  std::vector<std::string> broken_;
};

}  // namespace

std::vector<std::string> expected_devices(const Request& request, const VirtualMachine& vm) {
  std::vector<std::string> expected;
  for (std::size_t i = 0; i < request.host.devices.size(); ++i) {
    const Device& device = request.host.devices[i];
    const bool had = std::ranges::any_of(request.vms, [&](const VirtualMachine& v) {
      return std::ranges::count(v.devices, DeviceIndex(i), &AssignedDevice::host) > 0;
    });
    const bool by_class = std::ranges::any_of(vm.hotplug.classes, [&](const auto& c) { return of_class(device, c); });
    const bool by_name = std::ranges::count(vm.hotplug.hosts, device.id) > 0;
    if (!had && (by_class || by_name)) expected.push_back(device.id);
  }
  return expected;
}

Foresight foresee(const Request& request) { return Boot(request).run(); }

std::vector<std::string> broken_promises(const Request& request, const Layout& booted) {
  return Plugger(request, booted).run();
}

}  // namespace ioplan::oracle
