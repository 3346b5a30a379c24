// Which HWPT of a target is which running object (README.md 5): between equal HWPTs, one to one, the fewest devices
// interrupted, then the most objects kept, then lowest numbers first.

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "engine/base/text.h"
#include "engine/lifecycle/assignment.h"
#include "engine/lifecycle/container_way.h"
#include "engine/lifecycle/layout.h"
#include "engine/lifecycle/transition.h"
#include "engine/model/features.h"

namespace ioplan {

namespace {

std::size_t devices_in_common(const PlannedHwpt& a, const PlannedHwpt& b) {
  const std::set<std::string_view> in_a(a.devices.begin(), a.devices.end());
  return static_cast<std::size_t>(std::ranges::count_if(b.devices, [&](const auto& d) { return in_a.contains(d); }));
}

class Matcher {
 public:
  Matcher(const Plan& running, Plan target, const Host& host, const Law& law, const std::vector<std::string>& known)
      : running_(running), target_(std::move(target)), host_(host), law_(law) {
    for (std::size_t h = 0; h < known.size(); ++h) {
      if (!known[h].empty()) name_of_[&target_.hwpts[h]] = known[h];
    }
  }

  Plan match() {
    if (target_.interface == KernelInterface::type1) return match_containers();
    std::vector<std::vector<std::string>> mediated;
    for (const PlannedIoas& ioas : target_.ioas) mediated.push_back(mediated_devices(target_, ioas.id));
    for (PlannedIoas& ioas : target_.ioas) match_space(ioas);
    name_the_new();
    rename();
    std::ranges::stable_sort(target_.hwpts, before);
    target_.steps = boot_steps(target_, mediated);
    return std::move(target_);
  }

 private:
  // In the order of their lowest device; those without devices last.
  static bool before(const PlannedHwpt& a, const PlannedHwpt& b) {
    if (a.devices.empty() || b.devices.empty()) return a.devices.size() > b.devices.size();
    return natural_less(a.devices.front(), b.devices.front());
  }

  // Target and running HWPTs of one VM, by what they are.
  struct Alike {
    std::vector<PlannedHwpt*> target;
    std::vector<const PlannedHwpt*> running;
  };

  void match_space(const PlannedIoas& ioas) {
    const PlannedIoas* old = space_of(running_, ioas.vm);
    if (old == nullptr) return;
    std::map<std::pair<bool, HwptQuantities>, Alike> alike;
    for (PlannedHwpt& h : target_.hwpts) {
      if (h.ioas == ioas.id && !name_of_.contains(&h))
        alike[{h.automatic, quantities_of(h, host_, law_)}].target.push_back(&h);
    }
    for (const PlannedHwpt& h : running_.hwpts) {
      if (h.ioas != old->id || is_taken(h.id)) continue;
      const auto it = alike.find({h.automatic, quantities_of(h, host_, law_)});
      if (it != alike.end()) it->second.running.push_back(&h);
    }
    for (auto& [what, group] : alike) match_alike(group);
  }

  // Of a container the kernel decides who comes together: what is kept is a question of who can join then.
  Plan match_containers() {
    const GroupLaw groups(host_, law_);
    name_of_.clear();
    std::vector<const PlannedHwpt*> order;
    for (PlannedIoas& ioas : target_.ioas) {
      const ContainerWay way = container_way(running_, target_, ioas.vm, groups);
      ioas.ranges = way.usable;
      for (const std::string& id : way.order) {
        PlannedHwpt& hwpt = *std::ranges::find(target_.hwpts, id, &PlannedHwpt::id);
        order.push_back(&hwpt);
        const auto kept = way.kept.find(id);
        if (kept != way.kept.end()) name_of_[&hwpt] = kept->second;
        open_by(hwpt, kept == way.kept.end() ? way.openers.at(id) : find_hwpt(running_, kept->second)->allocator, groups);
      }
    }
    name_the_new();
    rename();
    std::vector<std::string> names;
    for (const PlannedHwpt* h : order) names.push_back(h->id);
    std::ranges::stable_sort(target_.hwpts, before);
    target_.steps = container_steps(target_, names, groups);
    return std::move(target_);
  }

  // By the lowest device that its group still has there.
  static void open_by(PlannedHwpt& hwpt, const std::string& opener, const GroupLaw& groups) {
    const std::uint32_t group = groups.group_of(opener);
    const auto still = std::ranges::find(hwpt.devices, group, [&](const std::string& d) { return groups.group_of(d); });
    hwpt.allocator = still == hwpt.devices.end() ? opener : *still;
  }

  bool is_taken(const std::string& id) const {
    return std::ranges::any_of(name_of_, [&](const auto& n) { return n.second == id; });
  }

  void match_alike(Alike& group) {
    std::ranges::sort(group.running, {}, [](const PlannedHwpt* h) { return number_of(h->id); });
    std::ranges::sort(group.target, [](const auto* a, const auto* b) { return before(*a, *b); });
    WeightMatrix weight;
    const auto keeping_all = static_cast<std::int64_t>(group.target.size() + 1);
    for (const PlannedHwpt* t : group.target) {
      auto& row = weight.emplace_back();
      for (const PlannedHwpt* r : group.running) {
        const auto common = static_cast<std::int64_t>(devices_in_common(*t, *r));
        const bool lives = common > 0 || !t->automatic;
        row.push_back(lives ? std::optional(common * keeping_all + 1) : std::nullopt);
      }
    }
    const auto columns = best_matching(weight);
    for (std::size_t t = 0; t < columns.size(); ++t) {
      if (columns[t]) keep(*group.target[t], *group.running[*columns[t]]);
    }
  }

  void keep(PlannedHwpt& target, const PlannedHwpt& running) {
    name_of_[&target] = running.id;
    const bool is_there = std::ranges::any_of(target_.hwpts, [&](const PlannedHwpt& h) {
      return h.ioas == target.ioas && std::ranges::find(h.devices, running.allocator) != h.devices.end();
    });
    if (is_there) target.allocator = running.allocator;
  }

  void name_the_new() {
    std::set<std::string> taken;
    for (const PlannedHwpt& h : running_.hwpts) taken.insert(h.id);
    std::size_t next = 0;
    for (const PlannedHwpt& h : target_.hwpts) {
      if (name_of_.contains(&h)) continue;
      while (taken.contains(fmt::format("hwpt{}", next))) ++next;
      name_of_[&h] = fmt::format("hwpt{}", next++);
    }
  }

  void rename() {
    std::map<std::string, std::string> ioas_names, hwpt_names;
    std::set<std::string> taken;
    for (const PlannedIoas& i : running_.ioas) taken.insert(i.id);
    std::size_t next = 0;
    for (PlannedIoas& i : target_.ioas) {
      const PlannedIoas* old = space_of(running_, i.vm);
      while (old == nullptr && taken.contains(fmt::format("ioas{}", next))) ++next;
      ioas_names[i.id] = old != nullptr ? old->id : fmt::format("ioas{}", next++);
    }
    for (PlannedIoas& i : target_.ioas) i.id = ioas_names.at(i.id);
    for (PlannedHwpt& h : target_.hwpts) {
      hwpt_names[h.id] = name_of_.at(&h);
      h.ioas = ioas_names.at(h.ioas);
    }
    for (PlannedHwpt& h : target_.hwpts) h.id = hwpt_names.at(h.id);
    for (Promise& p : target_.promises) {
      if (!p.device.empty()) p.hwpt = hwpt_names.at(p.hwpt);
    }
  }

  const Plan& running_;
  Plan target_;
  const Host& host_;
  const Law& law_;
  std::map<const PlannedHwpt*, std::string> name_of_;
};

}  // namespace

Plan matched(const Plan& running, Plan target, const Host& host, const Law& law,
             const std::vector<std::string>& known) {
  return Matcher(running, std::move(target), host, law, known).match();
}

}  // namespace ioplan
