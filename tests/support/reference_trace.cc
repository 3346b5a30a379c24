#include "tests/support/reference_trace.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>

namespace ioplan::trace_judge {

namespace {

using oracle::Layout;
using oracle::RunningHwpt;
using oracle::Space;

// A new HWPT that waits for a domain id.
struct Late {
  const Space* space = nullptr;
  const RunningHwpt* hwpt = nullptr;
};

struct Spot {  // where a device is attached
  std::string ioas;
  std::string hwpt;  // empty: an access
  bool automatic = false;
};

std::map<std::string, Spot> spots_of(const Layout& layout) {
  std::map<std::string, Spot> spots;
  for (const Space& s : layout.spaces) {
    for (const RunningHwpt& h : s.hwpts) {
      for (const std::string& d : h.devices) spots[d] = {s.id, h.id, h.automatic};
    }
    for (const std::string& d : s.mediated) spots[d] = {s.id, "", false};
  }
  return spots;
}

std::set<std::string> bound_in(const Layout& layout) {
  std::set<std::string> bound;
  for (const auto& [device, spot] : spots_of(layout)) bound.insert(device);
  for (const Space& s : layout.spaces) bound.insert(s.retained.begin(), s.retained.end());
  return bound;
}

const Space* by_id(const Layout& layout, const std::string& id) {
  const auto it = std::ranges::find(layout.spaces, id, &Space::id);
  return it == layout.spaces.end() ? nullptr : &*it;
}

bool has_hwpt(const Layout& layout, const std::string& id) {
  return std::ranges::any_of(layout.spaces,
                             [&](const Space& s) { return std::ranges::count(s.hwpts, id, &RunningHwpt::id) > 0; });
}

std::vector<Range> common(const std::vector<Range>& a, const std::vector<Range>& b) {
  std::vector<Range> both;
  for (const Range& r : a) {
    for (const Range& o : b) {
      if (r.overlaps(o)) both.push_back({std::max(r.start, o.start), std::min(r.last, o.last)});
    }
  }
  std::ranges::sort(both);
  return both;
}

class Maker {
 public:
  Maker(const Request& request, const Layout& running, const Layout& target)
      : request_(request), running_(running), target_(target), from_(spots_of(running)), to_(spots_of(target)) {}

  std::vector<TraceStep> run() {
    shrink();
    arrive();
    depart();
    allocate();
    move();
    attach();
    destroy();
    let_go();
    grow();
    return std::move(steps_);
  }

 private:
  void add(Act act, const std::string& device, const std::string& ioas = {}, const std::string& hwpt = {}) {
    steps_.push_back({act, device, ioas, hwpt, 0, {}, {}, true});
  }

  void add_map(Act act, const Space& s, const MemoryRange& m) {
    steps_.push_back({act, "", s.id, "", 0, {}, m.gpa, m.access == Access::read_write});
  }

  void add_allow(const Space& s, std::vector<Range> ranges) {
    steps_.push_back({Act::allow_iovas, "", s.id, "", 0, std::move(ranges), {}, true});
  }

  void shrink() {  // 1
    for (const Space& s : running_.spaces) {
      const Space* next = by_id(target_, s.id);
      for (const MemoryRange& m : s.memory) {
        if (next == nullptr || std::ranges::count(next->memory, m) == 0) add_map(Act::unmap, s, m);
      }
      if (next == nullptr) continue;
      allowed_[s.id] = common(s.allowed, next->allowed);
      if (allowed_[s.id] != s.allowed) add_allow(s, allowed_[s.id]);
    }
  }

  void arrive() {  // 2
    const auto before = bound_in(running_);
    for (const std::string& d : bound_in(target_)) {
      if (before.contains(d)) continue;
      add(Act::kvm_file_add, d);
      add(Act::bind, d);
    }
  }

  void depart() {  // 3
    for (const auto& [device, spot] : from_) {
      if (!to_.contains(device)) add(Act::detach, device);
    }
  }

  void allocate() {  // 4
    for (const Space& s : target_.spaces) {
      if (by_id(running_, s.id) == nullptr) {
        add(Act::ioas_alloc, "", s.id);
        add_allow(s, s.allowed);
        allowed_[s.id] = s.allowed;
      }
      for (const RunningHwpt& h : s.hwpts) {
        if (!h.automatic && !has_hwpt(running_, h.id) && !allocate_with_id(s, h)) late_.push_back({&s, &h});
      }
    }
  }

  bool allocate_with_id(const Space& s, const RunningHwpt& h) {
    const std::size_t before = steps_.size();
    allocate(s, h);
    if (none_misses("hwpt-alloc.ids", before)) return true;
    steps_.resize(before);
    return false;
  }

  // HWPTs that had no id to be made with; or one goes that is empty and no more.
  bool make_late(const std::map<std::uint32_t, std::vector<std::string>>& moving) {
    for (auto it = late_.begin(); it != late_.end(); ++it) {
      if (!allocate_with_id(*it->space, *it->hwpt)) continue;
      late_.erase(it);
      return true;
    }
    const auto in_use = [&](const std::string& hwpt) {
      return std::ranges::any_of(moving, [&](const auto& m) { return from_.at(m.second.front()).hwpt == hwpt; });
    };
    for (const Space& s : running_.spaces) {
      for (const RunningHwpt& h : s.hwpts) {
        if (late_.empty() || h.automatic || has_hwpt(target_, h.id) || in_use(h.id)) continue;
        if (!destroyed_.insert(h.id).second) continue;
        add(Act::hwpt_destroy, "", "", h.id);
        return true;
      }
    }
    return false;
  }

  bool is_late(const std::string& hwpt) const {
    return std::ranges::any_of(late_, [&](const Late& l) { return l.hwpt->id == hwpt; });
  }

  void allocate(const Space& s, const RunningHwpt& h) {
    const bool borrowed = !bound_in(running_).contains(h.allocator) && !bound_in(target_).contains(h.allocator);
    if (borrowed) add(Act::bind, h.allocator);
    steps_.push_back({Act::hwpt_alloc, h.allocator, s.id, h.id, h.flags, {}, {}, true});
    if (borrowed) add(Act::unbind, h.allocator);
  }

  void move() {  // 5
    std::map<std::uint32_t, std::vector<std::string>> moving, stopped;
    for (const auto& [device, spot] : from_) {
      const auto it = to_.find(device);
      if (it == to_.end() || spot.hwpt.empty() || it->second.hwpt == spot.hwpt) continue;
      moving[*request_.host.device(*request_.host.find_device(device)).group].push_back(device);
    }
    while (!moving.empty() || !stopped.empty()) {
      if (restart_one(stopped) || replace_one(moving) || make_late(moving)) continue;
      if (moving.empty()) break;  // ids never come: the judge will say so
      for (const std::string& d : moving.begin()->second) add(Act::detach, d);
      stopped.insert(*moving.begin());
      moving.erase(moving.begin());
    }
    while (make_late(moving)) {
    }
    for (const Late& l : late_) allocate(*l.space, *l.hwpt);
  }

  // Does the judge find an id for the step that was added last?
  bool id_was_there(const char* obligation) const { return none_misses(obligation, steps_.size() - 1); }

  // And for all that were added after so many?
  bool none_misses(const char* obligation, std::size_t after) const {
    const auto violations = judge_trace(request_, running_, steps_, target_);
    return std::ranges::none_of(violations,
                                [&](const Violation& v) { return v.step > after && v.obligation == obligation; });
  }

  bool replace_one(std::map<std::uint32_t, std::vector<std::string>>& moving) {
    for (auto it = moving.begin(); it != moving.end(); ++it) {
      if (is_late(to_.at(it->second.front()).hwpt)) continue;
      add(Act::replace, it->second.front(), "", to_.at(it->second.front()).hwpt);
      if (id_was_there("replace.ids")) {
        moving.erase(it);
        return true;
      }
      steps_.pop_back();
    }
    return false;
  }

  bool restart_one(std::map<std::uint32_t, std::vector<std::string>>& stopped) {
    for (auto it = stopped.begin(); it != stopped.end(); ++it) {
      const std::size_t before = steps_.size();
      if (is_late(to_.at(it->second.front()).hwpt)) continue;
      add(Act::attach, it->second.front(), "", to_.at(it->second.front()).hwpt);
      if (!id_was_there("attach.ids")) {
        steps_.resize(before);
        continue;
      }
      for (std::size_t d = 1; d < it->second.size(); ++d)
        add(Act::attach, it->second[d], "", to_.at(it->second[d]).hwpt);
      stopped.erase(it);
      return true;
    }
    return false;
  }

  void attach() {  // 6
    for (const auto& [device, spot] : to_) {
      if (from_.contains(device)) continue;
      const bool by_ioas = spot.hwpt.empty() || spot.automatic;
      by_ioas ? add(Act::attach_ioas, device, spot.ioas) : add(Act::attach, device, "", spot.hwpt);
    }
  }

  void destroy() {  // 7
    for (const Space& s : running_.spaces) {
      for (const RunningHwpt& h : s.hwpts) {
        if (h.automatic || has_hwpt(target_, h.id) || destroyed_.contains(h.id)) continue;
        add(Act::hwpt_destroy, "", "", h.id);
      }
    }
  }

  void let_go() {  // 8
    const auto after = bound_in(target_);
    for (const std::string& d : bound_in(running_)) {
      if (after.contains(d)) continue;
      add(Act::kvm_file_del, d);
      add(Act::unbind, d);
    }
  }

  void grow() {  // 9
    for (const Space& s : target_.spaces) {
      const Space* before = by_id(running_, s.id);
      if (allowed_[s.id] != s.allowed) add_allow(s, s.allowed);
      for (const MemoryRange& m : s.memory) {
        if (before == nullptr || std::ranges::count(before->memory, m) == 0) add_map(Act::map, s, m);
      }
    }
    for (const Space& s : running_.spaces) {
      if (by_id(target_, s.id) == nullptr) add(Act::ioas_destroy, "", s.id);
    }
  }

  const Request& request_;
  const Layout& running_;
  const Layout& target_;
  std::map<std::string, Spot> from_, to_;
  std::map<std::string, std::vector<Range>> allowed_;
  std::vector<Late> late_;
  std::set<std::string> destroyed_;
  std::vector<TraceStep> steps_;
};

bool is(const TraceStep& s, Act act) { return s.act == act; }

}  // namespace

std::vector<TraceStep> reference_trace(const Request& request, const Layout& running, const Layout& target) {
  return Maker(request, running, target).run();
}

std::vector<TraceStep> plug_then_fix(const std::vector<TraceStep>& trace) {
  auto late = trace;
  std::ranges::stable_partition(late, [](const TraceStep& s) { return !is(s, Act::kvm_file_add); });
  return late;
}

// A file can leave KVM before its device is detached as far as Linux is concerned (KR 5.2): the detach goes along.
std::vector<TraceStep> tell_kvm_then_move(const std::vector<TraceStep>& trace) {
  std::set<std::string> leaving;
  for (const TraceStep& s : trace) {
    if (is(s, Act::kvm_file_del)) leaving.insert(s.device);
  }
  auto early = trace;
  std::ranges::stable_partition(early, [&](const TraceStep& s) {
    return leaving.contains(s.device) && (is(s, Act::detach) || is(s, Act::kvm_file_del));
  });
  return early;
}

}  // namespace ioplan::trace_judge
