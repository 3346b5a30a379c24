#include "engine/explain/explain.h"

#include <algorithm>
#include <deque>
#include <functional>
#include <map>
#include <set>

#include <fmt/format.h>

#include "engine/base/text.h"
#include "engine/explain/conflict.h"
#include "engine/solve/needs.h"

namespace ioplan {

namespace {

struct Change {
  Fix fix;
  std::function<void(Request&)> apply;
};

// Changes that a conflict suggests. Each is a guess until it is planned.
class Suggestions {
 public:
  Suggestions(const Request& request, std::size_t vm) : request_(request), vm_(vm) {}

  std::vector<Change> for_conflict(const std::vector<Conflict>& conflict) {
    for (const Conflict& c : conflict) for_rule(c);
    for (const Conflict& c : conflict) {
      if (c.rule == "core.domain-ids") {
        remove_groups_behind(c.subjects);
        continue;
      }
      for (const std::string& subject : c.subjects) remove_group_of(subject);
    }
    return std::move(changes_);
  }

  static constexpr std::uint64_t kMemoryStep = std::uint64_t{1} << 30;

  static Change shrink(const Request& request, std::size_t vm, std::uint64_t size) {
    const std::string& name = request.vms[vm].name;
    return {{"shrink-memory", {name, format_size(size)}, fmt::format("give {} at most {}", name, format_size(size))},
            [vm, size](Request& r) { r.vms[vm].memory.size = size; }};
  }

 private:
  const VirtualMachine& vm() const { return request_.vms[vm_]; }

  void add(std::string change, std::vector<std::string> subjects, std::string text, std::function<void(Request&)> apply) {
    changes_.push_back({{std::move(change), std::move(subjects), std::move(text)}, std::move(apply)});
  }

  void for_rule(const Conflict& c) {
    const std::string& rule = c.rule;
    const auto named = std::ranges::find(request_.vms, c.subjects.front(), &VirtualMachine::name);
    if (named != request_.vms.end()) vm_ = static_cast<std::size_t>(named - request_.vms.begin());
    if (rule == "needs.p2p") {
      add("drop-need", {vm().name, "p2p"}, fmt::format("drop `needs.p2p` of {}", vm().name),
          [v = vm_](Request& r) { r.vms[v].needs.p2p.clear(); });
    } else if (rule.starts_with("needs.")) {
      drop_need(rule);
    }
    if (rule.starts_with("coherency.") || rule == "usable.enforceable") relax_coherency();
    if (rule == "usable.assumed-coherency") {
      add("relax-policy", {"assumed_coherency", "allow"}, "set `assumed_coherency: allow` in the policy",
          [](Request& r) { r.policy.assumed_coherency = Permission::allow; });
    }
    if (rule == "usable.dma-coherency") {
      add("guest-cache-maintenance", {vm().name},
          fmt::format("set `guest_cache_maintenance: true` for {}, if its guest maintains caches", vm().name),
          [v = vm_](Request& r) { r.vms[v].guest_cache_maintenance = true; });
    }
    if (rule == "usable.isolated-msi") {
      add("allow-unsafe-interrupts", {"kernel.allow_unsafe_interrupts"},
          "load iommufd with `allow_unsafe_interrupts=1`, if every guest is trusted with interrupts",
          [](Request& r) { r.host.kernel.facts[KernelFact::allow_unsafe_interrupts] = 1; });
    }
    if (rule == "usable.direct-region") drop_direct_region(c.subjects.front());
    if (rule == "usable.reserved-regions" || rule == "type1.reserved-regions" || rule == "ioas.aperture" || rule == "ioas.alignment" ||
        rule == "ioas.access-alignment") {
      move_memory();
    }
    if (rule == "ioas.read-only") map_writable();
    if (rule.starts_with("policy.")) relax_rules(rule);
    if (rule == "type1.first-fit") {
      for (const char* broken : {"policy.separate", "policy.together", "policy.limit"}) relax_rules(broken);
    }
    if (rule == "usable.pasid-width" || rule == "usable.pasid-attach") drop_need("needs.pasid");
  }

  void drop_need(const std::string& rule) {
    Need Needs::*need = rule == "needs.dirty-tracking" ? &Needs::dirty_tracking
                        : rule == "needs.nest-parent"  ? &Needs::nest_parent
                                                       : &Needs::pasid;
    const char* key = rule == "needs.dirty-tracking" ? "dirty_tracking" : rule == "needs.nest-parent" ? "nest_parent" : "pasid";
    add("drop-need", {vm().name, key}, fmt::format("drop `needs.{}` of {}, or make it `preferred`", key, vm().name),
        [v = vm_, need](Request& r) { r.vms[v].needs.*need = Need::no; });
  }

  void relax_coherency() {
    for (CoherencyPolicy policy : {CoherencyPolicy::safe, CoherencyPolicy::strict}) {
      if (policy >= request_.policy.coherency) continue;
      const std::string value(kCoherencyPolicyNames[static_cast<std::size_t>(policy)]);
      add("relax-policy", {"coherency", value}, fmt::format("set `coherency: {}` in the policy", value),
          [policy](Request& r) { r.policy.coherency = policy; });
    }
  }

  void drop_direct_region(const std::string& id) {
    add("drop-direct-region", {id},
        fmt::format("have firmware drop the reserved region (RMRR, IVMD) of {}, or use another device", id),
        [id](Request& r) {
          const auto d = r.host.find_device(id);
          if (!d || !r.host.devices[d->index()].reserved) return;
          std::erase_if(*r.host.devices[d->index()].reserved, [](const auto& x) { return x.type == ReservedType::direct; });
        });
  }

  void relax_rules(const std::string& rule) {
    for (const PolicyRule& r : request_.policy.rules) {
      const bool matters = (rule == "policy.separate" && std::holds_alternative<SeparateRule>(r.what)) ||
                           (rule == "policy.together" && std::holds_alternative<TogetherRule>(r.what)) ||
                           (rule == "policy.limit" && std::holds_alternative<LimitRule>(r.what)) ||
                           std::holds_alternative<RequireRule>(r.what);
      if (!matters) continue;
      add("drop-rule", {r.name}, fmt::format("drop policy rule `{}`", r.name), [name = r.name](Request& request) {
        std::erase_if(request.policy.rules, [&](const PolicyRule& x) { return x.name == name; });
      });
    }
  }

  // RAM from `memory.size` can shrink, or move with the machine's rules; explicit ranges can be moved up.
  void move_memory() {
    if (!vm().memory.size) {
      move_ranges();
      return;
    }
    if (vm().machine.cpu_vendor == CpuVendor::intel) {
      add("move-memory", {vm().name, "amd"},
          fmt::format("use a machine with `cpu_vendor: amd` for {}, which puts high RAM at 1 TiB", vm().name),
          [v = vm_](Request& r) { r.vms[v].machine.cpu_vendor = CpuVendor::amd; });
    }
    changes_.push_back(shrink(request_, vm_, kMemoryStep));
  }

  void move_ranges() {
    for (unsigned lg2 : {21U, 30U, 32U, 36U, 40U}) {
      const std::uint64_t start = std::uint64_t{1} << lg2;
      add("move-memory", {vm().name, format_hex(start)},
          fmt::format("map the memory of {} from {} up", vm().name, format_hex(start)), [v = vm_, start](Request& r) {
            std::uint64_t next = start;
            for (MemoryRange& m : r.vms[v].memory.ranges) {
              const std::uint64_t extent = m.gpa.extent();
              m.gpa = {next, next + extent};
              next += extent + 1;
            }
          });
    }
  }

  void map_writable() {
    add("map-writable", {vm().name}, fmt::format("map the read-only memory of {} writable", vm().name),
        [v = vm_](Request& r) {
          for (MemoryRange& m : r.vms[v].memory.ranges) m.access = Access::read_write;
        });
  }

  void remove_groups_behind(const std::vector<std::string>& units) {
    for (const VirtualMachine& v : request_.vms) {
      for (const AssignedDevice& a : v.devices) {
        if (!a.host) continue;
        const Device& d = request_.host.device(*a.host);
        if (std::ranges::find(units, request_.host.unit(d.unit.value()).id) != units.end()) remove_group_of(d.id);
      }
    }
  }

  // A VM's devices of the subject's group, which leave together.
  void remove_group_of(const std::string& subject) {
    for (std::size_t v = 0; v < request_.vms.size(); ++v) remove_group_of(subject, v);
  }

  void remove_group_of(const std::string& subject, std::size_t v) {
    std::vector<std::string> ids;
    const auto found = request_.host.find_device(subject);
    for (const AssignedDevice& a : request_.vms[v].devices) {
      if (!a.host) {
        if (a.mdev == subject) ids.push_back(a.mdev);
        continue;
      }
      const Device& d = request_.host.device(*a.host);
      if (found && d.group && d.group == request_.host.device(*found).group) ids.push_back(d.id);
    }
    if (ids.empty() || !removed_.insert(ids.front()).second) return;
    add("remove-device", ids, fmt::format("remove {} from {}", fmt::join(ids, ", "), request_.vms[v].name),
        [v, ids](Request& r) {
          std::erase_if(r.vms[v].devices, [&](const AssignedDevice& a) {
            const std::string& id = a.host ? r.host.device(*a.host).id : a.mdev;
            return std::ranges::find(ids, id) != ids.end();
          });
        });
  }

  const Request& request_;
  std::size_t vm_;
  std::vector<Change> changes_;
  std::set<std::string> removed_;
};

class FixSearch {
 public:
  FixSearch(const Law& law, const CoverBudget& budget) : law_(law), budget_(budget) {}

  struct Reason {
    std::vector<Conflict> conflict;
    std::size_t vm = 0;
    bool feasible = false;
  };

  bool feasible(const Request& request) const {
    return solve(request, settle_needs(request, {}), law_, budget_).verdict == Verdict::feasible;
  }

  Reason ask(const Request& request) const {
    Reason reason;
    const Solved solved = solve(request, settle_needs(request, {}), law_, budget_);
    reason.feasible = solved.verdict == Verdict::feasible;
    if (reason.feasible) return reason;
    reason.conflict = vm_conflict(request, reason.vm);
    if (reason.conflict.empty() && solved.refusal) {
      reason.conflict = {{solved.refusal->rule, solved.refusal->subjects, solved.refusal->because}};
    }
    if (reason.conflict.empty()) reason.conflict = minimal_conflict(request, solved, law_, budget_, reason.vm);
    if (reason.conflict.empty()) {
      reason.vm = 0;
      reason.conflict = domain_id_conflict(request, solved, law_, budget_);
    }
    return reason;
  }

  static std::vector<Conflict> vm_conflict(const Request& request, std::size_t& vm) {
    for (vm = 0; vm < request.vms.size(); ++vm) {
      if (auto refusal = refuse_vm(request, VmIndex(vm))) return {{refusal->rule, refusal->subjects, refusal->because}};
    }
    vm = 0;
    return {};
  }

  // Single changes; where none helps, the shortest chains of changes, each suggested by what is left of the no.
  std::vector<Fix> fixes(const Request& request, const Reason& reason) const {
    struct State {
      Request request;
      Fix made;
      Reason reason;
    };
    std::deque<State> open{{request, {}, reason}};
    std::vector<Fix> found;
    std::size_t plans = 0;
    for (std::size_t depth = 1; depth <= kDeepest && found.empty(); ++depth) {
      std::deque<State> next;
      for (State& state : open) {
        for (Change& change : Suggestions(state.request, state.reason.vm).for_conflict(state.reason.conflict)) {
          if (change.fix.change == "shrink-memory") change = largest_that_fits(state.request, state.reason.vm);
          if (++plans > kMostPlans || found.size() >= kMostFixes) return found;
          State changed{state.request, joined(state.made, change.fix), {}};
          change.apply(changed.request);
          changed.reason = ask(changed.request);
          if (!changed.reason.feasible) {
            next.push_back(std::move(changed));
            continue;
          }
          if (std::ranges::none_of(found, [&](const Fix& f) { return f.text == changed.made.text; })) {
            found.push_back(changed.made);
          }
        }
      }
      open = std::move(next);
    }
    return found;
  }

 private:
  static constexpr std::size_t kDeepest = 3;
  static constexpr std::size_t kMostFixes = 8;
  static constexpr std::size_t kMostPlans = 200;

  // Bisects the memory size in steps of 1 GiB.
  Change largest_that_fits(const Request& request, std::size_t vm) const {
    std::uint64_t fits = 1;
    std::uint64_t too_much = *request.vms[vm].memory.size / Suggestions::kMemoryStep + 1;
    while (too_much - fits > 1) {
      const std::uint64_t middle = fits + (too_much - fits) / 2;
      Request smaller = request;
      Suggestions::shrink(request, vm, middle * Suggestions::kMemoryStep).apply(smaller);
      const bool works = solve(smaller, settle_needs(smaller, {}), law_, budget_).verdict == Verdict::feasible;
      (works ? fits : too_much) = middle;
    }
    return Suggestions::shrink(request, vm, fits * Suggestions::kMemoryStep);
  }

  static Fix joined(const Fix& a, const Fix& b) {
    if (a.change.empty()) return b;
    Fix both{a.change + "+" + b.change, a.subjects, a.text + "; and " + b.text};
    both.subjects.insert(both.subjects.end(), b.subjects.begin(), b.subjects.end());
    return both;
  }

  const Law& law_;
  const CoverBudget& budget_;
};

// When no short chain of changes helps: devices that have to leave, so that the others can stay. Groups come back, lowest
// first and many at a time, as long as there is a plan.
class FewerDevices {
 public:
  FewerDevices(const Request& request, const FixSearch& search) : request_(request), search_(search) {
    for (std::size_t v = 0; v < request.vms.size(); ++v) {
      std::map<std::uint32_t, std::size_t> index;
      for (const AssignedDevice& a : request.vms[v].devices) {
        const auto group = a.host ? request.host.device(*a.host).group : std::nullopt;
        const auto [it, fresh] = group ? index.try_emplace(*group, leaving_.size()) : std::pair(index.end(), true);
        if (fresh) leaving_.push_back({v, {}, true});
        leaving_[fresh ? leaving_.size() - 1 : it->second].ids.push_back(a.host ? request.host.device(*a.host).id : a.mdev);
      }
    }
  }

  // Without a change when not even that helps.
  Fix find() {
    if (!feasible()) return {};
    for (std::size_t chunk : {64U, 8U, 1U}) {
      for (std::size_t at = 0; at < leaving_.size(); at += chunk) keep(at, std::min(at + chunk, leaving_.size()));
    }
    Fix fix{"remove-device", {}, {}};
    for (std::size_t v = 0; v < request_.vms.size(); ++v) {
      std::vector<std::string> ids;
      for (const Group& g : leaving_) {
        if (g.vm == v && g.leaves) ids.insert(ids.end(), g.ids.begin(), g.ids.end());
      }
      if (ids.empty()) continue;
      fix.subjects.insert(fix.subjects.end(), ids.begin(), ids.end());
      fix.text += fmt::format("{}remove {} from {}", fix.text.empty() ? "" : "; and ", fmt::join(ids, ", "), request_.vms[v].name);
    }
    return fix;
  }

 private:
  struct Group {
    std::size_t vm;
    std::vector<std::string> ids;
    bool leaves;
  };

  void keep(std::size_t first, std::size_t end) {
    std::vector<std::size_t> back;
    for (std::size_t i = first; i < end; ++i) {
      if (leaving_[i].leaves) back.push_back(i);
    }
    if (back.empty()) return;
    for (std::size_t i : back) leaving_[i].leaves = false;
    if (feasible()) return;
    for (std::size_t i : back) leaving_[i].leaves = true;
  }

  bool feasible() const {
    Request fewer = request_;
    for (const Group& g : leaving_) {
      if (!g.leaves) continue;
      std::erase_if(fewer.vms[g.vm].devices, [&](const AssignedDevice& a) {
        return std::ranges::find(g.ids, a.host ? fewer.host.device(*a.host).id : a.mdev) != g.ids.end();
      });
    }
    return search_.feasible(fewer);
  }

  const Request& request_;
  const FixSearch& search_;
  std::vector<Group> leaving_;
};

}  // namespace

Explanation explain_no(const Request& request, const Law& law, const CoverBudget& budget) {
  const FixSearch search(law, budget);
  const FixSearch::Reason reason = search.ask(request);
  Explanation explanation{reason.conflict, search.fixes(request, reason)};
  if (explanation.fixes.empty()) {
    Fix fix = FewerDevices(request, search).find();
    if (!fix.change.empty()) explanation.fixes.push_back(std::move(fix));
  }
  return explanation;
}

}  // namespace ioplan
