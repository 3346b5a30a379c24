#include "tests/support/histories.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "engine/base/text.h"
#include "engine/lifecycle/layout.h"
#include "engine/model/features.h"
#include "tests/support/generator.h"

namespace ioplan::histories {

namespace {

constexpr const char* kMediated[] = {"83b8f4f2-509f-382f-3c1e-e6bfe0fa1001", "a0fd1e2b-7d2e-4a0c-9f6a-5b8d8c3f2e10"};

bool chance(Random& random, unsigned percent) { return random() % 100 < percent; }

// Groups that other VMs have, and devices that this one has.
class Free {
 public:
  Free(const Plan& running, const Request& request, const std::string& vm) : host_(request.host) {
    for (const PlannedIoas& ioas : running.ioas) {
      for (const std::string& id : attached_devices(running, ioas.id)) {
        const auto group = host_.device(*host_.find_device(id)).group;
        if (ioas.vm == vm) {
          own_.insert(id);
        } else if (group) {
          taken_.insert(*group);
        }
      }
      for (const std::string& id : ioas.retained) {
        if (ioas.vm != vm)
          taken_.insert(host_.device(host_.find_device(id).value_or(DeviceIndex())).group.value_or(~0U));
      }
    }
    // What a VM that does not run yet would have is left to it.
    for (const VirtualMachine& other : request.vms) {
      for (const AssignedDevice& d : other.devices) {
        if (other.name != vm && d.host && host_.device(*d.host).group) taken_.insert(*host_.device(*d.host).group);
      }
    }
  }

  std::vector<std::string> pluggable() const {
    std::vector<std::string> ids;
    for (const Device& d : host_.devices) {
      if (!own_.contains(d.id) && d.group && d.unit && !taken_.contains(*d.group)) ids.push_back(d.id);
    }
    return ids;
  }

  std::vector<std::string> own() const { return {own_.begin(), own_.end()}; }

 private:
  const Host& host_;
  std::set<std::string> own_;
  std::set<std::uint32_t> taken_;
};

std::string take(Random& random, std::vector<std::string>& from) {
  const auto at = static_cast<std::ptrdiff_t>(random() % from.size());
  std::string id = from[static_cast<std::size_t>(at)];
  from.erase(from.begin() + at);
  return id;
}

void change_mediated(Random& random, const Plan& running, const std::string& vm, Change& change) {
  const PlannedIoas* ioas = space_of(running, vm);
  const auto there = ioas == nullptr ? std::vector<std::string>{} : mediated_devices(running, ioas->id);
  const std::string id = kMediated[random() % 2];
  const bool has = std::ranges::find(there, id) != there.end();
  for (const PlannedIoas& other : running.ioas) {
    const auto others = mediated_devices(running, other.id);
    const bool kept = std::ranges::find(other.retained, id) != other.retained.end();
    if (other.vm != vm && (kept || std::ranges::find(others, id) != others.end())) return;
  }
  (has ? change.remove : change.add).push_back(id);
}

}  // namespace

Request first_request(std::uint64_t seed, std::size_t most_groups) {
  generator::GeneratorOptions options;
  options.absent = 0;
  options.most_groups = most_groups;
  Request request = generator::random_request(seed, options);
  Random random(seed * 2 + 1);
  for (VirtualMachine& vm : request.vms) {
    std::erase_if(vm.devices, [&](const AssignedDevice&) { return vm.devices.size() > 1 && chance(random, 35); });
    vm.needs.p2p.clear();
    vm.hotplug = {};
  }
  request.policy.assumptions = Permission::allow;
  return request;
}

Change random_change(Random& random, const Plan& running, const Request& request) {
  Change change;
  const VirtualMachine& vm = request.vms[random() % request.vms.size()];
  change.vm = vm.name;
  const Free free(running, request, vm.name);
  std::vector<std::string> pluggable = free.pluggable(), own = free.own();
  const std::size_t many = chance(random, 25) ? 2 : 1;
  for (std::size_t n = 0; n < many; ++n) {
    const bool removes = !own.empty() && (pluggable.empty() || own.size() > 5 || chance(random, 45));
    if (removes) {
      change.remove.push_back(take(random, own));
    } else if (!pluggable.empty()) {
      change.add.push_back(take(random, pluggable));
    }
  }
  if (chance(random, 8)) change_mediated(random, running, vm.name, change);
  const std::uint64_t backing = vm.memory.backing.value_or(4096);
  if (chance(random, 6)) change.memory_size = std::max<std::uint64_t>(backing, std::uint64_t{1} << (21 + random() % 8));
  return change;
}

std::string to_text(const Change& change) {
  std::string text = change.vm;
  for (const std::string& d : change.add) text += " +" + d;
  for (const std::string& d : change.remove) text += " -" + d;
  if (change.memory_size != 0) text += " +" + format_size(change.memory_size);
  return text;
}

}  // namespace ioplan::histories
