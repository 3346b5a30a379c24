#include "engine/lifecycle/hotplug.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "engine/base/text.h"
#include "engine/lifecycle/arrangement.h"
#include "engine/lifecycle/kvm_files.h"
#include "engine/lifecycle/layout.h"
#include "engine/lifecycle/written_layout.h"
#include "engine/planner/missing.h"
#include "engine/planner/planner.h"
#include "engine/solve/needs.h"

namespace ioplan {

namespace {

std::string_view word(HotplugPolicy mode) { return kHotplugPolicyNames[static_cast<std::size_t>(mode)]; }

// The answer in one mode, for documents without unknown facts.
class Decision {
 public:
  // `request`: the changed one.
  Decision(const Plan& running, const Request& request, std::size_t vm, HotplugPolicy mode, const Law& law,
           const HotplugOptions& options)
      : running_(running), request_(request), vm_(vm), mode_(mode), law_(law), options_(options) {}

  HotplugAnswer make() {
    answer_.mode = mode_;
    if (mode_ == HotplugPolicy::converge) {
      converge();
    } else {
      stay();
    }
    if (answer_.verdict != Verdict::feasible) return std::move(answer_);
    answer_.transition = make_transition(running_, answer_.plan, request_.host, law_);
    answer_.guest = feature_changes(features_of(running_), answer_.plan.frozen);
    return std::move(answer_);
  }

 private:
  const VirtualMachine& vm() const { return request_.vms[vm_]; }

  void converge() {
    PlanOptions options;
    options.budget = options_.budget;
    options.explain_no = options_.advice == Advice::try_alternatives;
    Plan plan = make_plan(request_, law_, options);
    answer_.verdict = plan.verdict;
    if (plan.verdict == Verdict::feasible) {
      answer_.plan = matched(running_, std::move(plan), request_.host, law_);
      answer_.plan.frozen = features_of(answer_.plan);
      return;
    }
    answer_.conflict = std::move(plan.conflict);
    answer_.unknown = std::move(plan.unknown);
    for (Fix& f : plan.fixes) {
      answer_.alternatives.push_back({std::move(f.change), std::move(f.subjects), std::move(f.text)});
    }
  }

  void stay() {
    Request request = request_;
    const KvmFiles files = kvm_files_after(running_, request, vm(), mode_, law_);
    if (files.refusal) return refuse({*files.refusal});
    request.vms[vm_].retains_noncoherent = !files.retained.empty();
    const std::vector<Needs> needs = settle_needs(request, running_.preferences);
    const Arrangement arrangement = arrange_in(request, needs);
    if (!arrangement.conflict.empty()) return refuse(arrangement.conflict);

    std::vector<std::vector<ArrangedHwpt>> by_vm;
    for (const VirtualMachine& other : request.vms) by_vm.push_back(arranged_now(running_, other.name));
    by_vm[vm_] = arrangement.hwpts;
    Plan plan = write_layout(request, by_vm, needs, law_);
    std::vector<std::string> known;
    for (const auto& hwpts : by_vm) {
      for (const ArrangedHwpt& h : hwpts) known.push_back(h.id);
    }
    plan = matched(running_, std::move(plan), request.host, law_, known);
    complete(plan, request, files.retained, needs);
    if (auto thawed = thawed_feature(plan)) return refuse({std::move(*thawed)});
    answer_.verdict = Verdict::feasible;
    answer_.plan = std::move(plan);
  }

  void refuse(std::vector<Conflict> conflict) {
    answer_.verdict = Verdict::infeasible;
    answer_.conflict = std::move(conflict);
  }

  // In frozen mode those who have a promise count as if they were there.
  Arrangement arrange_in(const Request& request, const std::vector<Needs>& needs) const {
    const auto made = mode_ == HotplugPolicy::frozen ? NewHwpts::never : NewHwpts::allowed;
    const VmIndex vm(vm_);
    if (made == NewHwpts::allowed) return arrange(running_, request, vm, needs[vm_], made, law_, options_.budget);
    Request promised = request;
    for (const Promise& p : running_.promises) add_promise(promised.vms[vm_], p);
    std::ranges::sort(promised.vms[vm_].devices, before);
    return arrange(running_, promised, vm, needs[vm_], made, law_, options_.budget);
  }

  static bool before(const AssignedDevice& a, const AssignedDevice& b) {
    if (a.host && b.host) return *a.host < *b.host;
    return a.host.has_value() != b.host.has_value() ? a.host.has_value() : a.mdev < b.mdev;
  }

  void add_promise(VirtualMachine& vm, const Promise& promise) const {
    if (promise.vm != vm.name) return;
    if (promise.device.empty()) {
      vm.expected_memory = still_promised(vm, promise.memory);
      return;
    }
    AssignedDevice expected;
    expected.host = request_.host.find_device(promise.device);
    expected.expected = true;
    const auto there = [&](const AssignedDevice& d) { return d.host == expected.host; };
    if (expected.host && std::ranges::none_of(vm.devices, there)) vm.devices.push_back(expected);
  }

  // The promised memory that was not plugged yet.
  static std::optional<Range> still_promised(const VirtualMachine& vm, const Range& memory) {
    RangeSet left{memory};
    for (const MemoryRange& m : vm.memory.ranges) left.subtract(m.gpa);
    return left.empty() ? std::nullopt : std::optional(left.ranges().back());
  }

  // What write_layout does not know.
  void complete(Plan& plan, const Request& request, const std::vector<std::string>& retained,
                const std::vector<Needs>& needs) const {
    plan.fingerprint = running_.fingerprint;
    plan.preferences = running_.preferences;
    plan.assumptions = assumed_facts(request);
    for (PlannedIoas& ioas : plan.ioas) {
      const PlannedIoas* old = space_of(running_, ioas.vm);
      if (ioas.vm == vm().name) {
        ioas.retained = retained;
      } else if (old != nullptr) {
        ioas.retained = old->retained;
        ioas.allowed = old->allowed;
      }
      for (const std::string& d : ioas.retained) {
        plan.kvm.because.push_back(d);
        plan.kvm.noncoherent_dma = true;
      }
    }
    std::ranges::sort(plan.kvm.because, [](const auto& a, const auto& b) {
      return is_uuid(a) != is_uuid(b) ? is_uuid(b) : natural_less(a, b);
    });
    keep_promises(plan, request, needs);
    std::vector<std::vector<std::string>> mediated;
    for (const PlannedIoas& ioas : plan.ioas) mediated.push_back(mediated_devices(plan, ioas.id));
    plan.steps = boot_steps(plan, mediated);
    plan.frozen = features_of(plan);
  }

  // Those that still hold, one after another; frozen mode holds all of them by the way it arranges.
  void keep_promises(Plan& plan, Request request, const std::vector<Needs>& needs) const {
    plan.unpromised = running_.unpromised;
    for (const Promise& p : running_.promises) {
      if (p.vm != vm().name) {
        plan.promises.push_back(p);
        continue;
      }
      if (!is_open(plan, request.vms[vm_], p)) continue;
      const VirtualMachine without = request.vms[vm_];
      add_promise(request.vms[vm_], p);
      std::ranges::sort(request.vms[vm_].devices, before);
      plan.promises.push_back(p);
      if (p.device.empty()) plan.promises.back().memory = *request.vms[vm_].expected_memory;
      if (holds(plan, request, needs)) continue;
      plan.promises.pop_back();
      request.vms[vm_] = without;
    }
    PlannedIoas* ioas = space_of(plan, vm().name);
    const auto& memory = request.vms[vm_].expected_memory;
    if (ioas == nullptr || !memory) return;
    ioas->allowed = {*memory};
    for (const MemoryRange& m : ioas->memory) ioas->allowed.push_back(m.gpa);
    std::ranges::sort(ioas->allowed);
  }

  // Not plugged yet, and its HWPT is still there.
  bool is_open(const Plan& plan, const VirtualMachine& vm, const Promise& p) const {
    if (space_of(plan, p.vm) == nullptr) return false;
    if (p.device.empty()) return still_promised(vm, p.memory).has_value();
    const auto index = request_.host.find_device(p.device);
    const auto there = [&](const AssignedDevice& d) { return d.host == index; };
    return find_hwpt(plan, p.hwpt) != nullptr && std::ranges::none_of(vm.devices, there);
  }

  bool holds(const Plan& plan, const Request& request, const std::vector<Needs>& needs) const {
    return arrange(plan, request, VmIndex(vm_), needs[vm_], NewHwpts::never, law_, options_.budget).conflict.empty();
  }

  // In frozen mode: a feature that the new layout would change.
  std::optional<Conflict> thawed_feature(const Plan& plan) const {
    if (mode_ != HotplugPolicy::frozen) return std::nullopt;
    const auto& frozen = running_.frozen.empty() ? features_of(running_) : running_.frozen;
    for (const FeatureChange& c : feature_changes(frozen, plan.frozen)) {
      if (c.vm != vm().name) continue;
      return Conflict{"lifecycle.frozen",
                      {c.vm},
                      fmt::format("`{}` of {} is frozen as {} and would be {}", c.feature, c.vm, c.before, c.after)};
    }
    return std::nullopt;
  }

  const Plan& running_;
  const Request& request_;
  std::size_t vm_;
  HotplugPolicy mode_;
  const Law& law_;
  const HotplugOptions& options_;
  HotplugAnswer answer_;
};

// What an answer fixes, for comparing those of different values of unknown facts.
bool same_answer(const HotplugAnswer& a, const HotplugAnswer& b) {
  return a.verdict == b.verdict &&
         (a.verdict != Verdict::feasible || (a.plan.hwpts == b.plan.hwpts && a.plan.ioas == b.plan.ioas &&
                                             a.plan.kvm == b.plan.kvm && a.transition.steps == b.transition.steps));
}

std::string in_words(const HotplugAnswer& a) {
  if (a.verdict != Verdict::feasible) return std::string(kVerdictNames[static_cast<std::size_t>(a.verdict)]);
  std::string text = fmt::format("{} HWPTs, {} steps", a.plan.hwpts.size(), a.transition.steps.size());
  for (const PlannedHwpt& h : a.plan.hwpts) text += fmt::format(", {}: {}", h.id, fmt::join(h.devices, " "));
  return text;
}

class Hotplug {
 public:
  Hotplug(const Plan& running, Request request, std::size_t vm, HotplugPolicy mode, const Law& law,
          const HotplugOptions& options)
      : running_(running), request_(std::move(request)), vm_(vm), mode_(mode), law_(law), options_(options) {}

  HotplugAnswer answer() {
    const std::vector<MissingFact> unknown = unknown_facts(request_);
    const bool complete = std::ranges::none_of(unknown, [](const auto& f) { return f.candidates.empty(); });
    if (!complete) return undecidable(unknown);
    for (const MissingFact& f : unknown) f.set(request_, f.candidates[0]);
    HotplugAnswer answer = decide(request_, mode_, options_.advice);
    for (const MissingFact& f : unknown) {
      if (auto differs = deciding(answer, f)) {
        answer = {};
        answer.mode = mode_;
        answer.verdict = Verdict::undecided;
        answer.unknown.push_back(std::move(*differs));
        return answer;
      }
    }
    if (answer.verdict == Verdict::feasible) refuse_assumptions(answer);
    if (answer.verdict == Verdict::infeasible && options_.advice == Advice::try_alternatives) advise(answer);
    return answer;
  }

 private:
  HotplugAnswer decide(const Request& request, HotplugPolicy mode, Advice advice) const {
    HotplugOptions options = options_;
    options.advice = advice;
    return Decision(running_, request, vm_, mode, law_, options).make();
  }

  HotplugAnswer undecidable(const std::vector<MissingFact>& unknown) const {
    HotplugAnswer answer;
    answer.mode = mode_;
    answer.verdict = Verdict::undecided;
    for (const MissingFact& f : unknown) {
      if (f.candidates.empty()) answer.unknown.push_back({f.path, "a unit", "depends on it", "none", "infeasible"});
    }
    return answer;
  }

  // Another value of the fact that gives another answer.
  std::optional<UnknownFact> deciding(const HotplugAnswer& base, const MissingFact& fact) const {
    for (std::size_t c = 1; c < fact.candidates.size(); ++c) {
      Request other = request_;
      fact.set(other, fact.candidates[c]);
      const HotplugAnswer answer = decide(other, mode_, Advice::none);
      if (same_answer(base, answer)) continue;
      return UnknownFact{fact.path, fact.show(fact.candidates[0]), in_words(base), fact.show(fact.candidates[c]),
                         in_words(answer)};
    }
    return std::nullopt;
  }

  void refuse_assumptions(HotplugAnswer& answer) const {
    if (request_.policy.assumptions == Permission::allow || answer.plan.assumptions.empty()) return;
    const Assumption first = answer.plan.assumptions.front();
    answer = {};
    answer.mode = mode_;
    answer.conflict.push_back({"policy.assumptions",
                               {first.fact},
                               fmt::format("the answer rests on the default `{}: {}`, and the policy says "
                                           "`assumptions: refuse`",
                                           first.fact, first.value)});
  }

  void advise(HotplugAnswer& answer) const {
    constexpr std::array<HotplugPolicy, 3> kModes = {HotplugPolicy::frozen, HotplugPolicy::additive,
                                                     HotplugPolicy::converge};
    std::vector<Alternative> found;
    for (const HotplugPolicy mode : kModes) {
      if (mode == mode_) continue;
      const HotplugAnswer other = decide(request_, mode, Advice::none);
      if (other.verdict != Verdict::feasible) continue;
      found.push_back({"mode", {std::string(word(mode))}, fmt::format("in {} mode: {}", word(mode), effect(other))});
    }
    if (auto retained = try_to_retain()) found.push_back(std::move(*retained));
    answer.alternatives.insert(answer.alternatives.begin(), found.begin(), found.end());
  }

  static std::string effect(const HotplugAnswer& a) {
    const auto fresh = std::ranges::count(a.transition.steps, StepKind::hwpt_alloc, &Step::kind);
    std::string text = fresh == 0 ? "no new HWPT" : fmt::format("{} new HWPT{}", fresh, fresh == 1 ? "" : "s");
    const std::size_t moved = a.transition.interrupted.size();
    text += moved == 0 ? ", nobody is interrupted"
                       : fmt::format(", {} device{} interrupted ({})", moved, moved == 1 ? " is" : "s are",
                                     fmt::join(a.transition.interrupted, " "));
    for (const FeatureChange& c : a.guest) text += fmt::format(", `{}` {} -> {}", c.feature, c.before, c.after);
    return text;
  }

  std::optional<Alternative> try_to_retain() const {
    if (mode_ == HotplugPolicy::converge || request_.policy.noncoherent_unplug == NoncoherentUnplug::retain) return {};
    Request retaining = request_;
    retaining.policy.noncoherent_unplug = NoncoherentUnplug::retain;
    const HotplugAnswer other = decide(retaining, mode_, Advice::none);
    if (other.verdict != Verdict::feasible) return {};
    return Alternative{
        "relax-policy",
        {"noncoherent_unplug", "retain"},
        "set `noncoherent_unplug: retain` in the policy: the device's file stays open, and KVM non-coherent"};
  }

  const Plan& running_;
  Request request_;
  std::size_t vm_;
  HotplugPolicy mode_;
  const Law& law_;
  const HotplugOptions& options_;
};

}  // namespace

Result<HotplugAnswer> hotplug(const Plan& running, const Request& request, const Change& change, HotplugPolicy mode,
                              const Law& law, const HotplugOptions& options) {
  auto changed = changed_request(running, request, change);
  if (!changed) return tl::make_unexpected(changed.error());
  const std::size_t vm = *vm_of(*changed, change);
  return Hotplug(running, std::move(*changed), vm, mode, law, options).answer();
}

}  // namespace ioplan
