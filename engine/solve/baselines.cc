#include "engine/solve/baselines.h"

#include <algorithm>
#include <cerrno>
#include <numeric>
#include <random>

namespace ioplan {

namespace {

struct Table {
  HwptQuantities hwpt;
  std::vector<std::uint32_t> groups;
};

// What the kernel answers: 0, or the errno of the first rule that it checks.
int kernel_attach(const RuleBook& rules, const HwptQuantities& hwpt, const Problem& problem, const ProblemGroup& group) {
  for (std::uint32_t cls : group.member_classes) {
    const Values values{&hwpt, &problem.classes[cls].quantities, &problem.quantities};
    for (const Rule* rule : rules.of(Phase::attach)) {
      if (!rule->strict && !holds(*rule, values)) return rule->errno_value;
    }
  }
  return 0;
}

class Walker {
 public:
  Walker(Walk kind, const VmModel& model, const Law& law)
      : kind_(kind), problem_(model.problem), law_(law), rules_(law) {}

  WalkOutcome run(const std::vector<std::uint32_t>& order) {
    WalkOutcome outcome;
    for (std::uint32_t g : order) {
      if (place(g)) continue;
      outcome.complete = false;
      outcome.hwpts = tables_.size();
      return outcome;
    }
    outcome.hwpts = tables_.size();
    outcome.broken = first_broken();
    return outcome;
  }

 private:
  bool place(std::uint32_t g) {
    const ProblemGroup& group = problem_.groups[g];
    HwptQuantities fresh;
    if (kind_ == Walk::type1 && !allocate(group, fresh)) return false;
    for (std::size_t i = 0; i < tables_.size(); ++i) {
      Table& table = tables_[kind_ == Walk::kernel ? i : tables_.size() - 1 - i];
      if (kind_ == Walk::type1 && !type1_candidate(table.hwpt, fresh)) continue;
      const int error = kernel_attach(rules_, table.hwpt, problem_, group);
      if (error == 0) {
        table.groups.push_back(g);
        return true;
      }
      if (error != EINVAL && kind_ != Walk::type1) return false;
    }
    if (kind_ != Walk::type1 && !allocate(group, fresh)) return false;
    if (kernel_attach(rules_, fresh, problem_, group) != 0) return false;
    tables_.push_back({fresh, {g}});
    return true;
  }

  // The first device of the group allocates: without flags, but QEMU asks for dirty tracking where it can have it.
  bool allocate(const ProblemGroup& group, HwptQuantities& hwpt) const {
    const DeviceQuantities& device = problem_.classes[first_class(group)].quantities;
    std::uint8_t flags = 0;
    if (kind_ == Walk::qemu && device[DeviceQ::dirty_capable] != 0) flags = kDirtyTracking;
    hwpt = law_.allocate(device, flags);
    return rules_.hold(Phase::allocation, {&hwpt, &device, &problem_.quantities});
  }

  std::uint32_t first_class(const ProblemGroup& group) const {
    for (std::uint32_t cls : group.assigned_classes) {
      if (std::ranges::binary_search(problem_.classes[cls].assigned, group.assigned.front())) return cls;
    }
    return group.assigned_classes.front();
  }

  // Same domain ops, which are a driver's for a stage, and the same cache coherency.
  static bool type1_candidate(const HwptQuantities& a, const HwptQuantities& b) {
    return a[HwptQ::owner] == b[HwptQ::owner] && a[HwptQ::stage] == b[HwptQ::stage] &&
           a[HwptQ::enforce_cache_coherency] == b[HwptQ::enforce_cache_coherency];
  }

  std::string first_broken() const {
    for (const Table& table : tables_) {
      if (std::string rule = broken_by(table); !rule.empty()) return rule;
    }
    if (tables_.size() > problem_.max_hwpts) return "policy.limit";
    for (const Binding& binding : problem_.bindings) {
      const bool kept = std::ranges::any_of(tables_, [&](const Table& t) {
        return std::ranges::all_of(binding.groups, [&](auto g) { return std::ranges::find(t.groups, g) != t.groups.end(); });
      });
      if (!kept) return binding.rule;
    }
    return {};
  }

  std::string broken_by(const Table& table) const {
    const auto find = [&](Phase phase, const Values& values) {
      for (const Rule* rule : rules_.of(phase)) {
        if (!holds(*rule, values)) return std::string(rule->name);
      }
      return std::string();
    };
    if (auto rule = find(Phase::fit, {&table.hwpt, nullptr, &problem_.quantities}); !rule.empty()) return rule;
    std::vector<Side> sides(problem_.separate_rules.size());
    for (std::uint32_t g : table.groups) {
      const ProblemGroup& group = problem_.groups[g];
      for (std::uint32_t cls : group.member_classes) {
        const Values values{&table.hwpt, &problem_.classes[cls].quantities, &problem_.quantities};
        if (auto rule = find(Phase::attach, values); !rule.empty()) return rule;  // only strict rules can be left
      }
      for (std::uint32_t cls : group.assigned_classes) {
        const Values values{&table.hwpt, &problem_.classes[cls].quantities, &problem_.quantities};
        if (auto rule = find(Phase::placement, values); !rule.empty()) return rule;
      }
      for (std::size_t r = 0; r < sides.size(); ++r) {
        sides[r] = {sides[r].a + group.sides[r].a, sides[r].b + group.sides[r].b, sides[r].both + group.sides[r].both};
      }
    }
    return std::ranges::any_of(sides, torn_apart) ? "policy.separate" : "";
  }

  Walk kind_;
  const Problem& problem_;
  const Law& law_;
  RuleBook rules_;
  std::vector<Table> tables_;
};

}  // namespace

WalkOutcome walk(Walk kind, const VmModel& model, const std::vector<std::uint32_t>& order, const Law& law) {
  return Walker(kind, model, law).run(order);
}

WalkStatistics walk_orders(Walk kind, const VmModel& model, std::size_t orders, std::uint64_t seed, const Law& law) {
  WalkStatistics statistics;
  std::vector<std::uint32_t> order(model.problem.groups.size());
  std::iota(order.begin(), order.end(), 0U);
  std::uint64_t all = 1;
  for (std::size_t i = 2; i <= order.size() && all <= orders; ++i) all *= i;
  const bool enumerate = all <= orders;
  std::mt19937_64 random(seed);
  for (std::size_t n = 0; n < (enumerate ? all : orders); ++n) {
    if (n > 0 && enumerate) std::ranges::next_permutation(order);
    if (!enumerate) {
      for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random() % i]);
    }
    const WalkOutcome outcome = walk(kind, model, order, law);
    ++statistics.orders;
    if (!outcome.complete) {
      ++statistics.failed;
    } else if (outcome.broken.empty()) {
      ++statistics.valid[outcome.hwpts];
    } else {
      ++statistics.unsafe[{outcome.hwpts, outcome.broken}];
    }
  }
  return statistics;
}

}  // namespace ioplan
