#include "tests/support/oracle.h"

#include <algorithm>
#include <array>
#include <bit>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <stdexcept>
#include <tuple>

#include "engine/base/log2.h"
#include "engine/base/text.h"
#include "tests/support/oracle_kernel.h"

namespace ioplan::oracle {

namespace {

using Order = std::array<Objective, 5>;
using Mask = std::uint32_t;  // a set of elements or items, by index

// Lexicographic under the order.
bool less_cost(const ObjectiveValues& a, const ObjectiveValues& b, const Order& order) {
  for (Objective o : order) {
    if (a[o] != b[o]) return a[o] < b[o];
  }
  return false;
}

ObjectiveValues sum(ObjectiveValues a, const ObjectiveValues& b) {
  for (std::size_t i = 0; i < a.by_objective.size(); ++i) a.by_objective[i] += b.by_objective[i];
  return a;
}

constexpr std::uint64_t kTop = ~std::uint64_t{0};
constexpr std::uint64_t k4KiB = 4096, kGiB = std::uint64_t{1} << 30;

bool holds(Mask set, std::size_t i) { return (set >> i & 1) != 0; }

// Every partition of n elements, as block_of vectors whose blocks are numbered by their lowest element, in
// lexicographic order: the first best one met is therefore the canonical one (D8). `admissible(block)` is asked of
// growing blocks, so it must be false for every superset of a block that it refuses.
class Partitions {
 public:
  Partitions(std::size_t n, std::function<bool(Mask)> admissible,
             std::function<void(const std::vector<std::uint32_t>&, const std::vector<Mask>&)> visit)
      : n_(n), admissible_(std::move(admissible)), visit_(std::move(visit)) {}

  void run() { place(0); }

 private:
  void place(std::size_t i) {
    if (i == n_) return visit_(block_of_, blocks_);
    const std::size_t open = blocks_.size();
    for (std::size_t b = 0; b <= open; ++b) {
      if (b == open) blocks_.push_back(0);
      const Mask before = blocks_[b];
      blocks_[b] |= Mask{1} << i;
      if (admissible_(blocks_[b])) {
        block_of_.push_back(static_cast<std::uint32_t>(b));
        place(i + 1);
        block_of_.pop_back();
      }
      blocks_[b] = before;
    }
    blocks_.pop_back();
  }

  std::size_t n_;
  std::function<bool(Mask)> admissible_;
  std::function<void(const std::vector<std::uint32_t>&, const std::vector<Mask>&)> visit_;
  std::vector<std::uint32_t> block_of_;
  std::vector<Mask> blocks_;
};

std::size_t largest_clique(std::size_t n, const std::function<bool(std::size_t, std::size_t)>& adjacent) {
  std::vector<Mask> neighbours(n, 0);
  for (std::size_t a = 0; a < n; ++a) {
    for (std::size_t b = 0; b < n; ++b) {
      if (a != b && adjacent(a, b)) neighbours[a] |= Mask{1} << b;
    }
  }
  std::size_t largest = 0;
  for (Mask set = 0; set < Mask{1} << n; ++set) {
    bool clique = true;
    for (std::size_t a = 0; a < n && clique; ++a) {
      clique = !holds(set, a) || (set & ~neighbours[a]) == Mask{1} << a;
    }
    if (clique) largest = std::max(largest, static_cast<std::size_t>(std::popcount(set)));
  }
  return largest;
}

// ---------------------------------------------------------------------------------------------- the abstract cover

Mask mask_of(const ElementSet& set) {
  Mask mask = 0;
  for (std::size_t i = 0; i < set.size(); ++i) {
    if (set.test(i)) mask |= Mask{1} << i;
  }
  return mask;
}

ObjectiveValues cost_of(const CoverInstance& instance, Mask block, const CoverCandidate& candidate) {
  ObjectiveValues cost;
  cost[Objective::hwpts] = 1;
  for (std::size_t i = 0; i < instance.elements; ++i) {
    if (holds(block, i) && !candidate.enforces) cost[Objective::coherency] += instance.enforceable[i];
  }
  cost[Objective::page_tables] = candidate.page_table_bytes;
  cost[Objective::unneeded_flags] = candidate.unneeded_flags;
  return cost;
}

bool holds_apart_pair(const CoverInstance& instance, Mask block) {
  return std::ranges::any_of(instance.apart,
                             [&](const auto& pair) { return holds(block, pair.first) && holds(block, pair.second); });
}

// The least cost of each block, by stage of the candidate (pools ask for the stage); nothing where none accepts.
using BlockCosts = std::vector<std::map<unsigned, ObjectiveValues>>;

BlockCosts block_costs(const CoverInstance& instance) {
  BlockCosts costs(std::size_t{1} << instance.elements);
  for (Mask block = 1; block < costs.size(); ++block) {
    if (holds_apart_pair(instance, block)) continue;
    for (const CoverCandidate& c : instance.candidates) {
      if ((block & ~mask_of(c.accepts)) != 0) continue;
      const ObjectiveValues cost = cost_of(instance, block, c);
      const auto [at, is_new] = costs[block].emplace(c.stage, cost);
      if (!is_new && less_cost(cost, at->second, instance.order)) at->second = cost;
    }
  }
  return costs;
}

bool within_pools(const CoverInstance& instance, const std::vector<Mask>& blocks, const std::vector<unsigned>& stages) {
  return std::ranges::all_of(instance.pools, [&](const CoverPool& pool) {
    std::uint64_t drawn = 0;
    for (std::size_t b = 0; b < blocks.size(); ++b) {
      if (stages[b] == pool.stage && (blocks[b] & mask_of(pool.elements)) != 0) ++drawn;
    }
    return drawn <= pool.capacity;
  });
}

// The least cost of a partition over every choice of stages that the pools allow.
std::optional<ObjectiveValues> partition_cost(const CoverInstance& instance, const BlockCosts& costs,
                                              const std::vector<Mask>& blocks, std::vector<unsigned>& stages) {
  if (stages.size() == blocks.size()) {
    if (!within_pools(instance, blocks, stages)) return std::nullopt;
    ObjectiveValues total;
    for (std::size_t b = 0; b < blocks.size(); ++b) total = sum(total, costs[blocks[b]].at(stages[b]));
    return total;
  }
  std::optional<ObjectiveValues> best;
  for (const auto& [stage, cost] : costs[blocks[stages.size()]]) {
    stages.push_back(stage);
    const auto total = partition_cost(instance, costs, blocks, stages);
    stages.pop_back();
    if (total && (!best || less_cost(*total, *best, instance.order))) best = total;
  }
  return best;
}

}  // namespace

bool exclusive(const CoverInstance& instance, std::size_t a, std::size_t b) {
  const Mask pair = Mask{1} << a | Mask{1} << b;
  return holds_apart_pair(instance, pair) || std::ranges::none_of(instance.candidates, [&](const CoverCandidate& c) {
           return (pair & ~mask_of(c.accepts)) == 0;
         });
}

CoverAnswer brute_force_cover(const CoverInstance& instance) {
  const BlockCosts costs = block_costs(instance);
  CoverAnswer answer;
  answer.clique = largest_clique(instance.elements, [&](auto a, auto b) { return exclusive(instance, a, b); });
  const auto visit = [&](const std::vector<std::uint32_t>& block_of, const std::vector<Mask>& blocks) {
    if (instance.max_blocks && blocks.size() > *instance.max_blocks) return;
    std::vector<unsigned> stages;
    const auto cost = partition_cost(instance, costs, blocks, stages);
    if (!cost) return;
    answer.fewest_blocks = answer.feasible ? std::min(answer.fewest_blocks, blocks.size()) : blocks.size();
    if (answer.feasible && !less_cost(*cost, answer.values, instance.order)) return;
    answer.feasible = true;
    answer.values = *cost;
    answer.block_of = block_of;
  };
  Partitions(
      instance.elements, [&](Mask block) { return !costs[block].empty(); }, visit)
      .run();
  return answer;
}

// ------------------------------------------------------------------------------------------------- one VM's problem

namespace {

template <class T>
bool asks_and_misses(const std::vector<T>& wanted, const std::vector<T>& has) {
  return !wanted.empty() && std::ranges::none_of(wanted, [&](const T& w) { return std::ranges::count(has, w) > 0; });
}

std::vector<std::uint64_t> as_list(const std::optional<std::uint64_t>& value) {
  return value ? std::vector<std::uint64_t>{*value} : std::vector<std::uint64_t>{};
}

}  // namespace

bool selects(const Selector& s, const Device& device, const AssignedDevice& assigned) {
  std::vector<std::string> labels = device.labels;
  labels.insert(labels.end(), assigned.labels.begin(), assigned.labels.end());
  if (asks_and_misses(s.host, {device.id})) return false;
  if (asks_and_misses(s.name, {device.name, assigned.name})) return false;
  if (asks_and_misses(s.label, labels)) return false;
  if (asks_and_misses(s.vendor, as_list(device.facts[DeviceFact::vendor]))) return false;
  if (asks_and_misses(s.device, as_list(device.facts[DeviceFact::device]))) return false;
  if (asks_and_misses(s.numa, as_list(device.facts[DeviceFact::numa]))) return false;
  const auto code = device.facts[DeviceFact::device_class];
  return s.device_class.empty() || (code && std::ranges::any_of(s.device_class, [&](const auto& m) {
                                      return (*code & m.mask) == (m.code & m.mask);
                                    }));
}

namespace {

// Groups that end up in one HWPT by themselves or by a `together` rule.
struct Item {
  std::vector<DeviceIndex> assigned;  // ascending
  std::vector<DeviceIndex> members;   // all devices of its groups, assigned or not
  std::uint64_t enforceable = 0;      // how many assigned devices are CC-capable
  std::uint8_t required_flags = 0;    // that `require` rules ask of the HWPT of one of its devices
};

struct Problem {
  const Request* request = nullptr;
  std::size_t vm_index = 0;
  std::vector<MemoryRange> memory;
  std::uint64_t backing = k4KiB;
  std::vector<DeviceIndex> assigned;
  bool has_mdev = false;
  std::vector<Item> items;                                 // by lowest assigned device
  std::vector<std::pair<std::size_t, std::size_t>> apart;  // items
  std::optional<std::uint64_t> limit;
  std::vector<std::string> why;  // reasons that make the VM infeasible whatever the HWPTs

  // Of templates that are usable; accepts[t] says which items the t-th takes.
  std::vector<Table> templates;
  std::vector<std::uint64_t> bytes;
  std::vector<Mask> accepts;
  std::uint8_t needed = 0;  // flags that required needs and adopted preferences ask for

  const Host& host() const { return request->host; }
  const VirtualMachine& vm() const { return request->vms[vm_index]; }
  const Policy& policy() const { return request->policy; }
};

const AssignedDevice& entry_of(const Problem& p, DeviceIndex d) {
  for (const AssignedDevice& a : p.vm().devices) {
    if (a.host == d) return a;
  }
  throw std::logic_error("device is not assigned");
}

std::vector<DeviceIndex> selected(const Problem& p, const Selector& s) {
  std::vector<DeviceIndex> chosen;
  for (DeviceIndex d : p.assigned) {
    if (selects(s, p.host().device(d), entry_of(p, d))) chosen.push_back(d);
  }
  return chosen;
}

// Items: start from one set a group, then merge the sets that a `together` rule touches.
std::vector<Item> items_of(const Problem& p) {
  std::vector<std::set<DeviceIndex>> sets;
  const auto merge = [&](const std::vector<DeviceIndex>& devices) {
    std::set<DeviceIndex> merged(devices.begin(), devices.end());
    std::vector<std::set<DeviceIndex>> rest;
    for (const auto& s : sets) {
      const bool touches = std::ranges::any_of(devices, [&](DeviceIndex d) { return s.contains(d); });
      if (touches) {
        merged.insert(s.begin(), s.end());
      } else {
        rest.push_back(s);
      }
    }
    rest.push_back(std::move(merged));
    sets = std::move(rest);
  };
  for (DeviceIndex d : p.assigned) merge(group_of(p.host(), d));
  for (const PolicyRule& rule : p.policy().rules) {
    const auto* together = std::get_if<TogetherRule>(&rule.what);
    if (together == nullptr) continue;
    const auto chosen = selected(p, together->which);
    if (!chosen.empty()) merge(chosen);
  }
  std::vector<Item> items;
  for (const auto& s : sets) {
    Item item;
    item.members.assign(s.begin(), s.end());
    for (DeviceIndex d : item.members) {
      if (std::ranges::count(p.assigned, d) > 0) item.assigned.push_back(d);
    }
    items.push_back(std::move(item));
  }
  std::ranges::sort(items, {}, [](const Item& i) { return i.assigned.front(); });
  return items;
}

std::size_t item_with(const Problem& p, DeviceIndex d) {
  for (std::size_t i = 0; i < p.items.size(); ++i) {
    if (std::ranges::count(p.items[i].assigned, d) > 0) return i;
  }
  throw std::logic_error("device is in no item");
}

void read_rules(Problem& p) {
  for (const PolicyRule& rule : p.policy().rules) {
    if (const auto* limit = std::get_if<LimitRule>(&rule.what)) {
      p.limit = std::min(p.limit.value_or(kTop), limit->hwpts);
    }
    const auto* separate = std::get_if<SeparateRule>(&rule.what);
    if (separate == nullptr) continue;
    for (DeviceIndex a : selected(p, separate->a)) {
      for (DeviceIndex b : selected(p, separate->b)) {
        if (a == b) continue;
        const std::size_t i = item_with(p, a), j = item_with(p, b);
        if (i == j) p.why.push_back("separate pair inside an item: " + rule.name);
        p.apart.emplace_back(i, j);
      }
    }
  }
}

// D4: the VM has a device that is not CC-capable, or a mediated one.
bool noncoherent(const Problem& p) {
  return p.has_mdev ||
         std::ranges::any_of(p.assigned, [&](DeviceIndex d) { return !can_enforce(p.host(), p.host().device(d)); });
}

void add_all(std::vector<std::string>& to, const std::vector<std::string>& from) {
  to.insert(to.end(), from.begin(), from.end());
}

// KR 2.1 for the group, D2.
void check_group_members(Problem& p) {
  for (const Item& item : p.items) {
    for (DeviceIndex d : item.members) add_all(p.why, group_refusals(p.host(), p.host().device(d)));
  }
}

void check_regions(Problem& p, const Device& device) {
  for (const Range& r : reserved_by(p.host(), device)) {
    for (const MemoryRange& m : p.memory) {
      if (m.gpa.overlaps(r)) p.why.push_back("memory in a reserved region: " + device.id);
    }
  }
}

void check_assigned(Problem& p) {
  for (DeviceIndex d : p.assigned) {
    const Device& device = p.host().device(d);
    add_all(p.why, usable_refusals(p.host(), device, p.vm(), p.policy()));
    check_regions(p, device);
  }
  if (p.has_mdev && p.policy().coherency == CoherencyPolicy::required)
    p.why.push_back("policy requires coherency: mdev");
  if (p.has_mdev && !aligned(p.memory, page_size(p.host()))) p.why.push_back("memory is not aligned for mdev");
}

std::uint8_t flags_of(const RequireRule& r) {
  return static_cast<std::uint8_t>((r.dirty_tracking ? kDirtyTracking : 0) | (r.nest_parent ? kNestParent : 0) |
                                   (r.pasid ? kPasid : 0));
}

// The flags that `require` rules ask of this device's HWPT.
std::uint8_t required_flags(const Problem& p, DeviceIndex d) {
  std::uint8_t flags = 0;
  for (const PolicyRule& rule : p.policy().rules) {
    const auto* require = std::get_if<RequireRule>(&rule.what);
    if (require != nullptr && selects(require->which, p.host().device(d), entry_of(p, d))) flags |= flags_of(*require);
  }
  return flags;
}

bool meets_require(const Table& t, const RequireRule& r) {
  return highest_bit(t.page_sizes) >= r.page_size && (flags_of(r) & ~t.flags) == 0 &&
         (!r.enforce_cache_coherency || t.enforces);
}

// Placement rules: D2, D3, D4.
bool may_be_placed(const Problem& p, const Table& t, DeviceIndex d) {
  const Device& device = p.host().device(d);
  if (can_enforce(p.host(), device) && !t.enforces) {
    if (p.policy().coherency != CoherencyPolicy::safe || !noncoherent(p)) return false;
  }
  return std::ranges::all_of(p.policy().rules, [&](const PolicyRule& rule) {
    const auto* require = std::get_if<RequireRule>(&rule.what);
    return require == nullptr || !selects(require->which, device, entry_of(p, d)) || meets_require(t, *require);
  });
}

bool accepts(const Problem& p, const Table& t, const Item& item) {
  return std::ranges::all_of(item.members, [&](DeviceIndex d) { return attaches(p.host(), t, p.host().device(d)); }) &&
         std::ranges::all_of(item.assigned, [&](DeviceIndex d) { return may_be_placed(p, t, d); });
}

std::uint8_t needs_of(const VirtualMachine& vm, Need need) {
  return static_cast<std::uint8_t>((vm.needs.dirty_tracking == need ? kDirtyTracking : 0) |
                                   (vm.needs.nest_parent == need ? kNestParent : 0) |
                                   (vm.needs.pasid == need ? kPasid : 0));
}

// D1: every assigned device with every flag set, as far as the rules let it. `needed` must be carried by all.
void make_templates(Problem& p, std::uint8_t needed) {
  p.needed = needed;
  p.templates.clear();
  p.bytes.clear();
  p.accepts.clear();
  const bool no_pasids =
      std::ranges::any_of(p.assigned, [&](DeviceIndex d) { return !can_attach_pasid(p.host(), p.host().device(d)); });
  if ((needed & kPasid) != 0 && no_pasids) return;  // whatever the HWPT, the need is not met
  for (DeviceIndex d : p.assigned) {
    for (std::uint8_t flags = 0; flags < kHwptFlagSets; ++flags) {
      if ((needed & ~flags) != 0) continue;
      const auto t = allocate(p.host(), d, flags);
      if (!t || !can_hold(p.host(), *t, p.memory)) continue;
      p.templates.push_back(*t);
      p.bytes.push_back(page_table_bytes(*t, p.memory, p.backing));
      Mask taken = 0;
      for (std::size_t i = 0; i < p.items.size(); ++i) taken |= accepts(p, *t, p.items[i]) ? Mask{1} << i : 0;
      p.accepts.push_back(taken);
    }
  }
}

Problem problem_of(const Request& request, std::size_t vm_index) {
  Problem p;
  p.request = &request;
  p.vm_index = vm_index;
  p.memory = memory_of(p.vm());
  p.backing = p.vm().memory.backing.value_or(k4KiB);
  for (const AssignedDevice& a : p.vm().devices) {
    if (a.host) {
      p.assigned.push_back(*a.host);
    } else {
      p.has_mdev = true;
    }
  }
  std::ranges::sort(p.assigned);
  p.items = items_of(p);
  for (Item& item : p.items) {
    for (DeviceIndex d : item.assigned) {
      item.required_flags |= required_flags(p, d);
      item.enforceable += can_enforce(p.host(), p.host().device(d));
    }
  }
  read_rules(p);
  check_group_members(p);
  check_assigned(p);
  return p;
}

// --------------------------------------------------------------------------------------------- the search over
// partitions

// Items of one or of several VMs in one order; no block may hold items of two.
struct Joint {
  std::vector<const Problem*> problems;
  struct Slot {
    std::size_t problem, item;
  };
  std::vector<Slot> slots;  // by lowest assigned device

  bool one_vm(Mask block) const {
    std::set<std::size_t> vms;
    for (std::size_t i = 0; i < slots.size(); ++i) {
      if (holds(block, i)) vms.insert(slots[i].problem);
    }
    return vms.size() == 1;
  }
};

// A block as the VM it belongs to sees it.
struct Block {
  const Problem* problem = nullptr;
  Mask items = 0;
};

Block block_in(const Joint& j, Mask block) {
  Block b;
  for (std::size_t i = 0; i < j.slots.size(); ++i) {
    if (!holds(block, i)) continue;
    b.problem = j.problems[j.slots[i].problem];
    b.items |= Mask{1} << j.slots[i].item;
  }
  return b;
}

bool apart_inside(const Block& b) {
  return std::ranges::any_of(
      b.problem->apart, [&](const auto& pair) { return holds(b.items, pair.first) && holds(b.items, pair.second); });
}

std::vector<DeviceIndex> devices_of(const Block& b) {
  std::vector<DeviceIndex> devices;
  for (std::size_t i = 0; i < b.problem->items.size(); ++i) {
    const Item& item = b.problem->items[i];
    if (holds(b.items, i)) devices.insert(devices.end(), item.assigned.begin(), item.assigned.end());
  }
  std::ranges::sort(devices);
  return devices;
}

std::set<UnitIndex> units_of(const Block& b) {
  std::set<UnitIndex> units;
  for (std::size_t i = 0; i < b.problem->items.size(); ++i) {
    if (!holds(b.items, i)) continue;
    for (DeviceIndex d : b.problem->items[i].members) units.insert(b.problem->host().device(d).unit.value());
  }
  return units;
}

// D11: all items of the VM behind one SMMUv2 unit share one HWPT.
bool holds_all_of_smmuv2(const Block& b, const Table& t) {
  if (t.driver != Driver::smmuv2) return true;
  for (std::size_t i = 0; i < b.problem->items.size(); ++i) {
    const auto& members = b.problem->items[i].members;
    const bool behind =
        std::ranges::any_of(members, [&](DeviceIndex d) { return b.problem->host().device(d).unit == t.unit; });
    if (behind && !holds(b.items, i)) return false;
  }
  return true;
}

ObjectiveValues cost_of(const Block& b, std::size_t t) {
  const Problem& p = *b.problem;
  const Table& table = p.templates[t];
  ObjectiveValues cost;
  cost[Objective::hwpts] = 1;
  std::uint8_t needed = p.needed;
  for (std::size_t i = 0; i < p.items.size(); ++i) {
    needed |= p.items[i].required_flags;  // D6: wherever the device sits
    if (!holds(b.items, i)) continue;
    if (!table.enforces) cost[Objective::coherency] += p.items[i].enforceable;
  }
  cost[Objective::page_tables] = p.bytes[t];
  cost[Objective::unneeded_flags] =
      static_cast<std::uint64_t>(std::popcount(static_cast<unsigned>(table.flags & ~needed)));
  return cost;
}

// What a block may be, by stage of its HWPT (domain-id pools ask for the stage only).
struct Options {
  bool acceptable = false;  // some template takes all of it and nothing in it must be apart; holds for subsets too
  std::map<unsigned, ObjectiveValues> least;
};

Options options_of(const Joint& j, Mask mask, const Order& order) {
  Options options;
  if (!j.one_vm(mask)) return options;
  const Block b = block_in(j, mask);
  if (apart_inside(b)) return options;
  for (std::size_t t = 0; t < b.problem->templates.size(); ++t) {
    if ((b.items & ~b.problem->accepts[t]) != 0) continue;
    options.acceptable = true;
    if (!holds_all_of_smmuv2(b, b.problem->templates[t])) continue;
    const ObjectiveValues cost = cost_of(b, t);
    const auto [at, is_new] = options.least.emplace(b.problem->templates[t].stage, cost);
    if (!is_new && less_cost(cost, at->second, order)) at->second = cost;
  }
  return options;
}

// Do the blocks, under HWPTs of the given stages, keep within every pool?
bool within_pools(const Joint& j, const std::vector<Mask>& blocks, const std::vector<unsigned>& stages) {
  std::map<std::string, std::uint64_t> drawn, capacity;
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    const Block b = block_in(j, blocks[i]);
    std::set<std::string> mine;  // one id for each pool that the HWPT touches
    for (UnitIndex u : units_of(b)) {
      const auto pool = pool_of(b.problem->host(), u, stages[i]);
      if (!pool) continue;
      mine.insert(pool->key);
      const auto [at, is_new] = capacity.emplace(pool->key, pool->capacity);
      if (!is_new) at->second = std::min(at->second, pool->capacity);
    }
    for (const std::string& key : mine) ++drawn[key];
  }
  return std::ranges::all_of(drawn, [&](const auto& d) { return d.second <= capacity.at(d.first); });
}

enum class Pools : bool { ignored, kept };

struct Solution {
  ObjectiveValues cost;
  std::vector<Mask> blocks;            // of slots, in order
  std::vector<std::size_t> templates;  // by block, of the VM that the block belongs to
};

class Search {
 public:
  Search(const Joint& joint, Pools pools, const Order& order) : j_(joint), pools_(pools), order_(order) {
    options_.resize(std::size_t{1} << j_.slots.size());
    for (Mask m = 1; m < options_.size(); ++m) options_[m] = options_of(j_, m, order_);
  }

  std::optional<Solution> run() {
    Partitions(
        j_.slots.size(), [&](Mask m) { return options_[m].acceptable; },
        [&](const auto&, const std::vector<Mask>& blocks) { consider(blocks); })
        .run();
    if (best_) choose_templates();
    return best_;
  }

  std::size_t fewest() const { return fewest_; }

 private:
  void consider(const std::vector<Mask>& blocks) {
    if (std::ranges::any_of(blocks, [&](Mask m) { return options_[m].least.empty(); }) || !within_limits(blocks))
      return;
    const auto cost = least_cost(blocks);
    if (!cost) return;
    fewest_ = best_ ? std::min(fewest_, blocks.size()) : blocks.size();
    // Partitions come in canonical order, so the first of equal cost stays.
    if (!best_ || less_cost(*cost, best_->cost, order_)) best_ = Solution{*cost, blocks, {}};
  }

  bool within_limits(const std::vector<Mask>& blocks) const {
    for (const Problem* p : j_.problems) {
      const auto count = std::ranges::count_if(blocks, [&](Mask m) { return block_in(j_, m).problem == p; });
      if (p->limit && static_cast<std::uint64_t>(count) > *p->limit) return false;
    }
    return true;
  }

  // Every choice of stages, with its cost, that the pools allow.
  void each_choice(const std::vector<Mask>& blocks, std::vector<unsigned>& stages, const ObjectiveValues& cost,
                   const std::function<void(const std::vector<unsigned>&, const ObjectiveValues&)>& visit) const {
    if (stages.size() == blocks.size()) {
      if (pools_ == Pools::ignored || within_pools(j_, blocks, stages)) visit(stages, cost);
      return;
    }
    for (const auto& [stage, least] : options_[blocks[stages.size()]].least) {
      stages.push_back(stage);
      each_choice(blocks, stages, sum(cost, least), visit);
      stages.pop_back();
    }
  }

  std::optional<ObjectiveValues> least_cost(const std::vector<Mask>& blocks) const {
    std::optional<ObjectiveValues> least;
    std::vector<unsigned> stages;
    each_choice(blocks, stages, {}, [&](const auto&, const ObjectiveValues& cost) {
      if (!least || less_cost(cost, *least, order_)) least = cost;
    });
    return least;
  }

  // D8: HWPT by HWPT, attached allocators first, then the lowest device, the fewest flags, the lowest flag bits.
  void choose_templates() {
    std::vector<std::vector<unsigned>> choices;  // of stages, that reach the least cost
    std::vector<unsigned> stages;
    each_choice(best_->blocks, stages, {}, [&](const std::vector<unsigned>& s, const ObjectiveValues& cost) {
      if (cost == best_->cost) choices.push_back(s);
    });
    for (std::size_t i = 0; i < best_->blocks.size(); ++i) {
      const std::size_t chosen = choose_template(i, choices);
      const unsigned stage = block_in(j_, best_->blocks[i]).problem->templates[chosen].stage;
      std::erase_if(choices, [&](const auto& s) { return s[i] != stage; });
      best_->templates.push_back(chosen);
    }
  }

  std::size_t choose_template(std::size_t i, const std::vector<std::vector<unsigned>>& choices) const {
    const Block b = block_in(j_, best_->blocks[i]);
    const auto attached = devices_of(b);
    std::optional<std::tuple<bool, DeviceIndex, int, std::uint8_t, std::size_t>> best;
    for (std::size_t t = 0; t < b.problem->templates.size(); ++t) {
      const Table& table = b.problem->templates[t];
      if ((b.items & ~b.problem->accepts[t]) != 0 || !holds_all_of_smmuv2(b, table)) continue;
      const bool possible = std::ranges::any_of(choices, [&](const auto& s) { return s[i] == table.stage; });
      if (!possible || cost_of(b, t) != options_[best_->blocks[i]].least.at(table.stage)) continue;
      const bool foreign = std::ranges::count(attached, table.allocator) == 0;
      const std::tuple key(foreign, table.allocator, std::popcount(static_cast<unsigned>(table.flags)), table.flags, t);
      if (!best || key < *best) best = key;
    }
    return std::get<4>(best.value());
  }

  const Joint& j_;
  Pools pools_;
  Order order_;
  std::vector<Options> options_;
  std::optional<Solution> best_;
  std::size_t fewest_ = 0;
};

Joint join(const std::vector<Problem>& problems) {
  Joint j;
  for (std::size_t p = 0; p < problems.size(); ++p) {
    j.problems.push_back(&problems[p]);
    for (std::size_t i = 0; i < problems[p].items.size(); ++i) j.slots.push_back({p, i});
  }
  std::ranges::sort(j.slots, {}, [&](const auto& s) { return problems[s.problem].items[s.item].assigned.front(); });
  return j;
}

Joint alone(const Problem& p) {
  Joint j;
  j.problems.push_back(&p);
  for (std::size_t i = 0; i < p.items.size(); ++i) j.slots.push_back({0, i});
  return j;
}

// ------------------------------------------------------------------------------------------------ D7: preferred needs

// Not worse in any objective up to and including `hwpts`.
bool costs_nothing(const ObjectiveValues& with, const ObjectiveValues& without, const Order& order) {
  for (Objective o : order) {
    if (with[o] != without[o]) return with[o] < without[o];
    if (o == Objective::hwpts) return true;
  }
  return true;
}

struct Solved {
  std::optional<Solution> solution;
  std::uint8_t adopted = 0;
  std::size_t fewest = 0;
};

// Leaves `p` with the templates of what was adopted.
Solved solve_alone(Problem& p, const Order& order) {
  const std::uint8_t required = needs_of(p.vm(), Need::required), preferred = needs_of(p.vm(), Need::preferred);
  const auto solve = [&](std::uint8_t adopted) {
    make_templates(p, required | adopted);
    const Joint j = alone(p);
    Search search(j, Pools::ignored, order);
    auto solution = search.run();
    return Solved{std::move(solution), adopted, search.fewest()};
  };
  Solved base = solve(0);
  if (!base.solution) return base;
  // Largest sets first, then by the order dirty_tracking, nest_parent, pasid (the order of the bits).
  constexpr std::array<std::uint8_t, 7> kSets = {7, 3, 5, 6, 1, 2, 4};
  for (std::uint8_t set : kSets) {
    if ((set & ~preferred) != 0) continue;
    Solved with = solve(set);
    with.fewest = base.fewest;
    if (with.solution && costs_nothing(with.solution->cost, base.solution->cost, order)) return with;
  }
  return solve(0);
}

// ------------------------------------------------------------------------------------------------------- the answer

std::vector<Hwpt> hwpts_of(const Joint& j, const Solution& s) {
  std::vector<Hwpt> hwpts;
  for (std::size_t i = 0; i < s.blocks.size(); ++i) {
    const Block b = block_in(j, s.blocks[i]);
    const Table& t = b.problem->templates[s.templates[i]];
    const Host& host = b.problem->host();
    Hwpt h = hwpt_of(host, t);
    h.page_table_bytes = b.problem->bytes[s.templates[i]];
    for (DeviceIndex d : devices_of(b)) h.devices.push_back(host.device(d).id);
    hwpts.push_back(std::move(h));
  }
  return hwpts;
}

// KR 2.5, 2.6: what is left of the address space after every attach.
Ioas ioas_of(const Problem& p, const std::vector<Table>& tables) {
  RangeSet usable{{0, kTop}};
  Ioas ioas;
  ioas.vm = p.vm().name;
  for (DeviceIndex d : p.assigned) {
    for (const ReservedRegion& r : regions_of(p.host(), p.host().device(d))) {
      if (r.type != ReservedType::direct_relaxable) usable.subtract(r.range);
    }
  }
  if (p.has_mdev) ioas.alignment = page_size(p.host());
  for (const Table& t : tables) {
    if (t.aperture.start > 0) usable.subtract({0, t.aperture.start - 1});
    if (t.aperture.last < kTop) usable.subtract({t.aperture.last + 1, kTop});
    ioas.alignment = std::max(ioas.alignment, lowest_bit(t.page_sizes));
  }
  ioas.ranges.assign(usable.ranges().begin(), usable.ranges().end());
  return ioas;
}

void add_ioases(Answer& answer, const Joint& j, const Solution& s) {
  for (const Problem* p : j.problems) {
    std::vector<Table> tables;
    for (std::size_t i = 0; i < s.blocks.size(); ++i) {
      if (block_in(j, s.blocks[i]).problem == p) tables.push_back(p->templates[s.templates[i]]);
    }
    answer.ioas.push_back(ioas_of(*p, tables));
  }
}

void add_resources(Answer& answer, const Problem& p) {
  std::uint64_t pinned = 0;
  for (const MemoryRange& m : p.memory) pinned += m.gpa.extent() + 1;
  answer.pinned_bytes += pinned;
  answer.memlock_bytes += pinned + (p.assigned.empty() ? 0 : kGiB);  // D12
}

void add_kvm_verdict(Answer& answer, const Request& request) {
  std::set<DeviceIndex> devices;
  std::set<std::string> mdevs;
  for (const VirtualMachine& vm : request.vms) {
    for (const AssignedDevice& a : vm.devices) {
      if (!a.host) mdevs.insert(a.mdev);
      if (a.host && !can_enforce(request.host, request.host.device(*a.host))) devices.insert(*a.host);
    }
  }
  for (DeviceIndex d : devices) answer.because.push_back(request.host.device(d).id);
  answer.because.insert(answer.because.end(), mdevs.begin(), mdevs.end());
  answer.noncoherent_dma = !answer.because.empty();
}

bool may_share(const Problem& p, std::size_t a, std::size_t b) {
  const Mask pair = Mask{1} << a | Mask{1} << b;
  if (apart_inside({&p, pair})) return false;
  return std::ranges::any_of(p.accepts, [&](Mask taken) { return (pair & ~taken) == 0; });
}

std::size_t clique_of(const Problem& p) {
  return largest_clique(p.items.size(), [&](std::size_t a, std::size_t b) { return !may_share(p, a, b); });
}

std::vector<std::string> preference_names(const Problem& p, std::uint8_t adopted) {
  constexpr std::array<std::string_view, 3> kNames = {"dirty_tracking", "nest_parent", "pasid"};
  std::vector<std::string> names;
  for (unsigned f = 0; f < 3; ++f) {
    if ((adopted >> f & 1) != 0) names.push_back(p.vm().name + "." + std::string(kNames[f]));
  }
  return names;
}

void add_solution(Answer& answer, const Joint& j, const Solution& s) {
  answer.objectives = sum(answer.objectives, s.cost);
  const auto hwpts = hwpts_of(j, s);
  answer.hwpts.insert(answer.hwpts.end(), hwpts.begin(), hwpts.end());
  add_ioases(answer, j, s);
}

void finish(Answer& answer, const Request& request, const std::vector<Problem>& problems) {
  answer.feasible = true;
  answer.objectives[Objective::ioas] = problems.size();
  std::ranges::sort(answer.hwpts, natural_less, [](const Hwpt& h) { return h.devices.front(); });
  std::ranges::sort(answer.ioas, {}, &Ioas::vm);
  for (const Hwpt& h : answer.hwpts) answer.page_table_bytes += h.page_table_bytes;
  for (const Problem& p : problems) add_resources(answer, p);
  add_kvm_verdict(answer, request);
}

// Overdrawn when the plans made one by one do not keep within the pools together.
bool overdrawn(const std::vector<Problem>& problems, const std::vector<Solved>& solved) {
  const Joint together = join(problems);
  std::vector<Mask> blocks;
  std::vector<unsigned> stages;
  for (std::size_t p = 0; p < problems.size(); ++p) {
    const Solution& s = *solved[p].solution;
    for (std::size_t i = 0; i < s.blocks.size(); ++i) {
      Mask block = 0;
      for (std::size_t k = 0; k < together.slots.size(); ++k) {
        if (together.slots[k].problem == p && holds(s.blocks[i], together.slots[k].item)) block |= Mask{1} << k;
      }
      blocks.push_back(block);
      stages.push_back(problems[p].templates[s.templates[i]].stage);
    }
  }
  return !within_pools(together, blocks, stages);
}

}  // namespace

Hwpt hwpt_of(const Host& host, const Table& t) {
  Hwpt h;
  h.allocator = host.device(t.allocator).id;
  h.flags = t.flags;
  h.kind = (t.flags & kNestParent) != 0 ? HwptKind::nest_parent : HwptKind::paging;
  h.driver = t.driver;
  h.stage = t.stage;
  h.format = t.format;
  h.levels = t.levels;
  h.address_bits = t.address_bits;
  h.aperture = t.aperture;
  h.page_sizes = t.page_sizes;
  h.enforce_cache_coherency = t.enforces;
  h.automatic = t.driver == Driver::smmuv2;
  return h;
}

std::vector<MemoryRange> memory_of(const VirtualMachine& vm) {
  if (!vm.memory.size) return vm.memory.ranges;
  const MachineType type = vm.machine.type.value();
  return machine_layout(type, vm.machine.cpu_vendor.value_or(CpuVendor::intel), *vm.memory.size,
                        vm.machine.pci_hole64_size.value_or(default_pci_hole64_size(type)), vm.hotplug.memory);
}

bool same_plan(const Answer& a, const Answer& b) {
  if (!a.feasible || !b.feasible) return a.feasible == b.feasible;
  return a.objectives == b.objectives && a.ioas == b.ioas && a.hwpts == b.hwpts &&
         a.noncoherent_dma == b.noncoherent_dma && a.because == b.because && a.pinned_bytes == b.pinned_bytes &&
         a.page_table_bytes == b.page_table_bytes && a.memlock_bytes == b.memlock_bytes &&
         a.preferences == b.preferences;
}

Answer judge(const Request& request) {
  Answer answer;
  const Order& order = request.policy.objectives;
  std::vector<Problem> problems;
  for (std::size_t v = 0; v < request.vms.size(); ++v) {
    if (!request.vms[v].devices.empty()) problems.push_back(problem_of(request, v));
  }
  std::vector<Solved> solved;
  bool feasible = true;
  for (Problem& p : problems) {
    if (!p.why.empty()) {
      answer.why.insert(answer.why.end(), p.why.begin(), p.why.end());
      return answer;
    }
    solved.push_back(solve_alone(p, order));
    feasible = feasible && solved.back().solution.has_value();
    answer.fewest_hwpts += solved.back().fewest;
    answer.clique += clique_of(p);
  }
  if (!feasible) return answer;
  for (std::size_t p = 0; p < problems.size(); ++p) {
    for (auto& name : preference_names(problems[p], solved[p].adopted)) answer.preferences.push_back(std::move(name));
  }
  if (!overdrawn(problems, solved)) {
    for (std::size_t p = 0; p < problems.size(); ++p) add_solution(answer, alone(problems[p]), *solved[p].solution);
  } else {
    const Joint j = join(problems);
    Search search(j, Pools::kept, order);
    const auto solution = search.run();
    if (!solution) {
      answer.why.push_back("domain ids run out");
      return answer;
    }
    answer.fewest_hwpts = search.fewest();
    add_solution(answer, j, *solution);
  }
  finish(answer, request, problems);
  return answer;
}

bool exclusive(const Request& request, const std::string& device_a, const std::string& device_b) {
  const DeviceIndex a = request.host.find_device(device_a).value(), b = request.host.find_device(device_b).value();
  for (std::size_t v = 0; v < request.vms.size(); ++v) {
    Problem p = problem_of(request, v);
    const bool has_a = std::ranges::count(p.assigned, a) > 0, has_b = std::ranges::count(p.assigned, b) > 0;
    if (has_a != has_b) return true;  // VMs share no HWPT
    if (!has_a) continue;
    make_templates(p, needs_of(p.vm(), Need::required));
    const std::size_t i = item_with(p, a), j = item_with(p, b);
    return i != j && !may_share(p, i, j);
  }
  return false;
}

// --------------------------------------------------------------------------------------------------- D10: absent facts

namespace {

// Which of class, vendor, device and numa do the policy's selectors ask for?
bool asked_by_selectors(const Policy& policy, DeviceFact fact) {
  const auto asks = [&](const Selector& s) {
    switch (fact) {
      case DeviceFact::device_class:
        return !s.device_class.empty();
      case DeviceFact::vendor:
        return !s.vendor.empty();
      case DeviceFact::device:
        return !s.device.empty();
      case DeviceFact::numa:
        return !s.numa.empty();
      default:
        return false;
    }
  };
  return std::ranges::any_of(policy.rules, [&](const PolicyRule& rule) {
    if (const auto* r = std::get_if<SeparateRule>(&rule.what)) return asks(r->a) || asks(r->b);
    if (const auto* r = std::get_if<TogetherRule>(&rule.what)) return asks(r->which);
    if (const auto* r = std::get_if<RequireRule>(&rule.what)) return asks(r->which);
    return false;
  });
}

// Facts that some rule above reads. The rest (idr1, idr3, pasid_bits, ...) decides nothing, whatever its value.
bool read_by_rules(const Request& request, Driver driver, DeviceFact fact) {
  switch (fact) {
    case DeviceFact::dma_coherent:
      return driver != Driver::mock && arch_of(request.host) != Arch::x86_64;
    case DeviceFact::canwbs:
      return driver == Driver::smmuv3;
    case DeviceFact::pasid_bits:
      return true;
    default:
      return asked_by_selectors(request.policy, fact);
  }
}

bool read_by_rules(const Unit& unit, UnitFact fact) {
  switch (fact) {
    case UnitFact::httu:
      return false;  // IDR0 says, unless firmware overrides it
    case UnitFact::features:
    case UnitFact::oas:
      return false;  // stand for idr words, which the generator always gives or leaves out alone
    default:
      return (row_of(fact).drivers & driver_set(unit.driver)) != 0;
  }
}

template <class Fact>
void add_if_absent(std::vector<AbsentFact>& absent, const Facts<Fact>& facts, Fact fact, AbsentFact::Of of,
                   std::size_t index, const std::string& path) {
  const FactRow& row = row_of(fact);
  if (facts[fact] || row.stock || row.candidates.empty()) return;
  absent.push_back({of,
                    index,
                    static_cast<std::size_t>(fact),
                    {row.candidates.begin(), row.candidates.end()},
                    path + "." + std::string(row.key)});
}

// Judges every completion; stops at the first that differs.
bool all_alike(Request& request, const std::vector<AbsentFact>& absent, std::size_t next,
               std::optional<Answer>& first) {
  if (next == absent.size()) {
    const Answer answer = judge(request);
    if (!first) first = answer;
    return same_plan(*first, answer);
  }
  return std::ranges::all_of(absent[next].candidates, [&](std::uint64_t value) {
    set_fact(request.host, absent[next], value);
    return all_alike(request, absent, next + 1, first);
  });
}

}  // namespace

void set_fact(Host& host, const AbsentFact& absent, std::uint64_t value) {
  switch (absent.of) {
    case AbsentFact::Of::kernel:
      host.kernel.facts[static_cast<KernelFact>(absent.fact)] = value;
      break;
    case AbsentFact::Of::unit:
      host.units[absent.index].facts[static_cast<UnitFact>(absent.fact)] = value;
      break;
    case AbsentFact::Of::device:
      host.devices[absent.index].facts[static_cast<DeviceFact>(absent.fact)] = value;
      break;
  }
}

std::vector<AbsentFact> absent_facts(const Request& request) {
  std::set<DeviceIndex> devices;
  for (const VirtualMachine& vm : request.vms) {
    for (const AssignedDevice& a : vm.devices) {
      if (!a.host) continue;
      for (DeviceIndex d : group_of(request.host, *a.host)) devices.insert(d);
    }
  }
  std::set<UnitIndex> units;
  std::vector<AbsentFact> absent;
  for (DeviceIndex d : devices) {
    const Device& device = request.host.device(d);
    const Driver driver = unit_of(request.host, device).driver;
    units.insert(device.unit.value());
    for (std::size_t f = 0; f < kFactCount<DeviceFact>; ++f) {
      const auto fact = static_cast<DeviceFact>(f);
      if (!read_by_rules(request, driver, fact)) continue;
      add_if_absent(absent, device.facts, fact, AbsentFact::Of::device, d.index(), device.id);
    }
  }
  bool amd = false;
  for (UnitIndex u : units) {
    const Unit& unit = request.host.unit(u);
    amd = amd || unit.driver == Driver::amd;
    for (std::size_t f = 0; f < kFactCount<UnitFact>; ++f) {
      const auto fact = static_cast<UnitFact>(f);
      if (!read_by_rules(unit, fact)) continue;
      add_if_absent(absent, unit.facts, fact, AbsentFact::Of::unit, u.index(), unit.id);
    }
  }
  if (amd) add_if_absent(absent, request.host.kernel.facts, KernelFact::la57, AbsentFact::Of::kernel, 0, "kernel");
  return absent;
}

bool undecided(const Request& request) {
  const auto absent = absent_facts(request);
  if (absent.empty()) return false;
  Request completed = request;
  std::optional<Answer> first;
  return !all_alike(completed, absent, 0, first);
}

}  // namespace ioplan::oracle
