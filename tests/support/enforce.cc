#include "tests/support/enforce.h"

#include <algorithm>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>

#include "constraints/catalog.h"
#include "constraints/kernel_law.h"
#include "engine/solve/problem.h"

namespace ioplan::enforce {

namespace {

using Names = std::set<std::string>;

Needs required_only(Needs needs) {
  for (Need* need : {&needs.dirty_tracking, &needs.nest_parent, &needs.pasid}) {
    if (*need == Need::preferred) *need = Need::no;
  }
  return needs;
}

// A HWPT that some device could allocate, and every rule that stands in its way.
struct Template {
  HwptQuantities hwpt;
  std::uint32_t allocator = 0;  // class
  Names refused_allocation, refused_fit;
  std::vector<Names> refused_group;  // attach and placement rules, by group
};

struct Vm {
  Problem problem;
  std::vector<Template> templates;
  std::vector<Names> unusable;  // usable and group rules that a group breaks, by group
};

// The members of a conflict, sorted by what they bind.
struct Enforced {
  std::set<std::pair<std::string, std::uint32_t>> allocation;  // rule, class
  std::set<std::pair<std::string, std::uint32_t>> group;       // rule, group
  Names fit, separate;
  std::vector<std::vector<std::uint32_t>> together;  // groups
  bool limit = false;
  bool whole_vm = false;  // a rule about the VM as a whole refuses it
};

Names broken(Phase phase, const Values& values) {
  Names names;
  for (const Rule* rule : catalog()) {
    if (rule->phase == phase && !holds(*rule, values)) names.insert(std::string(rule->name));
  }
  return names;
}

Vm look_at(const Request& request, std::size_t v) {
  Vm vm;
  vm.problem = make_problem(request, VmIndex(v), required_only(request.vms[v].needs), kernel_law());
  const Problem& p = vm.problem;
  for (const ProblemGroup& g : p.groups) {
    Names names;
    for (std::uint32_t c : g.member_classes)
      names.merge(broken(Phase::group, {nullptr, &p.classes[c].quantities, &p.quantities}));
    for (std::uint32_t c : g.assigned_classes)
      names.merge(broken(Phase::usable, {nullptr, &p.classes[c].quantities, &p.quantities}));
    vm.unusable.push_back(std::move(names));
  }
  for (std::uint32_t cls = 0; cls < p.classes.size(); ++cls) {
    if (p.classes[cls].assigned.empty()) continue;
    for (std::uint8_t flags = 0; flags < kHwptFlagSets; ++flags) {
      Template t;
      t.allocator = cls;
      t.hwpt = kernel_law().allocate(p.classes[cls].quantities, flags);
      t.refused_allocation = broken(Phase::allocation, {&t.hwpt, &p.classes[cls].quantities, &p.quantities});
      t.refused_fit = broken(Phase::fit, {&t.hwpt, nullptr, &p.quantities});
      for (const ProblemGroup& g : p.groups) {
        Names names;
        for (std::uint32_t c : g.member_classes)
          names.merge(broken(Phase::attach, {&t.hwpt, &p.classes[c].quantities, &p.quantities}));
        for (std::uint32_t c : g.assigned_classes)
          names.merge(broken(Phase::placement, {&t.hwpt, &p.classes[c].quantities, &p.quantities}));
        t.refused_group.push_back(std::move(names));
      }
      vm.templates.push_back(std::move(t));
    }
  }
  return vm;
}

bool contains(const std::vector<std::string>& list, const std::string& what) {
  return std::ranges::find(list, what) != list.end();
}

// A mediated device is an access that pins pages; KVM counts it as non-coherent.
bool whole_vm_refused(const std::string& rule, const Request& request, const VirtualMachine& vm,
                      const Problem& problem) {
  const bool mediated = std::ranges::any_of(vm.devices, [](const AssignedDevice& a) { return !a.host; });
  if (rule == "coherency.mediated") return mediated && request.policy.coherency == CoherencyPolicy::required;
  if (rule == "ioas.access-alignment") {
    const std::uint64_t page = request.host.kernel.facts[KernelFact::page_size].value_or(4096);
    return mediated && std::ranges::any_of(problem.memory, [&](const MemoryRange& m) {
             return m.gpa.start % page != 0 || (m.gpa.last + 1) % page != 0;
           });
  }
  return rule == "needs.p2p" && !vm.needs.p2p.empty();
}

// Partitions of n things, as the block of each; calls `take` until it returns true.
bool any_partition(std::size_t n, std::vector<std::uint32_t>& block_of, std::uint32_t blocks,
                   const std::function<bool(std::uint32_t)>& take) {
  if (block_of.size() == n) return take(blocks);
  for (std::uint32_t b = 0; b <= blocks; ++b) {
    block_of.push_back(b);
    const bool found = any_partition(n, block_of, std::max(blocks, b + 1), take);
    block_of.pop_back();
    if (found) return true;
  }
  return false;
}

using PoolUse = std::map<std::uint64_t, std::uint64_t>;  // by pool

}  // namespace

struct Question::State {
  const Request request;
  std::vector<Vm> vms;

  explicit State(const Request& r) : request(r) {
    for (std::size_t v = 0; v < request.vms.size(); ++v) vms.push_back(look_at(request, v));
  }

  // The VM's group that holds this device, if it is one of its.
  std::optional<std::uint32_t> group_of(const Problem& p, const std::string& id) const {
    const auto device = request.host.find_device(id);
    if (!device) return std::nullopt;
    const auto number = request.host.device(*device).group;
    for (std::uint32_t g = 0; g < p.groups.size(); ++g) {
      if (number && request.host.device(p.groups[g].assigned.front()).group == number) return g;
    }
    return std::nullopt;
  }

  std::optional<std::uint32_t> class_of(const Problem& p, const std::string& id) const {
    const auto device = request.host.find_device(id);
    for (std::uint32_t c = 0; device && c < p.classes.size(); ++c) {
      if (std::ranges::binary_search(p.classes[c].assigned, *device)) return c;
    }
    return std::nullopt;
  }

  Enforced sort_out(std::size_t v, const std::vector<Conflict>& members) const {
    const Problem& p = vms[v].problem;
    const std::string& name = request.vms[v].name;
    Enforced e;
    for (const Conflict& m : members) {
      const Rule* rule = find_rule(m.rule);
      if (rule == nullptr) throw std::invalid_argument("no rule is named " + m.rule);
      switch (rule->phase) {
        case Phase::allocation:
          if (const auto c = class_of(p, m.subjects.at(0))) e.allocation.insert({m.rule, *c});
          break;
        case Phase::fit:
          if (contains(m.subjects, name)) e.fit.insert(m.rule);
          break;
        case Phase::usable:
        case Phase::group:
        case Phase::attach:
        case Phase::placement:
          if (const auto g = group_of(p, m.subjects.at(0))) e.group.insert({m.rule, *g});
          break;
        case Phase::cover:
          sort_out_cover(v, m, e);
          break;
      }
    }
    return e;
  }

  void sort_out_cover(std::size_t v, const Conflict& m, Enforced& e) const {
    const Problem& p = vms[v].problem;
    const VirtualMachine& vm = request.vms[v];
    if (m.rule == "policy.limit" && contains(m.subjects, vm.name)) e.limit = true;
    if (m.rule == "policy.separate") e.separate.insert(m.subjects.begin(), m.subjects.end());
    if (m.rule == "policy.together") {
      for (const Binding& b : p.bindings) {
        if (b.rule == m.rule && contains(m.subjects, b.name)) e.together.push_back(b.groups);
      }
    }
    if (m.rule == "core.automatic") {
      std::vector<std::uint32_t> groups;
      for (const std::string& id : m.subjects) {
        if (const auto g = group_of(p, id)) groups.push_back(*g);
      }
      e.together.push_back(std::move(groups));
    }
    const bool mine = contains(m.subjects, vm.name) || std::ranges::any_of(vm.devices, [&](const AssignedDevice& a) {
                        return !a.host && contains(m.subjects, a.mdev);
                      });
    e.whole_vm = e.whole_vm || (mine && whole_vm_refused(m.rule, request, vm, p));
  }

  static bool accepts(const Template& t, const std::vector<std::uint32_t>& block, const Enforced& e) {
    const auto stands = [](const Names& refusals, const auto& enforced) {
      return std::ranges::none_of(refusals, enforced);
    };
    if (!stands(t.refused_allocation, [&](const auto& r) { return e.allocation.contains({r, t.allocator}); }))
      return false;
    if (!stands(t.refused_fit, [&](const auto& r) { return e.fit.contains(r); })) return false;
    return std::ranges::all_of(block, [&](std::uint32_t g) {
      return stands(t.refused_group[g], [&](const auto& r) { return e.group.contains({r, g}); });
    });
  }

  // No two distinct devices of the block, one on each side.
  static bool torn(const Problem& p, const std::vector<std::uint32_t>& block, const Enforced& e) {
    for (std::size_t r = 0; r < p.separate_rules.size(); ++r) {
      if (!e.separate.contains(p.separate_rules[r])) continue;
      std::uint64_t a = 0, b = 0, both = 0;
      for (std::uint32_t g : block) {
        a += p.groups[g].sides[r].a;
        b += p.groups[g].sides[r].b;
        both += p.groups[g].sides[r].both;
      }
      if (a * b > both) return true;  // pairs (one of a, one of b), less those of a device with itself
    }
    return false;
  }

  // Every way in which the VM can be served, as what it draws from the pools. Stops at the first when pools do not
  // count.
  std::set<PoolUse> ways(std::size_t v, const Enforced& e, bool pools) const {
    const Vm& vm = vms[v];
    const Problem& p = vm.problem;
    std::set<PoolUse> found;
    if (e.whole_vm) return found;
    for (const auto& [rule, g] : e.group) {
      if (vm.unusable[g].contains(rule)) return found;
    }
    std::vector<std::uint32_t> block_of;
    any_partition(p.groups.size(), block_of, 0, [&](std::uint32_t count) {
      if (e.limit && count > p.max_hwpts) return false;
      std::vector<std::vector<std::uint32_t>> blocks(count);
      for (std::uint32_t g = 0; g < block_of.size(); ++g) blocks[block_of[g]].push_back(g);
      for (const auto& together : e.together) {
        for (std::uint32_t g : together) {
          if (block_of[g] != block_of[together.front()]) return false;
        }
      }
      std::set<PoolUse> uses = {{}};
      for (const auto& block : blocks) {
        if (torn(p, block, e)) return false;
        uses = drawn(vm, block, e, uses, pools);
        if (uses.empty()) return false;
      }
      found.merge(uses);
      return !pools;
    });
    return found;
  }

  // One domain id of every pool that the block's units have for the stage of its HWPT.
  std::set<PoolUse> drawn(const Vm& vm, const std::vector<std::uint32_t>& block, const Enforced& e,
                          const std::set<PoolUse>& before, bool pools) const {
    std::set<std::set<std::uint64_t>> keys;
    for (const Template& t : vm.templates) {
      if (!accepts(t, block, e)) continue;
      std::set<std::uint64_t> touched;
      for (std::uint32_t g : block) {
        for (UnitIndex u : vm.problem.groups[g].units) {
          const auto pool = kernel_law().domain_pool(request.host, u, static_cast<unsigned>(t.hwpt[HwptQ::stage]));
          if (pool && pools) touched.insert(pool->key);
        }
      }
      keys.insert(std::move(touched));
    }
    std::set<PoolUse> after;
    for (const PoolUse& use : before) {
      for (const auto& touched : keys) {
        PoolUse more = use;
        for (std::uint64_t key : touched) ++more[key];
        after.insert(std::move(more));
      }
    }
    return after;
  }

  // Ids left in every pool of the units that the members name.
  std::map<std::uint64_t, std::uint64_t> capacities(const std::vector<Conflict>& members) const {
    std::map<std::uint64_t, std::uint64_t> left;
    for (std::size_t u = 0; u < request.host.units.size(); ++u) {
      const bool named = std::ranges::any_of(members, [&](const Conflict& m) {
        return m.rule == "core.domain-ids" && contains(m.subjects, request.host.units[u].id);
      });
      if (!named) continue;
      for (unsigned stage : {1U, 2U}) {
        const auto pool = kernel_law().domain_pool(request.host, UnitIndex(u), stage);
        if (!pool) continue;
        const auto [it, fresh] = left.try_emplace(pool->key, pool->capacity);
        if (!fresh) it->second = std::min(it->second, pool->capacity);
      }
    }
    return left;
  }

  // Can the VMs be served together?
  bool fit_together(const std::vector<std::set<PoolUse>>& of_vms, std::size_t v, const PoolUse& used,
                    const std::map<std::uint64_t, std::uint64_t>& left) const {
    if (v == of_vms.size()) return true;
    return std::ranges::any_of(of_vms[v], [&](const PoolUse& use) {
      PoolUse sum = used;
      for (const auto& [key, n] : use) sum[key] += n;
      const bool enough = std::ranges::all_of(sum, [&](const auto& s) {
        const auto pool = left.find(s.first);
        return pool == left.end() || s.second <= pool->second;
      });
      return enough && fit_together(of_vms, v + 1, sum, left);
    });
  }
};

Question::Question(const Request& request) : state_(new State(request)) {}
Question::~Question() { delete state_; }

bool Question::plan_exists(const std::vector<Conflict>& enforced) const {
  const bool pools = std::ranges::any_of(enforced, [](const Conflict& c) { return c.rule == "core.domain-ids"; });
  std::vector<std::set<PoolUse>> ways;
  for (std::size_t v = 0; v < state_->vms.size(); ++v) {
    ways.push_back(state_->ways(v, state_->sort_out(v, enforced), pools));
    if (ways.back().empty()) return false;
  }
  return !pools || state_->fit_together(ways, 0, {}, state_->capacities(enforced));
}

}  // namespace ioplan::enforce
