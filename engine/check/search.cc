#include "engine/check/search.h"

#include <algorithm>
#include <bit>

#include "engine/check/joining.h"

namespace ioplan::check {

namespace {

using Cost = std::array<std::uint64_t, 5>;  // in the order of the objectives

Cost plus(const Cost& a, const Cost& b) {
  Cost sum{};
  for (std::size_t i = 0; i < sum.size(); ++i) sum[i] = a[i] + b[i];
  return sum;
}

constexpr Cost kImpossible = {~std::uint64_t{0}};

struct Part {  // one VM's share of the question
  const Scene* scene = nullptr;
  Choices choices;
  std::uint8_t needed_flags = 0;
};

struct Placed {  // a clump to place, and whose it is
  std::size_t part = 0;
  Clump clump;
  bool twin_of_previous = false;
};

struct Sum {  // of the clumps in a HWPT
  ChoiceSet accepted;
  ChoiceSet side_a, side_b;
  std::uint64_t enforceable = 0;
  Cost at_least{};  // what the HWPT adds, whatever joins it later
};

struct Block : Sum {  // a HWPT in the making
  std::size_t part = 0;
  std::vector<std::size_t> clumps;
};

enum class Goal { any, fewest, least };

class Search {
 public:
  Search(const World& world, const ObjectiveOrder& order, std::uint64_t work, Goal goal)
      : world_(world),
        order_(order),
        work_(work),
        goal_(goal),
        limit_(hwpt_limit(world.request.policy)),
        left_(pool_capacities(world)) {
    for (const Scene& scene : world.scenes) add_part(world, scene);
    // In a container it matters who opens a HWPT, so nobody speaks for others where a placement must exist.
    in_containers_ = goal == Goal::any && world.law.interface() == KernelInterface::type1;
    if (!in_containers_) merge_twins();
    if (goal != Goal::least && !in_containers_) drop_followers();
    std::stable_sort(todo_.begin(), todo_.end(), [](const Placed& a, const Placed& b) {
      return std::pair(a.part, a.clump.accepted.count()) < std::pair(b.part, b.clump.accepted.count());
    });
    exclusive_first();
    for (std::size_t i = 1; i < todo_.size(); ++i) {
      todo_[i].twin_of_previous = todo_[i].part == todo_[i - 1].part && todo_[i].clump.twin_of(todo_[i - 1].clump);
    }
  }

  SearchResult run() {
    blocks_of_part_.assign(parts_.size(), 0);
    home_.assign(todo_.size(), 0);
    const bool stopped = !descend(0);
    return {.complete = !stopped || (goal_ == Goal::any && best_cost_ != kImpossible), .best = values()};
  }

 private:
  void add_part(const World& world, const Scene& scene) {
    const std::size_t part = parts_.size();
    parts_.push_back({&scene, choices_of(world, scene), needed_flags(scene)});
    for (Clump& clump : clumps_of(world, scene, parts_.back().choices)) todo_.push_back({part, std::move(clump)});
  }

  // Clumps that nothing tells apart may as well share: a HWPT that takes one takes them all, and the one that is best
  // for one is best for all. So the search grows with distinct clumps and not with devices.
  void merge_twins() {
    std::vector<Placed> kept;
    for (Placed& p : todo_) {
      const auto twin = std::find_if(kept.begin(), kept.end(), [&](const Placed& k) {
        return k.part == p.part && k.clump.like(p.clump) && !k.clump.foe_of(p.clump);
      });
      if (twin == kept.end()) {
        kept.push_back(std::move(p));
      } else {
        twin->clump.enforceable += p.clump.enforceable;
      }
    }
    todo_ = std::move(kept);
  }

  // A clump may follow another that is harder to please; then it needs no place of its own.
  static bool follows(const Placed& j, const Placed& i) {
    const auto subset = [](const auto& small, const auto& large) {
      return std::includes(large.begin(), large.end(), small.begin(), small.end());
    };
    return j.part == i.part && i.clump.accepted.is_subset_of(j.clump.accepted) && !j.clump.foe_of(i.clump) &&
           j.clump.side_a.is_subset_of(i.clump.side_a) && j.clump.side_b.is_subset_of(i.clump.side_b) &&
           subset(j.clump.pools[1], i.clump.pools[1]) && subset(j.clump.pools[2], i.clump.pools[2]);
  }

  void drop_followers() {
    std::vector<Placed> kept;
    for (Placed& p : todo_) {
      if (std::any_of(kept.begin(), kept.end(), [&](const Placed& k) { return follows(p, k); })) continue;
      std::erase_if(kept, [&](const Placed& k) { return follows(k, p); });
      kept.push_back(std::move(p));
    }
    todo_ = std::move(kept);
  }

  static bool may_share(const Placed& a, const Placed& b) {
    return a.part == b.part && a.clump.accepted.intersects(b.clump.accepted) && !a.clump.foe_of(b.clump);
  }

  // Clumps of which no two may share come first: the HWPTs that they need are there from the start, and one too many is
  // cut off as soon as it is opened.
  void exclusive_first() {
    std::vector<Placed> front, rest;
    for (Placed& p : todo_) {
      const bool shares = std::any_of(front.begin(), front.end(), [&](const Placed& f) { return may_share(p, f); });
      (shares ? rest : front).push_back(std::move(p));
    }
    todo_ = std::move(front);
    std::move(rest.begin(), rest.end(), std::back_inserter(todo_));
  }

  // What a HWPT adds when it is this choice. Clumps that join later can only add to it.
  Cost cost_of(const Block& block, const Choice& choice) const {
    const Part& part = parts_[block.part];
    Cost cost{};
    for (std::size_t i = 0; i < order_.size(); ++i) {
      switch (order_[i]) {
        case Objective::ioas:
          break;
        case Objective::hwpts:
          cost[i] = 1;
          break;
        case Objective::coherency:
          cost[i] = choice.enforces() ? 0 : block.enforceable;
          break;
        case Objective::page_tables:
          cost[i] = choice.table_bytes;
          break;
        case Objective::unneeded_flags: {
          const unsigned idle = choice.flags() & ~unsigned{part.needed_flags};
          cost[i] = static_cast<std::uint64_t>(std::popcount(idle));
          break;
        }
      }
    }
    return cost;
  }

  Cost best_of(const Block& block, unsigned stage) {
    Cost best = kImpossible;
    const auto& all = parts_[block.part].choices.all;
    for (std::size_t c = block.accepted.find_first(); c != ChoiceSet::npos; c = block.accepted.find_next(c)) {
      if (work_ > 0) --work_;
      if (stage != 0 && all[c].hwpt[HwptQ::stage] != stage) continue;
      best = std::min(best, goal_ == Goal::least ? cost_of(block, all[c]) : one_hwpt());
    }
    return best;
  }

  Cost one_hwpt() const {
    Cost cost{};
    cost[static_cast<std::size_t>(std::find(order_.begin(), order_.end(), Objective::hwpts) - order_.begin())] = 1;
    return cost;
  }

  bool descend(std::size_t next) {  // false: stop searching
    if (work_ == 0) return false;
    --work_;
    if (next == todo_.size()) return finish();
    if (!(optimistic() < best_cost_)) return true;
    const Placed& placed = todo_[next];
    const std::size_t first = placed.twin_of_previous ? home_[next - 1] : 0;
    for (std::size_t b = first; b < blocks_.size(); ++b) {
      if (!admits(blocks_[b], placed)) continue;
      Sum before = blocks_[b];
      join(blocks_[b], next);
      home_[next] = b;
      const bool go_on = descend(next + 1);
      leave(blocks_[b], std::move(before));
      if (!go_on) return false;
    }
    return open_block(next);
  }

  bool open_block(std::size_t next) {
    const Placed& placed = todo_[next];
    if (placed.clump.accepted.none() || blocks_of_part_[placed.part] >= limit_) return true;
    Block block{{placed.clump.accepted, placed.clump.side_a, placed.clump.side_b, 0, {}}, placed.part, {}};
    join(block, next);
    home_[next] = blocks_.size();
    blocks_.push_back(std::move(block));
    ++blocks_of_part_[placed.part];
    const bool go_on = descend(next + 1);
    --blocks_of_part_[placed.part];
    blocks_.pop_back();
    return go_on;
  }

  static bool admits(const Block& block, const Placed& placed) {
    return block.part == placed.part && block.accepted.intersects(placed.clump.accepted) &&
           !block.side_a.intersects(placed.clump.side_b) && !block.side_b.intersects(placed.clump.side_a);
  }

  void join(Block& block, std::size_t next) {
    const Clump& clump = todo_[next].clump;
    block.clumps.push_back(next);
    block.accepted &= clump.accepted;
    block.side_a |= clump.side_a;
    block.side_b |= clump.side_b;
    block.enforceable += clump.enforceable;
    block.at_least = best_of(block, 0);
  }

  // The clump that joined last; a block may hold thousands, so they are not copied.
  static void leave(Block& block, Sum&& before) {
    block.clumps.pop_back();
    static_cast<Sum&>(block) = std::move(before);
  }

  Cost optimistic() const {
    Cost sum{};
    for (const Block& block : blocks_) sum = plus(sum, block.at_least);
    return sum;
  }

  // Some order of joining makes these HWPTs, VM by VM.
  bool all_joinable() const {
    std::vector<std::vector<std::vector<std::size_t>>> hwpts(parts_.size());
    for (const Block& block : blocks_) {
      std::vector<std::size_t>& items = hwpts[block.part].emplace_back();
      for (std::size_t c : block.clumps) {
        items.insert(items.end(), todo_[c].clump.items.begin(), todo_[c].clump.items.end());
      }
    }
    for (std::size_t p = 0; p < parts_.size(); ++p) {
      if (!joinable(world_, *parts_[p].scene, hwpts[p])) return false;
    }
    return true;
  }

  bool finish() {
    if (in_containers_ && !all_joinable()) return true;
    draws_.clear();
    pick_stages(0, Cost{});
    return goal_ != Goal::any || best_cost_ == kImpossible;
  }

  // The cheapest choice of each HWPT, stage by stage where ids run short.
  void pick_stages(std::size_t b, const Cost& so_far) {
    if (!(so_far < best_cost_)) return;
    if (b == blocks_.size()) {
      best_cost_ = so_far;
      return;
    }
    for (unsigned stage : {1U, 2U}) {
      const Cost cost = best_of(blocks_[b], stage);
      if (cost == kImpossible) continue;
      const auto keys = keys_of(blocks_[b], stage);
      if (draw(keys)) pick_stages(b + 1, plus(so_far, cost));
      for (std::uint64_t key : keys) --draws_[key];
    }
  }

  std::vector<std::uint64_t> keys_of(const Block& block, unsigned stage) const {
    std::vector<std::uint64_t> keys;
    for (std::size_t c : block.clumps) {
      const auto& pools = todo_[c].clump.pools[stage];
      keys.insert(keys.end(), pools.begin(), pools.end());
    }
    std::sort(keys.begin(), keys.end());
    keys.erase(std::unique(keys.begin(), keys.end()), keys.end());
    return keys;
  }

  // Takes one id of each pool; false when one is overdrawn.
  bool draw(const std::vector<std::uint64_t>& keys) {
    bool enough = true;
    for (std::uint64_t key : keys) enough = ++draws_[key] <= left_.at(key) && enough;
    return enough;
  }

  std::optional<ObjectiveValues> values() const {
    if (best_cost_ == kImpossible) return std::nullopt;
    ObjectiveValues v;
    for (std::size_t i = 0; i < order_.size(); ++i) v[order_[i]] = best_cost_[i];
    v[Objective::ioas] = parts_.size();
    return v;
  }

  const World& world_;
  ObjectiveOrder order_;
  std::uint64_t work_;
  Goal goal_;
  bool in_containers_ = false;
  std::uint64_t limit_;
  std::map<std::uint64_t, std::uint64_t> left_, draws_;
  std::vector<Part> parts_;
  std::vector<Placed> todo_;
  std::vector<Block> blocks_;
  std::vector<std::uint64_t> blocks_of_part_;
  std::vector<std::size_t> home_;
  Cost best_cost_ = kImpossible;
};

constexpr ObjectiveOrder kHwptsFirst = {Objective::hwpts, Objective::ioas, Objective::coherency, Objective::page_tables,
                                        Objective::unneeded_flags};

}  // namespace

SearchResult least_objectives(const World& world, const ObjectiveOrder& order, std::uint64_t work) {
  return Search(world, order, work, Goal::least).run();
}

SearchResult any_placement(const World& world, std::uint64_t work) {
  return Search(world, kHwptsFirst, work, Goal::any).run();
}

SearchResult fewest_hwpts(const World& world, std::uint64_t work) {
  return Search(world, kHwptsFirst, work, Goal::fewest).run();
}

}  // namespace ioplan::check
