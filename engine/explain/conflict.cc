// A VM's rules become instances: a rule with its subject. Every template is refused by a set of instances; dropping
// instances lets templates back in. The conflict is found by deletion: try to do without each instance in turn, and keep
// those without which a plan appears. What is tried last tends to stay, so the order below goes from the least to the
// most telling: refusals of drivers first, what the user asked for last.

#include "engine/explain/conflict.h"

#include <algorithm>
#include <deque>
#include <map>
#include <set>

#include <fmt/format.h>

#include "engine/explain/sentence.h"

namespace ioplan {

namespace {

enum class Kind : std::uint8_t { allocation, attach, placement, fit, automatic, separate, together, limit };

struct Instance {
  Kind kind;
  const Rule* rule = nullptr;  // null for bindings, separate rules and limits
  std::uint32_t subject = 0;   // allocation: class; attach, placement: group; bindings, separate: index
  friend auto operator<=>(const Instance&, const Instance&) = default;
};

// Refusals hold an example, so that a sentence can name values.
struct Example {
  HwptQuantities hwpt;
  std::uint32_t cls = 0;
};

struct Template {
  HwptQuantities hwpt;
  std::uint32_t allocator = 0;
  std::vector<std::uint32_t> refused_by;                            // instances: allocation, fit
  std::map<std::uint32_t, std::vector<std::uint32_t>> refused_for;  // by group: attach, placement
};

class ConflictFinder {
 public:
  ConflictFinder(const Request& request, const VmModel& model, const Law& law, const CoverBudget& budget)
      : request_(request), problem_(model.problem), rules_(law), law_(law), budget_(budget) {}

  // Empty when the VM alone is feasible.
  std::vector<Conflict> find(const VmModel& model) {
    if (!model.unusable.empty()) return {unusable(model.unusable.front())};
    if (!restrict_to_culprits(model)) return {};
    collect_instances();
    std::vector<bool> enforced(instances_.size(), true);
    if (feasible(enforced)) return {};
    for (std::uint32_t i : deletion_order()) {
      enforced[i] = false;
      if (feasible(enforced)) enforced[i] = true;
    }
    return describe_all(enforced);
  }

 private:
  friend class DomainIdConflict;

  // What the user asked for first, refusals of drivers last.
  std::vector<Conflict> describe_all(const std::vector<bool>& enforced) const {
    std::vector<std::uint32_t> order = deletion_order();
    std::erase_if(order, [&](auto i) { return !enforced[i]; });
    std::ranges::reverse(order);
    std::vector<Conflict> conflict;
    for (std::uint32_t i : order) conflict.push_back(describe(instances_[i]));
    return conflict;
  }

  void take_all_groups() {
    for (std::uint32_t g = 0; g < problem_.groups.size(); ++g) groups_.push_back(g);
    around_ = groups_;
    collect_instances();
  }

  const std::string& vm_name() const { return request_.vms[problem_.vm.index()].name; }

  Names names_for(DeviceIndex d) const {
    const Device& device = request_.host.device(d);
    Names names;
    names.device = device.id;
    names.unit = request_.host.unit(device.unit.value()).id;
    names.vm = vm_name();
    return names;
  }

  // The lowest member of the group that is of this class.
  DeviceIndex member_of_class(std::uint32_t group, std::uint32_t cls) const {
    for (DeviceIndex d : problem_.groups[group].assigned) {
      if (std::ranges::binary_search(problem_.classes[cls].assigned, d)) return d;
    }
    const auto number = request_.host.device(problem_.groups[group].assigned.front()).group;
    for (std::size_t i = 0; i < request_.host.devices.size(); ++i) {
      if (request_.host.devices[i].group != number) continue;
      const DeviceIndex d(i);
      if (std::ranges::binary_search(problem_.groups[group].assigned, d)) continue;
      if (same_class(d, cls)) return d;
    }
    return problem_.groups[group].assigned.front();
  }

  bool same_class(DeviceIndex d, std::uint32_t cls) const {
    const DeviceQuantities q = law_.describe(request_.host, d);
    const DeviceQuantities& wanted = problem_.classes[cls].quantities;
    const auto direct = [&] {
      const auto regions = reserved_by(request_.host, d, law_);
      return std::ranges::any_of(regions, [](const auto& r) { return r.type == ReservedType::direct; });
    };
    return q[DeviceQ::owner] == wanted[DeviceQ::owner] && q[DeviceQ::mgaw] == wanted[DeviceQ::mgaw] &&
           q[DeviceQ::snoop_control] == wanted[DeviceQ::snoop_control] && q[DeviceQ::unit] == wanted[DeviceQ::unit] &&
           q[DeviceQ::unsafe_interrupts] == wanted[DeviceQ::unsafe_interrupts] &&
           direct() == (wanted[DeviceQ::direct_region] != 0);
  }

  Conflict unusable(const Unusable& u) const {
    const DeviceIndex d = member_of_class(u.group, u.cls);
    const Values values{nullptr, &problem_.classes[u.cls].quantities, &problem_.quantities};
    return {std::string(u.rule->name), {request_.host.device(d).id}, refusal(*u.rule, values, names_for(d))};
  }

  // Only groups that matter: one item without a template, or the items that a limit cannot hold.
  bool restrict_to_culprits(const VmModel& model) {
    std::vector<std::uint32_t> items;
    for (const auto& members : model.element_items) {
      const auto& groups = problem_.items[members.front()].groups;
      around_.insert(around_.end(), groups.begin(), groups.end());
    }
    std::ranges::sort(around_);
    for (std::uint32_t e = 0; e < model.cover.elements && items.empty(); ++e) {
      const bool accepted = std::ranges::any_of(model.cover.candidates, [&](const auto& c) { return c.accepts.test(e); });
      if (!accepted) items.push_back(model.element_items[e].front());
    }
    if (items.empty()) {
      if (!model.cover.max_blocks) return false;
      for (const auto& members : model.element_items) items.push_back(members.front());
      limit_matters_ = true;
    }
    for (std::uint32_t i : items) {
      const auto& groups = problem_.items[i].groups;
      groups_.insert(groups_.end(), groups.begin(), groups.end());
    }
    std::ranges::sort(groups_);
    if (limit_matters_) drop_needless_groups();
    return true;
  }

  // Groups without which the limit is still broken.
  void drop_needless_groups() {
    collect_instances();
    const std::vector<bool> all(instances_.size(), true);
    for (std::size_t i = groups_.size(); i-- > 0;) {
      const std::uint32_t group = groups_[i];
      groups_.erase(groups_.begin() + static_cast<std::ptrdiff_t>(i));
      if (groups_.empty() || feasible(all)) groups_.insert(groups_.begin() + static_cast<std::ptrdiff_t>(i), group);
    }
    instances_.clear();
    index_.clear();
    templates_.clear();
    examples_.clear();
  }

  std::uint32_t instance(Kind kind, const Rule* rule, std::uint32_t subject, const Example& example = {}) {
    const Instance key{kind, rule, subject};
    const auto [it, fresh] = index_.try_emplace(key, static_cast<std::uint32_t>(instances_.size()));
    if (fresh) {
      instances_.push_back(key);
      examples_.push_back(example);
    }
    return it->second;
  }

  void collect_instances() {
    for (std::uint32_t cls = 0; cls < problem_.classes.size(); ++cls) {
      if (problem_.classes[cls].assigned.empty()) continue;
      for (std::uint8_t flags = 0; flags < kHwptFlagSets; ++flags) collect_template(cls, flags);
    }
    for (std::uint32_t b = 0; b < problem_.bindings.size(); ++b) {
      instance(problem_.bindings[b].rule == "core.automatic" ? Kind::automatic : Kind::together, nullptr, b);
    }
    for (std::uint32_t r = 0; r < problem_.separate_rules.size(); ++r) instance(Kind::separate, nullptr, r);
    if (problem_.max_hwpts != ~std::uint64_t{0}) instance(Kind::limit, nullptr, 0);
  }

  void collect_template(std::uint32_t cls, std::uint8_t flags) {
    const DeviceQuantities& allocator = problem_.classes[cls].quantities;
    Template t;
    t.hwpt = law_.allocate(allocator, flags);
    t.allocator = cls;
    const auto refusals = [&](Phase phase, const DeviceQuantities& device, auto&& take) {
      const Values values{&t.hwpt, &device, &problem_.quantities};
      for (const Rule* rule : rules_.of(phase)) {
        if (!holds(*rule, values)) take(rule);
      }
    };
    refusals(Phase::allocation, allocator, [&](const Rule* rule) {
      t.refused_by.push_back(instance(Kind::allocation, rule, cls, {t.hwpt, cls}));
    });
    refusals(Phase::fit, allocator, [&](const Rule* rule) {
      t.refused_by.push_back(instance(Kind::fit, rule, 0, {t.hwpt, cls}));
    });
    for (std::uint32_t g : groups_) {
      for (std::uint32_t member : problem_.groups[g].member_classes) {
        refusals(Phase::attach, problem_.classes[member].quantities, [&](const Rule* rule) {
          t.refused_for[g].push_back(instance(Kind::attach, rule, g, {t.hwpt, member}));
        });
      }
      for (std::uint32_t member : problem_.groups[g].assigned_classes) {
        refusals(Phase::placement, problem_.classes[member].quantities, [&](const Rule* rule) {
          t.refused_for[g].push_back(instance(Kind::placement, rule, g, {t.hwpt, member}));
        });
      }
    }
    templates_.push_back(std::move(t));
  }

  std::vector<std::uint32_t> deletion_order() const {
    std::vector<std::uint32_t> order(instances_.size());
    for (std::uint32_t i = 0; i < order.size(); ++i) order[i] = i;
    // Own classes' allocation refusals say more than those of other devices.
    const auto foreign = [&](std::uint32_t i) {
      if (instances_[i].kind != Kind::allocation) return false;
      return std::ranges::none_of(groups_, [&](auto g) {
        return std::ranges::binary_search(problem_.groups[g].assigned_classes, instances_[i].subject);
      });
    };
    std::ranges::stable_sort(order, [&](auto a, auto b) {
      return std::pair(!foreign(a), deletion_rank(instances_[a].kind)) < std::pair(!foreign(b), deletion_rank(instances_[b].kind));
    });
    return order;
  }

  static int deletion_rank(Kind kind) {
    constexpr std::array<int, 8> kRank = {1, 0, 2, 3, 4, 5, 6, 7};  // attach before allocation, then as declared
    return kRank[static_cast<std::size_t>(kind)];
  }

  // Of a group that is not under suspicion, only policy rules that it shares with others count.
  bool accepted(const Template& t, std::uint32_t group, const std::vector<bool>& enforced) const {
    const auto refuses = [&](std::uint32_t i) { return enforced[i]; };
    if (std::ranges::any_of(t.refused_by, refuses)) return false;
    if (!std::ranges::binary_search(groups_, group)) return true;
    const auto it = t.refused_for.find(group);
    return it == t.refused_for.end() || std::ranges::none_of(it->second, refuses);
  }

  bool is_enforced(Kind kind, std::uint32_t subject, const std::vector<bool>& enforced) const {
    const auto it = index_.find({kind, nullptr, subject});
    return it != index_.end() && enforced[it->second];
  }

  // Is there a plan when only these instances are enforced?
  bool feasible(const std::vector<bool>& enforced) const {
    const std::vector<Item> items = bound_items(enforced);
    CoverInstance cover = cover_of(items, enforced);
    if (!every_element_accepted(cover)) return false;
    if (!cover.max_blocks) return true;
    keep_apart(cover, items, enforced);
    return solve_cover(cover, budget_).status == CoverStatus::solved;
  }

  static bool every_element_accepted(const CoverInstance& cover) {
    ElementSet accepted(cover.elements);
    for (const CoverCandidate& c : cover.candidates) accepted |= c.accepts;
    return accepted.all();
  }

  CoverInstance cover_of(const std::vector<Item>& items, const std::vector<bool>& enforced) const {
    CoverInstance cover;
    cover.elements = items.size();
    cover.enforceable.assign(items.size(), 0);
    for (const Template& t : templates_) {
      CoverCandidate candidate{ElementSet(items.size()), 0, 0, true, static_cast<unsigned>(t.hwpt[HwptQ::stage])};
      for (std::size_t e = 0; e < items.size(); ++e) {
        candidate.accepts[e] = !torn(items[e], enforced) && std::ranges::all_of(items[e].groups, [&](auto g) {
          return accepted(t, g, enforced);
        });
      }
      cover.candidates.push_back(std::move(candidate));
    }
    if (is_enforced(Kind::limit, 0, enforced)) cover.max_blocks = problem_.max_hwpts;
    return cover;
  }

  void keep_apart(CoverInstance& cover, const std::vector<Item>& items, const std::vector<bool>& enforced) const {
    for (std::uint32_t a = 0; a < items.size(); ++a) {
      for (std::uint32_t b = a + 1; b < items.size(); ++b) {
        if (apart(items[a], items[b], enforced)) cover.apart.emplace_back(a, b);
      }
    }
  }

  std::vector<Item> bound_items(const std::vector<bool>& enforced) const {
    std::vector<Binding> bindings;
    for (std::uint32_t b = 0; b < problem_.bindings.size(); ++b) {
      const Kind kind = problem_.bindings[b].rule == "core.automatic" ? Kind::automatic : Kind::together;
      if (is_enforced(kind, b, enforced)) bindings.push_back(problem_.bindings[b]);
    }
    std::vector<Item> items = bind_items(problem_, bindings);
    std::erase_if(items, [&](Item& item) {
      std::erase_if(item.groups, [&](auto g) { return !std::ranges::binary_search(around_, g); });
      return item.groups.empty();
    });
    return items;
  }

  bool torn(const Item& item, const std::vector<bool>& enforced) const {
    for (std::uint32_t r = 0; r < item.sides.size(); ++r) {
      if (torn_apart(item.sides[r]) && is_enforced(Kind::separate, r, enforced)) return true;
    }
    return false;
  }

  bool apart(const Item& a, const Item& b, const std::vector<bool>& enforced) const {
    for (std::uint32_t r = 0; r < a.sides.size(); ++r) {
      if (kept_apart(a.sides[r], b.sides[r]) && is_enforced(Kind::separate, r, enforced)) return true;
    }
    return false;
  }

  std::string id_of(DeviceIndex d) const { return request_.host.device(d).id; }

  std::vector<std::string> devices_of(std::span<const std::uint32_t> groups) const {
    std::vector<std::string> ids;
    for (std::uint32_t g : groups) {
      for (DeviceIndex d : problem_.groups[g].assigned) ids.push_back(id_of(d));
    }
    return ids;
  }

  Conflict describe(const Instance& i) const {
    switch (i.kind) {
      case Kind::allocation:
      case Kind::attach:
      case Kind::placement:
      case Kind::fit: return describe_refusal(i);
      case Kind::automatic:
      case Kind::together: {
        const Binding& binding = problem_.bindings[i.subject];
        const auto devices = devices_of(binding.groups);
        const std::string because =
            i.kind == Kind::together
                ? fmt::format("policy rule `{}` wants {} in one HWPT", binding.name, fmt::join(devices, ", "))
                : fmt::format("all devices of {} behind {} share the HWPT that the kernel makes", vm_name(), binding.name);
        return {binding.rule, i.kind == Kind::together ? std::vector<std::string>{binding.name} : devices, because};
      }
      case Kind::separate:
        return {"policy.separate",
                {problem_.separate_rules[i.subject]},
                fmt::format("policy rule `{}` keeps devices apart that would have to share", problem_.separate_rules[i.subject])};
      case Kind::limit:
        return {"policy.limit", {vm_name()}, fmt::format("a policy rule allows {} at most {} HWPTs", vm_name(), problem_.max_hwpts)};
    }
    return {};
  }

  Conflict describe_refusal(const Instance& i) const {
    const Example& example = examples_[index_.at(i)];
    const Values values{&example.hwpt, &problem_.classes[example.cls].quantities, &problem_.quantities};
    if (i.kind == Kind::fit) {
      Names names;
      names.vm = vm_name();
      return {std::string(i.rule->name), {vm_name()}, refusal(*i.rule, values, names)};
    }
    const DeviceIndex d = i.kind == Kind::allocation ? problem_.classes[i.subject].assigned.front()
                                                     : member_of_class(i.subject, example.cls);
    return {std::string(i.rule->name), {id_of(d)}, refusal(*i.rule, values, names_for(d))};
  }

  const Request& request_;
  const Problem& problem_;
  RuleBook rules_;
  const Law& law_;
  const CoverBudget& budget_;
  bool limit_matters_ = false;
  std::vector<std::uint32_t> groups_;  // under suspicion
  std::vector<std::uint32_t> around_;  // one of every kind: policy rules name many devices at once
  std::vector<Instance> instances_;
  std::vector<Example> examples_;
  std::map<Instance, std::uint32_t> index_;
  std::vector<Template> templates_;
};

// Domain ids tie the VMs together: the instances of all of them, and one for every pool of ids.
class DomainIdConflict {
 public:
  DomainIdConflict(const Request& request, const Solved& solved, const Law& law, const CoverBudget& budget)
      : request_(request), budget_(budget) {
    for (const VmModel& model : solved.vms) {
      finders_.emplace_back(request, model, law, budget);
      finders_.back().take_all_groups();
      enforced_.emplace_back(finders_.back().instances_.size(), true);
      for (const ProblemGroup& group : model.problem.groups) collect_pools(group, law);
    }
  }

  std::vector<Conflict> find() {
    if (feasible()) return {};
    std::vector<Member> order;
    for (std::size_t v = 0; v < finders_.size(); ++v) {
      for (std::uint32_t i : finders_[v].deletion_order()) order.push_back({v, i});
    }
    for (std::uint32_t p = 0; p < pools_.size(); ++p) order.push_back({finders_.size(), p});
    // Many at a time first: most instances are needless.
    for (std::size_t chunk : {64U, 8U, 1U}) {
      for (std::size_t at = 0; at < order.size(); at += chunk) {
        drop({order.begin() + static_cast<std::ptrdiff_t>(at),
              order.begin() + static_cast<std::ptrdiff_t>(std::min(at + chunk, order.size()))});
      }
    }
    return describe();
  }

 private:
  struct Member {
    std::size_t vm;  // one past the last VM: a pool
    std::uint32_t index;
  };

  // Ids that the units share, for HWPTs of a stage; 0 any.
  struct Pool {
    std::set<UnitIndex> units;
    unsigned stage = 0;
    std::uint64_t capacity = 0;
    bool enforced = true;
  };

  void collect_pools(const ProblemGroup& group, const Law& law) {
    for (UnitIndex unit : group.units) {
      const auto first = law.domain_pool(request_.host, unit, 1);
      const auto second = law.domain_pool(request_.host, unit, 2);
      const bool one = first && second && first->key == second->key;
      if (first) add_unit(*first, one ? 0 : 1, unit);
      if (second && !one) add_unit(*second, 2, unit);
    }
  }

  void add_unit(const DomainPool& pool, unsigned stage, UnitIndex unit) {
    const auto [it, fresh] = index_.try_emplace({pool.key, stage}, pools_.size());
    if (fresh) pools_.push_back({{}, stage, pool.capacity});
    pools_[it->second].units.insert(unit);
    pools_[it->second].capacity = std::min(pools_[it->second].capacity, pool.capacity);
  }

  std::vector<bool>::reference flag(const Member& m) {
    return enforced_[m.vm][m.index];
  }

  bool is_enforced(const Member& m) { return m.vm == finders_.size() ? pools_[m.index].enforced : bool(flag(m)); }

  void enforce(const Member& m, bool on) {
    if (m.vm == finders_.size()) {
      pools_[m.index].enforced = on;
    } else {
      flag(m) = on;
    }
  }

  void drop(std::vector<Member> members) {
    std::erase_if(members, [&](const Member& m) { return !is_enforced(m); });
    if (members.empty()) return;
    for (const Member& m : members) enforce(m, false);
    if (!feasible()) return;
    for (const Member& m : members) enforce(m, true);
  }

  // All VMs as one cover.
  bool feasible() const {
    std::vector<std::vector<Item>> items;
    CoverInstance joint;
    for (std::size_t v = 0; v < finders_.size(); ++v) {
      items.push_back(finders_[v].bound_items(enforced_[v]));
      joint.elements += items[v].size();
    }
    joint.enforceable.assign(joint.elements, 0);
    for (const Pool& pool : pools_) {
      if (pool.enforced) joint.pools.push_back({ElementSet(joint.elements), pool.stage, pool.capacity});
    }
    std::uint32_t offset = 0;
    for (std::size_t v = 0; v < finders_.size(); ++v) {
      CoverInstance own = finders_[v].cover_of(items[v], enforced_[v]);
      if (!ConflictFinder::every_element_accepted(own)) return false;
      finders_[v].keep_apart(own, items[v], enforced_[v]);
      append(joint, own, items[v], offset);
      offset += static_cast<std::uint32_t>(items[v].size());
    }
    return solve_cover(joint, budget_).status == CoverStatus::solved;
  }

  void append(CoverInstance& joint, const CoverInstance& own, const std::vector<Item>& items, std::uint32_t offset) const {
    for (CoverCandidate candidate : own.candidates) {
      candidate.accepts.resize(joint.elements);
      candidate.accepts <<= offset;
      joint.candidates.push_back(std::move(candidate));
    }
    for (const auto& [a, b] : own.apart) joint.apart.emplace_back(offset + a, offset + b);
    std::size_t at = 0;
    for (const Pool& pool : pools_) {
      if (!pool.enforced) continue;
      ElementSet& elements = joint.pools[at++].elements;
      for (std::size_t e = 0; e < items.size(); ++e) {
        if (std::ranges::any_of(items[e].units, [&](UnitIndex u) { return pool.units.contains(u); })) elements.set(offset + e);
      }
    }
    if (!own.max_blocks) return;
    CoverPool limit{ElementSet(joint.elements), 0, *own.max_blocks};
    limit.elements.set(offset, own.elements, true);
    joint.pools.push_back(std::move(limit));
  }

  std::vector<Conflict> describe() const {
    std::vector<Conflict> conflict;
    for (std::size_t v = 0; v < finders_.size(); ++v) {
      for (Conflict& c : finders_[v].describe_all(enforced_[v])) {
        const auto same = [&](const Conflict& x) { return x.rule == c.rule && x.subjects == c.subjects; };
        if (std::ranges::none_of(conflict, same)) conflict.push_back(std::move(c));
      }
    }
    for (const Pool& pool : pools_) {
      if (pool.enforced) conflict.push_back(describe(pool));
    }
    return conflict;
  }

  Conflict describe(const Pool& pool) const {
    std::vector<std::string> units, vms;
    for (UnitIndex u : pool.units) units.push_back(request_.host.unit(u).id);
    for (const ConflictFinder& f : finders_) {
      const bool there = std::ranges::any_of(f.problem_.groups, [&](const ProblemGroup& g) {
        return std::ranges::any_of(g.units, [&](UnitIndex u) { return pool.units.contains(u); });
      });
      if (there) vms.push_back(f.vm_name());
    }
    return {"core.domain-ids", units,
            fmt::format("{} {} {} domain id{} left, and the HWPTs of {} need more", fmt::join(units, ", "),
                        units.size() == 1 ? "has" : "have", pool.capacity, pool.capacity == 1 ? "" : "s", fmt::join(vms, ", "))};
  }

  const Request& request_;
  const CoverBudget& budget_;
  std::deque<ConflictFinder> finders_;  // they do not move
  std::vector<std::vector<bool>> enforced_;
  std::map<std::pair<std::uint64_t, unsigned>, std::size_t> index_;
  std::vector<Pool> pools_;
};

}  // namespace

std::vector<Conflict> domain_id_conflict(const Request& request, const Solved& solved, const Law& law,
                                         const CoverBudget& budget) {
  return DomainIdConflict(request, solved, law, budget).find();
}

std::vector<Conflict> minimal_conflict(const Request& request, const Solved& solved, const Law& law,
                                       const CoverBudget& budget, std::size_t& vm) {
  constexpr std::size_t kMostVms = 8;  // that are looked at
  std::vector<Conflict> smallest;
  vm = 0;
  std::size_t found = 0;
  for (std::size_t v = 0; v < solved.vms.size() && found < kMostVms; ++v) {
    auto conflict = ConflictFinder(request, solved.vms[v], law, budget).find(solved.vms[v]);
    if (conflict.empty()) continue;
    ++found;
    if (!smallest.empty() && conflict.size() >= smallest.size()) continue;
    smallest = std::move(conflict);
    vm = v;
  }
  return smallest;
}

}  // namespace ioplan
