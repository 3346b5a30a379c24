#include "engine/lifecycle/arrangement.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "engine/base/text.h"
#include "engine/explain/sentence.h"
#include "engine/lifecycle/container_domains.h"
#include "engine/lifecycle/domain_ids.h"
#include "engine/lifecycle/layout.h"
#include "engine/solve/container.h"

namespace ioplan {

namespace {

constexpr std::size_t kMostLeaves = 20'000;  // placements of arrivals that are looked at; of a container also incomplete ones

// A HWPT that is there, as an offer that takes no allocation.
struct Standing {
  const PlannedHwpt* hwpt = nullptr;
  Offer offer;
  std::vector<std::uint32_t> items;  // that are there and stay
};

class Arranger {
 public:
  Arranger(const Plan& running, const Request& request, VmIndex vm, const Needs& needs, NewHwpts made, const Law& law,
           const CoverBudget& budget)
      : running_(running),
        request_(request),
        made_(made),
        law_(law),
        budget_(budget),
        rules_(law),
        model_(model_vm(request, vm, needs, rules_, law)),
        vm_(request.vms[vm.index()]),
        ids_(request.host, law) {}

  Arrangement arrange() {
    refuse_vm_as_a_whole();
    find_standing();
    place_those_who_stay();
    if (conflict_.empty()) doubt_standing();
    if (conflict_.empty()) search();
    if (conflict_.empty() && !best_) explain_arrivals();
    if (!conflict_.empty()) return {{}, std::move(conflict_), false};
    return {std::move(*best_), {}, leaves_ > kMostLeaves};
  }

 private:
  const Problem& problem() const { return model_.problem; }
  const Item& item(std::uint32_t i) const { return problem().items[i]; }
  const std::string& id_of(DeviceIndex d) const { return request_.host.device(d).id; }

  // ------------------------------------------------------------------------------------------ what is there

  void refuse_vm_as_a_whole() {
    if (const auto refusal = refuse_vm(request_, problem().vm)) {
      conflict_.push_back({refusal->rule, refusal->subjects, refusal->because});
    }
    for (const Unusable& u : model_.unusable) {
      const Values values{nullptr, &problem().classes[u.cls].quantities, &problem().quantities};
      const DeviceIndex d = of_class(problem().groups[u.group], u.cls);
      conflict_.push_back({std::string(u.rule->name), {id_of(d)}, refusal(*u.rule, values, names_of(d))});
    }
  }

  // A device of the group that stands for the class: an assigned one where there is one.
  DeviceIndex of_class(const ProblemGroup& group, std::uint32_t cls) const {
    const auto& assigned = problem().classes[cls].assigned;
    const auto it = std::ranges::find_first_of(group.assigned, assigned);
    return it != group.assigned.end() ? *it : group.assigned.front();
  }

  Names names_of(DeviceIndex d) const {
    const Device& device = request_.host.device(d);
    return {device.id, request_.host.unit(*device.unit).id, vm_.name, "", "", ""};
  }

  // Those that keep a device, and in frozen mode all.
  void find_standing() {
    const PlannedIoas* ioas = space_of(running_, vm_.name);
    for (const PlannedHwpt& h : running_.hwpts) {
      if (ioas == nullptr || h.ioas != ioas->id) take_ids_of_another_vm(h);
    }
    ids_of_others_.emplace(ids_);
    if (ioas == nullptr) return;
    std::set<std::string_view> wanted;
    for (const AssignedDevice& d : vm_.devices) {
      if (d.host) wanted.insert(id_of(*d.host));
    }
    for (const PlannedHwpt& h : running_.hwpts) {
      if (h.ioas != ioas->id) continue;
      const bool kept = std::ranges::any_of(h.devices, [&](const auto& d) { return wanted.contains(d); });
      const bool stays_empty = made_ == NewHwpts::never && !h.automatic;  // the kernel destroys automatic ones
      if (kept || stays_empty) standing_.push_back({&h, offer_of(quantities_of(h, request_.host, law_)), {}});
    }
    std::ranges::sort(standing_, {}, [](const Standing& s) { return number_of(s.hwpt->id); });
  }

  void take_ids_of_another_vm(const PlannedHwpt& h) {
    for (const std::string& d : h.devices) ids_.take(h.id, h.stage, *request_.host.find_device(d));
  }

  Offer offer_of(const HwptQuantities& q) const {
    Offer offer{q, {}, {}, {}, page_table_bytes_of(q, problem()), unneeded_flags_of(q, problem())};
    for (const DeviceClass& cls : problem().classes) {
      const Values values{&q, &cls.quantities, &problem().quantities};
      const bool attaches = rules_.hold(Phase::attach, values);
      offer.accepts_member.push_back(attaches);
      offer.accepts_assigned.push_back(attaches && rules_.hold(Phase::placement, values));
    }
    return offer;
  }

  // Every item with a device that stays (or a promise) has its place; the others arrive.
  void place_those_who_stay() {
    note_places();
    for (std::uint32_t i = 0; i < problem().items.size(); ++i) {
      std::set<std::size_t> homes;
      for (const DeviceIndex d : item(i).assigned) {
        if (const auto home = standing_of(id_of(d))) homes.insert(*home);
      }
      if (homes.empty()) arriving_.push_back(i);
      if (homes.size() == 1) standing_[*homes.begin()].items.push_back(i);
      if (homes.size() > 1) tear(i, homes);
    }
  }

  // Of a device that is attached, or has a promise in frozen mode.
  std::optional<std::size_t> standing_of(const std::string& device) const {
    const auto it = place_of_.find(device);
    return it == place_of_.end() ? std::nullopt : std::optional(it->second);
  }

  void note_places() {
    for (std::size_t s = 0; s < standing_.size(); ++s) {
      for (const std::string& d : standing_[s].hwpt->devices) place_of_[d] = s;
      for (const Promise& p : running_.promises) {
        if (made_ == NewHwpts::never && !p.device.empty() && p.hwpt == standing_[s].hwpt->id) place_of_[p.device] = s;
      }
    }
  }

  void tear(std::uint32_t i, const std::set<std::size_t>& homes) {
    std::vector<std::string> subjects;
    for (const std::size_t s : homes) subjects.push_back(standing_[s].hwpt->id);
    std::string rule = "core.group";
    for (const Binding& b : problem().bindings) {
      if (std::ranges::find(b.groups, item(i).groups.front()) != b.groups.end()) rule = b.rule;
    }
    conflict_.push_back({rule, subjects,
                         fmt::format("devices that must share a HWPT are in {}, and nothing that stays may move",
                                     fmt::join(subjects, " and "))});
  }

  // ------------------------------------------------------------------------------------------ may it stay so

  void doubt_standing() {
    if (standing_.size() > problem().max_hwpts) {
      refuse("policy.limit", {vm_.name},
             fmt::format("{} has {} HWPTs, and the policy allows {}", vm_.name, standing_.size(), problem().max_hwpts));
    }
    for (const Standing& s : standing_) {
      for (const Rule* rule : rules_.of(Phase::fit)) {
        const Values values{&s.offer.hwpt, nullptr, &problem().quantities};
        if (!holds(*rule, values)) refuse(std::string(rule->name), {s.hwpt->id}, told(*rule, values, {}, s));
      }
      for (std::size_t a = 0; a < s.items.size(); ++a) {
        doubt_item(s, s.items[a]);
        for (std::size_t b = 0; b < a; ++b) {
          if (apart(item(s.items[a]), item(s.items[b]))) refuse_together(s, s.items[b], s.items[a]);
        }
      }
      for (const std::uint32_t i : s.items) take_ids(s, i);
    }
    if (ids_.overdrawn()) refuse("core.domain-ids", {vm_.name}, "the units have too few domain ids left");
  }

  void refuse(std::string rule, std::vector<std::string> subjects, std::string because) {
    conflict_.push_back({std::move(rule), std::move(subjects), std::move(because)});
  }

  std::string told(const Rule& rule, const Values& values, Names names, const Standing& s) const {
    names.vm = vm_.name;
    return s.hwpt->id + ": " + refusal(rule, values, names);
  }

  void doubt_item(const Standing& s, std::uint32_t i) {
    if (auto why = refusal_of(s, i)) conflict_.push_back(std::move(*why));
  }

  // The first rule by which a standing HWPT refuses the item.
  std::optional<Conflict> refusal_of(const Standing& s, std::uint32_t i) const {
    const auto ask = [&](Phase phase, const std::vector<std::uint32_t>& classes) -> std::optional<Conflict> {
      for (const std::uint32_t cls : classes) {
        const Values values{&s.offer.hwpt, &problem().classes[cls].quantities, &problem().quantities};
        for (const Rule* rule : rules_.of(phase)) {
          if (holds(*rule, values)) continue;
          const DeviceIndex d = of_class(item(i), cls);
          return Conflict{std::string(rule->name), {id_of(d), s.hwpt->id}, told(*rule, values, names_of(d), s)};
        }
      }
      return std::nullopt;
    };
    if (auto why = ask(Phase::attach, item(i).member_classes)) return why;
    if (auto why = ask(Phase::placement, item(i).assigned_classes)) return why;
    if (std::ranges::none_of(item(i).sides, torn_apart)) return std::nullopt;
    return Conflict{"policy.separate", {id_of(item(i).lowest())}, "the policy keeps devices of one group apart"};
  }

  void refuse_together(const Standing& s, std::uint32_t a, std::uint32_t b) { conflict_.push_back(apart_in(s, a, b)); }

  Conflict apart_in(const Standing& s, std::uint32_t a, std::uint32_t b) const {
    const std::string& first = id_of(item(a).lowest());
    const std::string& second = id_of(item(b).lowest());
    return {"policy.separate",
            {first, second},
            fmt::format("{}: the policy keeps {} and {} apart", s.hwpt->id, first, second)};
  }

  void take_ids(const Standing& s, std::uint32_t i) {
    for (const std::uint32_t g : item(i).groups) {
      ids_.take(s.hwpt->id, s.hwpt->stage, problem().groups[g].assigned.front());
    }
  }

  // ------------------------------------------------------------------------------------------ who arrives

  void search() {
    if (law_.interface() == KernelInterface::type1) return search_orders();
    search(Merge::yes);
    if (ids_decided_) search(Merge::no);  // items that look alike may need other HWPTs
  }

  // Arrivals that nothing tells apart go together, unless they may not even meet their own kind.
  void search(Merge merge) {
    using Kind = std::tuple<std::vector<std::uint32_t>, std::vector<std::uint32_t>, std::vector<Side>>;
    elements_.clear();
    std::map<Kind, std::size_t> element_of;
    for (const std::uint32_t i : arriving_) {
      const Item& it = item(i);
      const bool alone = merge == Merge::no || apart(it, it);
      const auto [at, fresh] =
          element_of.try_emplace({it.assigned_classes, it.member_classes, it.sides}, elements_.size());
      if (fresh || alone) {
        if (alone) at->second = elements_.size();
        elements_.push_back({i});
      } else {
        elements_[at->second].push_back(i);
      }
    }
    choice_.assign(elements_.size(), std::nullopt);
    place(0);
  }

  void place(std::size_t e) {
    if (leaves_ > kMostLeaves) return;
    if (e == elements_.size()) {
      ++leaves_;
      complete();
      return;
    }
    for (std::size_t s = 0; s < standing_.size(); ++s) {
      if (!may_join(e, s)) continue;
      choice_[e] = s;
      place(e + 1);
    }
    choice_[e] = std::nullopt;
    if (made_ == NewHwpts::allowed) place(e + 1);
  }

  bool may_join(std::size_t e, std::size_t s) const {
    const Item& newcomer = item(elements_[e].front());
    const Standing& there = standing_[s];
    if (!there.offer.accepts(newcomer) || std::ranges::any_of(newcomer.sides, torn_apart)) return false;
    const auto meets = [&](std::uint32_t i) { return apart(newcomer, item(i)); };
    if (std::ranges::any_of(there.items, meets)) return false;
    for (std::size_t other = 0; other < e; ++other) {
      if (choice_[other] == s && meets(elements_[other].front())) return false;
    }
    return true;
  }

  // New HWPTs for those who join none, and what it all costs.
  void complete() {
    std::vector<std::uint32_t> left;
    for (std::size_t e = 0; e < elements_.size(); ++e) {
      if (!choice_[e]) left.insert(left.end(), elements_[e].begin(), elements_[e].end());
    }
    std::ranges::sort(left);
    auto fresh = cover_of(left);
    if (!fresh) return;
    const ObjectiveValues values = cost_of(*fresh);
    if (best_ && !better(values, best_values_, request_.policy.objectives)) return;
    best_ = write(*fresh);
    best_values_ = values;
  }

  std::optional<std::vector<SolvedHwpt>> cover_of(const std::vector<std::uint32_t>& items) {
    const DomainIds before = ids_with_arrivals();
    if (before.overdrawn()) {
      ids_decided_ = true;
      return std::nullopt;
    }
    if (items.empty()) return std::vector<SolvedHwpt>{};
    CoverInstance instance = instance_of(items);
    auto hwpts = solved_by(instance, items, false);
    if (!hwpts || !overdraws(before, *hwpts)) return hwpts;
    ids_decided_ = true;
    add_pools(instance, items, before);
    return solved_by(instance, items, true);
  }

  DomainIds ids_with_arrivals() const {
    DomainIds ids = ids_;
    for (std::size_t e = 0; e < elements_.size(); ++e) {
      if (!choice_[e]) continue;
      const PlannedHwpt& h = *standing_[*choice_[e]].hwpt;
      for (const std::uint32_t i : elements_[e]) take(ids, h.id, h.stage, i);
    }
    return ids;
  }

  void take(DomainIds& ids, const std::string& hwpt, unsigned stage, std::uint32_t i) const {
    for (const std::uint32_t g : item(i).groups) ids.take(hwpt, stage, problem().groups[g].assigned.front());
  }

  static unsigned stage_of(const Offer& offer) { return static_cast<unsigned>(offer.hwpt[HwptQ::stage]); }

  bool overdraws(DomainIds ids, const std::vector<SolvedHwpt>& hwpts) const {
    for (std::size_t h = 0; h < hwpts.size(); ++h) {
      const unsigned stage = stage_of(model_.offers[hwpts[h].offer]);
      for (const std::uint32_t i : hwpts[h].items) take(ids, fmt::format("new{}", h), stage, i);
    }
    return ids.overdrawn();
  }

  CoverInstance instance_of(const std::vector<std::uint32_t>& items) const {
    CoverInstance cover;
    cover.elements = items.size();
    cover.order = request_.policy.objectives;
    if (problem().max_hwpts != ~std::uint64_t{0}) cover.max_blocks = problem().max_hwpts - standing_.size();
    for (const std::uint32_t i : items) cover.enforceable.push_back(item(i).enforceable);
    for (const Offer& offer : model_.offers) {
      CoverCandidate candidate{ElementSet(items.size()), offer.page_table_bytes, offer.unneeded_flags,
                               offer.hwpt[HwptQ::enforce_cache_coherency] != 0,
                               static_cast<unsigned>(offer.hwpt[HwptQ::stage])};
      for (std::size_t e = 0; e < items.size(); ++e) {
        candidate.accepts[e] = offer.accepts(item(items[e])) && std::ranges::none_of(item(items[e]).sides, torn_apart);
      }
      cover.candidates.push_back(std::move(candidate));
    }
    for (std::uint32_t a = 0; a < items.size(); ++a) {
      for (std::uint32_t b = a + 1; b < items.size(); ++b) {
        if (apart(item(items[a]), item(items[b]))) cover.apart.emplace_back(a, b);
      }
    }
    return cover;
  }

  // What standing HWPTs leave of the pools that the items draw from, stage by stage.
  void add_pools(CoverInstance& cover, const std::vector<std::uint32_t>& items, const DomainIds& ids) const {
    std::map<std::pair<std::uint64_t, unsigned>, CoverPool> pools;
    for (std::size_t e = 0; e < items.size(); ++e) {
      for (const UnitIndex unit : item(items[e]).units) {
        const auto first = law_.domain_pool(request_.host, unit, 1);
        const auto second = law_.domain_pool(request_.host, unit, 2);
        const bool one = first && second && first->key == second->key;
        for (const unsigned stage : {1U, 2U}) {
          const auto& pool = stage == 1 ? first : second;
          if (!pool || (one && stage == 2)) continue;
          const auto [it, fresh] = pools.try_emplace({pool->key, one ? 0 : stage});
          if (fresh) it->second = {ElementSet(items.size()), one ? 0 : stage, ids.left(*pool)};
          it->second.elements.set(e);
        }
      }
    }
    for (auto& [key, pool] : pools) cover.pools.push_back(std::move(pool));
  }

  std::optional<std::vector<SolvedHwpt>> solved_by(const CoverInstance& cover, const std::vector<std::uint32_t>& items,
                                                   bool by_stage) const {
    const CoverSolution solution = solve_cover(cover, budget_);
    if (solution.status != CoverStatus::solved) return std::nullopt;
    std::map<std::uint32_t, std::vector<std::uint32_t>> blocks;
    for (std::size_t e = 0; e < items.size(); ++e) blocks[solution.block_of[e]].push_back(items[e]);
    std::vector<SolvedHwpt> hwpts;
    for (auto& [block, members] : blocks) {
      const unsigned stage = by_stage ? cover.candidates[solution.candidate_of[block]].stage : 0;
      hwpts.push_back(best_template(model_, std::move(members), cover.order, stage));
    }
    return hwpts;
  }

  void add_cost(ObjectiveValues& values, const Offer& offer, const std::vector<std::uint32_t>& items) const {
    values[Objective::hwpts] += 1;
    values[Objective::page_tables] += offer.page_table_bytes;
    values[Objective::unneeded_flags] += offer.unneeded_flags;
    if (offer.hwpt[HwptQ::enforce_cache_coherency] != 0) return;
    for (const std::uint32_t i : items) values[Objective::coherency] += item(i).enforceable;
  }

  ObjectiveValues cost_of(const std::vector<SolvedHwpt>& fresh) const {
    ObjectiveValues values;
    for (const Standing& s : standing_) add_cost(values, s.offer, s.items);
    for (const SolvedHwpt& h : fresh) add_cost(values, model_.offers[h.offer], h.items);
    for (std::size_t e = 0; e < elements_.size(); ++e) {
      const bool open = choice_[e] && standing_[*choice_[e]].offer.hwpt[HwptQ::enforce_cache_coherency] == 0;
      for (const std::uint32_t i : elements_[e]) values[Objective::coherency] += open ? item(i).enforceable : 0;
    }
    return values;
  }

  // ------------------------------------------------------------------------------------------ type1's containers

  // There only the order of joining can be chosen. Of arriving groups that nothing tells apart the lowest is next.
  struct Arrival {
    std::string device;  // lowest of the group's that are assigned
    std::tuple<std::vector<std::uint32_t>, std::vector<Side>, std::uint32_t> kind;
  };

  void search_orders() {
    for (const AssignedDevice& d : vm_.devices) {
      if (!d.host) refuse("type1.mediated", {d.mdev}, fmt::format("the mediated device {} can only be planned for iommufd", d.mdev));
    }
    const GroupLaw groups(request_.host, law_);
    const PlannedIoas* ioas = space_of(running_, vm_.name);
    ContainerDomains now = ioas == nullptr ? ContainerDomains(groups) : ContainerDomains(groups, running_, ioas->id);
    std::set<std::uint32_t> staying;  // a group leaves with its last device, also when another of its devices comes
    for (const AssignedDevice& d : vm_.devices) {
      if (d.host && place_of_.contains(id_of(*d.host))) staying.insert(groups.group_of(id_of(*d.host)));
    }
    for (const ContainerDomain& d : std::vector(now.in_order())) {
      for (const std::uint32_t g : d.groups) {
        if (!staying.contains(g)) now.leave(g);
      }
    }
    std::vector<Arrival> arrivals = arrivals_to(now, groups);
    if (conflict_.empty()) join_in_every_order(now, arrivals, groups);
  }

  std::vector<Arrival> arrivals_to(const ContainerDomains& now, const GroupLaw& groups) {
    std::vector<Arrival> arrivals;
    for (std::uint32_t i = 0; i < problem().items.size(); ++i) {
      for (const std::uint32_t g : item(i).groups) {
        const ProblemGroup& group = problem().groups[g];
        const std::string& device = id_of(group.assigned.front());
        if (now.home_of(groups.group_of(device)) != nullptr) continue;
        if (groups.is_mixed(groups.group_of(device))) {
          refuse("type1.group", {device}, fmt::format("devices of the group of {} would make different domains", device));
        } else if (!makes_its_own(groups, groups.group_of(device))) {
          refuse("type1.group", {device},
                 fmt::format("type1 makes a domain for the group of {} before it shares, and none that serves {} can be made", device,
                             vm_.name));
        }
        const bool like_others = item(i).groups.size() == 1;
        arrivals.push_back({device, {group.member_classes, group.sides, like_others ? 0 : i + 1}});
      }
    }
    std::ranges::sort(arrivals, natural_less, &Arrival::device);
    return arrivals;
  }

  bool makes_its_own(const GroupLaw& groups, std::uint32_t group) const {
    const HwptQuantities own = groups.own_domain(group);
    const DeviceQuantities first = law_.describe(request_.host, groups.members(group).front());
    return rules_.hold(Phase::allocation, {&own, &first, &problem().quantities}) &&
           rules_.hold(Phase::fit, {&own, nullptr, &problem().quantities});
  }

  // Where no domain may be made, each group lands where it does whoever else has come: one order will do.
  void join_in_every_order(const ContainerDomains& now, std::vector<Arrival>& left, const GroupLaw& groups) {
    if (leaves_ > kMostLeaves) return;
    ++leaves_;
    if (left.empty()) return consider(now, groups);
    std::set<decltype(Arrival::kind)> tried;
    for (std::size_t next = 0; next < left.size(); ++next) {
      if (!tried.insert(left[next].kind).second) continue;
      ContainerDomains then = now;
      then.join(left[next].device, "");
      if (made_ == NewHwpts::never && then.in_order().size() > now.in_order().size()) return;
      const Arrival joined = left[next];
      left.erase(left.begin() + static_cast<std::ptrdiff_t>(next));
      join_in_every_order(then, left, groups);
      left.insert(left.begin() + static_cast<std::ptrdiff_t>(next), joined);
      if (made_ == NewHwpts::never) return;
    }
  }

  // What the container came to: may it be, and what does it cost?
  void consider(const ContainerDomains& domains, const GroupLaw& groups) {
    std::vector<Offer> offers;
    std::vector<std::vector<std::uint32_t>> items(domains.in_order().size());
    for (const ContainerDomain& d : domains.in_order()) offers.push_back(offer_of(d.what));
    for (std::uint32_t i = 0; i < problem().items.size(); ++i) {
      std::set<const ContainerDomain*> homes;
      for (const DeviceIndex d : item(i).assigned) homes.insert(domains.home_of(groups.group_of(id_of(d))));
      if (homes.size() != 1) return;  // what must share does not
      items[static_cast<std::size_t>(*homes.begin() - domains.in_order().data())].push_back(i);
    }
    std::uint64_t pages = ~std::uint64_t{0};
    for (const Offer& o : offers) pages &= o.hwpt[HwptQ::page_sizes];
    if (items.size() > problem().max_hwpts || !pages_fit(pages, problem())) return;
    DomainIds ids = *ids_of_others_;
    ObjectiveValues values;
    for (std::size_t d = 0; d < items.size(); ++d) {
      if (!may_hold(offers[d], items[d])) return;
      for (const std::uint32_t i : items[d]) take(ids, fmt::format("domain{}", d), stage_of(offers[d]), i);
      add_cost(values, offers[d], items[d]);
    }
    if (ids.overdrawn()) {
      ids_decided_ = true;
      return;
    }
    if (best_ && !better(values, best_values_, request_.policy.objectives)) return;
    best_values_ = values;
    best_.emplace();
    for (std::size_t d = 0; d < items.size(); ++d) {
      const ContainerDomain& domain = domains.in_order()[d];
      best_->push_back({domain.hwpt, domain.opener, 0, devices_of(items[d])});
    }
  }

  bool may_hold(const Offer& offer, const std::vector<std::uint32_t>& items) const {
    if (!rules_.hold(Phase::fit, {&offer.hwpt, nullptr, &problem().quantities})) return false;
    for (const std::uint32_t i : items) {
      if (!offer.accepts(item(i)) || std::ranges::any_of(item(i).sides, torn_apart)) return false;
      for (const std::uint32_t other : items) {
        if (other < i && apart(item(i), item(other))) return false;
      }
    }
    return true;
  }

  // ------------------------------------------------------------------------------------------ the answer

  void explain_arrivals() {
    for (const std::uint32_t i : arriving_) {
      for (const Standing& s : standing_) {
        if (auto why = refusal_of(s, i)) {
          conflict_.push_back(std::move(*why));
          continue;
        }
        for (const std::uint32_t there : s.items) {
          if (apart(item(i), item(there))) conflict_.push_back(apart_in(s, there, i));
        }
      }
    }
    if (law_.interface() == KernelInterface::type1 && !ids_decided_) {
      refuse("type1.first-fit", {vm_.name},
             fmt::format("{}, what joins the container of {} does not come to be where it may{}",
                         leaves_ > kMostLeaves ? "in the orders that were tried" : "whatever the order", vm_.name,
                         made_ == NewHwpts::never ? ", and frozen mode makes no new HWPT" : ""));
    } else if (made_ == NewHwpts::never) {
      refuse("lifecycle.frozen", {vm_.name},
             standing_.empty() ? fmt::format("{} has no HWPT, and frozen mode makes none", vm_.name)
                               : fmt::format("frozen mode makes no new HWPT for {}", vm_.name));
    } else {
      refuse(ids_decided_ ? "core.domain-ids" : "lifecycle.additive", {vm_.name},
             ids_decided_ ? "the units have too few domain ids left"
                          : "no new HWPT can be made either while nothing that stays may move");
    }
  }

  std::vector<ArrangedHwpt> write(const std::vector<SolvedHwpt>& fresh) const {
    std::vector<ArrangedHwpt> hwpts;
    for (std::size_t s = 0; s < standing_.size(); ++s) {
      std::vector<std::uint32_t> items = standing_[s].items;
      for (std::size_t e = 0; e < elements_.size(); ++e) {
        if (choice_[e] == s) items.insert(items.end(), elements_[e].begin(), elements_[e].end());
      }
      const PlannedHwpt& h = *standing_[s].hwpt;
      hwpts.push_back({h.id, h.allocator, h.flags, devices_of(items)});
    }
    for (const SolvedHwpt& h : fresh) {
      const auto flags = static_cast<std::uint8_t>(model_.offers[h.offer].hwpt[HwptQ::flags]);
      hwpts.push_back({"", id_of(h.allocator), flags, devices_of(h.items)});
    }
    return hwpts;
  }

  std::vector<std::string> devices_of(const std::vector<std::uint32_t>& items) const {
    std::set<DeviceIndex> devices;
    for (const std::uint32_t i : items) devices.insert(item(i).assigned.begin(), item(i).assigned.end());
    for (const AssignedDevice& d : vm_.devices) {
      if (d.expected) devices.erase(*d.host);
    }
    std::vector<std::string> ids;
    for (const DeviceIndex d : devices) ids.push_back(id_of(d));
    return ids;
  }

  const Plan& running_;
  const Request& request_;
  NewHwpts made_;
  const Law& law_;
  const CoverBudget& budget_;
  RuleBook rules_;
  VmModel model_;
  const VirtualMachine& vm_;
  DomainIds ids_;                           // of those who stay
  std::optional<DomainIds> ids_of_others_;  // of other VMs alone
  std::vector<Standing> standing_;
  std::map<std::string_view, std::size_t> place_of_;  // by device its standing HWPT
  std::vector<std::uint32_t> arriving_;               // items
  std::vector<std::vector<std::uint32_t>> elements_;  // arriving items that go together
  std::vector<std::optional<std::size_t>> choice_;    // by element: a standing HWPT, or a new one
  std::optional<std::vector<ArrangedHwpt>> best_;
  ObjectiveValues best_values_;
  std::size_t leaves_ = 0;
  bool ids_decided_ = false;  // domain ids refused something
  std::vector<Conflict> conflict_;
};

}  // namespace

Arrangement arrange(const Plan& running, const Request& request, VmIndex vm, const Needs& needs, NewHwpts made,
                    const Law& law, const CoverBudget& budget) {
  return Arranger(running, request, vm, needs, made, law, budget).arrange();
}

}  // namespace ioplan
