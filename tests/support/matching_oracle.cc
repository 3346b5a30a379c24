// L5 of lifecycle_oracle.h: every one-to-one matching between equal HWPTs of two layouts.
#include <algorithm>
#include <map>
#include <set>
#include <tuple>

#include "engine/base/text.h"
#include "tests/support/layout_rules.h"
#include "tests/support/lifecycle_oracle.h"

namespace ioplan::oracle {

namespace {

std::size_t common(const RunningHwpt& a, const RunningHwpt& b) {
  return static_cast<std::size_t>(
      std::ranges::count_if(a.devices, [&](const std::string& d) { return std::ranges::count(b.devices, d) > 0; }));
}

Table table_of(const Host& host, const RunningHwpt& h) {
  return allocate(host, host.find_device(h.allocator).value(), h.flags).value();
}

bool equal(const Host& host, const RunningHwpt& a, const RunningHwpt& b) {
  if (a.automatic != b.automatic || (a.automatic && common(a, b) == 0)) return false;
  return equal_attributes(host, table_of(host, a), table_of(host, b));
}

// Tries every running HWPT, then none, for each HWPT of the target in turn, so that the first of equals is the one
// whose target HWPTs have the lowest running ones.
class Matcher {
 public:
  Matcher(const Host& host, const Space& running, const Space& target)
      : host_(host), running_(running), target_(target), taken_(running.hwpts.size(), false) {}

  std::vector<std::size_t> run() {
    match(0, 0, 0);
    return best_;
  }
  static constexpr std::size_t kNew = ~std::size_t{0};

 private:
  void match(std::size_t t, std::size_t staying, std::size_t kept) {
    if (t == target_.hwpts.size()) {
      if (found_ && std::tuple(staying, kept) <= std::tuple(staying_, kept_)) return;
      found_ = true;
      std::tie(staying_, kept_, best_) = std::tie(staying, kept, choice_);
      return;
    }
    for (std::size_t r = 0; r < running_.hwpts.size(); ++r) {
      if (taken_[r] || !equal(host_, running_.hwpts[r], target_.hwpts[t])) continue;
      taken_[r] = true;
      choice_.push_back(r);
      match(t + 1, staying + common(running_.hwpts[r], target_.hwpts[t]), kept + 1);
      choice_.pop_back();
      taken_[r] = false;
    }
    choice_.push_back(kNew);
    match(t + 1, staying, kept);
    choice_.pop_back();
  }

  const Host& host_;
  const Space& running_;
  const Space& target_;
  std::vector<bool> taken_;
  std::vector<std::size_t> choice_, best_;
  std::size_t staying_ = 0, kept_ = 0;
  bool found_ = false;
};

bool before(const RunningHwpt& a, const RunningHwpt& b) {
  if (a.devices.empty() || b.devices.empty()) return !a.devices.empty() && b.devices.empty();
  return natural_less(a.devices.front(), b.devices.front());
}

// Kept objects keep their names, and their allocators while those are of the VM.
void keep(const Space& running, Space& target, const std::vector<std::size_t>& choice) {
  const auto devices = attached_devices(target);
  for (std::size_t t = 0; t < choice.size(); ++t) {
    target.hwpts[t].id.clear();
    if (choice[t] == Matcher::kNew) continue;
    const RunningHwpt& kept = running.hwpts[choice[t]];
    target.hwpts[t].id = kept.id;
    if (std::ranges::count(devices, kept.allocator) > 0) target.hwpts[t].allocator = kept.allocator;
  }
}

// Those that are new take the lowest names that are free.
void name_new(const Layout& running, Layout& target) {
  std::set<std::string> hwpts, spaces;
  for (const Layout* layout : {&running, static_cast<const Layout*>(&target)}) {
    for (const Space& s : layout->spaces) {
      spaces.insert(s.id);
      for (const RunningHwpt& h : s.hwpts) hwpts.insert(h.id);
    }
  }
  const auto name = [](std::string& id, const char* prefix, std::set<std::string>& used) {
    for (std::size_t n = 0; id.empty(); ++n) {
      if (used.insert(prefix + std::to_string(n)).second) id = prefix + std::to_string(n);
    }
  };
  for (Space& s : target.spaces) {
    name(s.id, "ioas", spaces);
    for (RunningHwpt& h : s.hwpts) name(h.id, "hwpt", hwpts);
    std::ranges::sort(s.hwpts, natural_less, &RunningHwpt::id);
  }
}

}  // namespace

Matching best_matching(const Host& host, const Layout& running, const Layout& target) {
  Matching m;
  m.target = target;
  for (Space& s : m.target.spaces) {
    const Space* old = space_of(running, s.vm);
    s.id = old == nullptr ? "" : old->id;
    std::ranges::stable_sort(s.hwpts, before);
    for (RunningHwpt& h : s.hwpts) h.id.clear();
    if (old == nullptr) continue;
    const auto choice = Matcher(host, *old, s).run();
    m.kept += choice.size() - static_cast<std::size_t>(std::ranges::count(choice, Matcher::kNew));
    keep(*old, s, choice);
  }
  name_new(running, m.target);
  m.interrupted = interrupted_devices(running, m.target);
  return m;
}

std::size_t interrupted_devices(const Layout& running, const Layout& matched_target) {
  std::map<std::string, std::string> object;
  for (const Space& s : running.spaces) {
    for (const RunningHwpt& h : s.hwpts) {
      for (const std::string& d : h.devices) object[d] = h.id;
    }
  }
  std::size_t interrupted = 0;
  for (const Space& s : matched_target.spaces) {
    for (const RunningHwpt& h : s.hwpts) {
      for (const std::string& d : h.devices) interrupted += object.contains(d) && object[d] != h.id;
    }
  }
  return interrupted;
}

}  // namespace ioplan::oracle
