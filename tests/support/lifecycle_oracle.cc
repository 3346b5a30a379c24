#include "tests/support/lifecycle_oracle.h"

#include <algorithm>
#include <map>
#include <set>
#include <stdexcept>
#include <tuple>

#include "engine/base/text.h"
#include "tests/support/layout_rules.h"
#include "tests/support/placement_search.h"

namespace ioplan::oracle {

namespace {

constexpr std::uint64_t kTop = ~std::uint64_t{0}, kGiB = std::uint64_t{1} << 30;
using Lines = std::vector<std::string>;

bool among(const std::vector<std::string>& names, const std::string& name) {
  return std::ranges::count(names, name) > 0;
}

template <class AnyPolicy>
Unplug read_unplug(const AnyPolicy& policy) {
  if constexpr (requires { policy.noncoherent_unplug; }) {
    return static_cast<Unplug>(policy.noncoherent_unplug);  // both: release, retain
  } else {
    return Unplug::release;
  }
}

// ------------------------------------------------------------------------------------------- L1: the documents after

std::vector<std::string> present_in(const Space& s) {
  std::vector<std::string> devices = attached_devices(s);
  devices.insert(devices.end(), s.mediated.begin(), s.mediated.end());
  return devices;
}

AssignedDevice entry_for(const Host& host, const VirtualMachine& vm, const std::string& id) {
  const auto index = host.find_device(id);
  for (const AssignedDevice& a : vm.devices) {
    if (index ? a.host == index : !a.host && a.mdev == id) return a;
  }
  AssignedDevice a;
  a.host = index;
  if (!index) a.mdev = id;
  return a;
}

void set_devices(const Host& host, VirtualMachine& vm, const std::vector<std::string>& devices) {
  std::vector<AssignedDevice> entries;
  for (const std::string& d : devices) entries.push_back(entry_for(host, vm, d));
  std::ranges::sort(entries, [](const AssignedDevice& a, const AssignedDevice& b) {
    return std::tuple(!a.host, a.host, a.mdev) < std::tuple(!b.host, b.host, b.mdev);
  });
  vm.devices = std::move(entries);
}

// A VM as it runs: what the layout says of it, else no devices, and the document's memory.
void become_running(const Host& host, const Space* space, VirtualMachine& vm) {
  set_devices(host, vm, space == nullptr ? Lines{} : present_in(*space));
  vm.memory.ranges = space == nullptr ? memory_of(vm) : space->memory;
  if (space != nullptr) vm.memory.backing = space->backing;
  vm.memory.size.reset();
}

// Who keeps the device, or one of its group, from everybody else?
bool taken(const Host& host, const Layout& running, const std::string& vm, const std::string& device) {
  std::set<std::string> group = {device};
  if (const auto index = host.find_device(device)) {
    for (DeviceIndex d : group_of(host, *index)) group.insert(host.device(d).id);
  }
  return std::ranges::any_of(running.spaces, [&](const Space& s) {
    if (s.vm == vm) return among(present_in(s), device);
    Lines bound = present_in(s);
    bound.insert(bound.end(), s.retained.begin(), s.retained.end());
    return std::ranges::any_of(bound, [&](const std::string& d) { return group.contains(d); });
  });
}

void check_devices(const Request& request, const Layout& running, const PlugChange& change, Lines& why) {
  const Space* space = space_of(running, change.vm);
  const Lines present = space == nullptr ? Lines{} : present_in(*space);
  for (const std::string& d : change.add) {
    if (!request.host.find_device(d) && !is_uuid(d)) why.push_back("unknown: " + d);
    if (taken(request.host, running, change.vm, d)) why.push_back("taken: " + d);
    if (std::ranges::count(change.add, d) > 1) why.push_back("twice: " + d);
  }
  for (const std::string& d : change.remove) {
    if (!among(present, d) || std::ranges::count(change.remove, d) > 1) why.push_back("not there: " + d);
  }
}

// Adds what is to be mapped; README 1 says where +SIZE goes.
void add_memory(const PlugChange& change, Memory& memory, Lines& why) {
  const std::uint64_t backing = memory.backing.value_or(4096);
  std::vector<Range> more = change.memory;
  for (const Range& r : more) memory.ranges.push_back({r, Access::read_write});
  std::ranges::sort(memory.ranges);
  if (change.memory_size != 0) {
    const auto place = place_memory(memory.ranges, backing, change.memory_size);
    if (!place) return why.push_back("memory: there is no place for it");
    memory.ranges.push_back({*place, Access::read_write});
    more.push_back(*place);
  }
  for (const Range& r : more) {
    if (r.start % backing != 0 || (r.last + 1) % backing != 0) why.push_back("memory: not whole pages");
    const auto over = [&](const MemoryRange& m) { return m.gpa.overlaps(r); };
    if (std::ranges::count_if(memory.ranges, over) > 1) why.push_back("memory: mapped already");
  }
}

// ----------------------------------------------------------------------------------- L3: frozen and additive, L4: KVM

std::string lowest_free_name(const char* prefix, const std::set<std::string>& used) {
  for (std::size_t n = 0;; ++n) {
    const std::string name = prefix + std::to_string(n);
    if (!used.contains(name)) return name;
  }
}

std::set<std::string> hwpt_names(const Layout& layout) {
  std::set<std::string> names;
  for (const Space& s : layout.spaces) {
    for (const RunningHwpt& h : s.hwpts) names.insert(h.id);
  }
  return names;
}

std::set<std::string> ioas_names(const Layout& layout) {
  std::set<std::string> names;
  for (const Space& s : layout.spaces) names.insert(s.id);
  return names;
}

void erase_from(std::vector<std::string>& from, const std::vector<std::string>& what) {
  std::erase_if(from, [&](const std::string& name) { return among(what, name); });
}

// A change in a mode in which what is there stays.
class Staying {
 public:
  Staying(const Request& after, const Layout& running, const PlugChange& change, HotplugPolicy mode, Unplug unplug)
      : after_(after), running_(running), change_(change), mode_(mode), unplug_(unplug) {}

  PlugAnswer run() {
    PlugAnswer answer;
    const Space* before = space_of(running_, change_.vm);
    if (before == nullptr && frozen()) return refuse("ioas: there is none, and frozen mode makes none");
    before_ = before == nullptr ? new_space() : *before;
    next_ = before_;
    take_leave();
    if (!decide_kvm()) return refuse(refusal_);
    add_memory_and_mediated();
    const auto found = best_placement(arena());
    if (!found) return refuse("placement: no HWPT takes what is added, or the layout is not valid");
    write(*found);
    if (frozen() && features_of(host(), next_) != features_of(host(), before_))
      return refuse("features: they would change");
    return accept();
  }

 private:
  const Host& host() const { return after_.host; }
  bool frozen() const { return mode_ == HotplugPolicy::frozen; }
  const VirtualMachine& vm() const { return *std::ranges::find(after_.vms, change_.vm, &VirtualMachine::name); }

  PlugAnswer refuse(std::string why) const {
    PlugAnswer answer;
    answer.why.push_back(std::move(why));
    return answer;
  }

  Space new_space() const {
    Space s;
    s.id = lowest_free_name("ioas", ioas_names(running_));
    s.vm = change_.vm;
    s.backing = vm().memory.backing.value_or(4096);
    return s;
  }

  // Departures. HWPTs that they leave empty vanish in additive mode; automatic ones vanish always (KR 2.3).
  void take_leave() {
    erase_from(next_.mediated, change_.remove);
    for (RunningHwpt& h : next_.hwpts) erase_from(h.devices, change_.remove);
    std::erase_if(next_.hwpts, [&](const RunningHwpt& h) { return h.devices.empty() && (h.automatic || !frozen()); });
    if (!frozen()) {
      next_.promised.clear();
      next_.promised_memory.reset();
    }
    std::erase_if(next_.promised, [&](const PromisedDevice& p) {
      return among(change_.add, p.device) || std::ranges::count(next_.hwpts, p.hwpt, &RunningHwpt::id) == 0;
    });
  }

  // Is a non-coherent device attached or mediated after the change?
  bool non_coherent_after() const {
    return std::ranges::any_of(vm().devices, [&](const AssignedDevice& a) {
      return !a.host || is_non_coherent(host(), host().device(*a.host).id);
    });
  }

  // L4: who keeps KVM non-coherent. False when the change is refused because nobody would.
  bool decide_kvm() {
    const bool before = kvm_non_coherent(host(), before_);
    erase_from(next_.retained, change_.add);
    if (non_coherent_after()) {
      next_.retained.clear();
      refusal_ = "lifecycle.kvm-verdict: KVM would be non-coherent";
      return before || !frozen();
    }
    if (!next_.retained.empty() || !before) return true;
    if (!frozen() && !stays_unenforced()) return true;
    refusal_ = frozen() ? "lifecycle.kvm-verdict: KVM would be coherent" : "lifecycle.unplug-coherency: a device stays";
    if (unplug_ == Unplug::release) return false;
    next_.retained.push_back(lowest_leaving());
    return true;
  }

  bool stays_unenforced() const {
    return std::ranges::any_of(next_.hwpts, [&](const RunningHwpt& h) {
      return !h.devices.empty() && !allocate(host(), *host().find_device(h.allocator), h.flags)->enforces;
    });
  }

  // Host devices before mediated ones.
  std::string lowest_leaving() const {
    std::vector<std::string> leaving;
    for (const std::string& d : change_.remove) {
      if (is_non_coherent(host(), d)) leaving.push_back(d);
    }
    return *std::ranges::min_element(leaving, [&](const std::string& a, const std::string& b) {
      const auto i = host().find_device(a), j = host().find_device(b);
      return std::tuple(!i, i, a) < std::tuple(!j, j, b);
    });
  }

  void add_memory_and_mediated() {
    for (const std::string& d : change_.add) {
      if (!host().find_device(d)) next_.mediated.push_back(d);
    }
    std::ranges::sort(next_.mediated);
    next_.memory = vm().memory.ranges;
    std::ranges::sort(next_.memory);
    for (const MemoryRange& m : next_.memory) {
      const bool mapped_before = std::ranges::count(before_.memory, m) > 0;
      const auto allowed = [&](const Range& a) { return a.contains(m.gpa); };
      if (!mapped_before && std::ranges::none_of(next_.allowed, allowed)) next_.allowed.push_back(m.gpa);
      if (next_.promised_memory && m.gpa.overlaps(*next_.promised_memory)) next_.promised_memory.reset();
    }
  }

  Arena arena() const {
    Arena a;
    a.scene = scene_of(after_, next_, running_.preferences);
    a.existing = placed_in(a.scene, next_);
    a.loose = loose();
    a.new_hwpts = frozen() ? NewHwpts::refused : NewHwpts::allowed;
    for (const Loose& l : a.loose) a.scene.attached.insert(a.scene.attached.end(), l.devices.begin(), l.devices.end());
    std::ranges::sort(a.scene.attached);
    // A device that is there again is not promised any more, whatever its group waits for.
    a.scene.kvm_non_coherent = non_coherent_after() || !next_.retained.empty();
    for (const Space& s : running_.spaces) {
      if (s.vm == change_.vm) continue;
      const auto others = placed_in(scene_of(after_, s, running_.preferences), s);
      a.elsewhere.insert(a.elsewhere.end(), others.begin(), others.end());
    }
    return a;
  }

  // By group, in the order of the lowest added device.
  std::vector<Loose> loose() const {
    std::map<std::uint32_t, Loose> groups;
    for (DeviceIndex d : added()) groups[host().device(d).group.value()].devices.push_back(d);
    std::vector<Loose> all;
    for (auto& [group, l] : groups) {
      l.home = home_of(group);
      all.push_back(l);
    }
    std::ranges::sort(all, {}, [](const Loose& l) { return l.devices.front(); });
    return all;
  }

  std::vector<DeviceIndex> added() const {
    std::vector<DeviceIndex> devices;
    for (const std::string& d : change_.add) {
      if (const auto index = host().find_device(d)) devices.push_back(*index);
    }
    std::ranges::sort(devices);
    return devices;
  }

  // Where a device of the group stays, or where one was promised to go.
  std::optional<std::size_t> home_of(std::uint32_t group) const {
    const auto of_group = [&](const std::string& d) { return host().device(*host().find_device(d)).group == group; };
    for (std::size_t h = 0; h < next_.hwpts.size(); ++h) {
      if (std::ranges::any_of(next_.hwpts[h].devices, of_group)) return h;
    }
    for (const PromisedDevice& p : before_.promised) {
      for (std::size_t h = 0; frozen() && h < next_.hwpts.size(); ++h) {
        if (of_group(p.device) && next_.hwpts[h].id == p.hwpt) return h;
      }
    }
    return std::nullopt;
  }

  void write(const Found& found) {
    for (std::size_t h = 0; h < next_.hwpts.size(); ++h) {
      next_.hwpts[h].devices = names_of(host(), found.existing[h].devices);
    }
    std::set<std::string> used = hwpt_names(running_);
    for (const Placed& made : found.made) {
      RunningHwpt h;
      h.id = lowest_free_name("hwpt", used);
      used.insert(h.id);
      h.allocator = host().device(made.table.allocator).id;
      h.flags = made.table.flags;
      h.automatic = made.table.driver == Driver::smmuv2;
      h.devices = names_of(host(), made.devices);
      next_.hwpts.push_back(std::move(h));
    }
    std::ranges::sort(next_.hwpts, natural_less, &RunningHwpt::id);
    if (!frozen() && !stays_unenforced()) next_.retained.clear();
  }

  PlugAnswer accept() const {
    PlugAnswer answer;
    answer.layout.preferences = running_.preferences;
    for (const Space& s : running_.spaces) {
      if (s.vm != change_.vm) answer.layout.spaces.push_back(s);
    }
    const bool gone = !frozen() && present_in(next_).empty();
    if (!gone) answer.layout.spaces.push_back(next_);
    std::ranges::sort(answer.layout.spaces, {}, &Space::vm);
    answer.why = faults_of(after_, answer.layout);  // of other VMs: those of this one were asked
    if (!answer.why.empty()) return answer;
    answer.outcome = Outcome::feasible;
    answer.objectives = objectives_of(after_, answer.layout);
    return answer;
  }

  const Request& after_;
  const Layout& running_;
  const PlugChange& change_;
  HotplugPolicy mode_;
  Unplug unplug_;
  Space before_, next_;
  std::string refusal_;
};

// -------------------------------------------------------------------------------------------------- L3: converge

Space space_from(const Answer& answer, const Host& host, const VirtualMachine& vm) {
  Space s;
  s.vm = vm.name;
  s.memory = vm.memory.ranges;
  std::ranges::sort(s.memory);
  s.backing = vm.memory.backing.value_or(4096);
  s.allowed = ranges_of(s.memory);
  std::set<std::string> devices;
  for (const AssignedDevice& a : vm.devices) {
    if (a.host) devices.insert(host.device(*a.host).id);
    if (!a.host) s.mediated.push_back(a.mdev);
  }
  for (const Hwpt& h : answer.hwpts) {
    if (devices.contains(h.devices.front())) s.hwpts.push_back({"", h.allocator, h.flags, h.automatic, h.devices});
  }
  return s;
}

PlugAnswer converge(const Request& after, const Layout& running) {
  PlugAnswer answer;
  Request request = after;
  std::erase_if(request.vms, [](const VirtualMachine& vm) { return vm.devices.empty(); });
  const Answer plan = judge(request);
  answer.why = plan.why;
  if (!plan.feasible) return answer;
  Layout target;
  target.preferences = plan.preferences;
  for (const VirtualMachine& vm : request.vms) target.spaces.push_back(space_from(plan, request.host, vm));
  const Matching matching = best_matching(request.host, running, target);
  answer.outcome = Outcome::feasible;
  answer.objectives = plan.objectives;
  answer.layout = matching.target;
  answer.interrupted = matching.interrupted;
  answer.kept = matching.kept;
  return answer;
}

}  // namespace

Unplug unplug_of(const Policy& policy) { return read_unplug(policy); }

std::optional<Layout> boot(const Request& request) {
  Request explicit_ranges = request;
  for (VirtualMachine& vm : explicit_ranges.vms) {
    vm.memory.ranges = memory_of(vm);
    vm.memory.size.reset();
  }
  const PlugAnswer answer = converge(explicit_ranges, {});
  return answer.outcome == Outcome::feasible ? std::optional(answer.layout) : std::nullopt;
}

std::optional<Range> place_memory(const std::vector<MemoryRange>& mapped, std::uint64_t backing, std::uint64_t size) {
  std::uint64_t end = 0;
  for (const MemoryRange& m : mapped) {
    if (m.gpa.last == kTop) return std::nullopt;
    end = std::max(end, m.gpa.last + 1);
  }
  const std::uint64_t step = std::max(kGiB, backing);
  const std::uint64_t rest = end % step;
  if (rest != 0 && end > kTop - (step - rest)) return std::nullopt;
  const std::uint64_t start = rest == 0 ? end : end + (step - rest);
  if (size == 0 || size - 1 > kTop - start) return std::nullopt;
  return Range{start, start + (size - 1)};
}

std::optional<Request> request_after(const Request& request, const Layout& running, const PlugChange& change,
                                     std::vector<std::string>& why) {
  Request after = request;
  for (VirtualMachine& vm : after.vms) become_running(request.host, space_of(running, vm.name), vm);
  const auto vm = std::ranges::find(after.vms, change.vm, &VirtualMachine::name);
  if (vm == after.vms.end()) {
    why.push_back("unknown: VM " + change.vm);
    return std::nullopt;
  }
  check_devices(request, running, change, why);
  if (!why.empty()) return std::nullopt;
  const Space* space = space_of(running, change.vm);
  Lines devices = space == nullptr ? Lines{} : present_in(*space);
  erase_from(devices, change.remove);
  devices.insert(devices.end(), change.add.begin(), change.add.end());
  const auto document = std::ranges::find(request.vms, change.vm, &VirtualMachine::name);
  vm->devices = document->devices;  // names and labels
  set_devices(request.host, *vm, devices);
  add_memory(change, vm->memory, why);
  if (!why.empty()) return std::nullopt;
  return after;
}

PlugAnswer plug(const Request& request, const Layout& running, const PlugChange& change, HotplugPolicy mode,
                Unplug unplug) {
  PlugAnswer answer;
  const auto after = request_after(request, running, change, answer.why);
  if (!after) {
    answer.outcome = Outcome::bad_input;
    return answer;
  }
  if (space_of(running, change.vm) == nullptr && change.add.empty()) {  // nothing to map: nothing changes
    answer.outcome = Outcome::feasible;
    answer.layout = running;
    answer.objectives = objectives_of(*after, running);
    return answer;
  }
  if (mode == HotplugPolicy::converge) return converge(*after, running);
  return Staying(*after, running, change, mode, unplug).run();
}

std::vector<std::string> faults_of(const Request& request, const Layout& layout) {
  Lines faults;
  std::vector<Placed> everywhere;
  const auto add_all = [&](const Lines& more) { faults.insert(faults.end(), more.begin(), more.end()); };
  for (const Space& s : layout.spaces) {
    const Scene scene = scene_of(request, s, layout.preferences);
    const auto hwpts = placed_in(scene, s);
    add_all(vm_faults(scene));
    for (const Placed& h : hwpts) add_all(hwpt_faults(scene, h));
    add_all(cross_faults(scene, hwpts));
    everywhere.insert(everywhere.end(), hwpts.begin(), hwpts.end());
  }
  add_all(pool_faults(request.host, everywhere));
  return faults;
}

ObjectiveValues objectives_of(const Request& request, const Layout& layout) {
  ObjectiveValues values;
  for (const Space& s : layout.spaces) {
    const Scene scene = scene_of(request, s, layout.preferences);
    for (const Placed& h : placed_in(scene, s)) values = sum(values, cost_of(scene, h));
  }
  values[Objective::ioas] = layout.spaces.size();
  return values;
}

Hwpt describe(const Host& host, const Space& space, const RunningHwpt& running) {
  const Table t = allocate(host, host.find_device(running.allocator).value(), running.flags).value();
  Hwpt h = hwpt_of(host, t);
  h.page_table_bytes = page_table_bytes(t, space.memory, space.backing);
  h.devices = running.devices;
  return h;
}

}  // namespace ioplan::oracle
