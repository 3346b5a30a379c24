#include "engine/solve/broken_rule.h"

#include <algorithm>

namespace ioplan {

namespace {

// One HWPT at a time. A class that was asked and broke nothing is not asked again.
class Inspector {
 public:
  Inspector(const Problem& problem, const RuleBook& rules) : problem_(problem), rules_(rules) {}

  std::string first_broken(const Placement& placement) {
    hwpt_ = &placement.hwpt;
    if (auto rule = broken(Phase::fit, nullptr); !rule.empty()) return rule;
    member_asked_.assign(problem_.classes.size(), false);
    assigned_asked_.assign(problem_.classes.size(), false);
    std::vector<Side> sides(problem_.separate_rules.size());
    for (std::uint32_t g : placement.groups) {
      const ProblemGroup& group = problem_.groups[g];
      if (auto rule = ask(Phase::attach, group.member_classes, member_asked_); !rule.empty()) return rule;
      if (auto rule = ask(Phase::placement, group.assigned_classes, assigned_asked_); !rule.empty()) return rule;
      for (std::size_t r = 0; r < sides.size(); ++r) {
        sides[r] = {sides[r].a + group.sides[r].a, sides[r].b + group.sides[r].b, sides[r].both + group.sides[r].both};
      }
    }
    return std::ranges::any_of(sides, torn_apart) ? "policy.separate" : "";
  }

 private:
  std::string ask(Phase phase, const std::vector<std::uint32_t>& classes, std::vector<bool>& asked) const {
    for (std::uint32_t cls : classes) {
      if (asked[cls]) continue;
      asked[cls] = true;
      if (auto rule = broken(phase, &problem_.classes[cls].quantities); !rule.empty()) return rule;
    }
    return {};
  }

  std::string broken(Phase phase, const DeviceQuantities* device) const {
    const Values values{hwpt_, device, &problem_.quantities};
    for (const Rule* rule : rules_.of(phase)) {
      if (!holds(*rule, values)) return std::string(rule->name);
    }
    return {};
  }

  const Problem& problem_;
  const RuleBook& rules_;
  const HwptQuantities* hwpt_ = nullptr;
  std::vector<bool> member_asked_, assigned_asked_;  // by class
};

bool together(const Placement& placement, const Binding& binding) {
  return std::ranges::all_of(binding.groups, [&](std::uint32_t g) {
    return std::ranges::find(placement.groups, g) != placement.groups.end();
  });
}

}  // namespace

std::string first_broken_rule(const Problem& problem, std::span<const Placement> placements, const RuleBook& rules) {
  Inspector inspector(problem, rules);
  for (const Placement& p : placements) {
    if (std::string rule = inspector.first_broken(p); !rule.empty()) return rule;
  }
  if (placements.size() > problem.max_hwpts) return "policy.limit";
  for (const Binding& binding : problem.bindings) {
    if (std::ranges::none_of(placements, [&](const Placement& p) { return together(p, binding); })) return binding.rule;
  }
  return {};
}

}  // namespace ioplan
