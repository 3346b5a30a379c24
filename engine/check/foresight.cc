// frozen, foresight: what the guest sees, and what the plan promises about plugs to come.

#include <algorithm>
#include <set>

#include "engine/base/text.h"
#include "engine/check/court.h"

namespace ioplan::check {

namespace {

std::uint64_t lowest_page(const PlannedHwpt& h) { return h.page_sizes & (~h.page_sizes + 1); }

// The guest-visible features of one VM, as the document writes them; nothing for a VM without HWPTs.
std::vector<std::pair<std::string, std::string>> features(const Court& court, const PlannedIoas& ioas) {
  std::uint64_t pages = ~std::uint64_t{0}, granule = 0;
  unsigned bits = 64;
  bool any = false, dirty = true;
  for (const PlannedHwpt& h : court.plan.hwpts) {
    if (h.ioas != ioas.id) continue;
    any = true;
    pages &= h.page_sizes;
    granule = std::max(granule, lowest_page(h));
    bits = std::min(bits, h.address_bits);
    dirty = dirty && (h.flags & kDirtyTracking) != 0;
  }
  const Scene* scene = court.world.scene(ioas.vm);
  if (!any || scene == nullptr) return {};
  bool noncoherent = !scene->mediated.empty();
  for (const AssignedDevice* e : scene->entries) {
    noncoherent |= scene->quantities.at(e->host->index())[DeviceQ::enforce_cache_coherency] == 0;
  }
  return {{"page_sizes", format_page_sizes(pages)},
          {"address_bits", std::to_string(bits)},
          {"granule", format_size(granule)},
          {"dirty_tracking", dirty ? "true" : "false"},
          {"noncoherent_dma", noncoherent ? "true" : "false"}};
}

bool expected(const Court& court, const Scene& scene, std::size_t device) {
  const Device& d = court.world.host().devices[device];
  const auto& cls = d.facts[DeviceFact::device_class];
  const HotplugExpectation& wanted = scene.vm->hotplug;
  if (std::find(wanted.hosts.begin(), wanted.hosts.end(), d.id) != wanted.hosts.end()) return true;
  return cls && std::any_of(wanted.classes.begin(), wanted.classes.end(), [&](const std::string& code) {
           const auto value = parse_integer(code);
           return value && *value == *cls >> (24 - 4 * (code.size() - 2));
         });
}

std::string fault_of(const Court& court, const Promise& promise) {
  const Scene* scene = court.world.scene(promise.vm);
  if (scene == nullptr) return fmt::format("`{}` is not asked about", promise.vm);
  if (promise.device.empty()) {
    const Range range =
        hotplug_range(scene->memory, scene->backing, std::max<std::uint64_t>(scene->vm->hotplug.memory, 1));
    return scene->vm->hotplug.memory != 0 && promise.memory == range ? ""
                                                                     : "the promised memory is not the expected one";
  }
  const auto device = court.world.host().find_device(promise.device);
  if (!device || !expected(court, *scene, device->index())) return fmt::format("`{}` is not expected", promise.device);
  for (const Scene& other : court.world.scenes) {
    if (other.assigns(device->index())) return fmt::format("`{}` is in a VM already", promise.device);
  }
  return "";
}

}  // namespace

void check_frozen(const Court& court) {
  if (court.plan.frozen.empty()) return;  // plans of older versions say nothing
  std::set<std::pair<std::string, std::string>> stated, real;
  for (const FrozenFeature& f : court.plan.frozen) stated.emplace(f.vm + " " + f.feature, f.value);
  for (const PlannedIoas& ioas : court.plan.ioas) {
    for (const auto& [feature, value] : features(court, ioas)) real.emplace(ioas.vm + " " + feature, value);
  }
  if (stated != real || stated.size() != court.plan.frozen.size()) {
    court.object(obligation::frozen, {}, "`frozen` does not state what the HWPTs and KVM's verdict are");
  }
}

void check_promises(const Court& court) {
  std::set<std::string> seen;
  for (const Promise& p : court.plan.promises) {
    std::string fault = fault_of(court, p);
    if (fault.empty() && !seen.insert(p.vm + " " + p.device).second) fault = "a promise is given twice";
    if (!fault.empty()) court.object(obligation::foresight, {p.vm, p.device}, fault);
  }
  for (const PlannedIoas& ioas : court.plan.ioas) {
    Intervals allowed = merged(ioas.allowed);
    const bool kept = std::all_of(court.plan.promises.begin(), court.plan.promises.end(), [&](const Promise& p) {
      return p.vm != ioas.vm || !p.device.empty() || covers(allowed, p.memory);
    });
    if (!kept) court.object(obligation::foresight, {ioas.id}, "the promised memory is not allowed");
  }
}

Request looking_ahead(Request request, const Plan& plan) {
  for (const Promise& p : plan.promises) {
    const auto vm = std::find_if(request.vms.begin(), request.vms.end(), [&](const auto& v) { return v.name == p.vm; });
    if (vm == request.vms.end()) continue;
    if (p.device.empty()) {
      vm->expected_memory = p.memory;
      continue;
    }
    AssignedDevice place;
    place.host = request.host.find_device(p.device);
    place.expected = true;
    if (!place.host) continue;
    const auto at = std::find_if(vm->devices.begin(), vm->devices.end(),
                                 [&](const AssignedDevice& d) { return !d.host || *place.host < *d.host; });
    vm->devices.insert(at, place);
  }
  return request;
}

Plan looking_ahead(Plan plan) {
  for (const Promise& p : plan.promises) {
    for (PlannedHwpt& h : plan.hwpts) {
      if (h.id != p.hwpt || p.device.empty()) continue;
      const auto at = std::find_if(h.devices.begin(), h.devices.end(),
                                   [&](const std::string& d) { return natural_less(p.device, d); });
      h.devices.insert(at, p.device);
    }
  }
  return plan;
}

}  // namespace ioplan::check
