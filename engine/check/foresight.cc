// frozen, foresight: what the guest sees, and what the plan promises about plugs to come.

#include <algorithm>
#include <set>

#include "engine/base/text.h"
#include "engine/check/court.h"

namespace ioplan::check {

namespace {

std::uint64_t lowest_page(const PlannedHwpt& h) { return h.page_sizes & (~h.page_sizes + 1); }

bool tracks(const PlannedHwpt& h) { return (h.flags & kDirtyTracking) != 0; }

// The guest-visible features of one VM, as the document writes them, with the allocators of the HWPTs that make each
// so.
class Seen {
 public:
  Seen(const Court& court, const PlannedIoas& ioas) : court_(court), scene_(court.world.scene(ioas.vm)), vm_(ioas.vm) {
    for (const PlannedHwpt& h : court.plan.hwpts) {
      if (h.ioas == ioas.id) hwpts_.push_back(&h);
    }
  }

  std::vector<FrozenFeature> list() {
    if (hwpts_.empty() || scene_ == nullptr) return {};
    std::uint64_t common = ~std::uint64_t{0}, all = 0, granule = 0;
    unsigned bits = 64;
    bool dirty = true;
    for (const PlannedHwpt* h : hwpts_) {
      common &= h->page_sizes;
      all |= h->page_sizes;
      granule = std::max(granule, lowest_page(*h));
      bits = std::min(bits, h->address_bits);
      dirty = dirty && tracks(*h);
    }
    add("page_sizes", format_page_sizes(common), [&](const auto& h) { return common == all || h.page_sizes != all; });
    add("address_bits", std::to_string(bits), [&](const auto& h) { return h.address_bits == bits; });
    add("granule", format_size(granule), [&](const auto& h) { return lowest_page(h) == granule; });
    add("dirty_tracking", dirty ? "true" : "false", [&](const auto& h) { return tracks(h) == dirty; });
    add_coherency();
    return found_;
  }

 private:
  template <class Which>
  void add(std::string feature, std::string value, Which which) {
    std::set<std::string, bool (*)(std::string_view, std::string_view)> because(natural_less);
    for (const PlannedHwpt* h : hwpts_) {
      if (which(*h)) because.insert(h->allocator);
    }
    found_.push_back({vm_, std::move(feature), std::move(value), {because.begin(), because.end()}});
  }

  void add_coherency() {
    std::vector<std::string> because;
    for (const AssignedDevice* e : scene_->entries) {
      const std::size_t d = e->host->index();
      if (scene_->quantities.at(d)[DeviceQ::enforce_cache_coherency] == 0) because.push_back(court_.world.id(d));
    }
    std::vector<std::string> mediated = scene_->mediated;
    std::sort(mediated.begin(), mediated.end());
    because.insert(because.end(), mediated.begin(), mediated.end());
    const bool noncoherent = !because.empty();
    found_.push_back({vm_, "noncoherent_dma", noncoherent ? "true" : "false", std::move(because)});
  }

  const Court& court_;
  const Scene* scene_;
  std::string vm_;
  std::vector<const PlannedHwpt*> hwpts_;
  std::vector<FrozenFeature> found_;
};

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
  std::vector<FrozenFeature> real;
  for (const PlannedIoas& ioas : court.plan.ioas) {
    for (FrozenFeature& f : Seen(court, ioas).list()) real.push_back(std::move(f));
  }
  if (court.plan.frozen != real) {
    court.object(obligation::frozen, {}, "`frozen` does not state what the HWPTs and KVM's verdict are, and why");
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
