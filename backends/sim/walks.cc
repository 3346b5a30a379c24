#include "backends/sim/walks.h"

#include <algorithm>
#include <cerrno>
#include <iterator>
#include <memory>
#include <numeric>
#include <random>
#include <set>

#include "backends/sim/iommufd.h"
#include "backends/sim/type1.h"
#include "engine/model/plan.h"

namespace ioplan::sim {

namespace {

// Where a device went.
struct Place {
  std::uint32_t table = 0;  // the walk's own name for the HWPT or domain
  std::size_t ioas = 0;
  std::uint8_t flags = 0;   // that the VMM gave when it allocated the table for this device
};

// One VMM, plugging. Destroying it unplugs everything.
class Vmm {
 public:
  virtual ~Vmm() = default;
  virtual Answer<Place> plug(DeviceIndex device) = 0;
  // A table that has just been made for the device.
  virtual WalkedHwpt look(const Place& place, DeviceIndex device) const = 0;
};

WalkedHwpt look_at(const Context& context, const Place& place, DeviceIndex device) {
  const std::optional<HwptView> view = context.hwpt(place.table);
  return {device, place.flags, view && view->enforce_cache_coherency, place.ioas, {}};
}

class KernelVmm final : public Vmm {
 public:
  explicit KernelVmm(Machine& machine) : host_(machine.host()), context_(machine.open()), ioas_(context_->ioas_alloc()) {}

  Answer<Place> plug(DeviceIndex device) override {
    if (!ioas_) return tl::make_unexpected(ioas_.error());
    const Answer<ObjectId> bound = context_->bind(host_.device(device).id);
    if (!bound) return tl::make_unexpected(bound.error());
    const Answer<ObjectId> hwpt = context_->vfio_attach(*bound, *ioas_);
    if (!hwpt) return tl::make_unexpected(hwpt.error());
    return Place{*hwpt, 0, 0};
  }

  WalkedHwpt look(const Place& place, DeviceIndex device) const override { return look_at(*context_, place, device); }

 private:
  const Host& host_;
  std::unique_ptr<Context> context_;
  Answer<ObjectId> ioas_;
};

class QemuVmm final : public Vmm {
 public:
  explicit QemuVmm(Machine& machine) : host_(machine.host()), context_(machine.open()) {}

  Answer<Place> plug(DeviceIndex device) override {
    const Answer<ObjectId> bound = context_->bind(host_.device(device).id);
    if (!bound) return tl::make_unexpected(bound.error());
    for (std::size_t c = containers_.size(); c-- > 0;) {
      if (const Answer<Place> place = plug_into(c, *bound)) return place;
    }
    return plug_into_new(*bound);
  }

  WalkedHwpt look(const Place& place, DeviceIndex device) const override { return look_at(*context_, place, device); }

 private:
  // QEMU's VFIOIOMMUFDContainer: an IOAS and the HWPTs that QEMU allocated in it, oldest first.
  struct Container {
    ObjectId ioas = 0;
    std::vector<ObjectId> hwpts;
  };

  Answer<Place> plug_into_new(ObjectId bound) {
    const Answer<ObjectId> ioas = context_->ioas_alloc();
    if (!ioas) return tl::make_unexpected(ioas.error());
    containers_.push_back({*ioas, {}});
    Answer<Place> place = plug_into(containers_.size() - 1, bound);
    if (!place) {
      containers_.pop_back();
      (void)context_->destroy(*ioas);
    }
    return place;
  }

  Answer<Place> plug_into(std::size_t c, ObjectId bound) {
    Container& container = containers_[c];
    for (std::size_t i = container.hwpts.size(); i-- > 0;) {
      const ObjectId hwpt = container.hwpts[i];
      const Answer<ObjectId> attached = context_->vfio_attach(bound, hwpt);
      if (attached) return Place{hwpt, c, 0};
      if (attached.error().errno_value != EINVAL) return tl::make_unexpected(attached.error());
    }
    return plug_into_new_hwpt(c, bound);
  }

  Answer<Place> plug_into_new_hwpt(std::size_t c, ObjectId bound) {
    const Answer<HwInfo> info = context_->get_hw_info(bound);
    if (!info) return tl::make_unexpected(info.error());
    const bool dirty = (info->capabilities & kCapabilityDirtyTracking) != 0;
    const std::uint8_t flags = dirty ? kDirtyTracking : 0;
    const Answer<ObjectId> hwpt = context_->hwpt_alloc(bound, containers_[c].ioas, dirty ? kHwptDirtyTracking : 0);
    if (!hwpt) return tl::make_unexpected(hwpt.error());
    if (const Answer<ObjectId> attached = context_->vfio_attach(bound, *hwpt); !attached) {
      (void)context_->destroy(*hwpt);
      return tl::make_unexpected(attached.error());
    }
    containers_[c].hwpts.push_back(*hwpt);
    return Place{*hwpt, c, flags};
  }

  const Host& host_;
  std::unique_ptr<Context> context_;
  std::vector<Container> containers_;  // oldest first
};

class Type1Vmm final : public Vmm {
 public:
  explicit Type1Vmm(Machine& machine) : host_(machine.host()), container_(Type1Container::open(machine)) {}

  Answer<Place> plug(DeviceIndex device) override {
    const std::uint32_t group = host_.device(device).group.value();
    if (!container_->domain_of(group)) {
      if (const Answer<void> joined = join(group); !joined) return tl::make_unexpected(joined.error());
    }
    return Place{container_->domain_of(group).value(), 0, 0};
  }

  WalkedHwpt look(const Place&, DeviceIndex) const override {
    const Type1Domain domain = container_->domains().front();
    return {domain.allocator, 0, domain.enforce_cache_coherency, 0, {}};
  }

 private:
  Answer<void> join(std::uint32_t group) {
    if (const Answer<void> joined = container_->attach_group(group); !joined || started_) return joined;
    const Answer<void> set = container_->set_iommu();
    started_ = set.has_value();
    if (!started_) (void)container_->detach_group(group);
    return set;
  }

  const Host& host_;
  std::unique_ptr<Type1Container> container_;
  bool started_ = false;  // VFIO_SET_IOMMU wants a first group
};

std::unique_ptr<Vmm> make_vmm(Walk kind, Machine& machine) {
  switch (kind) {
    case Walk::kernel: return std::make_unique<KernelVmm>(machine);
    case Walk::qemu: return std::make_unique<QemuVmm>(machine);
    case Walk::type1: return std::make_unique<Type1Vmm>(machine);
  }
  return nullptr;
}

// A walk under way.
class Walker {
 public:
  Walker(Walk kind, Machine& machine) : vmm_(make_vmm(kind, machine)) {}

  // Where the device went, an index of outcome().hwpts; nothing when it was refused for good.
  std::optional<std::size_t> plug(DeviceIndex device) {
    const Answer<Place> place = vmm_->plug(device);
    if (!place) {
      outcome_.refusal = place.error();
      outcome_.refused = device;
      return std::nullopt;
    }
    const std::size_t went = index_of(*place, device);
    outcome_.hwpts[went].devices.push_back(device);
    return went;
  }

  WalkOutcome& outcome() { return outcome_; }

 private:
  std::size_t index_of(const Place& place, DeviceIndex device) {
    const auto found = std::ranges::find(tables_, place.table);
    if (found != tables_.end()) return static_cast<std::size_t>(found - tables_.begin());
    tables_.push_back(place.table);
    outcome_.hwpts.push_back(vmm_->look(place, device));
    return tables_.size() - 1;
  }

  std::unique_ptr<Vmm> vmm_;
  std::vector<std::uint32_t> tables_;  // by HWPT of the outcome
  WalkOutcome outcome_;
};

// All that an attach can ask of a group: its members behind their units, as the law sees them, and their regions.
struct GroupKind {
  std::vector<std::pair<UnitIndex, DeviceQuantities>> members;
  std::vector<std::vector<ReservedRegion>> regions;  // by member
  std::vector<std::size_t> plugged;                  // members, in the order of plugging

  friend auto operator<=>(const GroupKind&, const GroupKind&) = default;
};

// Which groups nothing but their names tells apart.
class Kinds {
 public:
  Kinds(const Host& host, const Law& law, std::span<const PluggedGroup> groups) {
    std::map<std::uint32_t, PluggedGroup> members;
    for (std::size_t d = 0; d < host.devices.size(); ++d) members[host.devices[d].group.value()].push_back(DeviceIndex(d));
    std::map<GroupKind, std::uint32_t> numbers;
    std::set<UnitIndex> units;
    for (const PluggedGroup& group : groups) {
      const GroupKind kind = describe(host, law, group, members.at(host.device(group.front()).group.value()));
      of_group_.push_back(numbers.try_emplace(kind, static_cast<std::uint32_t>(numbers.size())).first->second);
      for (const auto& [unit, quantities] : kind.members) units.insert(unit);
    }
    count_ = numbers.size();
    ids_abound_ = std::ranges::all_of(units, [&](UnitIndex unit) { return ids_abound(host, law, unit); });
  }

  std::uint32_t of(std::uint32_t group) const { return of_group_[group]; }
  std::size_t count() const { return count_; }
  // A walk makes one HWPT a kind at most, and type1 one more to try.
  bool ids_abound() const { return ids_abound_; }

 private:
  static GroupKind describe(const Host& host, const Law& law, const PluggedGroup& group, const PluggedGroup& members) {
    GroupKind kind;
    for (DeviceIndex d : members) {
      const Device& device = host.device(d);
      kind.members.emplace_back(device.unit.value(), law.describe(host, d));
      kind.regions.push_back(device.reserved.value_or(law.own_regions(host, d)));
    }
    for (DeviceIndex d : group) {
      kind.plugged.push_back(static_cast<std::size_t>(std::ranges::find(members, d) - members.begin()));
    }
    return kind;
  }

  bool ids_abound(const Host& host, const Law& law, UnitIndex unit) const {
    for (unsigned stage : {1U, 2U}) {
      const std::optional<DomainPool> pool = law.domain_pool(host, unit, stage);
      if (pool && pool->capacity <= count_) return false;
    }
    return true;
  }

  std::vector<std::uint32_t> of_group_;
  std::size_t count_ = 0;
  bool ids_abound_ = false;
};

// One walk over groups, in which the like of a group that went somewhere since the last new HWPT goes there unasked.
class GroupWalk {
 public:
  GroupWalk(Walk kind, Machine& machine, std::span<const PluggedGroup> groups, const Kinds& kinds)
      : walker_(kind, machine), groups_(groups), kinds_(kinds), known_(kinds.count()) {}

  WalkOutcome run(std::span<const std::uint32_t> order) {
    for (std::uint32_t g : order) {
      if (!plug(g)) break;
    }
    return std::move(walker_.outcome());
  }

 private:
  struct Known {
    std::size_t hwpts = 0;  // when it was asked
    std::size_t went = 0;
  };

  bool plug(std::uint32_t g) {
    Known& known = known_[kinds_.of(g)];
    std::vector<WalkedHwpt>& hwpts = walker_.outcome().hwpts;
    if (kinds_.ids_abound() && known.hwpts != 0 && known.hwpts == hwpts.size()) {
      std::ranges::copy(groups_[g], std::back_inserter(hwpts[known.went].devices));
      return true;
    }
    for (DeviceIndex d : groups_[g]) {
      const std::optional<std::size_t> went = walker_.plug(d);
      if (!went) return false;
      known = {hwpts.size(), *went};
    }
    return true;
  }

  Walker walker_;
  std::span<const PluggedGroup> groups_;
  const Kinds& kinds_;
  std::vector<Known> known_;  // by kind
};

// Every order of n things when there are at most `limit`, else `limit` seeded ones.
class Orders {
 public:
  Orders(std::size_t n, std::size_t limit, std::uint64_t seed) : order_(n), random_(seed) {
    std::iota(order_.begin(), order_.end(), 0U);
    for (std::size_t i = 2; i <= n && count_ <= limit; ++i) count_ *= i;
    enumerate_ = count_ <= limit;
    if (!enumerate_) count_ = limit;
  }

  std::size_t count() const { return count_; }

  const std::vector<std::uint32_t>& next() {
    if (enumerate_) {
      if (std::exchange(started_, true)) std::ranges::next_permutation(order_);
    } else {
      for (std::size_t i = order_.size(); i > 1; --i) std::swap(order_[i - 1], order_[random_() % i]);
    }
    return order_;
  }

 private:
  std::vector<std::uint32_t> order_;
  std::mt19937_64 random_;
  std::size_t count_ = 1;
  bool enumerate_ = false;
  bool started_ = false;
};

void count(WalkStatistics& statistics, const WalkOutcome& outcome, const WalkJudge& judge) {
  ++statistics.orders;
  if (!outcome.complete()) {
    ++statistics.failed;
  } else if (const std::string broken = judge(outcome); broken.empty()) {
    ++statistics.valid[outcome.hwpts.size()];
  } else {
    ++statistics.unsafe[{outcome.hwpts.size(), broken}];
  }
}

}  // namespace

WalkOutcome walk(Walk kind, Machine& machine, std::span<const DeviceIndex> devices) {
  Walker walker(kind, machine);
  for (DeviceIndex d : devices) {
    if (!walker.plug(d)) break;
  }
  return std::move(walker.outcome());
}

WalkOutcome walk_groups(Walk kind, Machine& machine, const Law& law, std::span<const PluggedGroup> groups,
                        std::span<const std::uint32_t> order) {
  const Kinds kinds(machine.host(), law, groups);
  return GroupWalk(kind, machine, groups, kinds).run(order);
}

WalkStatistics walk_orders(Walk kind, Machine& machine, const Law& law, std::span<const PluggedGroup> groups,
                           std::size_t orders, std::uint64_t seed, const WalkJudge& judge) {
  WalkStatistics statistics;
  const Kinds kinds(machine.host(), law, groups);
  Orders all(groups.size(), orders, seed);
  for (std::size_t n = 0; n < all.count(); ++n) {
    count(statistics, GroupWalk(kind, machine, groups, kinds).run(all.next()), judge);
  }
  return statistics;
}

}  // namespace ioplan::sim
