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

bool device_before(const AssignedDevice& a, const AssignedDevice& b) {
  if (a.host && b.host) return *a.host < *b.host;
  return a.host.has_value() != b.host.has_value() ? a.host.has_value() : a.mdev < b.mdev;
}

// Marks a VM for as long as it lives; a copy of the whole request would cost more than the answer.
class Marked {
 public:
  explicit Marked(VirtualMachine& vm) : vm_(vm), as_it_was_(vm) {}
  Marked(const Marked&) = delete;
  Marked& operator=(const Marked&) = delete;
  ~Marked() { vm_ = std::move(as_it_was_); }

 private:
  VirtualMachine& vm_;
  VirtualMachine as_it_was_;
};

// The answer in one mode, for documents without unknown facts.
class Decision {
 public:
  // `request`: the changed one; it is marked meanwhile, and left as it was.
  Decision(const Plan& running, Request& request, std::size_t vm, HotplugPolicy mode, const Law& law,
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
    answer_.plan.fingerprint = running_.fingerprint;  // of the host as documented: here unknown facts have values
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
    const KvmFiles files = kvm_files_after(running_, request_, vm(), mode_, law_);
    if (files.refusal) return refuse({*files.refusal});
    const Marked marked(request_.vms[vm_]);
    request_.vms[vm_].retains_noncoherent = !files.retained.empty();
    const std::vector<Needs> needs = settle_needs(request_, running_.preferences);
    const Arrangement arrangement = arrange_arrivals(needs);
    if (!arrangement.conflict.empty()) return refuse(arrangement.conflict);

    std::vector<std::vector<ArrangedHwpt>> by_vm;
    for (const VirtualMachine& other : request_.vms) by_vm.push_back(arranged_now(running_, other.name, request_.host, law_));
    by_vm[vm_] = arrangement.hwpts;
    Plan plan = write_layout(request_, by_vm, needs, law_);
    std::vector<std::string> known;
    for (const auto& hwpts : by_vm) {
      for (const ArrangedHwpt& h : hwpts) known.push_back(h.id);
    }
    plan = matched(running_, std::move(plan), request_.host, law_, known);
    complete(plan, files.retained, needs);
    if (auto thawed = thawed_feature(plan)) return refuse({std::move(*thawed)});
    if (auto lost = memory_lost_to_history(plan)) return refuse({std::move(*lost)});
    answer_.verdict = Verdict::feasible;
    answer_.plan = std::move(plan);
  }

  void refuse(std::vector<Conflict> conflict) {
    answer_.verdict = Verdict::infeasible;
    answer_.conflict = std::move(conflict);
  }

  // In frozen mode those who have a promise count as if they were there.
  Arrangement arrange_arrivals(const std::vector<Needs>& needs) {
    const auto made = mode_ == HotplugPolicy::frozen ? NewHwpts::never : NewHwpts::allowed;
    const Marked marked(request_.vms[vm_]);
    for (const Promise& p : running_.promises) {
      if (made == NewHwpts::never) add_promise(request_.vms[vm_], p);
    }
    return arrange(running_, request_, VmIndex(vm_), needs[vm_], made, law_, options_.budget);
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
    if (!expected.host || std::ranges::any_of(vm.devices, there)) return;
    vm.devices.push_back(expected);
    std::ranges::sort(vm.devices, device_before);
  }

  // The promised memory that was not plugged yet.
  static std::optional<Range> still_promised(const VirtualMachine& vm, const Range& memory) {
    RangeSet left{memory};
    for (const MemoryRange& m : vm.memory.ranges) left.subtract(m.gpa);
    return left.empty() ? std::nullopt : std::optional(left.ranges().back());
  }

  // What write_layout does not know.
  void complete(Plan& plan, const std::vector<std::string>& retained, const std::vector<Needs>& needs) {
    plan.preferences = running_.preferences;
    plan.assumptions = assumed_facts(request_);
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
    keep_promises(plan, needs);
    if (law_.interface() == KernelInterface::iommufd) {
      std::vector<std::vector<std::string>> mediated;
      for (const PlannedIoas& ioas : plan.ioas) mediated.push_back(mediated_devices(plan, ioas.id));
      plan.steps = boot_steps(plan, mediated);
    }
    plan.frozen = features_of(plan);
  }

  // Those that still hold, one after another; frozen mode holds all of them by the way it arranges.
  void keep_promises(Plan& plan, const std::vector<Needs>& needs) {
    const Marked marked(request_.vms[vm_]);
    plan.unpromised = running_.unpromised;
    for (const Promise& p : running_.promises) {
      if (p.vm != vm().name) {
        plan.promises.push_back(p);
      } else if (is_open(plan, p)) {
        keep_promise(plan, p, needs);
      }
    }
    PlannedIoas* ioas = space_of(plan, vm().name);
    const auto& memory = vm().expected_memory;
    if (ioas == nullptr || !memory) return;
    ioas->allowed = {*memory};
    for (const MemoryRange& m : ioas->memory) ioas->allowed.push_back(m.gpa);
    std::ranges::sort(ioas->allowed);
  }

  void keep_promise(Plan& plan, const Promise& p, const std::vector<Needs>& needs) {
    VirtualMachine without = vm();
    add_promise(request_.vms[vm_], p);
    plan.promises.push_back(p);
    if (p.device.empty()) plan.promises.back().memory = *vm().expected_memory;
    const VmIndex index(vm_);
    if (arrange(plan, request_, index, needs[vm_], NewHwpts::never, law_, options_.budget).conflict.empty()) return;
    plan.promises.pop_back();
    request_.vms[vm_] = std::move(without);
  }

  // Not plugged yet, and its HWPT is still there.
  bool is_open(const Plan& plan, const Promise& p) const {
    if (space_of(plan, p.vm) == nullptr) return false;
    if (p.device.empty()) return still_promised(vm(), p.memory).has_value();
    const auto index = request_.host.find_device(p.device);
    const auto there = [&](const AssignedDevice& d) { return d.host == index; };
    return find_hwpt(plan, p.hwpt) != nullptr && std::ranges::none_of(vm().devices, there);
  }

  // A container may not have back what devices that have left had reserved.
  std::optional<Conflict> memory_lost_to_history(const Plan& plan) const {
    if (plan.interface == KernelInterface::iommufd) return std::nullopt;
    for (const PlannedIoas& ioas : plan.ioas) {
      const MemoryRange* lost = unusable_memory(ioas.memory, ioas.ranges);
      if (lost == nullptr) continue;
      return Conflict{"type1.reserved-regions",
                      {ioas.vm},
                      fmt::format("{} cannot be mapped: devices of {} that have left had reserved it, and the container is still "
                                  "without it",
                                  format_ranges({&lost->gpa, 1}), ioas.vm)};
    }
    return std::nullopt;
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
  Request& request_;
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
  Hotplug(const Plan& running, Request& request, std::size_t vm, HotplugPolicy mode, const Law& law,
          const HotplugOptions& options)
      : running_(running), request_(request), vm_(vm), mode_(mode), law_(law), options_(options) {}

  HotplugAnswer answer() {
    const std::vector<MissingFact> unknown = unknown_facts(request_);
    const bool complete = std::ranges::none_of(unknown, [](const auto& f) { return f.candidates.empty(); });
    if (!complete) return undecidable(unknown);
    if (!unknown.empty()) return answer_for_unknown(unknown);
    return finished(decide(request_, mode_, options_.advice));
  }

 private:
  HotplugAnswer finished(HotplugAnswer answer) {
    if (answer.verdict == Verdict::feasible) refuse_assumptions(answer);
    if (answer.verdict == Verdict::infeasible && options_.advice == Advice::try_alternatives) advise(answer);
    return answer;
  }

  HotplugAnswer answer_for_unknown(const std::vector<MissingFact>& unknown) {
    Request completed = request_;
    for (const MissingFact& f : unknown) f.set(completed, f.candidates[0]);
    HotplugAnswer answer = decide(completed, mode_, options_.advice);
    for (const MissingFact& f : unknown) {
      if (auto differs = deciding(answer, completed, f)) {
        answer = {};
        answer.mode = mode_;
        answer.verdict = Verdict::undecided;
        answer.unknown.push_back(std::move(*differs));
        return answer;
      }
    }
    return Hotplug(running_, completed, vm_, mode_, law_, options_).finished(std::move(answer));
  }

  HotplugAnswer decide(Request& request, HotplugPolicy mode, Advice advice) const {
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
  std::optional<UnknownFact> deciding(const HotplugAnswer& base, const Request& completed,
                                      const MissingFact& fact) const {
    for (std::size_t c = 1; c < fact.candidates.size(); ++c) {
      Request other = completed;
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

  void advise(HotplugAnswer& answer) {
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

  std::string effect(const HotplugAnswer& a) const {
    const auto is_new = [&](const PlannedHwpt& h) { return find_hwpt(running_, h.id) == nullptr; };
    const auto fresh = std::ranges::count_if(a.plan.hwpts, is_new);
    std::string text = fresh == 0 ? "no new HWPT" : fmt::format("{} new HWPT{}", fresh, fresh == 1 ? "" : "s");
    const std::size_t moved = a.transition.interrupted.size();
    text += moved == 0 ? ", nobody is interrupted"
                       : fmt::format(", {} device{} interrupted ({})", moved, moved == 1 ? " is" : "s are",
                                     fmt::join(a.transition.interrupted, " "));
    for (const FeatureChange& c : a.guest) text += fmt::format(", `{}` {} -> {}", c.feature, c.before, c.after);
    return text;
  }

  std::optional<Alternative> try_to_retain() {
    if (mode_ == HotplugPolicy::converge || request_.policy.noncoherent_unplug == NoncoherentUnplug::retain) return {};
    request_.policy.noncoherent_unplug = NoncoherentUnplug::retain;
    const HotplugAnswer other = decide(request_, mode_, Advice::none);
    request_.policy.noncoherent_unplug = NoncoherentUnplug::release;
    if (other.verdict != Verdict::feasible) return {};
    return Alternative{
        "relax-policy",
        {"noncoherent_unplug", "retain"},
        "set `noncoherent_unplug: retain` in the policy: the device's file stays open, and KVM non-coherent"};
  }

  const Plan& running_;
  Request& request_;
  std::size_t vm_;
  HotplugPolicy mode_;
  const Law& law_;
  const HotplugOptions& options_;
};

}  // namespace

HotplugAnswer hotplug_in(const Plan& running, Request& changed, std::size_t vm, HotplugPolicy mode, const Law& law,
                         const HotplugOptions& options) {
  return Hotplug(running, changed, vm, mode, law, options).answer();
}

Result<HotplugAnswer> hotplug(const Plan& running, const Request& request, const Change& change, HotplugPolicy mode,
                              const Law& law, const HotplugOptions& options) {
  auto changed = changed_request(running, request, change);
  if (!changed) return tl::make_unexpected(changed.error());
  const std::size_t vm = *vm_of(*changed, change);
  return hotplug_in(running, *changed, vm, mode, law, options);
}

}  // namespace ioplan
