// joining: the steps' order replayed as vfio_iommu_type1_attach_group would take it. Each group gets a domain of its own
// and then tries those of the container, newest first, among those of the same operations (a driver's, for one stage)
// that enforce cache coherency equally. What Linux does not check, it does not refuse.

#include "engine/check/joining.h"

#include <algorithm>
#include <map>

#include "engine/check/court.h"

namespace ioplan::check {

HwptQuantities own_domain(const World& world, const Scene& scene, const Item& item) {
  return world.law.allocate(scene.quantities.at(item.members.front()), 0);
}

bool attaches_in_linux(const World& world, const Scene& scene, const Item& item, const HwptQuantities& hwpt) {
  return std::all_of(item.members.begin(), item.members.end(), [&](std::size_t device) {
    const Values values{&hwpt, &scene.quantities.at(device), &scene.asks};
    return world.statutes.broken_in_linux(Phase::attach, values) == nullptr;
  });
}

std::uint64_t common_pages(const World& world, const std::vector<HwptQuantities>& hwpts) {
  std::uint64_t pages = ~std::uint64_t{0};
  for (const HwptQuantities& h : hwpts) pages &= h[HwptQ::page_sizes];
  const std::uint64_t page = world.kernel_page();
  return pages % page == 0 ? pages : (pages - pages % page) | page;
}

bool pages_fit(const Scene& scene, std::uint64_t common) {
  const std::uint64_t smallest = common & (~common + 1);
  return common != 0 && smallest <= scene.asks[VmQ::memory_alignment];
}

namespace {

bool tried(const HwptQuantities& candidate, const HwptQuantities& own) {
  const auto same = [&](HwptQ q) { return candidate[q] == own[q]; };
  return same(HwptQ::owner) && same(HwptQ::stage) && same(HwptQ::enforce_cache_coherency);
}

bool joins(const World& world, const Scene& scene, std::size_t item, const HwptQuantities& candidate) {
  const Item& group = scene.items[item];
  return tried(candidate, own_domain(world, scene, group)) && attaches_in_linux(world, scene, group, candidate);
}

bool allowed(const World& world, const Scene& scene, std::size_t item, const HwptQuantities& hwpt) {
  const Item& group = scene.items[item];
  return !refused_by_driver(world, scene, group, hwpt) && !refused_by_policy(world, scene, group, hwpt);
}

// Openers, oldest first, each refused by all that are there.
class Opening {
 public:
  Opening(const World& world, const Scene& scene, const std::vector<std::vector<std::size_t>>& hwpts)
      : world_(world), scene_(scene), hwpts_(hwpts), open_(hwpts.size(), false) {}

  bool possible() {
    if (made_.size() == hwpts_.size()) return pages_fit(scene_, common_pages(world_, made_));
    for (std::size_t h = 0; h < hwpts_.size(); ++h) {
      if (open_[h]) continue;
      for (std::size_t opener : hwpts_[h]) {
        if (opens(h, opener)) return true;
      }
    }
    return false;
  }

 private:
  bool opens(std::size_t h, std::size_t opener) {
    const HwptQuantities own = own_domain(world_, scene_, scene_.items[opener]);
    const auto refused = [&](const HwptQuantities& older) { return !joins(world_, scene_, opener, older); };
    const auto fits = [&](std::size_t item) { return allowed(world_, scene_, item, own); };
    if (!std::all_of(made_.begin(), made_.end(), refused)) return false;
    if (!std::all_of(hwpts_[h].begin(), hwpts_[h].end(), fits)) return false;
    open_[h] = true;
    made_.push_back(own);
    if (possible()) return true;
    made_.pop_back();
    open_[h] = false;
    return false;
  }

  const World& world_;
  const Scene& scene_;
  const std::vector<std::vector<std::size_t>>& hwpts_;
  std::vector<bool> open_;
  std::vector<HwptQuantities> made_;
};

// Items of the scene in the order in which their first devices join.
std::vector<std::size_t> order_of_steps(const Court& court, const Scene& scene) {
  std::vector<std::size_t> order;
  for (const Step& step : court.plan.steps) {
    if (step.kind != StepKind::attach_ioas) continue;
    const auto device = court.world.host().find_device(step.device);
    for (std::size_t i = 0; device && i < scene.items.size(); ++i) {
      const auto& assigned = scene.items[i].assigned;
      if (!std::binary_search(assigned.begin(), assigned.end(), device->index())) continue;
      if (std::find(order.begin(), order.end(), i) == order.end()) order.push_back(i);
    }
  }
  return order;
}

std::vector<std::size_t> devices_of(const Scene& scene, const Domain& domain) {
  std::vector<std::size_t> devices;
  for (std::size_t i : domain.items) {
    devices.insert(devices.end(), scene.items[i].assigned.begin(), scene.items[i].assigned.end());
  }
  std::sort(devices.begin(), devices.end());
  return devices;
}

void check_domain(const Court& court, const std::vector<Seat>& seats, const Scene& scene, const Domain& domain) {
  const std::vector<std::size_t> devices = devices_of(scene, domain);
  const auto seat = std::find_if(seats.begin(), seats.end(),
                                 [&](const Seat& s) { return s.scene == &scene && s.devices == devices; });
  const std::string& opener = court.world.id(scene.items[domain.opener].assigned.front());
  if (seat == seats.end()) {
    court.object(obligation::joining, {opener},
                 fmt::format("in this order `{}` opens a HWPT that the plan does not have", opener));
  } else if (seat->planned->allocator != opener) {
    court.object(obligation::joining, {seat->planned->id, opener},
                 fmt::format("in this order `{}` is opened by `{}`, not by `{}`", seat->planned->id, opener,
                             seat->planned->allocator));
  }
}

}  // namespace

std::vector<Domain> replay_joining(const World& world, const Scene& scene, const std::vector<std::size_t>& order) {
  std::vector<Domain> domains;
  for (std::size_t item : order) {
    const auto newest = std::find_if(domains.rbegin(), domains.rend(),
                                     [&](const Domain& d) { return joins(world, scene, item, d.hwpt); });
    if (newest != domains.rend()) {
      newest->items.push_back(item);
    } else {
      domains.push_back({own_domain(world, scene, scene.items[item]), item, {item}});
    }
  }
  return domains;
}

bool joinable(const World& world, const Scene& scene, const std::vector<std::vector<std::size_t>>& hwpts) {
  return Opening(world, scene, hwpts).possible();
}

void check_joining(const Court& court, const std::vector<Seat>& seats) {
  for (const Scene& scene : court.world.scenes) {
    for (const Domain& domain : replay_joining(court.world, scene, order_of_steps(court, scene))) {
      check_domain(court, seats, scene, domain);
    }
  }
}

}  // namespace ioplan::check
