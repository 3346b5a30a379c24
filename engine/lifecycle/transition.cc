// The steps from one layout to another, in the phases of README.md 6. What makes the order safe is said there.

#include "engine/lifecycle/transition.h"

#include <algorithm>
#include <map>
#include <set>

#include "engine/base/text.h"
#include "engine/lifecycle/container_transition.h"
#include "engine/lifecycle/domain_ids.h"
#include "engine/lifecycle/layout.h"
#include "engine/model/features.h"

namespace ioplan {

namespace {

using Ids = std::vector<std::string>;

Ids without(const Ids& from, const Ids& what) {
  const std::set<std::string_view> drop(what.begin(), what.end());
  Ids left;
  std::ranges::copy_if(from, std::back_inserter(left), [&](const auto& n) { return !drop.contains(n); });
  if (!std::ranges::is_sorted(left, natural_less)) std::ranges::sort(left, natural_less);
  return left;
}

std::vector<Range> in_both(const std::vector<Range>& a, const std::vector<Range>& b) {
  std::vector<Range> common;
  for (const Range& x : a) {
    for (const Range& y : b) {
      const Range r{std::max(x.start, y.start), std::min(x.last, y.last)};
      if (x.overlaps(y) && r.start < r.last) common.push_back(r);
    }
  }
  return common;
}

std::vector<MemoryRange> missing_from(const std::vector<MemoryRange>& there, const std::vector<MemoryRange>& wanted) {
  std::vector<MemoryRange> missing;
  std::ranges::copy_if(wanted, std::back_inserter(missing),
                       [&](const auto& m) { return std::ranges::find(there, m) == there.end(); });
  return missing;
}

// Attached devices of one IOMMU group that change their HWPT: they move together.
struct Move {
  Ids devices;  // ascending
  const PlannedHwpt* from = nullptr;
  const PlannedHwpt* to = nullptr;
};

class Writer {
 public:
  Writer(const Plan& running, const Plan& target, const Host& host, const Law& law)
      : running_(running), target_(target), host_(host), law_(law), ids_(host, law) {
    for (const PlannedHwpt& h : running.hwpts) {
      for (const std::string& d : h.devices) before_[d] = &h;
    }
    for (const PlannedHwpt& h : target.hwpts) {
      for (const std::string& d : h.devices) after_[d] = &h;
    }
    collect_access(running, access_before_);
    collect_access(target, access_after_);
    for (const PlannedHwpt& h : running.hwpts) {
      if (has_own_id(h)) ids_.take(h.id, h.stage, index_of(h.allocator));
    }
    for (const auto& [group, members] : groups_of(before_)) take_id(*before_.at(members.front()), members.front());
  }

  Transition write() {
    const Ids bound = bound_devices(running_), wanted = bound_devices(target_);
    shrink_memory();
    for (const std::string& d : without(wanted, bound)) open(d);
    depart();
    make_spaces();
    make_hwpts();
    move();
    arrive();
    destroy_hwpts();
    for (const std::string& d : without(bound, wanted)) close(d);
    for (const std::string& d : guests_) step(StepKind::unbind).device = d;
    finish_memory();
    std::ranges::sort(out_.interrupted, natural_less);
    std::ranges::sort(out_.stopped, natural_less);
    return std::move(out_);
  }

 private:
  using Homes = std::map<std::string, const PlannedHwpt*>;

  Step& step(StepKind kind) {
    out_.steps.emplace_back().kind = kind;
    return out_.steps.back();
  }

  static void collect_access(const Plan& plan, std::map<std::string, std::string>& access) {
    for (const PlannedIoas& ioas : plan.ioas) {
      for (const std::string& mdev : mediated_devices(plan, ioas.id)) access[mdev] = ioas.id;
    }
  }

  DeviceIndex index_of(const std::string& device) const { return *host_.find_device(device); }

  std::map<std::uint32_t, Ids> groups_of(const Homes& homes) const {
    std::map<std::uint32_t, Ids> groups;
    for (const auto& [device, home] : homes) groups[*host_.device(index_of(device)).group].push_back(device);
    return groups;
  }

  // Taken when it is made, whoever is in it.
  bool has_own_id(const PlannedHwpt& h) const { return !h.automatic && law_.id_at_allocation(h.driver); }

  void take_id(const PlannedHwpt& h, const std::string& device) {
    if (!has_own_id(h)) ids_.take(h.id, h.stage, index_of(device));
  }

  void give_back_id(const PlannedHwpt& h, const std::string& device) {
    if (!has_own_id(h)) ids_.give_back(h.id, h.stage, index_of(device));
  }

  // Is it made, and has it an id for the device's group?
  bool has_room(const PlannedHwpt& h, const std::string& device) const {
    if (std::ranges::find(late_, &h) != late_.end()) return false;
    return has_own_id(h) || ids_.has_room(h.id, h.stage, index_of(device));
  }

  bool stays(const std::string& device) const { return before_.contains(device) && after_.contains(device); }

  // ------------------------------------------------------------------------------------------- the phases

  void shrink_memory() {
    for (const PlannedIoas& old : running_.ioas) {
      const PlannedIoas* now = find_ioas(target_, old.id);
      const std::vector<MemoryRange> none;
      for (const MemoryRange& m : missing_from(now == nullptr ? none : now->memory, old.memory)) {
        out_.steps.push_back(map_step(StepKind::unmap, old.id, m));
      }
      if (now == nullptr) continue;
      const std::vector<Range> allowed = allowed_ranges(old), both = in_both(allowed, allowed_ranges(*now));
      if (both != allowed) allow(old.id, both);
      allowed_[old.id] = both;
    }
  }

  void allow(const std::string& ioas, std::vector<Range> ranges) {
    Step& s = step(StepKind::allow_iovas);
    s.ioas = ioas;
    s.ranges = std::move(ranges);
  }

  void open(const std::string& device) {
    step(StepKind::kvm_file_add).device = device;
    step(StepKind::bind).device = device;
  }

  void close(const std::string& device) {
    step(StepKind::kvm_file_del).device = device;
    step(StepKind::unbind).device = device;
  }

  void detach(const std::string& device) { step(StepKind::detach).device = device; }

  // HWPTs that departures alone leave empty go at once: that frees what they hold before anything new needs it.
  void depart() {
    for (const auto& [group, members] : groups_of(before_)) {
      Ids staying;
      std::ranges::copy_if(members, std::back_inserter(staying), [&](const auto& d) { return stays(d); });
      for (const std::string& d : without(members, staying)) detach(d);
      if (staying.empty()) give_back_id(*before_.at(members.front()), members.front());
    }
    for (const auto& [mdev, ioas] : access_before_) {
      if (!access_after_.contains(mdev)) detach(mdev);
    }
    for (const PlannedHwpt& h : running_.hwpts) {
      if (std::ranges::none_of(h.devices, [&](const auto& d) { return stays(d); })) destroy_if_gone(h);
    }
  }

  bool destroy_if_gone(const PlannedHwpt& h) {
    if (h.automatic || find_hwpt(target_, h.id) != nullptr || !destroyed_.insert(h.id).second) return false;
    step(StepKind::hwpt_destroy).hwpt = h.id;
    if (has_own_id(h)) ids_.give_back(h.id, h.stage, index_of(h.allocator));
    return true;
  }

  void make_spaces() {
    for (const PlannedIoas& now : target_.ioas) {
      if (find_ioas(running_, now.id) != nullptr) continue;
      step(StepKind::ioas_alloc).ioas = now.id;
      allow(now.id, allowed_ranges(now));
      allowed_[now.id] = allowed_ranges(now);
    }
  }

  void make_hwpts() {
    bound_ = bound_devices(running_);
    for (const std::string& d : bound_devices(target_)) bound_.push_back(d);
    for (const PlannedHwpt& h : target_.hwpts) {
      if (!h.automatic && find_hwpt(running_, h.id) == nullptr && !make_hwpt(h)) late_.push_back(&h);
    }
  }

  // Not where it takes an id and none is left.
  bool make_hwpt(const PlannedHwpt& h) {
    if (has_own_id(h)) {
      if (!ids_.has_room(h.id, h.stage, index_of(h.allocator))) return false;
      ids_.take(h.id, h.stage, index_of(h.allocator));
    }
    allocate(h);
    return true;
  }

  void allocate(const PlannedHwpt& h) {
    if (std::ranges::find(bound_, h.allocator) == bound_.end()) {
      step(StepKind::bind).device = h.allocator;
      guests_.push_back(h.allocator);
      bound_.push_back(h.allocator);
    }
    Step& s = step(StepKind::hwpt_alloc);
    s.device = h.allocator;
    s.ioas = h.ioas;
    s.hwpt = h.id;
    s.flags = h.flags;
  }

  // HWPTs that had to wait for an id; those that are no more and empty make room.
  bool make_late_hwpts(const std::vector<Move>& pending) {
    const auto made = [&] { return std::erase_if(late_, [&](const PlannedHwpt* h) { return make_hwpt(*h); }) > 0; };
    if (late_.empty()) return false;
    if (made()) return true;
    for (const PlannedHwpt& h : running_.hwpts) {
      const bool in_use = std::ranges::any_of(pending, [&](const Move& m) { return m.from->id == h.id; });
      if (!in_use && destroy_if_gone(h) && made()) return true;
    }
    return false;
  }

  std::vector<Move> moves() const {
    std::vector<Move> found;
    for (const auto& [group, members] : groups_of(before_)) {
      Move move;
      std::ranges::copy_if(members, std::back_inserter(move.devices), [&](const auto& d) { return stays(d); });
      if (move.devices.empty()) continue;
      move.from = before_.at(move.devices.front());
      move.to = after_.at(move.devices.front());
      if (move.from->id != move.to->id) found.push_back(std::move(move));
    }
    std::ranges::sort(found, [](const Move& a, const Move& b) { return natural_less(a.devices[0], b.devices[0]); });
    return found;
  }

  void move() {
    std::vector<Move> pending = moves(), stopped;
    for (const Move& m : pending) out_.interrupted.insert(out_.interrupted.end(), m.devices.begin(), m.devices.end());
    while (!pending.empty() || !stopped.empty()) {
      const std::size_t left = pending.size() + stopped.size();
      std::erase_if(stopped, [&](const Move& m) { return attach_again(m); });
      std::erase_if(pending, [&](const Move& m) { return replace(m); });
      if (pending.size() + stopped.size() < left || make_late_hwpts(pending)) continue;
      if (pending.empty()) break;  // the target overdraws its pools: what follows fails, and is taken back
      stop(pending.front());
      stopped.push_back(std::move(pending.front()));
      pending.erase(pending.begin());
    }
    while (make_late_hwpts(pending)) {
    }
    for (const PlannedHwpt* h : late_) allocate(*h);
    late_.clear();
  }

  bool replace(const Move& m) {
    if (m.to->automatic || m.from->ioas != m.to->ioas) return false;
    const std::string& first = m.devices.front();
    if (!has_room(*m.to, first)) return false;
    take_id(*m.to, first);
    give_back_id(*m.from, first);
    Step& s = step(StepKind::replace);
    s.device = first;
    s.hwpt = m.to->id;
    return true;
  }

  void stop(const Move& m) {
    for (const std::string& d : m.devices) detach(d);
    give_back_id(*m.from, m.devices.front());
    out_.stopped.insert(out_.stopped.end(), m.devices.begin(), m.devices.end());
  }

  bool attach_again(const Move& m) {
    if (!has_room(*m.to, m.devices.front())) return false;
    take_id(*m.to, m.devices.front());
    for (const std::string& d : m.devices) attach(d, *m.to);
    return true;
  }

  void attach(const std::string& device, const PlannedHwpt& hwpt) {
    Step& s = step(hwpt.automatic ? StepKind::attach_ioas : StepKind::attach);
    s.device = device;
    s.hwpt = hwpt.id;
    if (hwpt.automatic) s.ioas = hwpt.ioas;
  }

  void arrive() {
    Ids arrivals;
    for (const auto& [device, home] : after_) {
      if (!before_.contains(device)) arrivals.push_back(device);
    }
    std::ranges::sort(arrivals, natural_less);  // few; all devices would cost more than the rest of the answer
    for (const std::string& d : arrivals) attach(d, *after_.at(d));
    for (const auto& [mdev, ioas] : access_after_) {
      if (access_before_.contains(mdev)) continue;
      Step& s = step(StepKind::attach_ioas);
      s.device = mdev;
      s.ioas = ioas;
    }
  }

  void destroy_hwpts() {
    for (const PlannedHwpt& h : running_.hwpts) destroy_if_gone(h);
  }

  void finish_memory() {
    for (const PlannedIoas& now : target_.ioas) {
      const PlannedIoas* old = find_ioas(running_, now.id);
      if (allowed_.at(now.id) != allowed_ranges(now)) allow(now.id, allowed_ranges(now));
      const std::vector<MemoryRange> none;
      for (const MemoryRange& m : missing_from(old == nullptr ? none : old->memory, now.memory)) {
        out_.steps.push_back(map_step(StepKind::map, now.id, m));
      }
    }
    for (const PlannedIoas& old : running_.ioas) {
      if (find_ioas(target_, old.id) == nullptr) step(StepKind::ioas_destroy).ioas = old.id;
    }
  }

  const Plan& running_;
  const Plan& target_;
  const Host& host_;
  const Law& law_;
  DomainIds ids_;
  Homes before_, after_;
  std::map<std::string, std::string> access_before_, access_after_;  // by mediated device its IOAS
  std::map<std::string, std::vector<Range>> allowed_;                // by IOAS, so far
  std::set<std::string> destroyed_;
  Ids bound_;                             // and to be bound
  std::vector<const PlannedHwpt*> late_;  // not made yet, for lack of an id
  Ids guests_;                            // bound only to allocate
  Transition out_;
};

}  // namespace

Transition make_transition(const Plan& running, const Plan& target, const Host& host, const Law& law) {
  if (target.interface == KernelInterface::type1) return make_container_transition(running, target, host, law);
  return Writer(running, target, host, law).write();
}

}  // namespace ioplan
