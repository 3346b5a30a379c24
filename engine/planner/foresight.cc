#include "engine/planner/foresight.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <span>

#include "engine/base/text.h"
#include "engine/explain/sentence.h"
#include "engine/planner/missing.h"
#include "engine/solve/solver.h"

namespace ioplan {

namespace {

// "0x02", "0x0200" or "0x020000": as many digits as are given.
bool of_class(std::uint64_t device_class, const std::string& code) {
  const auto value = parse_integer(code);
  const std::size_t digits = code.size() - 2;
  return value && digits <= 6 && device_class >> (4 * (6 - digits)) == *value;
}

bool device_before(const AssignedDevice& a, const AssignedDevice& b) {
  if (a.host && b.host) return *a.host < *b.host;
  return a.host.has_value() != b.host.has_value() ? a.host.has_value() : a.mdev < b.mdev;
}

// The ids of units and devices about which a fact is absent.
std::set<std::string> ids_of_unknown(const Request& request) {
  std::set<std::string> ids;
  for (const MissingFact& f : unknown_facts(request)) {
    const std::size_t first = f.path.find('.'), last = f.path.rfind('.');
    if (first != last) ids.insert(f.path.substr(first + 1, last - first - 1));
  }
  return ids;
}

class Foreseer {
 public:
  Foreseer(const Request& request, const std::vector<Needs>& needs, const Law& law, const CoverBudget& budget)
      : needs_(needs), law_(law), budget_(budget), rules_(law), result_{request, {}} {}

  Foresight foresee() {
    for (vm_ = 0; vm_ < needs_.size(); ++vm_) {
      const std::uint64_t memory = vm().hotplug.memory;
      const std::vector<DeviceIndex> devices = expected_devices(result_.request, vm());
      if (law_.interface() == KernelInterface::type1) {
        promise_nothing(memory, devices);
        continue;
      }
      if (memory != 0) promise_memory(memory);
      promise(plausible(devices));
    }
    return std::move(result_);
  }

 private:
  VirtualMachine& vm() { return result_.request.vms[vm_]; }
  const Host& host() const { return result_.request.host; }

  bool keeps() const { return solve(result_.request, needs_, law_, budget_).verdict == Verdict::feasible; }

  void refuse(std::string subject, std::string rule, std::string because) {
    result_.unpromised.push_back({vm().name, std::move(subject), std::move(rule), std::move(because)});
  }

  // Which domain a group comes to depends on who has joined before it, and no place in one can be kept.
  void promise_nothing(std::uint64_t memory, const std::vector<DeviceIndex>& devices) {
    const std::string because = "a type1 container keeps no place: `ioplan headroom` says what can join as it is";
    if (memory != 0) refuse("memory", "lifecycle.promise", because);
    for (const DeviceIndex d : devices) refuse(id_of(d), "lifecycle.promise", because);
  }

  void promise_memory(std::uint64_t size) {
    const Range range = hotplug_range(memory_of(vm(), host()), vm().memory.backing.value_or(4096), size);
    const bool whole = size % vm().memory.backing.value_or(4096) == 0 && range.last > range.start;
    if (whole) vm().expected_memory = range;
    if (whole && keeps()) return;
    vm().expected_memory.reset();
    refuse("memory", "lifecycle.promise",
           whole ? fmt::format("{} cannot be kept free in every address space", format_ranges({&range, 1}))
                 : fmt::format("{} is no whole number of pages of the backing", format_size(size)));
  }

  // Without those of which it is plain that frozen mode would refuse them.
  std::vector<DeviceIndex> plausible(const std::vector<DeviceIndex>& devices) {
    if (devices.empty()) return {};
    if (std::ranges::none_of(vm().devices, [](const auto& d) { return d.host.has_value(); })) {
      for (const DeviceIndex d : devices) {
        refuse(id_of(d), "lifecycle.frozen", fmt::format("{} has no device that could make a HWPT for it", vm().name));
      }
      return {};
    }
    const std::set<std::string> unknown = unknown_about(devices);
    const bool coherent = is_coherent();
    std::vector<DeviceIndex> left;
    for (const DeviceIndex d : devices) {
      if (const auto owner = owner_of_group(d)) {
        refuse(id_of(d), "core.group", fmt::format("{} has the IOMMU group of {}", *owner, id_of(d)));
      } else if (const auto what = unknown_of(d, unknown)) {
        refuse(id_of(d), "lifecycle.promise", fmt::format("facts of {} are unknown", *what));
      } else if (coherent && law_.describe(host(), d)[DeviceQ::enforce_cache_coherency] == 0) {
        refuse(id_of(d), "lifecycle.kvm-verdict", fmt::format("{} would make KVM non-coherent", id_of(d)));
      } else {
        left.push_back(d);
      }
    }
    return left;
  }

  const std::string& id_of(DeviceIndex d) const { return host().device(d).id; }

  std::set<std::string> unknown_about(const std::vector<DeviceIndex>& devices) {
    const std::vector<AssignedDevice> own = vm().devices;
    add(devices);
    std::set<std::string> ids = ids_of_unknown(result_.request);
    vm().devices = own;
    return ids;
  }

  // The device, a member of its group or a unit in front of them.
  std::optional<std::string> unknown_of(DeviceIndex d, const std::set<std::string>& unknown) const {
    if (unknown.empty()) return std::nullopt;
    const auto group = host().device(d).group;
    for (const Device& member : host().devices) {
      if (&member != &host().device(d) && (!group || member.group != group)) continue;
      if (unknown.contains(member.id)) return member.id;
      if (member.unit && unknown.contains(host().unit(*member.unit).id)) return host().unit(*member.unit).id;
    }
    return std::nullopt;
  }

  std::optional<std::string> owner_of_group(DeviceIndex d) {
    for (const VirtualMachine& other : result_.request.vms) {
      for (const AssignedDevice& a : other.devices) {
        const bool same = a.host && host().device(*a.host).group == host().device(d).group;
        if (same && !a.expected && &other != &vm()) return other.name;
      }
    }
    return std::nullopt;
  }

  bool is_coherent() {
    return std::ranges::all_of(vm().devices, [&](const AssignedDevice& d) {
      return d.host && law_.describe(host(), *d.host)[DeviceQ::enforce_cache_coherency] != 0;
    });
  }

  void add(std::span<const DeviceIndex> devices) {
    for (const DeviceIndex d : devices) {
      AssignedDevice expected;
      expected.host = d;
      expected.expected = true;
      vm().devices.push_back(std::move(expected));
    }
    std::ranges::sort(vm().devices, device_before);
  }

  // What cannot be kept together cannot be kept with more, so halves give what one after another would.
  void promise(std::span<const DeviceIndex> devices) {
    if (devices.empty()) return;
    const std::vector<AssignedDevice> before = vm().devices;
    add(devices);
    if (keeps()) return;
    vm().devices = before;
    if (devices.size() == 1) return explain(devices.front());
    promise(devices.first(devices.size() / 2));
    promise(devices.subspan(devices.size() / 2));
  }

  // The first rule that refuses the device in the first template; where none does, it is the others that are in the
  // way.
  void explain(DeviceIndex d) {
    const std::vector<AssignedDevice> before = vm().devices;
    add({&d, 1});
    const VmModel model = model_vm(result_.request, VmIndex(vm_), needs_[vm_], rules_, law_);
    vm().devices = before;
    const Device& device = host().device(d);
    const Names names{device.id, host().unit(*device.unit).id, vm().name, "", "", ""};
    const auto item = std::ranges::find_if(
        model.problem.items, [&](const Item& i) { return std::ranges::find(i.assigned, d) != i.assigned.end(); });
    if (!model.unusable.empty()) {
      const Unusable& u = model.unusable.front();
      const Values values{nullptr, &model.problem.classes[u.cls].quantities, &model.problem.quantities};
      return refuse(device.id, std::string(u.rule->name), refusal(*u.rule, values, names));
    }
    for (const Offer& offer : model.offers) {
      if (offer.accepts(*item))
        return refuse(device.id, "lifecycle.promise", "other promises, the policy or domain ids stand in the way");
    }
    for (const Offer& offer : model.offers) {
      for (const Phase phase : {Phase::attach, Phase::placement}) {
        for (const std::uint32_t cls : phase == Phase::attach ? item->member_classes : item->assigned_classes) {
          const Values values{&offer.hwpt, &model.problem.classes[cls].quantities, &model.problem.quantities};
          for (const Rule* rule : rules_.of(phase)) {
            if (!holds(*rule, values)) return refuse(device.id, std::string(rule->name), refusal(*rule, values, names));
          }
        }
      }
    }
    refuse(device.id, "lifecycle.promise", fmt::format("no device of {} can make a HWPT for it", vm().name));
  }

  const std::vector<Needs>& needs_;
  const Law& law_;
  const CoverBudget& budget_;
  RuleBook rules_;
  Foresight result_;
  std::size_t vm_ = 0;
};

}  // namespace

bool expects_anything(const Request& request) {
  return std::ranges::any_of(request.vms, [](const VirtualMachine& vm) {
    return vm.hotplug.memory != 0 || !vm.hotplug.hosts.empty() || !vm.hotplug.classes.empty();
  });
}

std::vector<DeviceIndex> expected_devices(const Request& request, const VirtualMachine& vm) {
  std::set<DeviceIndex> taken, found;
  for (const VirtualMachine& other : request.vms) {
    for (const AssignedDevice& d : other.devices) {
      if (d.host && !d.expected) taken.insert(*d.host);
    }
  }
  for (const std::string& id : vm.hotplug.hosts) {
    if (const auto d = request.host.find_device(id); d && !taken.contains(*d)) found.insert(*d);
  }
  for (std::size_t i = 0; i < request.host.devices.size() && !vm.hotplug.classes.empty(); ++i) {
    const auto& cls = request.host.devices[i].facts[DeviceFact::device_class];
    const bool wanted =
        cls && std::ranges::any_of(vm.hotplug.classes, [&](const auto& c) { return of_class(*cls, c); });
    if (wanted && !taken.contains(DeviceIndex(i))) found.insert(DeviceIndex(i));
  }
  return {found.begin(), found.end()};
}

Foresight foresee(const Request& request, const std::vector<Needs>& needs, const Law& law, const CoverBudget& budget) {
  return Foreseer(request, needs, law, budget).foresee();
}

}  // namespace ioplan
