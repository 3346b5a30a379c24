// A "no" is believed only when it can be shown.
//
// Random infeasible questions: the conflict of the Plan is not empty, enforced alone it leaves no plan, and without any
// one of its members there is one (tests/support/enforce.h tries every partition). Every fix is applied to the request,
// by code of our own that reads only the Fix, and planned again. Random undecided questions: the first fact that the
// Plan names is given both of its values, and two different answers come out.
//
// IOPLAN_SCALE multiplies the number of questions, IOPLAN_SEED asks one seed only.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <optional>
#include <string>

#include "constraints/catalog.h"
#include "constraints/kernel_law.h"
#include "engine/base/text.h"
#include "engine/document/load.h"
#include "engine/document/plan_document.h"
#include "engine/planner/missing.h"
#include "engine/planner/planner.h"
#include "tests/support/enforce.h"
#include "tests/support/generator.h"
#include "tests/support/seeds.h"

namespace ioplan {
namespace {

// Facts that nobody stated take their first candidates: so does the explanation of a no (engine/README.md, decision
// 10).
Request completed(const Request& request) {
  Request complete = request;
  for (const MissingFact& f : unknown_facts(request)) {
    if (!f.candidates.empty()) f.set(complete, f.candidates[0]);
  }
  return complete;
}

std::string text_of(const Conflict& c) {
  return fmt::format("{}({}): {}", c.rule, fmt::join(c.subjects, " "), c.because);
}

std::string text_of(const std::vector<Conflict>& conflict) {
  std::string text;
  for (const Conflict& c : conflict) text += "\n    " + text_of(c);
  return text;
}

// ------------------------------------------------------------------------------------------------------------- fixes

// Applies a Fix as a program would that reads the Plan document: `change` is one word, or several joined by "+", each
// with its share of `subjects`.
class FixApplier {
 public:
  FixApplier(Request& request, const Fix& fix) : request_(request), subjects_(fix.subjects) {
    for (std::size_t at = 0; at <= fix.change.size();) {
      const std::size_t end = std::min(fix.change.find('+', at), fix.change.size());
      changes_.push_back(fix.change.substr(at, end - at));
      at = end + 1;
    }
  }

  // What is wrong with the fix; empty when it was applied. `good` says whether the outcome is as it should be: how many
  // devices a part removes is not written down, so that other splits are tried where one fails.
  std::string apply(const std::function<bool(const Request&)>& good) {
    const Request before = request_;
    return apply(0, 0, before, good);
  }

 private:
  static std::size_t arity(const std::string& change) {
    static const std::map<std::string, std::size_t> kArity = {
        {"drop-need", 2}, {"relax-policy", 2}, {"move-memory", 2}, {"shrink-memory", 2}};
    const auto it = kArity.find(change);
    return it == kArity.end() ? 1 : it->second;
  }

  std::string apply(std::size_t part, std::size_t used, const Request& before,
                    const std::function<bool(const Request&)>& good) {
    request_ = before;
    if (part == changes_.size())
      return used != subjects_.size() ? "subjects are left over" : good(request_) ? "" : "it does not help";
    std::size_t rest = 0;
    for (std::size_t j = part + 1; j < changes_.size(); ++j) rest += arity(changes_[j]);
    std::string wrong = fmt::format("`{}` has too few subjects", changes_[part]);
    for (std::size_t n = arity(changes_[part]); used + n + rest <= subjects_.size(); ++n) {
      request_ = before;
      const std::vector<std::string> mine(subjects_.begin() + static_cast<std::ptrdiff_t>(used),
                                          subjects_.begin() + static_cast<std::ptrdiff_t>(used + n));
      wrong = fmt::format("`{}` of {} cannot be applied", changes_[part], fmt::join(mine, " "));
      if (change(changes_[part], mine)) {
        const Request after = request_;
        wrong = apply(part + 1, used + n, after, good);
        if (wrong.empty()) return wrong;
      }
      if (changes_[part] != "remove-device") break;
    }
    return wrong;
  }

  bool change(const std::string& what, const std::vector<std::string>& s) {
    if (what == "remove-device") return std::ranges::all_of(s, [&](const auto& id) { return remove_device(id); });
    if (what == "drop-need") return vm(s[0]) != nullptr && drop_need(*vm(s[0]), s[1]);
    if (what == "relax-policy") return relax(s[0], s[1]);
    if (what == "drop-rule")
      return std::erase_if(request_.policy.rules, [&](const auto& r) { return r.name == s[0]; }) == 1;
    if (what == "guest-cache-maintenance") return vm(s[0]) != nullptr && (vm(s[0])->guest_cache_maintenance = true);
    if (what == "allow-unsafe-interrupts") {
      request_.host.kernel.facts[KernelFact::allow_unsafe_interrupts] = 1;
      return s[0] == "kernel.allow_unsafe_interrupts";
    }
    if (what == "drop-direct-region") return drop_direct_region(s[0]);
    if (what == "move-memory") return vm(s[0]) != nullptr && move_memory(*vm(s[0]), s[1]);
    if (what == "shrink-memory") return vm(s[0]) != nullptr && shrink_memory(*vm(s[0]), s[1]);
    return what == "map-writable" && vm(s[0]) != nullptr && map_writable(*vm(s[0]));
  }

  VirtualMachine* vm(const std::string& name) {
    const auto it = std::ranges::find(request_.vms, name, &VirtualMachine::name);
    return it == request_.vms.end() ? nullptr : &*it;
  }

  bool remove_device(const std::string& id) {
    std::size_t removed = 0;
    for (VirtualMachine& v : request_.vms) {
      removed += std::erase_if(v.devices, [&](const AssignedDevice& a) {
        return (a.host ? request_.host.device(*a.host).id : a.mdev) == id;
      });
    }
    return removed == 1;
  }

  static bool drop_need(VirtualMachine& v, const std::string& key) {
    if (key == "dirty_tracking") v.needs.dirty_tracking = Need::no;
    if (key == "nest_parent") v.needs.nest_parent = Need::no;
    if (key == "pasid") v.needs.pasid = Need::no;
    if (key == "p2p") v.needs.p2p.clear();
    return key == "dirty_tracking" || key == "nest_parent" || key == "pasid" || key == "p2p";
  }

  bool relax(const std::string& field, const std::string& value) {
    if (field == "assumed_coherency") request_.policy.assumed_coherency = Permission::allow;
    if (field == "assumptions") request_.policy.assumptions = Permission::allow;
    if (field != "coherency") return (field == "assumed_coherency" || field == "assumptions") && value == "allow";
    const auto it = std::ranges::find(kCoherencyPolicyNames, value);
    if (it == kCoherencyPolicyNames.end()) return false;
    const auto policy = static_cast<CoherencyPolicy>(it - kCoherencyPolicyNames.begin());
    const bool weaker = policy < request_.policy.coherency;
    request_.policy.coherency = policy;
    return weaker;
  }

  bool drop_direct_region(const std::string& id) {
    const auto d = request_.host.find_device(id);
    auto* reserved =
        d && request_.host.devices[d->index()].reserved ? &*request_.host.devices[d->index()].reserved : nullptr;
    return reserved != nullptr &&
           std::erase_if(*reserved, [](const auto& r) { return r.type == ReservedType::direct; }) > 0;
  }

  // To an address, or into the layout of another machine.
  static bool move_memory(VirtualMachine& v, const std::string& where) {
    if (where == "amd") {
      v.machine.cpu_vendor = CpuVendor::amd;
      return v.memory.size.has_value();
    }
    const auto start = parse_integer(where);
    if (!start) return false;
    std::uint64_t next = *start;
    for (MemoryRange& m : v.memory.ranges) {
      m.gpa = {next, next + m.gpa.extent()};
      next = m.gpa.last + 1;
    }
    return !v.memory.ranges.empty();
  }

  static bool shrink_memory(VirtualMachine& v, const std::string& size) {
    const auto bytes = parse_size(size);
    const bool smaller = bytes && v.memory.size && *bytes < *v.memory.size;
    if (smaller) v.memory.size = *bytes;
    return smaller;
  }

  static bool map_writable(VirtualMachine& v) {
    bool changed = false;
    for (MemoryRange& m : v.memory.ranges) {
      changed = changed || m.access == Access::read_only;
      m.access = Access::read_write;
    }
    return changed;
  }

  Request& request_;
  std::vector<std::string> subjects_;
  std::vector<std::string> changes_;
};

std::string fix_faults(const Request& request, const Fix& fix) {
  Request fixed = request;
  return FixApplier(fixed, fix).apply([](const Request& changed) {
    return make_plan(changed, kernel_law(), {.budget = {}, .explain_no = false}).verdict == Verdict::feasible;
  });
}

// ---------------------------------------------------------------------------------------------------------- conflicts

std::string conflict_faults(const Request& request, const Plan& plan) {
  if (plan.conflict.empty()) return "the conflict is empty";
  for (const Conflict& c : plan.conflict) {
    if (find_rule(c.rule) == nullptr) return "no rule is named " + c.rule;
    if (c.subjects.empty() || c.because.empty()) return "a member says nothing: " + text_of(c);
    if (c.because.find_first_of("{}") != std::string::npos) return "a placeholder is left: " + text_of(c);
  }
  const enforce::Question question(request);
  if (question.plan_exists(plan.conflict)) return "enforced alone, it leaves a plan";
  std::string text;
  for (std::size_t i = 0; i < plan.conflict.size(); ++i) {
    std::vector<Conflict> others = plan.conflict;
    others.erase(others.begin() + static_cast<std::ptrdiff_t>(i));
    if (!question.plan_exists(others)) text += "\n  not needed: " + text_of(plan.conflict[i]);
  }
  return text;
}

struct Mix {
  std::size_t infeasible = 0, undecided = 0, members = 0, several = 0, fixes = 0, chained = 0, without_fix = 0,
              together = 0;
  std::map<std::string, std::size_t> by_rule, by_change;
};

std::string infeasible_faults(const Request& request, const Plan& plan, Mix& mix) {
  ++mix.infeasible;
  mix.members += plan.conflict.size();
  mix.several += plan.conflict.size() > 1;
  for (const Conflict& c : plan.conflict) ++mix.by_rule[c.rule];
  std::string text = conflict_faults(request, plan);
  if (!text.empty()) text = "conflict: " + text + text_of(plan.conflict) + "\n";
  mix.without_fix += plan.fixes.empty();
  if (plan.fixes.empty() && std::getenv("IOPLAN_SEED") != nullptr) text += "no fix" + text_of(plan.conflict);
  for (const Fix& fix : plan.fixes) {
    ++mix.fixes;
    mix.chained += fix.change.find('+') != std::string::npos;
    ++mix.by_change[fix.change];
    const std::string wrong = fix_faults(request, fix);
    if (!wrong.empty())
      text += fmt::format("fix `{}` [{} of {}]: {}\n", fix.text, fix.change, fmt::join(fix.subjects, " "), wrong);
  }
  return text;
}

// ---------------------------------------------------------------------------------------------------------- undecided

// Everything that a Plan document fixes, without the facts that were planned from.
std::string answer_of(Plan plan) {
  plan.fingerprint.clear();
  plan.assumptions.clear();
  plan.conflict.clear();  // why not is no part of the answer
  plan.fixes.clear();
  return to_json(plan);
}

std::optional<std::uint64_t> value_shown(const MissingFact& fact, const std::string& text) {
  for (std::uint64_t v : fact.candidates) {
    if (fact.show(v) == text) return v;
  }
  return std::nullopt;
}

std::string undecided_faults(const Request& request, const Plan& plan, Mix& mix) {
  ++mix.undecided;
  if (plan.unknown.empty()) return "no fact is named";
  const UnknownFact& named = plan.unknown.front();
  const std::vector<MissingFact> facts = unknown_facts(request);
  const auto fact = std::ranges::find(facts, named.fact, &MissingFact::path);
  if (fact == facts.end()) return "nobody misses " + named.fact;
  const auto first = value_shown(*fact, named.first_value), second = value_shown(*fact, named.second_value);
  if (!first || !second)
    return fmt::format("`{}` or `{}` is no value of {}", named.first_value, named.second_value, named.fact);
  if (named.first_value == named.second_value) return "both values are " + named.first_value;
  const auto differs = [&](const Request& at) {
    const auto planned = [&](std::uint64_t value) {
      Request with = at;
      fact->set(with, value);
      return answer_of(make_plan(with, kernel_law(), {.budget = {}, .explain_no = false}));
    };
    return planned(*first) != planned(*second);
  };
  if (differs(completed(request))) return {};
  // Two facts may decide only together: then one other fact takes another value than the first.
  ++mix.together;
  for (const MissingFact& other : facts) {
    for (std::uint64_t value : other.candidates) {
      Request at = completed(request);
      other.set(at, value);
      if (other.path != named.fact && differs(at)) return {};
    }
  }
  return "the same answer for both values of " + named.fact;
}

std::string faults(std::uint64_t seed, Mix& mix) {
  const Request request = generator::random_request(seed);
  const Plan plan = make_plan(request, kernel_law());
  switch (plan.verdict) {
    case Verdict::feasible:
      return plan.conflict.empty() && plan.fixes.empty() ? "" : "a yes with a conflict";
    case Verdict::infeasible:
      return infeasible_faults(completed(request), plan, mix);
    case Verdict::undecided:
      return undecided_faults(request, plan, mix);
  }
  return "no verdict";
}

void print(const char* what, const std::map<std::string, std::size_t>& counts) {
  std::printf("%s:", what);
  for (const auto& [name, n] : counts) std::printf(" %s %zu", name.c_str(), n);
  std::printf("\n");
}

TEST(Explain, EveryNoOfRandomQuestionsCanBeShown) {
  Mix mix;
  if (std::getenv("IOPLAN_SEED") != nullptr) {
    const auto seed = static_cast<std::uint64_t>(number_from("IOPLAN_SEED", 0));
    EXPECT_EQ(faults(seed, mix), "") << generator::to_documents(generator::random_request(seed));
    return;
  }
  const auto wanted = static_cast<std::size_t>(1500 * number_from("IOPLAN_SCALE", 1));
  std::size_t wrong = 0;
  std::uint64_t seed = 0;
  for (; mix.infeasible < wanted && wrong < 10; ++seed) {
    const std::string text = faults(seed, mix);
    if (text.empty()) continue;
    ++wrong;
    ADD_FAILURE() << "IOPLAN_SEED=" << seed << "\n" << text;
  }
  std::printf(
      "%zu of %llu questions infeasible (%zu conflicts of several members, %zu members), %zu undecided (%zu by "
      "facts together); %zu fixes (%zu chained), %zu answers without one\n",
      mix.infeasible, static_cast<unsigned long long>(seed), mix.several, mix.members, mix.undecided, mix.together,
      mix.fixes, mix.chained, mix.without_fix);
  print("rules", mix.by_rule);
  print("changes", mix.by_change);
  if (wrong > 0 || wanted < 1500) return;
  EXPECT_GE(mix.several, 300U);
  EXPECT_GE(mix.undecided, 100U);
  EXPECT_GE(mix.by_rule.size(), 25U);
  EXPECT_GE(mix.by_change.size(), 6U);
  EXPECT_EQ(mix.without_fix, 0U);
  EXPECT_LE(mix.together * 20, mix.undecided);
}

// ------------------------------------------------------------------------------------------------ the worked example

// One known case, in full: a conflict of three members and what helps.
TEST(Explain, SaysWhatTheUserCanRead) {
  const auto loaded = load_text("colours", R"(
apiVersion: ioplan/v1
kind: Host
kernel: {isolated_msi: true}
iommus: [{id: u0, driver: mock}]
devices:
  - {id: m0, iommu: u0, group: 0}
  - {id: m1, iommu: u0, group: 1}
  - {id: m2, iommu: u0, group: 2, no_dirty: true}
---
apiVersion: ioplan/v1
kind: VirtualMachine
name: vm0
memory: {ranges: [{gpa: [0x1000000, 0x1ffffff]}]}
needs: {dirty_tracking: required}
devices: [{host: m0}, {host: m1}, {host: m2}]
)");
  ASSERT_TRUE(loaded) << to_text(loaded.error());
  const Plan plan = make_plan(loaded->request, kernel_law());
  ASSERT_EQ(plan.verdict, Verdict::infeasible);
  ASSERT_EQ(plan.conflict.size(), 2U);
  EXPECT_EQ(text_of(plan.conflict[0]), "needs.dirty-tracking(vm0): vm0 says `needs.dirty_tracking: required`");
  EXPECT_EQ(text_of(plan.conflict[1]),
            "mock.dirty-tracking(m2): m2 is a mock device without dirty tracking, and the HWPT has it");
  ASSERT_EQ(plan.fixes.size(), 2U);
  EXPECT_EQ(plan.fixes[0].text, "drop `needs.dirty_tracking` of vm0, or make it `preferred`");
  EXPECT_EQ(plan.fixes[1].text, "remove m2 from vm0");
  Mix mix;
  EXPECT_EQ(infeasible_faults(loaded->request, plan, mix), "");
}

}  // namespace
}  // namespace ioplan
