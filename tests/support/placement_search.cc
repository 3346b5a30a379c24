#include "tests/support/placement_search.h"

#include <algorithm>
#include <bit>
#include <iterator>
#include <map>
#include <tuple>

namespace ioplan::oracle {

namespace {

// How D8 orders templates of equal cost: attached allocators first, the lowest, the fewest flags, the lowest bits.
using Rank = std::tuple<bool, DeviceIndex, int, std::uint8_t>;

struct Option {
  Table table;
  ObjectiveValues cost;
  Rank rank;
};

void add_sorted(std::vector<DeviceIndex>& to, const std::vector<DeviceIndex>& more) {
  to.insert(to.end(), more.begin(), more.end());
  std::ranges::sort(to);
}

class Search {
 public:
  explicit Search(const Arena& arena) : a_(arena), existing_(arena.existing) {
    made_.reserve(arena.loose.size());  // placing takes references
    for (DeviceIndex d : a_.scene.attached) {
      for (std::uint8_t flags = 0; flags < kHwptFlagSets; ++flags) {
        if (const auto t = allocate(a_.scene.host(), d, flags)) templates_.push_back(*t);
      }
    }
  }

  std::optional<Found> run() {
    if (!vm_faults(a_.scene).empty()) return std::nullopt;
    for (const Placed& h : existing_) {
      if (!hwpt_faults(a_.scene, h).empty()) return std::nullopt;
    }
    place(0);
    return best_;
  }

 private:
  void place(std::size_t i) {
    if (i == a_.loose.size()) return weigh();
    const auto home = a_.loose[i].home;
    for (std::size_t e = 0; e < existing_.size(); ++e) {
      if (home && *home != e) continue;
      put(existing_[e], i, [&](const Placed& h) { return hwpt_faults(a_.scene, h).empty(); });
    }
    if (home || a_.new_hwpts == NewHwpts::refused) return;
    const auto some_template = [&](const Placed& h) { return !options_of(h).empty(); };
    for (std::size_t m = 0; m < made_.size(); ++m) put(made_[m], i, some_template);
    put(made_.emplace_back(), i, some_template);
    made_.pop_back();
  }

  template <class Possible>
  void put(Placed& hwpt, std::size_t i, Possible possible) {
    const Placed before = hwpt;
    add_sorted(hwpt.devices, a_.loose[i].devices);
    add_sorted(hwpt.ghosts, a_.loose[i].ghosts);
    if (possible(hwpt)) place(i + 1);
    hwpt = before;
  }

  // By stage, the best template for what is in the HWPT.
  const std::map<unsigned, Option>& options_of(const Placed& hwpt) {
    const auto [at, is_new] = options_.try_emplace(std::pair(hwpt.devices, hwpt.ghosts));
    if (is_new) {
      for (const Table& t : templates_) offer(at->second, t, hwpt);
    }
    return at->second;
  }

  void offer(std::map<unsigned, Option>& options, const Table& table, const Placed& hwpt) const {
    const Placed filled{table, hwpt.devices, hwpt.ghosts};
    if (!hwpt_faults(a_.scene, filled).empty()) return;
    const bool foreign = std::ranges::count(hwpt.devices, table.allocator) == 0;
    Option option{table, cost_of(a_.scene, filled),
                  Rank(foreign, table.allocator, std::popcount(static_cast<unsigned>(table.flags)), table.flags)};
    const auto [at, is_new] = options.try_emplace(table.stage, option);
    if (!is_new && better(option, at->second)) at->second = option;
  }

  bool better(const Option& a, const Option& b) const {
    if (less_cost(a.cost, b.cost, a_.scene.request->policy)) return true;
    return a.cost == b.cost && a.rank < b.rank;
  }

  // A complete placement: the best choice of stages that its rules and the pools allow.
  void weigh() {
    local_.reset();
    ObjectiveValues cost;
    for (const Placed& h : existing_) cost = sum(cost, cost_of(a_.scene, h));
    std::vector<Placed> made = made_;
    std::vector<Rank> ranks;
    choose(0, made, ranks, cost);
    // Placements come in canonical order: the first of equal cost stays.
    if (local_ && (!best_ || less_cost(local_->cost, best_->cost, a_.scene.request->policy))) best_ = local_;
  }

  void choose(std::size_t m, std::vector<Placed>& made, std::vector<Rank>& ranks, const ObjectiveValues& cost) {
    if (m == made.size()) return consider(made, ranks, cost);
    for (const auto& [stage, option] : options_of(made_[m])) {
      made[m].table = option.table;
      ranks.push_back(option.rank);
      choose(m + 1, made, ranks, sum(cost, option.cost));
      ranks.pop_back();
    }
  }

  void consider(const std::vector<Placed>& made, const std::vector<Rank>& ranks, const ObjectiveValues& cost) {
    if (local_ && less_cost(local_->cost, cost, a_.scene.request->policy)) return;
    if (local_ && local_->cost == cost && local_ranks_ <= ranks) return;
    std::vector<Placed> all = existing_;
    all.insert(all.end(), made.begin(), made.end());
    if (!cross_faults(a_.scene, all).empty()) return;
    all.insert(all.end(), a_.elsewhere.begin(), a_.elsewhere.end());
    if (!pool_faults(a_.scene.host(), all).empty()) return;
    local_ = Found{cost, existing_, made};
    local_ranks_ = ranks;
  }

  const Arena& a_;
  std::vector<Placed> existing_, made_;
  std::vector<Table> templates_;
  std::map<std::pair<std::vector<DeviceIndex>, std::vector<DeviceIndex>>, std::map<unsigned, Option>> options_;
  std::optional<Found> best_, local_;
  std::vector<Rank> local_ranks_;
};

}  // namespace

std::optional<Found> best_placement(const Arena& arena) { return Search(arena).run(); }

}  // namespace ioplan::oracle
