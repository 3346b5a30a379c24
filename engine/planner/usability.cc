#include "engine/planner/usability.h"

#include <algorithm>
#include <map>

#include "engine/explain/sentence.h"
#include "engine/planner/missing.h"
#include "engine/solve/offers.h"

namespace ioplan {

namespace {

constexpr std::uint64_t kBridge = 0x06;

bool is_bridge(const Device& d) { return d.facts[DeviceFact::device_class].value_or(0) >> 16 == kBridge; }

// A VM of one page with every device that has a place.
Request everything(const Host& host) {
  Request request{host, {}, {}};
  VirtualMachine& vm = request.vms.emplace_back();
  vm.name = "a VM";
  vm.memory.ranges = {{{0, 0xfff}, Access::read_write}};
  for (std::size_t d = 0; d < host.devices.size(); ++d) {
    const Device& device = host.devices[d];
    if (!is_bridge(device) && device.unit && device.group) vm.devices.push_back({DeviceIndex(d), {}, {}, {}});
  }
  return request;
}

Request with_unknown_facts_at_best(Request request) {
  for (const MissingFact& f : unknown_facts(request)) {
    if (!f.candidates.empty()) f.set(request, f.candidates.front());
  }
  return request;
}

// Of all members of a group, the one that breaks the rule names it.
std::string because(const Problem& problem, const Unusable& unusable, const Host& host) {
  const DeviceClass& cls = problem.classes[unusable.cls];
  const Device& example = host.device(cls.example);
  const Values values{nullptr, &cls.quantities, &problem.quantities};
  const std::string unit = example.unit ? host.unit(*example.unit).id : std::string();
  return refusal(*unusable.rule, values, {example.id, unit, "a VM", {}, {}, {}});
}

}  // namespace

std::vector<UnusableDevice> unusable_devices(const Host& host, const Law& law) {
  const Request request = with_unknown_facts_at_best(everything(host));
  const Problem problem = make_problem(request, VmIndex(0), request.vms[0].needs, law);
  std::map<DeviceIndex, UnusableDevice> found;
  for (const Unusable& u : unusable_groups(problem, RuleBook(law))) {
    for (DeviceIndex d : problem.groups[u.group].assigned) {
      const std::string& id = host.device(d).id;
      found.try_emplace(d, UnusableDevice{id, std::string(u.rule->name), because(problem, u, host)});
    }
  }
  for (std::size_t d = 0; d < host.devices.size(); ++d) {
    const Device& device = host.devices[d];
    if (is_bridge(device) || (device.unit && device.group)) continue;
    const std::string what = device.unit ? "group" : "IOMMU";
    found.try_emplace(DeviceIndex(d), UnusableDevice{device.id, {}, device.id + " has no known " + what});
  }
  std::vector<UnusableDevice> devices;
  for (auto& [index, device] : found) devices.push_back(std::move(device));
  return devices;
}

}  // namespace ioplan
