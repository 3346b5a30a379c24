#include "engine/check/choices.h"

#include <algorithm>
#include <numeric>
#include <set>

namespace ioplan::check {

Refusal unusable(const World& world, const Scene& scene, const Item& item) {
  for (std::size_t device : item.assigned) {
    const Values values{nullptr, &scene.quantities.at(device), &scene.asks};
    if (const Rule* rule = world.statutes.broken(Phase::usable, values)) return {rule, device};
  }
  for (std::size_t device : item.members) {
    const Values values{nullptr, &scene.quantities.at(device), &scene.asks};
    if (const Rule* rule = world.statutes.broken(Phase::group, values)) return {rule, device};
  }
  return {};
}

namespace {

Refusal refused(const World& world, const Scene& scene, Phase phase, const std::vector<std::size_t>& devices,
                const HwptQuantities& hwpt) {
  for (std::size_t device : devices) {
    const Values values{&hwpt, &scene.quantities.at(device), &scene.asks};
    if (const Rule* rule = world.statutes.broken(phase, values)) return {rule, device};
  }
  return {};
}

}  // namespace

Refusal refused_by_driver(const World& world, const Scene& scene, const Item& item, const HwptQuantities& hwpt) {
  return refused(world, scene, Phase::attach, item.members, hwpt);
}

Refusal refused_by_policy(const World& world, const Scene& scene, const Item& item, const HwptQuantities& hwpt) {
  return refused(world, scene, Phase::placement, item.assigned, hwpt);
}

namespace {

// Distinct choices in the order of their lowest allocator.
std::vector<Choice> usable_choices(const World& world, const Scene& scene) {
  std::vector<Choice> all;
  std::set<DeviceQuantities> allocators;
  std::set<HwptQuantities> made;
  for (const AssignedDevice* entry : scene.entries) {
    if (entry->expected) continue;  // who is not there allocates nothing
    const DeviceQuantities& q = scene.quantities.at(entry->host->index());
    if (!allocators.insert(q).second) continue;
    for (std::uint8_t flags = 0; flags < kHwptFlagSets; ++flags) {
      const HwptQuantities hwpt = world.law.allocate(q, flags);
      if (world.statutes.broken(Phase::allocation, {&hwpt, &q, &scene.asks}) != nullptr) continue;
      if (world.statutes.broken(Phase::fit, {&hwpt, nullptr, &scene.asks}) != nullptr) continue;
      if (made.insert(hwpt).second) all.push_back({entry->host->index(), hwpt, page_table_bytes(scene, hwpt)});
    }
  }
  return all;
}

// Which choices a device takes in this phase; equal devices are asked once.
class Asked {
 public:
  Asked(const World& world, const Scene& scene, const std::vector<Choice>& choices, Phase phase)
      : world_(world), scene_(scene), choices_(choices), phase_(phase) {}

  const ChoiceSet& of(std::size_t device) {
    const DeviceQuantities& q = scene_.quantities.at(device);
    const auto [it, fresh] = known_.try_emplace(q, choices_.size());
    if (!fresh) return it->second;
    for (std::size_t c = 0; c < choices_.size(); ++c) {
      it->second[c] = world_.statutes.broken(phase_, {&choices_[c].hwpt, &q, &scene_.asks}) == nullptr;
    }
    return it->second;
  }

 private:
  const World& world_;
  const Scene& scene_;
  const std::vector<Choice>& choices_;
  Phase phase_;
  std::map<DeviceQuantities, ChoiceSet> known_;
};

}  // namespace

Choices choices_of(const World& world, const Scene& scene) {
  Choices result;
  result.all = usable_choices(world, scene);
  Asked attach(world, scene, result.all, Phase::attach);
  Asked placement(world, scene, result.all, Phase::placement);
  for (const Item& item : scene.items) {
    ChoiceSet& set = result.by_item.emplace_back(result.all.size());
    if (unusable(world, scene, item)) continue;
    set.set();
    for (std::size_t device : item.members) set &= attach.of(device);
    for (std::size_t device : item.assigned) set &= placement.of(device);
  }
  return result;
}

namespace {

// Which items must share: union-find over the scene's items.
class Ties {
 public:
  explicit Ties(std::size_t items) : parent_(items) { std::iota(parent_.begin(), parent_.end(), std::size_t{0}); }
  std::size_t root(std::size_t i) const { return parent_[i] == i ? i : root(parent_[i]); }
  void tie(std::size_t a, std::size_t b) { parent_[std::max(root(a), root(b))] = std::min(root(a), root(b)); }

 private:
  std::vector<std::size_t> parent_;
};

std::map<std::size_t, std::size_t> items_by_device(const Scene& scene) {
  std::map<std::size_t, std::size_t> item_of;
  for (std::size_t i = 0; i < scene.items.size(); ++i) {
    for (std::size_t device : scene.items[i].assigned) item_of[device] = i;
  }
  return item_of;
}

void tie_together_rules(const World& world, const Scene& scene, Ties& ties) {
  const auto item_of = items_by_device(scene);
  for (const PolicyRule& rule : world.request.policy.rules) {
    const auto* together = std::get_if<TogetherRule>(&rule.what);
    if (together == nullptr) continue;
    const auto chosen = selected(world, scene, together->which);
    for (std::size_t device : chosen) ties.tie(item_of.at(chosen.front()), item_of.at(device));
  }
}

void tie_automatic_units(const World& world, const Scene& scene, Ties& ties) {
  std::map<std::size_t, std::size_t> first_behind;
  for (std::size_t i = 0; i < scene.items.size(); ++i) {
    for (std::size_t device : scene.items[i].assigned) {
      const UnitIndex unit = *world.host().devices[device].unit;
      if (!world.law.automatic_only(world.host().unit(unit).driver)) continue;
      ties.tie(first_behind.try_emplace(unit.index(), i).first->second, i);
    }
  }
}

void add_item(const World& world, const Scene& scene, const Choices& choices, std::size_t i, Clump& clump) {
  clump.items.push_back(i);
  clump.accepted &= choices.by_item[i];
  for (std::size_t device : scene.items[i].assigned) {
    if (!scene.expects(device)) clump.enforceable += scene.quantities.at(device)[DeviceQ::enforce_cache_coherency];
  }
  for (unsigned stage : {1U, 2U}) {
    for (std::uint64_t key : pools_of(world, scene.items[i], stage)) clump.pools[stage].push_back(key);
    std::sort(clump.pools[stage].begin(), clump.pools[stage].end());
    clump.pools[stage].erase(std::unique(clump.pools[stage].begin(), clump.pools[stage].end()),
                             clump.pools[stage].end());
  }
}

std::vector<std::size_t> devices_of(const Scene& scene, const Clump& clump) {
  std::vector<std::size_t> devices;
  for (std::size_t i : clump.items) {
    devices.insert(devices.end(), scene.items[i].assigned.begin(), scene.items[i].assigned.end());
  }
  std::sort(devices.begin(), devices.end());
  return devices;
}

std::vector<std::size_t> common(const std::vector<std::size_t>& x, const std::vector<std::size_t>& y) {
  std::vector<std::size_t> both;
  std::set_intersection(x.begin(), x.end(), y.begin(), y.end(), std::back_inserter(both));
  return both;
}

// Two distinct devices, one of each list; nothing when there are none.
std::optional<std::pair<std::size_t, std::size_t>> distinct_pair(const std::vector<std::size_t>& as,
                                                                 const std::vector<std::size_t>& bs) {
  if (as.empty() || bs.empty()) return std::nullopt;
  if (as.front() != bs.front()) return std::pair(as.front(), bs.front());
  if (bs.size() > 1) return std::pair(as.front(), bs.back());
  if (as.size() > 1) return std::pair(as.back(), bs.front());
  return std::nullopt;
}

// Marks which sides of a `separate` rule each clump holds; a clump at odds with itself has no HWPT.
void mark_sides(const World& world, const Scene& scene, std::vector<Clump>& clumps) {
  for (const PolicyRule& rule : world.request.policy.rules) {
    const auto* separate = std::get_if<SeparateRule>(&rule.what);
    if (separate == nullptr) continue;
    const auto as = selected(world, scene, separate->a);
    const auto bs = selected(world, scene, separate->b);
    for (Clump& clump : clumps) {
      const auto devices = devices_of(scene, clump);
      const auto in_a = common(as, devices);
      const auto in_b = common(bs, devices);
      clump.side_a.push_back(!in_a.empty());
      clump.side_b.push_back(!in_b.empty());
      if (distinct_pair(in_a, in_b)) clump.accepted.reset();
    }
  }
}

}  // namespace

bool Clump::like(const Clump& o) const {
  return accepted == o.accepted && side_a == o.side_a && side_b == o.side_b && pools == o.pools;
}

bool Clump::twin_of(const Clump& o) const { return like(o) && enforceable == o.enforceable; }

std::vector<Clump> clumps_of(const World& world, const Scene& scene, const Choices& choices) {
  Ties ties(scene.items.size());
  tie_together_rules(world, scene, ties);
  tie_automatic_units(world, scene, ties);
  std::vector<Clump> clumps;
  std::map<std::size_t, std::size_t> clump_of_root;
  for (std::size_t i = 0; i < scene.items.size(); ++i) {
    const auto [it, fresh] = clump_of_root.try_emplace(ties.root(i), clumps.size());
    if (fresh) clumps.emplace_back().accepted = ChoiceSet(choices.all.size()).set();
    add_item(world, scene, choices, i, clumps[it->second]);
  }
  mark_sides(world, scene, clumps);
  return clumps;
}

std::vector<std::uint64_t> pools_of(const World& world, const Item& item, unsigned stage) {
  std::set<std::uint64_t> keys;
  for (std::size_t device : item.members) {
    const auto pool = world.law.domain_pool(world.host(), *world.host().devices[device].unit, stage);
    if (pool) keys.insert(pool->key);
  }
  return {keys.begin(), keys.end()};
}

// Units that share a pool may differ in what they say is left of it: the least counts.
std::map<std::uint64_t, std::uint64_t> pool_capacities(const World& world) {
  std::map<std::uint64_t, std::uint64_t> left;
  std::set<std::size_t> units;
  for (const Scene& scene : world.scenes) {
    for (const auto& entry : scene.quantities) units.insert(world.host().devices[entry.first].unit->index());
  }
  for (std::size_t unit : units) {
    for (unsigned stage : {1U, 2U}) {
      const auto pool = world.law.domain_pool(world.host(), UnitIndex(unit), stage);
      if (!pool) continue;
      const auto [it, fresh] = left.try_emplace(pool->key, pool->capacity);
      if (!fresh) it->second = std::min(it->second, pool->capacity);
    }
  }
  return left;
}

std::uint8_t needed_flags(const Scene& scene) {
  bool dirty = scene.asks[VmQ::needs_dirty_tracking] != 0;
  bool nest = scene.asks[VmQ::needs_nest_parent] != 0;
  bool pasid = scene.asks[VmQ::needs_pasid] != 0;
  for (const AssignedDevice* entry : scene.entries) {
    const DeviceQuantities& q = scene.quantities.at(entry->host->index());
    dirty |= q[DeviceQ::required_dirty_tracking] != 0;
    nest |= q[DeviceQ::required_nest_parent] != 0;
    pasid |= q[DeviceQ::required_pasid] != 0;
  }
  return static_cast<std::uint8_t>((dirty ? kDirtyTracking : 0) | (nest ? kNestParent : 0) | (pasid ? kPasid : 0));
}

std::uint64_t hwpt_limit(const Policy& policy) {
  std::uint64_t limit = ~std::uint64_t{0};
  for (const PolicyRule& rule : policy.rules) {
    if (const auto* l = std::get_if<LimitRule>(&rule.what)) limit = std::min(limit, l->hwpts);
  }
  return limit;
}

Quarrel quarrel_among(const World& world, const Scene& scene, const std::vector<std::size_t>& devices) {
  for (const PolicyRule& rule : world.request.policy.rules) {
    const auto* separate = std::get_if<SeparateRule>(&rule.what);
    if (separate == nullptr) continue;
    const auto pair = distinct_pair(common(selected(world, scene, separate->a), devices),
                                    common(selected(world, scene, separate->b), devices));
    if (pair) return {&rule, pair->first, pair->second};
  }
  return {};
}

}  // namespace ioplan::check
