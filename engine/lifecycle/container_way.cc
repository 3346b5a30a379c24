#include "engine/lifecycle/container_way.h"

#include <algorithm>
#include <optional>
#include <set>

#include "engine/lifecycle/layout.h"

namespace ioplan {

namespace {

constexpr std::size_t kMostPairs = 12;  // of which every subset is tried; more are all kept, or none

// A running domain and the target's HWPT that it could be.
struct Pair {
  const ContainerDomain* running = nullptr;
  const ContainerDomain* target = nullptr;
  std::size_t staying = 0;  // devices that would not be stopped
};

class Way {
 public:
  Way(const Plan& running, const Plan& target, const std::string& vm, const GroupLaw& law)
      : law_(law), running_plan_(running), target_plan_(target), vm_(vm), before_(law), after_(law) {
    if (const PlannedIoas* ioas = space_of(running, vm)) {
      before_ = ContainerDomains(law, running, ioas->id);
      if (!ioas->ranges.empty()) before_.set_usable(ioas->ranges);
    }
    if (const PlannedIoas* ioas = space_of(target, vm)) after_ = ContainerDomains(law, target, ioas->id);
    for (const Plan* plan : {&running, &target}) {
      for (const std::string& d : bound_devices(*plan)) used_.insert(law.group_of(d));
    }
    note_staying(running, target);
    pair_equals();
  }

  ContainerWay find() {
    for (const unsigned kept : by_preference()) {
      if (auto way = keeping(kept)) return *way;
    }
    return as_from_nothing();
  }

 private:
  using Pairs = std::vector<const Pair*>;

  // A group stays as long as one of its devices does.
  void note_staying(const Plan& running, const Plan& target) {
    std::map<std::string, std::string> vm_of;
    const auto vm_in = [](const Plan& plan, const PlannedHwpt& h) { return find_ioas(plan, h.ioas)->vm; };
    for (const PlannedHwpt& h : running.hwpts) {
      for (const std::string& d : h.devices) vm_of[d] = vm_in(running, h);
    }
    for (const PlannedHwpt& h : target.hwpts) {
      for (const std::string& d : h.devices) {
        const auto was = vm_of.find(d);
        if (was != vm_of.end() && was->second == vm_in(target, h)) ++staying_[law_.group_of(d)];
      }
    }
  }

  void pair_equals() {
    for (const ContainerDomain& old : before_.in_order()) {
      for (const ContainerDomain& next : after_.in_order()) {
        if (old.what != next.what) continue;
        Pair pair{&old, &next, 0};
        for (const std::uint32_t g : old.groups) {
          if (next.holds(g) && staying_.contains(g)) pair.staying += staying_.at(g);
        }
        if (pair.staying > 0) pairs_.push_back(pair);
      }
    }
  }

  // Subsets of the pairs, as bits: those that stop the fewest devices first.
  std::vector<unsigned> by_preference() const {
    const std::size_t free = std::min(pairs_.size(), kMostPairs);
    std::vector<unsigned> subsets(std::size_t{1} << free);
    for (unsigned s = 0; s < subsets.size(); ++s) subsets[s] = s;
    const auto staying = [&](unsigned s) {
      std::size_t devices = 0;
      for (std::size_t p = 0; p < free; ++p) devices += (s >> p & 1) != 0 ? pairs_[p].staying : 0;
      return devices;
    };
    std::ranges::stable_sort(subsets, [&](unsigned a, unsigned b) { return staying(a) > staying(b); });
    return subsets;
  }

  std::optional<ContainerWay> keeping(unsigned subset) const {
    Pairs kept;
    for (std::size_t p = 0; p < pairs_.size(); ++p) {
      if (p >= kMostPairs || (subset >> p & 1) != 0) kept.push_back(&pairs_[p]);
    }
    if (!arrivals_land(kept)) return std::nullopt;
    ContainerWay way;
    for (const Pair* p : kept) {
      way.kept[p->target->hwpt] = p->running->hwpt;
      way.order.push_back(p->target->hwpt);
    }
    if (!make_the_others(kept, way)) return std::nullopt;
    way.usable = usable_after(kept, way);
    return holds_memory(way) ? std::optional(std::move(way)) : std::nullopt;
  }

  // What history leaves, less what the same order leaves when it makes the container from nothing.
  std::vector<Range> usable_after(const Pairs& kept, const ContainerWay& way) const {
    ContainerDomains then = before_, anew(law_);
    for (const ContainerDomain& d : before_.in_order()) {
      const auto pair = std::ranges::find(kept, &d, &Pair::running);
      for (const std::uint32_t g : d.groups) {
        if (pair == kept.end() || !(*pair)->target->holds(g) || !stays(**pair, g)) then.leave(g);
      }
    }
    for (const std::string& id : way.order) {
      const bool is_kept = way.kept.contains(id);
      let_join(then, id, is_kept ? "" : way.openers.at(id));
      let_join(anew, id, is_kept ? find_hwpt(running_plan_, way.kept.at(id))->allocator : way.openers.at(id));
    }
    RangeSet both = then.usable(), missing{{0, ~std::uint64_t{0}}};
    for (const Range& r : anew.usable().ranges()) missing.subtract(r);
    for (const Range& r : missing.ranges()) both.subtract(r);
    return {both.ranges().begin(), both.ranges().end()};
  }

  // All groups of the HWPT that are not there; the opener first, which leaves again when it is not one of them.
  void let_join(ContainerDomains& domains, const std::string& id, const std::string& opener) const {
    const ContainerDomain& wanted = *after_.find(id);
    const bool guest = !opener.empty() && !wanted.holds(law_.group_of(opener));
    if (!opener.empty()) domains.join(opener, id);
    for (const std::string& d : find_hwpt(target_plan_, id)->devices) {
      if (domains.home_of(law_.group_of(d)) == nullptr) domains.join(d, id);
    }
    if (guest) domains.leave(law_.group_of(opener));
  }

  bool holds_memory(const ContainerWay& way) const {
    return unusable_memory(space_of(target_plan_, vm_)->memory, way.usable) == nullptr;
  }

  // Those who join what is kept do so before anything new is there; nothing newer may take them.
  bool arrivals_land(const Pairs& kept) const {
    for (std::size_t p = 0; p < kept.size(); ++p) {
      for (const std::uint32_t g : kept[p]->target->groups) {
        if (stays(*kept[p], g)) continue;
        for (std::size_t newer = p + 1; newer < kept.size(); ++newer) {
          if (law_.takes(kept[newer]->target->what, g)) return false;
        }
      }
    }
    return true;
  }

  bool stays(const Pair& pair, std::uint32_t group) const {
    return pair.running->holds(group) && staying_.contains(group);
  }

  // From the newest to the oldest: whatever can be opened when all that remain are there is opened last. Taking it away
  // only makes it easier for the others.
  bool make_the_others(const Pairs& kept, ContainerWay& way) const {
    std::vector<const ContainerDomain*> remaining, there;
    for (const ContainerDomain& d : after_.in_order()) {
      const bool old = std::ranges::find(kept, &d, &Pair::target) != kept.end();
      (old ? there : remaining).push_back(&d);
    }
    std::vector<std::string> newest_first;
    while (!remaining.empty()) {
      bool found = false;
      for (std::size_t at = remaining.size(); at-- > 0 && !found;) {
        const auto opener = opener_of(*remaining[at], remaining, there);
        if (!opener) continue;
        way.openers[remaining[at]->hwpt] = *opener;
        newest_first.push_back(remaining[at]->hwpt);
        remaining.erase(remaining.begin() + static_cast<std::ptrdiff_t>(at));
        found = true;
      }
      if (!found) return false;
    }
    way.order.insert(way.order.end(), newest_first.rbegin(), newest_first.rend());
    return true;
  }

  // A device whose group opens the domain while the others are there: the plan's, or another of the domain's.
  std::optional<std::string> opener_of(const ContainerDomain& domain, const std::vector<const ContainerDomain*>& remaining,
                                       const std::vector<const ContainerDomain*>& there) const {
    const auto opens = [&](std::uint32_t g) {
      const auto refuses = [&](const ContainerDomain* d) { return d == &domain || !law_.takes(d->what, g); };
      return law_.own_domain(g) == domain.what && std::ranges::all_of(remaining, refuses) &&
             std::ranges::all_of(there, refuses);
    };
    const std::uint32_t planned = law_.group_of(domain.opener);
    if ((domain.holds(planned) || !used_.contains(planned)) && opens(planned)) return domain.opener;
    for (const std::string& d : find_hwpt(target_plan_, domain.hwpt)->devices) {
      if (opens(law_.group_of(d))) return d;
    }
    return std::nullopt;
  }

  // As the target's own steps make it.
  ContainerWay as_from_nothing() const {
    ContainerWay way;
    for (const ContainerDomain& d : after_.in_order()) {
      way.order.push_back(d.hwpt);
      way.openers[d.hwpt] = d.opener;
    }
    way.usable = usable_after({}, way);
    return way;
  }

  const GroupLaw& law_;
  const Plan& running_plan_;
  const Plan& target_plan_;
  const std::string& vm_;
  ContainerDomains before_, after_;
  std::set<std::uint32_t> used_;                    // groups that some VM has, before or after
  std::map<std::uint32_t, std::size_t> staying_;  // by group: devices that the VM has before and after
  std::vector<Pair> pairs_;                         // oldest first
};

}  // namespace

ContainerWay container_way(const Plan& running, const Plan& target, const std::string& vm, const GroupLaw& law) {
  return Way(running, target, vm, law).find();
}

}  // namespace ioplan
