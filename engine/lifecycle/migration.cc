#include "engine/lifecycle/migration.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include "engine/base/log2.h"
#include "engine/base/text.h"
#include "engine/lifecycle/change.h"
#include "engine/lifecycle/layout.h"
#include "engine/planner/planner.h"
#include "engine/solve/cover.h"

namespace ioplan {

namespace {

constexpr std::size_t kMostPlans = 64;  // choices of substitutes that are planned for one destination

// What a guest sees of its HWPTs as numbers that can be compared.
struct Seen {
  std::uint64_t page_sizes = ~std::uint64_t{0};
  unsigned address_bits = 64;
  std::uint64_t granule = 1;
  bool dirty_tracking = true;

  explicit Seen(const Plan& plan) {
    for (const PlannedHwpt& h : plan.hwpts) {
      page_sizes &= h.page_sizes;
      address_bits = std::min(address_bits, h.address_bits);
      granule = std::max(granule, lowest_bit(h.page_sizes));
      dirty_tracking = dirty_tracking && (h.flags & kDirtyTracking) != 0;
    }
  }
};

class Destination {
 public:
  Destination(const Plan& running, const Request& source, const Host& host, const Law& law)
      : running_(running), source_(source), law_(law), seen_(running) {
    landing_.host = host.name;
    request_ = source;
    request_.host = host;
    make_needs();
  }

  Landing land() {
    landing_.live = seen_.dirty_tracking;
    if (!find_candidates()) return std::move(landing_);
    chosen_.assign(candidates_.size(), DeviceIndex());
    choose(0);
    if (!landing_.lands && first_) take(*first_);
    if (!landing_.lands && !first_) refuse_short_classes();
    if (!seen_.dirty_tracking) {
      refuse("lifecycle.live", {vm().name},
             "not every HWPT of the source tracks dirty pages: the VM can only be stopped and moved");
    }
    return std::move(landing_);
  }

 private:
  VirtualMachine& vm() { return request_.vms.front(); }

  void refuse(std::string rule, std::vector<std::string> subjects, std::string because) {
    landing_.reasons.push_back({std::move(rule), std::move(subjects), std::move(because)});
  }

  // The guest keeps what it has: that is a need there, whatever it was at boot.
  void make_needs() {
    if (seen_.dirty_tracking) vm().needs.dirty_tracking = Need::required;
    vm().hotplug = {};
    vm().needs.p2p.clear();
    RequireRule require;
    require.page_size = highest_bit(seen_.page_sizes);
    request_.policy.rules.push_back({"what the guest has seen", require});
  }

  // ------------------------------------------------------------------------------------------- substitutes

  bool find_candidates() {
    const auto& devices = source_.vms.front().devices;
    for (const AssignedDevice& assigned : devices) {
      if (!assigned.host) {
        refuse("lifecycle.substitute", {assigned.mdev},
               fmt::format("the mediated device {} has no IOMMU that could be compared", assigned.mdev));
        continue;
      }
      const Device& device = source_.host.device(*assigned.host);
      candidates_.push_back({assigned, like(device)});
      if (candidates_.back().second.empty()) {
        refuse("lifecycle.substitute", {device.id},
               fmt::format("{} has no device of the class of {}", landing_.host, device.id));
      }
    }
    return landing_.reasons.empty();
  }

  // Each device has candidates, and yet there are not enough for all.
  void refuse_short_classes() {
    std::map<std::optional<std::uint64_t>, std::vector<std::string>> wanted;  // by class
    std::map<std::optional<std::uint64_t>, std::size_t> there;
    for (const auto& [assigned, candidates] : candidates_) {
      const Device& device = source_.host.device(*assigned.host);
      wanted[device.facts[DeviceFact::device_class]].push_back(device.id);
      there[device.facts[DeviceFact::device_class]] = candidates.size();
    }
    for (const auto& [device_class, devices] : wanted) {
      const std::size_t count = there.at(device_class);
      if (count >= devices.size()) continue;
      refuse("lifecycle.substitute", devices,
             fmt::format("{} has {} device{} of the class of {}, and the VM has {}", landing_.host, count, count == 1 ? "" : "s",
                         devices.front(), devices.size()));
    }
  }

  // Of the same class; same vendor and device id first, then the lowest.
  std::vector<DeviceIndex> like(const Device& device) const {
    std::vector<DeviceIndex> same, others;
    for (std::size_t i = 0; i < request_.host.devices.size(); ++i) {
      const Device& d = request_.host.devices[i];
      if (d.facts[DeviceFact::device_class] != device.facts[DeviceFact::device_class] || !d.group || !d.unit) continue;
      const bool equal = device.facts[DeviceFact::vendor] && device.facts[DeviceFact::device] &&
                         d.facts[DeviceFact::vendor] == device.facts[DeviceFact::vendor] &&
                         d.facts[DeviceFact::device] == device.facts[DeviceFact::device];
      (equal ? same : others).push_back(DeviceIndex(i));
    }
    same.insert(same.end(), others.begin(), others.end());
    return same;
  }

  // Depth first in the order of preference; of devices behind one unit that look alike only the first is tried.
  void choose(std::size_t n) {
    if (landing_.lands || plans_ >= kMostPlans) return;
    if (n == candidates_.size()) return try_choice();
    std::set<std::string> tried;
    for (const DeviceIndex d : candidates_[n].second) {
      const auto end = chosen_.begin() + static_cast<std::ptrdiff_t>(n);
      if (std::find(chosen_.begin(), end, d) != end || !tried.insert(kind_of(d)).second) continue;
      chosen_[n] = d;
      choose(n + 1);
    }
  }

  std::string kind_of(DeviceIndex index) const {
    const Device& d = request_.host.device(index);
    const auto alone = std::ranges::count(request_.host.devices, d.group, &Device::group);
    if (alone > 1 || d.reserved) return d.id;
    std::string kind = fmt::format("{}", d.unit->value);
    for (const DeviceFact f :
         {DeviceFact::vendor, DeviceFact::device, DeviceFact::dma_coherent, DeviceFact::canwbs,
          DeviceFact::isolated_msi, DeviceFact::no_dirty, DeviceFact::pasid_bits, DeviceFact::numa}) {
      kind += d.facts[f] ? fmt::format(",{}", *d.facts[f]) : ",?";
    }
    return kind;
  }

  void try_choice() {
    ++plans_;
    std::vector<std::pair<DeviceIndex, AssignedDevice>> placed;
    for (std::size_t n = 0; n < chosen_.size(); ++n) {
      AssignedDevice device = candidates_[n].first;
      device.host = chosen_[n];
      placed.emplace_back(chosen_[n], std::move(device));
    }
    std::ranges::sort(placed, {}, [](const auto& p) { return p.first; });
    vm().devices.clear();
    for (auto& [index, device] : placed) vm().devices.push_back(std::move(device));
    Attempt attempt = plan();
    if (attempt.lands()) return take(attempt);
    if (!first_) first_ = std::move(attempt);
  }

  // ------------------------------------------------------------------------------------------- one choice

  struct Attempt {
    Plan plan;
    std::vector<Conflict> reasons;
    std::vector<std::pair<std::string, std::string>> substitutes;

    bool lands() const { return plan.verdict == Verdict::feasible && reasons.empty(); }
  };

  Attempt plan() {
    Attempt attempt;
    for (std::size_t n = 0; n < chosen_.size(); ++n) {
      attempt.substitutes.emplace_back(source_.host.device(*candidates_[n].first.host).id,
                                       request_.host.device(chosen_[n]).id);
    }
    attempt.plan = make_plan(request_, law_, {.budget = {}, .explain_no = !first_});  // reasons are told of the first
    if (attempt.plan.verdict == Verdict::feasible) {
      attempt.reasons = worse(attempt.plan);
    } else {
      attempt.reasons = attempt.plan.conflict;
      for (const UnknownFact& u : attempt.plan.unknown) {
        attempt.reasons.push_back({"unknown", {}, fmt::format("`{}` is unknown there and decides the answer", u.fact)});
      }
    }
    return attempt;
  }

  // What the guest would miss.
  std::vector<Conflict> worse(const Plan& plan) const {
    std::vector<Conflict> reasons;
    const auto miss = [&](std::string_view feature, const std::string& here, const std::string& there) {
      reasons.push_back({"lifecycle.guest-visible",
                         {landing_.host},
                         fmt::format("`{}` is {} at the source and {} there", feature, here, there)});
    };
    const Seen there(plan);
    if ((seen_.page_sizes & ~there.page_sizes) != 0) {
      miss("page_sizes", format_page_sizes(seen_.page_sizes), format_page_sizes(there.page_sizes));
    }
    if (there.address_bits < seen_.address_bits) {
      miss("address_bits", std::to_string(seen_.address_bits), std::to_string(there.address_bits));
    }
    if (there.granule > seen_.granule) miss("granule", format_size(seen_.granule), format_size(there.granule));
    if (running_.kvm.noncoherent_dma != plan.kvm.noncoherent_dma) {
      miss("noncoherent_dma", running_.kvm.noncoherent_dma ? "true" : "false",
           plan.kvm.noncoherent_dma ? "true" : "false");
    }
    return reasons;
  }

  void take(const Attempt& attempt) {
    landing_.lands = attempt.lands();
    landing_.reasons = attempt.reasons;
    landing_.substitutes = attempt.substitutes;
    if (attempt.plan.verdict != Verdict::feasible) return;
    landing_.differences = feature_changes(features_of(running_), features_of(attempt.plan));
    landing_.plan = attempt.plan;
  }

  const Plan& running_;
  const Request& source_;
  const Law& law_;
  Seen seen_;
  Request request_;
  std::vector<std::pair<AssignedDevice, std::vector<DeviceIndex>>> candidates_;  // by host device of the VM
  std::vector<DeviceIndex> chosen_;
  std::optional<Attempt> first_;  // the most preferred choice that does not land
  std::size_t plans_ = 0;
  Landing landing_;
};

}  // namespace

std::vector<Landing> migrate(const Plan& running, const Request& request, const std::vector<Host>& destinations,
                             const Law& law) {
  const Request now = running_request(running, request);
  std::vector<Landing> landings;
  for (const Host& host : destinations) landings.push_back(Destination(running, now, host, law).land());
  const auto& order = request.policy.objectives;
  std::ranges::stable_sort(landings, [&](const Landing& a, const Landing& b) {
    if (a.lands != b.lands) return a.lands;
    if (a.live != b.live) return a.live;
    if (a.differences.size() != b.differences.size()) return a.differences.size() < b.differences.size();
    if (a.plan.objectives != b.plan.objectives) return better(a.plan.objectives, b.plan.objectives, order);
    return natural_less(a.host, b.host);
  });
  return landings;
}

}  // namespace ioplan
