// steps: the judge's own replay. A small state machine walks the steps as iommufd would take them, and at the end
// everything that the plan promises must have been made.

#include <algorithm>
#include <map>
#include <set>

#include "engine/base/text.h"
#include "engine/check/court.h"

namespace ioplan::check {

namespace {

class Replay {
 public:
  explicit Replay(const Court& court) : court_(court) {
    for (const PlannedIoas& ioas : court.plan.ioas) ioas_[ioas.id].planned = &ioas;
    for (const PlannedHwpt& hwpt : court.plan.hwpts) {
      hwpt_[hwpt.id] = &hwpt;
      for (const std::string& device : hwpt.devices) home_[device] = &hwpt;
    }
    for (const Scene& scene : court.world.scenes) {
      for (const std::string& mdev : scene.mediated) vm_of_mdev_[mdev] = scene.vm->name;
    }
  }

  void run() {
    for (const Step& step : court_.plan.steps) {
      const std::string fault = take(step);
      if (fault.empty()) continue;
      court_.object(obligation::steps, subjects(step), fmt::format("step {}: {}", number_ + 1, fault));
      return;  // what follows would only repeat it
    }
    finish();
  }

 private:
  struct Space {
    const PlannedIoas* planned = nullptr;
    bool made = false;
    bool allowed = false;
    std::vector<MemoryRange> mapped;
  };

  static std::vector<std::string> subjects(const Step& step) {
    std::vector<std::string> result;
    for (const std::string& s : {step.device, step.ioas, step.hwpt}) {
      if (!s.empty()) result.push_back(s);
    }
    return result;
  }

  std::string take(const Step& step) {
    std::string fault = dispatch(step);
    if (fault.empty()) ++number_;
    return fault;
  }

  std::string dispatch(const Step& step) {
    switch (step.kind) {
      case StepKind::bind:
        return bind(step);
      case StepKind::ioas_alloc:
        return alloc_ioas(step);
      case StepKind::allow_iovas:
        return allow(step);
      case StepKind::hwpt_alloc:
        return alloc_hwpt(step);
      case StepKind::attach:
        return attach(step);
      case StepKind::attach_ioas:
        return attach_ioas(step);
      case StepKind::map:
        return map(step);
      default:
        return "only a running layout can change like that";
    }
  }

  // A container has no such step: groups join, and then all is allowed that its domains and regions leave.
  std::string only_of_iommufd() const { return court_.in_containers() ? "a type1 container has no such step" : ""; }

  std::string bind(const Step& step) {
    if (std::string fault = only_of_iommufd(); !fault.empty()) return fault;
    if (!home_.contains(step.device) && !vm_of_mdev_.contains(step.device)) {
      return fmt::format("`{}` is bound, and the plan has no use for it", step.device);
    }
    return bound_.insert(step.device).second ? "" : fmt::format("`{}` is bound twice", step.device);
  }

  std::string alloc_ioas(const Step& step) {
    const auto it = ioas_.find(step.ioas);
    if (it == ioas_.end()) return fmt::format("`{}` is not an IOAS of the plan", step.ioas);
    if (it->second.made) return fmt::format("`{}` is allocated twice", step.ioas);
    it->second.made = true;
    return "";
  }

  Space* made_space(const std::string& id) {
    const auto it = ioas_.find(id);
    return it == ioas_.end() || !it->second.made ? nullptr : &it->second;
  }

  std::string allow(const Step& step) {
    if (std::string fault = only_of_iommufd(); !fault.empty()) return fault;
    Space* space = made_space(step.ioas);
    if (space == nullptr) return fmt::format("`{}` is not there yet", step.ioas);
    if (space->allowed) return fmt::format("`{}` is given its allowed ranges twice", step.ioas);
    if (!space->mapped.empty()) return fmt::format("`{}` is mapped before its ranges are allowed", step.ioas);
    space->allowed = true;
    return allowed_ranges_fault(step.ranges, *space->planned);
  }

  // IOMMU_IOAS_ALLOW_IOVAS refuses overlaps and reserved addresses; what will be mapped must be allowed.
  static std::string allowed_ranges_fault(const std::vector<Range>& ranges, const PlannedIoas& planned) {
    for (std::size_t i = 0; i < ranges.size(); ++i) {
      if (i > 0 && ranges[i].start <= ranges[i - 1].last) return "the allowed ranges overlap or are out of order";
      if (ranges[i].start >= ranges[i].last) return "an allowed range is empty";
      if (!covers(planned.ranges, ranges[i])) return "an allowed range is not usable";
    }
    const Intervals allowed = merged(ranges);
    for (const MemoryRange& m : planned.memory) {
      if (!covers(allowed, m.gpa)) return "memory lies outside the allowed ranges";
    }
    for (const Range& r : planned.allowed) {
      if (!covers(allowed, r)) return "not all of what is to be allowed is";
    }
    return "";
  }

  std::string alloc_hwpt(const Step& step) {
    const auto it = hwpt_.find(step.hwpt);
    if (it == hwpt_.end()) return fmt::format("`{}` is not a HWPT of the plan", step.hwpt);
    const PlannedHwpt& planned = *it->second;
    if (planned.automatic) return fmt::format("`{}` is made by attaching, not by allocating", step.hwpt);
    if (made_.contains(step.hwpt)) return fmt::format("`{}` is allocated twice", step.hwpt);
    if (step.device != planned.allocator || step.ioas != planned.ioas || step.flags != planned.flags) {
      return fmt::format("`{}` is not allocated as planned", step.hwpt);
    }
    if (made_space(step.ioas) == nullptr) return fmt::format("`{}` is not there yet", step.ioas);
    if (!bound_.contains(step.device)) return fmt::format("`{}` is not bound yet", step.device);
    made_.insert(step.hwpt);
    return "";
  }

  std::string attach_fault(const Step& step) const {
    if (!court_.in_containers() && !bound_.contains(step.device)) {
      return fmt::format("`{}` is not bound yet", step.device);
    }
    if (attached_.contains(step.device)) return fmt::format("`{}` is attached twice", step.device);
    return "";
  }

  std::string attach(const Step& step) {
    std::string fault = attach_fault(step);
    if (!fault.empty()) return fault;
    const auto home = home_.find(step.device);
    if (home == home_.end() || home->second->id != step.hwpt) {
      return fmt::format("`{}` is attached to `{}`, which is not its HWPT", step.device, step.hwpt);
    }
    if (!made_.contains(step.hwpt)) return fmt::format("`{}` is not allocated yet", step.hwpt);
    attached_.insert(step.device);
    return "";
  }

  std::string attach_ioas(const Step& step) {
    std::string fault = attach_fault(step);
    if (!fault.empty()) return fault;
    const Space* space = made_space(step.ioas);
    if (space == nullptr) return fmt::format("`{}` is not there yet", step.ioas);
    if (court_.in_containers() && !space->mapped.empty()) {
      return fmt::format("`{}` joins `{}` when it is mapped already", step.device, step.ioas);
    }
    if (!belongs_there(step, *space)) {
      return fmt::format("`{}` is attached to `{}` against the plan", step.device, step.ioas);
    }
    attached_.insert(step.device);
    if (!step.hwpt.empty()) made_.insert(step.hwpt);
    return "";
  }

  // A mediated device has access to its VM's IOAS; a host device lets the kernel make its automatic HWPT there.
  bool belongs_there(const Step& step, const Space& space) const {
    const auto mdev = vm_of_mdev_.find(step.device);
    if (mdev != vm_of_mdev_.end()) return mdev->second == space.planned->vm && step.hwpt.empty();
    const auto home = home_.find(step.device);
    return home != home_.end() && home->second->automatic && home->second->ioas == step.ioas &&
           home->second->id == step.hwpt;
  }

  std::string map(const Step& step) {
    Space* space = made_space(step.ioas);
    if (space == nullptr) return fmt::format("`{}` is not there yet", step.ioas);
    if (!space->allowed && !court_.in_containers()) return fmt::format("`{}` is mapped before its ranges are allowed", step.ioas);
    const MemoryRange range{step.iova, step.writeable ? Access::read_write : Access::read_only};
    const auto& wanted = space->planned->memory;
    if (std::find(wanted.begin(), wanted.end(), range) == wanted.end()) {
      return fmt::format("{} is mapped in `{}` against the plan", format_hex(step.iova.start), step.ioas);
    }
    auto& mapped = space->mapped;
    if (std::find(mapped.begin(), mapped.end(), range) != mapped.end()) {
      return fmt::format("{} is mapped in `{}` twice", format_hex(step.iova.start), step.ioas);
    }
    mapped.push_back(range);
    return "";
  }

  void expect(bool done, const std::string& subject, std::string_view what) const {
    if (!done) court_.object(obligation::steps, {subject}, fmt::format("`{}` is never {}", subject, what));
  }

  void finish() const {
    for (const auto& [id, space] : ioas_) {
      expect(space.made, id, "allocated");
      expect(space.allowed || court_.in_containers(), id, "given its allowed ranges");
      expect(space.mapped.size() == space.planned->memory.size(), id, "mapped completely");
    }
    for (const auto& entry : hwpt_) expect(made_.contains(entry.first), entry.first, "allocated");
    for (const auto& entry : home_) expect(attached_.contains(entry.first), entry.first, "attached");
    for (const auto& entry : vm_of_mdev_) expect(attached_.contains(entry.first), entry.first, "attached");
  }

  const Court& court_;
  std::map<std::string, Space> ioas_;
  std::map<std::string, const PlannedHwpt*> hwpt_, home_;
  std::map<std::string, std::string> vm_of_mdev_;
  std::set<std::string> bound_, made_, attached_;
  std::size_t number_ = 0;
};

}  // namespace

void check_steps(const Court& court) { Replay(court).run(); }

}  // namespace ioplan::check
